"""What the conductor sees of a worker's GPU: over a fake one, and over readings that NVML gave on an H200."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from harness.gpu import Before, GpuDevice, GpuError, GpuProcess, GpuReader, GpuReading
from harness.messages import MemoryLimit
from harness.watching import GpuWatch, Outset, of_worker, outsets, played, usable_device
from results.schema import GpuStatePart
from tests.contract.fake_gpu import DEVICE, RESERVED, STATE, FakeGpus
from tests.contract.recording import ReplayedGpus

H200 = Path(__file__).parents[2] / "contract" / "data" / "h200.jsonl"
GIB = 1024**3
WORKER = 42
FOREIGN = GpuProcess(900, 2 * GIB)
SILENT = GpuProcess(901, None)
SPLIT = "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77"
INSTANCES = tuple(
    GpuDevice(f"MIG-{number}6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "H200 MIG 1g", 17 * GIB, "580.1", SPLIT)
    for number in range(2)
)


class Failing(FakeGpus):
    """A GPU whose readings fail as soon as a test says so: it fell off the bus."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: frozenset[str] = frozenset()

    def devices(self) -> tuple[GpuDevice, ...]:
        self._check("devices")
        return super().devices()

    def read(self, uuid: str) -> GpuReading:
        self._check("read")
        return super().read(uuid)

    def energy_j(self, uuid: str) -> float | None:
        self._check("energy_j")
        return super().energy_j(uuid)

    def state(self, uuid: str) -> GpuStatePart:
        self._check("state")
        return super().state(uuid)

    def _check(self, method: str) -> None:
        if method in self.lost:
            raise GpuError("GPU is lost")


ALL = frozenset({"read", "energy_j", "state"})


class Several(FakeGpus):
    """A board in MIG mode and, last, the fake GPU itself."""

    def devices(self) -> tuple[GpuDevice, ...]:
        return (*INSTANCES, DEVICE)


@pytest.fixture(autouse=True)
def _all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def gpus() -> FakeGpus:
    return FakeGpus()


def outset_of(reader: GpuReader) -> Outset:
    (outset,) = outsets(reader)
    return outset


@contextmanager
def watching(reader: GpuReader, outset: Outset | None = None, pid: int = WORKER) -> Iterator[GpuWatch]:
    with closing(GpuWatch(reader, outset or outset_of(reader), pid)) as watch:
        yield watch


def joules(part: object) -> float:
    value = getattr(part, "joules", None)
    assert isinstance(value, float)
    return value


def test_an_outset_is_the_device_before_the_worker(gpus: FakeGpus) -> None:
    gpus.hold(2 * GIB, FOREIGN, SILENT)
    outset = outset_of(gpus)
    assert outset.device == DEVICE
    assert outset.before == Before(2 * GIB, RESERVED, (FOREIGN, SILENT))
    assert outset.energy_j == 1_001.0
    assert outset.state == STATE


def test_the_energy_of_a_fresh_worker_s_run_begins_before_the_worker(gpus: FakeGpus) -> None:
    outset = outset_of(gpus)
    gpus.add_energy(500.0)  # while the worker starts and makes its context
    with watching(gpus, outset) as watch:
        gpus.add_energy(70.0)
        _, energy = watch.run_ended()
    # One joule is that of the last look at the counter.
    assert joules(energy) == 500.0 + 70.0 + 1.0
    assert energy is not None
    assert energy.seconds > 0


def test_the_energy_of_a_warm_worker_s_run_begins_with_the_run(gpus: FakeGpus) -> None:
    with watching(gpus) as watch:
        gpus.add_energy(500.0)
        watch.run_ended()
        gpus.add_energy(30.0)  # between two runs
        watch.run_started()
        gpus.add_energy(70.0)
        _, energy = watch.run_ended()
    assert joules(energy) == 70.0 + 1.0


def test_the_energy_of_a_phase_is_its_own(gpus: FakeGpus) -> None:
    with watching(gpus) as watch:
        found = []
        for drawn in (100.0, 7.0):
            gpus.add_energy(1_000.0)  # between phases
            watch.phase_started()
            gpus.add_energy(drawn)
            found.append(joules(watch.phase_ended()[1]))
        _, whole = watch.run_ended()
    assert found == [101.0, 8.0]
    assert joules(whole) > 2_000.0 + sum(found)


def test_the_peaks_of_a_phase_are_its_own_and_above_what_was_before(gpus: FakeGpus) -> None:
    gpus.hold(2 * GIB, FOREIGN)
    with watching(gpus) as watch:
        gpus.hold(10 * GIB, FOREIGN, GpuProcess(WORKER, 8 * GIB))
        watch.phase_started()
        first, _ = watch.phase_ended()
        gpus.hold(5 * GIB, FOREIGN, GpuProcess(WORKER, 3 * GIB))
        watch.phase_started()
        second, _ = watch.phase_ended()
    assert (first.process_bytes, first.device_bytes, first.source) == (8 * GIB, 8 * GIB, "process")
    assert (second.process_bytes, second.device_bytes) == (3 * GIB, 3 * GIB)


def test_a_board_without_an_energy_counter_leaves_energy_unknown() -> None:
    gpus = FakeGpus(counts_energy=False)
    with watching(gpus) as watch:
        watch.phase_started()
        peak, energy = watch.phase_ended()
        _, whole = watch.run_ended()
    assert (energy, whole) == (None, None)
    assert peak.samples >= 1


def test_a_counter_that_falls_back_leaves_energy_unknown(gpus: FakeGpus) -> None:
    # The driver was loaded anew: what was counted since then is less than what was counted before.
    with watching(gpus) as watch:
        watch.phase_started()
        gpus.add_energy(-500.0)
        _, energy = watch.phase_ended()
        _, whole = watch.run_ended()
    assert (energy, whole) == (None, None)


@pytest.mark.parametrize("lost", [ALL, *({method} for method in sorted(ALL))])
def test_a_gpu_that_cannot_be_read_is_missing_and_never_an_error(lost: frozenset[str]) -> None:
    gpus = Failing()
    with watching(gpus) as watch:
        gpus.lost = frozenset(lost)
        watch.run_started()
        watch.phase_started()
        peak, energy = watch.phase_ended()
        part, whole = watch.run_ended()
    assert (energy is None, whole is None) == ("energy_j" in lost, "energy_j" in lost)
    assert (part.after is None) == ("state" in lost)
    assert (part.before == GpuStatePart()) == ("state" in lost)
    assert (peak.process_bytes is None) == ("read" in lost)
    assert (part.samples_per_second == 0.0) == ("read" in lost)


def test_a_gpu_that_is_lost_between_two_looks_leaves_that_window_unknown_alone() -> None:
    gpus = Failing()
    with watching(gpus) as watch:
        gpus.lost = ALL
        watch.phase_started()
        gpus.lost = frozenset()
        _, energy = watch.phase_ended()
        assert energy is None
        watch.phase_started()
        _, energy = watch.phase_ended()
        assert joules(energy) == 1.0
        _, whole = watch.run_ended()
    assert joules(whole) > 1.0


def test_who_else_was_there_is_recorded(gpus: FakeGpus) -> None:
    gpus.hold(2 * GIB, FOREIGN, SILENT)
    with watching(gpus) as watch:
        own = GpuProcess(WORKER, 3 * GIB)
        for others in ((FOREIGN, SILENT), (FOREIGN, SILENT, GpuProcess(902, 1)), (FOREIGN,)):
            gpus.hold(6 * GIB, own, *others)
            watch.phase_started()
            watch.phase_ended()
        part, _ = watch.run_ended()
    assert part.foreign_before == ((900, 2 * GIB), (901, None))
    assert part.foreign_during == 3
    assert not part.alone
    assert (part.baseline_bytes, part.driver_reserved_bytes) == (2 * GIB, RESERVED)
    assert (part.uuid, part.total_bytes) == (DEVICE.uuid, DEVICE.total_bytes)


def test_a_worker_that_is_alone_is_recorded_so(gpus: FakeGpus) -> None:
    with watching(gpus) as watch:
        gpus.hold(3 * GIB, GpuProcess(WORKER, 3 * GIB))
        watch.phase_started()
        watch.phase_ended()
        part, _ = watch.run_ended()
    assert part.alone
    assert part.samples_per_second is not None
    assert part.samples_per_second > 0


def test_the_next_run_of_a_warm_worker_knows_nothing_of_the_others_in_the_one_before(gpus: FakeGpus) -> None:
    with watching(gpus) as watch:
        gpus.hold(6 * GIB, GpuProcess(WORKER, 3 * GIB), FOREIGN)
        watch.phase_started()
        watch.phase_ended()
        first, _ = watch.run_ended()
        gpus.hold(3 * GIB, GpuProcess(WORKER, 3 * GIB))
        watch.run_started()
        watch.phase_started()
        watch.phase_ended()
        second, _ = watch.run_ended()
    assert (first.foreign_during, second.foreign_during) == (1, 0)


def test_the_state_before_a_run_is_that_of_its_beginning(gpus: FakeGpus) -> None:
    outset = outset_of(gpus)
    with watching(gpus, outset) as watch:
        gpus._state = STATE.model_copy(update={"temperature_c": 80})
        part, _ = watch.run_ended()
        assert part.before == STATE
        assert part.after is not None
        assert part.after.temperature_c == 80
        watch.run_started()
        gpus._state = STATE.model_copy(update={"temperature_c": 60})
        part, _ = watch.run_ended()
    assert part.before.temperature_c == 80
    assert part.after is not None
    assert part.after.temperature_c == 60


def test_a_run_without_a_phase_has_no_rate_of_samples(gpus: FakeGpus) -> None:
    with watching(gpus) as watch:
        part, _ = watch.run_ended()
    assert (part.samples_per_second, part.foreign_during) == (None, 0)


@pytest.mark.parametrize("lost", ["devices", *sorted(ALL)])
def test_a_device_that_cannot_be_read_is_no_outset(lost: str) -> None:
    gpus = Failing()
    gpus.lost = frozenset({lost})
    assert outsets(gpus) == ()


def test_a_device_that_cannot_be_read_leaves_the_others() -> None:
    assert outsets(None) == ()
    # The instances of a board in MIG mode are unknown to this reader.
    assert [outset.device for outset in outsets(Several())] == [DEVICE]


def test_only_devices_in_sight_have_an_outset(gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert outsets(gpus) == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert [outset.device for outset in outsets(gpus)] == [DEVICE]


def test_a_worker_that_is_pinned_has_the_outset_of_its_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [outset.device for outset in outsets(Several(), DEVICE.uuid)] == [DEVICE]
    # Its pin comes after what this process may see: it is chosen from there.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert [outset.device for outset in outsets(Several(), DEVICE.uuid)] == [DEVICE]


@pytest.mark.parametrize(
    ("value", "device"),
    [
        (None, "cuda"),
        ("0", "cuda"),
        (DEVICE.uuid, "cuda"),
        (DEVICE.uuid[:9], "cuda"),
        ("", "cpu"),
        ("-1", "cpu"),
        ("1", "cpu"),
        ("GPU-9", "cpu"),
        ("NoDevFiles", "cpu"),
    ],
)
def test_work_is_done_on_a_gpu_in_sight_or_on_the_cpu(
    gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch, value: str | None, device: str
) -> None:
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert usable_device(gpus) == device
    assert usable_device(None) == "cpu"


def test_a_smaller_card_is_played_with_what_this_one_has_free(gpus: FakeGpus) -> None:
    gpus.hold(2 * GIB, FOREIGN)
    limit = played(8 * GIB, outsets(gpus))
    assert limit == MemoryLimit(8 * GIB, free_before=24 * GIB - RESERVED - 2 * GIB, driver_reserve=RESERVED)


def test_a_reserve_that_the_driver_does_not_tell_counts_as_none(gpus: FakeGpus) -> None:
    outset = outset_of(gpus)
    silent = replace(outset, before=replace(outset.before, reserved_bytes=None))
    assert played(8 * GIB, [silent]) == MemoryLimit(8 * GIB, free_before=24 * GIB, driver_reserve=0)


def test_of_several_cards_the_first_is_played_which_is_the_one_a_worker_takes(gpus: FakeGpus) -> None:
    first = outset_of(gpus)
    second = replace(first, device=replace(DEVICE, uuid="GPU-2", total_bytes=80 * GIB))
    limit = played(8 * GIB, [second, first])
    assert limit is not None
    assert limit.free_before == 80 * GIB - RESERVED


def test_without_a_limit_no_card_is_played(gpus: FakeGpus) -> None:
    assert played(None, outsets(gpus)) is None
    assert played(None, ()) is None


def test_a_limit_that_no_device_can_keep_is_never_left_out_silently() -> None:
    with pytest.raises(GpuError, match="no GPU can be read"):
        played(8 * GIB, ())


def test_the_worker_s_device_is_found_by_its_uuid(gpus: FakeGpus) -> None:
    outset = outset_of(gpus)
    known = [replace(outset, device=device) for device in (*INSTANCES, DEVICE)]
    assert of_worker(known, DEVICE.uuid) == known[2]
    assert of_worker(known, INSTANCES[1].uuid) == known[1]
    # torch names an instance as if it were a board.
    assert of_worker(known, INSTANCES[1].uuid.replace("MIG-", "GPU-")) == known[1]
    # Or it names the board: of its instances CUDA takes the first.
    assert of_worker(known, SPLIT) == known[0]
    assert of_worker(known, "GPU-00000000-0000-0000-0000-000000000000") is None
    assert of_worker((), DEVICE.uuid) is None


def test_a_recording_of_an_h200_is_watched_as_the_card_was() -> None:
    replay = ReplayedGpus(H200)
    (device,) = replay.devices()
    outset = outset_of(replay)
    assert outset.before.processes == ()
    assert outset.device.total_bytes > 100 * GIB
    with watching(replay, outset, pid=0) as watch:
        watch.phase_started()
        for _ in range(1_000):
            watch._sampler.peak()
        peak, energy = watch.phase_ended()
        part, whole = watch.run_ended()
    assert watch.device == device
    # A process took 512 MiB and 2 GiB, and its context.
    assert peak.process_bytes is not None
    assert 2.5 * GIB < peak.process_bytes < 4 * GIB
    assert part.alone
    assert (part.baseline_bytes, part.driver_reserved_bytes) == (
        outset.before.device_bytes,
        outset.before.reserved_bytes,
    )
    for window in (energy, whole):
        assert window is not None
        assert window.joules >= 0
    assert joules(whole) >= joules(energy)
    assert part.after is not None
    assert part.after.power_w is not None
