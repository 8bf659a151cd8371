"""What every GPU reader keeps: the same tests over the fake, over recordings of NVML, and over NVML where there is a
GPU."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.adapters.nvml import open_gpus
from harness.gpu import SOURCES, Before, GpuDevice, GpuError, GpuProcess, GpuReader, Sampler, attribute
from tests.contract.fake_gpu import DEVICE, RESERVED, FakeGpus
from tests.contract.recording import RecordingGpus, ReplayedGpus

H200 = Path(__file__).parent / "data" / "h200.jsonl"
NOT_RECORDED = pytest.mark.skipif(
    not H200.exists(), reason="no recording: python -m tests.gpu.record_readings tests/contract/data/h200.jsonl"
)
UNKNOWN = "GPU-00000000-0000-0000-0000-000000000000"
BOARD = "GPU-00000000-0000-0000-0000-000000000001"
# Torch's context on an H200, about.
CONTEXT = 540_000_000
SMALL, LARGE = 512 * 1024**2, 2 * 1024**3

Make = Callable[[Path], GpuReader]


def written(folder: Path) -> Path:
    """A recording by hand: a process allocates 512 MiB, then 2 GiB, then frees, then is gone."""
    path = folder / "by_hand.jsonl"
    device = {"uuid": BOARD, "name": "By hand", "total_bytes": 150_754_820_096, "driver": "580.1", "parent": None}
    state = {"utilisation_percent": 0, "memory_utilisation_percent": 0, "sm_clock_mhz": 345, "power_w": 76.2}
    calls: list[dict[str, object]] = [{"method": "devices", "arguments": [], "answer": [device]}]
    for taken in (None, CONTEXT + SMALL, CONTEXT + SMALL + LARGE, CONTEXT, None):
        processes = [] if taken is None else [{"pid": 4711, "used_bytes": taken}]
        reading = {"device_bytes": taken or 0, "reserved_bytes": 648_000_000, "processes": processes}
        calls.append({"method": "read", "arguments": [BOARD], "answer": reading})
    calls += [{"method": "energy_j", "arguments": [BOARD], "answer": joules} for joules in (2_000.5, 2_076.25)]
    calls.append({"method": "state", "arguments": [BOARD], "answer": state})
    calls.append({"method": "read", "arguments": [UNKNOWN], "error": f"NVML does not know {UNKNOWN}"})
    lines = [json.dumps({**call, "monotonic_s": 0.04 * number}) for number, call in enumerate(calls)]
    path.write_text("\n".join(lines) + "\n")
    return path


def fake(folder: Path) -> GpuReader:
    gpus = FakeGpus()
    gpus.use(3 * 1024**3)
    return gpus


def by_hand(folder: Path) -> GpuReader:
    return ReplayedGpus(written(folder))


def h200(folder: Path) -> GpuReader:
    return ReplayedGpus(H200)


def re_recorded(folder: Path) -> GpuReader:
    """The fake, recorded while it is asked."""
    return RecordingGpus(fake(folder), folder / "recorded.jsonl")


def real(folder: Path) -> GpuReader:
    gpus = open_gpus()
    assert gpus is not None
    return gpus


REPLAYS = [by_hand, pytest.param(h200, marks=NOT_RECORDED)]
READERS = [fake, re_recorded, *REPLAYS, pytest.param(real, marks=pytest.mark.gpu)]


@pytest.fixture
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> GpuReader:
    """The reader that the test's parameter makes."""
    make: Make = request.param
    return make(tmp_path)


every_reader = pytest.mark.parametrize("reader", READERS, indirect=True)
every_replay = pytest.mark.parametrize("reader", REPLAYS, indirect=True)


@pytest.fixture
def device(reader: GpuReader) -> GpuDevice:
    """The first of the reader's devices."""
    return reader.devices()[0]


@every_reader
def test_every_device_has_a_name_a_uuid_of_its_own_and_memory(reader: GpuReader) -> None:
    devices = reader.devices()
    assert devices
    assert len({device.uuid for device in devices}) == len(devices)
    for device in devices:
        assert device.uuid.startswith("GPU-" if device.parent is None else "MIG-")
        assert device.name
        assert re.fullmatch(r"\d+\.\d+(\.\d+)?", device.driver)
        assert device.total_bytes > 1024**3


@every_reader
def test_memory_in_use_is_part_of_the_whole_and_without_the_driver_s_reserve(
    reader: GpuReader, device: GpuDevice
) -> None:
    reading = reader.read(device.uuid)
    assert reading.reserved_bytes is None or reading.reserved_bytes > 0
    assert 0 <= reading.device_bytes <= device.total_bytes - (reading.reserved_bytes or 0)


@every_reader
def test_what_processes_use_is_part_of_what_the_device_uses(reader: GpuReader, device: GpuDevice) -> None:
    for _ in range(5):
        reading = reader.read(device.uuid)
        assert sum(process.used_bytes or 0 for process in reading.processes) <= reading.device_bytes
        assert len(reading.pids) == len(reading.processes)
        assert all(process.pid > 0 for process in reading.processes)


@every_reader
@pytest.mark.parametrize("method", ["read", "energy_j", "state"])
def test_a_device_that_is_not_there_is_an_error_of_the_house(reader: GpuReader, method: str) -> None:
    with pytest.raises(GpuError, match=UNKNOWN) as caught:
        getattr(reader, method)(UNKNOWN)
    assert len(str(caught.value).splitlines()) == 1


@every_reader
def test_energy_is_positive_and_never_falls(reader: GpuReader, device: GpuDevice) -> None:
    counted = [reader.energy_j(device.uuid) for _ in range(3)]
    if device.parent is not None:
        assert counted == [None, None, None]
    elif counted[0] is not None:
        joules = [energy for energy in counted if energy is not None]
        assert len(joules) == 3
        assert 0 < joules[0] <= joules[1] <= joules[2]


@every_reader
def test_the_state_s_values_are_those_of_a_board(reader: GpuReader, device: GpuDevice) -> None:
    state = reader.state(device.uuid)
    assert device.parent is not None or any(value is not None for value in state.model_dump().values())
    for percent in (state.utilisation_percent, state.memory_utilisation_percent):
        assert percent is None or 0 <= percent <= 100
    for mhz in (state.sm_clock_mhz, state.memory_clock_mhz):
        # The memory clock of recent GeForce boards is above 14 GHz.
        assert mhz is None or 0 < mhz < 30_000
    assert state.temperature_c is None or 0 < state.temperature_c < 120
    for watts in (state.power_w, state.power_limit_w):
        assert watts is None or 1 < watts < 3_000


@every_reader
def test_the_sampler_keeps_the_peak_of_a_phase(reader: GpuReader, device: GpuDevice) -> None:
    sampler = Sampler(reader, device.uuid, os.getpid(), Before())
    try:
        peaks = [sampler.peak() for _ in range(5)]
    finally:
        sampler.close()
    assert 1 <= peaks[0].samples < peaks[-1].samples
    assert 0 <= peaks[0].seconds <= peaks[-1].seconds
    for peak in peaks:
        assert peak.source in SOURCES
        assert peak.device_bytes is not None
        assert peak.process_bytes is not None
        assert 0 <= peak.process_bytes <= peak.device_bytes <= device.total_bytes
    assert [peak.device_bytes for peak in peaks] == sorted(peak.device_bytes or 0 for peak in peaks)


@every_replay
def test_a_replay_shows_what_a_process_took_and_gave_back(reader: GpuReader, device: GpuDevice) -> None:
    first, *later = (reader.read(device.uuid) for _ in range(1_000))
    before = Before(first.device_bytes, first.reserved_bytes, first.processes)
    pid = next((pid for reading in later for pid in reading.pids - before.pids), 0)
    took = [attribute(reading, pid, before).process_bytes for reading in later]
    assert SMALL + LARGE < max(took) < SMALL + LARGE + 2 * CONTEXT
    assert any(SMALL < taken < SMALL + 2 * CONTEXT for taken in took)
    assert took[-1] < CONTEXT / 2
    assert pid not in later[-1].pids


@every_replay
def test_the_sampler_finds_the_peak_in_a_replay(reader: GpuReader, device: GpuDevice) -> None:
    first = reader.read(device.uuid)
    sampler = Sampler(reader, device.uuid, 0, Before(first.device_bytes, first.reserved_bytes, first.processes))
    try:
        for _ in range(1_000):
            peak = sampler.peak()
    finally:
        sampler.close()
    assert peak.process_bytes is not None
    assert peak.device_bytes is not None
    assert SMALL + LARGE < peak.process_bytes <= peak.device_bytes < SMALL + LARGE + 2 * CONTEXT
    assert peak.source != "process"


@every_replay
def test_a_replay_stays_at_the_last_answer(reader: GpuReader, device: GpuDevice) -> None:
    for _ in range(1_000):
        last = (reader.read(device.uuid), reader.energy_j(device.uuid), reader.state(device.uuid))
    assert (reader.read(device.uuid), reader.energy_j(device.uuid), reader.state(device.uuid)) == last


@NOT_RECORDED
def test_the_recording_names_no_real_board() -> None:
    uuids = re.findall(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-([0-9a-f]{12})", H200.read_text())
    assert uuids
    assert {int(end, 16) for end in uuids} <= set(range(100))


def test_a_recording_answers_as_the_reader_did_and_names_no_board(tmp_path: Path) -> None:
    path = tmp_path / "recorded.jsonl"
    gpus = FakeGpus()
    recorder = RecordingGpus(gpus, path)
    uuid = recorder.devices()[0].uuid
    assert uuid == DEVICE.uuid
    gpus.hold(1_000, GpuProcess(7, 900), GpuProcess(8, None))
    seen = [recorder.read(uuid), recorder.energy_j(uuid), recorder.state(uuid)]
    with pytest.raises(GpuError, match=UNKNOWN):
        recorder.read(UNKNOWN)

    assert DEVICE.uuid not in path.read_text()
    replayed = ReplayedGpus(path)
    assert [device.uuid for device in replayed.devices()] == [BOARD]
    assert [replayed.read(BOARD), replayed.energy_j(BOARD), replayed.state(BOARD)] == seen
    with pytest.raises(GpuError, match=f"^no such GPU: {UNKNOWN}$"):
        replayed.read(UNKNOWN)


def test_a_recording_keeps_instances_and_their_board_together_and_names_none(tmp_path: Path) -> None:
    """Drivers before 470 name an instance by its board."""
    board = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
    instances = tuple(
        GpuDevice(f"MIG-{board}/{place}/0", "A100 1g.5gb", 5 * 1024**3, "450.80", board) for place in (1, 2)
    )

    class Instances(FakeGpus):
        def devices(self) -> tuple[GpuDevice, ...]:
            return instances

    path = tmp_path / "recorded.jsonl"
    assert RecordingGpus(Instances(), path).devices() == instances
    assert "8932f937" not in path.read_text()
    replayed = ReplayedGpus(path).devices()
    assert [device.uuid for device in replayed] == [
        f"MIG-00000000-0000-0000-0000-00000000000{number}" for number in (2, 3)
    ]
    assert {device.parent for device in replayed} == {BOARD}


def test_each_line_of_a_recording_says_when_it_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "recorded.jsonl"
    times = iter([100.0, 100.5, 102.25])
    recorder = RecordingGpus(FakeGpus(), path, clock=lambda: next(times))
    recorder.read(DEVICE.uuid)
    recorder.energy_j(DEVICE.uuid)
    calls = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(call["method"], call["arguments"], call["monotonic_s"]) for call in calls] == [
        ("read", [BOARD], 0.5),
        ("energy_j", [BOARD], 2.25),
    ]


def test_a_fake_board_may_have_no_energy_counter() -> None:
    gpus = FakeGpus(counts_energy=False)
    gpus.add_energy(5.0)
    assert gpus.energy_j(DEVICE.uuid) is None
    assert FakeGpus().energy_j(DEVICE.uuid) is not None


def test_a_fake_board_holds_what_a_test_says() -> None:
    gpus = FakeGpus()
    gpus.use(5_000)
    assert gpus.read(DEVICE.uuid).processes == (GpuProcess(os.getpid(), 5_000),)
    gpus.hold(7_000, GpuProcess(1, None))
    reading = gpus.read(DEVICE.uuid)
    assert (reading.device_bytes, reading.reserved_bytes, reading.processes) == (
        7_000,
        RESERVED,
        (GpuProcess(1, None),),
    )
