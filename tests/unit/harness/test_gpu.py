"""What GPU readings mean: which devices CUDA shows, whose memory it is, and the peaks of a phase."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from harness.gpu import (
    Attributed,
    Before,
    GpuDevice,
    GpuError,
    GpuPeak,
    GpuProcess,
    GpuReading,
    Sampler,
    attribute,
    visible,
)
from results.schema import GpuStatePart

GIB = 1024**3
A = GpuDevice("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "H200", 140 * GIB, "580.1")
B = GpuDevice("GPU-8932aaaa-0000-4106-c12f-20bd9faed9f6", "H200", 140 * GIB, "580.1")
SPLIT = "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77"
M1 = GpuDevice("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "H200 MIG 1g", 17 * GIB, "580.1", SPLIT)
M2 = GpuDevice("MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb", "H200 MIG 1g", 17 * GIB, "580.1", SPLIT)
C = GpuDevice("GPU-00112233-d72c-4106-c12f-20bd9faed9f6", "H200", 140 * GIB, "580.1")
# In the order of the bus: boards 0 and 1, board 2 in MIG mode, board 3.
DEVICES = (A, B, M1, M2, C)


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        pytest.param(None, (A, B, M1, M2, C), id="not set: all"),
        pytest.param("", (), id="empty: none"),
        pytest.param("0", (A,), id="one index"),
        pytest.param("1,0", (B, A), id="in the order of the list"),
        pytest.param("-1", (), id="minus one hides all"),
        pytest.param("0,-1,1", (A,), id="minus one hides what follows"),
        pytest.param("7", (), id="no such index"),
        pytest.param("0,7,1", (A,), id="no such index hides what follows"),
        pytest.param("0,,1", (A,), id="an empty entry hides what follows"),
        pytest.param("2", (M1,), id="a board in MIG mode shows its first instance"),
        pytest.param("3", (C,), id="instances are not counted"),
        pytest.param("²", (), id="a digit that is none"),
        pytest.param("0x1", (), id="not a number"),
        pytest.param(B.uuid, (B,), id="a UUID"),
        pytest.param(f"{C.uuid},{A.uuid}", (C, A), id="UUIDs"),
        pytest.param("GPU-8932f", (A,), id="an abbreviated UUID"),
        pytest.param("GPU-8932", (), id="an ambiguous abbreviation"),
        pytest.param("GPU-0,GPU-8932,1", (C,), id="an ambiguous abbreviation hides what follows"),
        pytest.param("GPU-ffffffff", (), id="no such UUID"),
        pytest.param("8932f937", (), id="a UUID without its GPU-"),
        pytest.param(M2.uuid, (M2,), id="a MIG UUID"),
        pytest.param("MIG-c6", (M1,), id="an abbreviated MIG UUID"),
        pytest.param("MIG-c", (), id="an ambiguous MIG abbreviation"),
        pytest.param(SPLIT, (M1,), id="the UUID of a board in MIG mode"),
        pytest.param(f"1,{A.uuid}", (B, A), id="an index and a UUID"),
        pytest.param("0,0", (), id="an index twice: none"),
        pytest.param(f"1,0,{A.uuid}", (), id="a device twice in two forms: none"),
        pytest.param(f"{M1.uuid},2", (), id="an instance and its board's index: none"),
        pytest.param("0,7,0", (A,), id="twice, but not seen"),
        pytest.param(" 1 ,  0 ", (B, A), id="spaces"),
        pytest.param("NoDevFiles", (), id="as some schedulers hide all"),
    ],
)
def test_cuda_visible_devices_names_what_cuda_shows(value: str | None, seen: tuple[GpuDevice, ...]) -> None:
    assert visible(DEVICES, value) == seen


@pytest.mark.parametrize("value", [None, "", "0", "GPU-8932f937"])
def test_where_there_is_no_gpu_nothing_is_shown(value: str | None) -> None:
    assert visible((), value) == ()


def reading(device_bytes: int, *processes: GpuProcess) -> GpuReading:
    return GpuReading(device_bytes, 600, processes)


FOREIGN = GpuProcess(900, 1_000)
SILENT = GpuProcess(901, None)
BEFORE = Before(1_500, 600, (FOREIGN, SILENT))
WORKER = 42


@pytest.mark.parametrize(
    ("seen", "before", "expected"),
    [
        pytest.param(
            reading(5_000, GpuProcess(WORKER, 4_800)), Before(), Attributed(4_800, "process", 0), id="its own pid"
        ),
        pytest.param(
            reading(5_000, GpuProcess(77_001, 4_800)),
            Before(),
            Attributed(4_800, "process under another pid", 0),
            id="the host's pid",
        ),
        pytest.param(
            reading(5_000, GpuProcess(77_001, None)),
            Before(100),
            Attributed(4_900, "device minus baseline", 0),
            id="the host's pid without bytes",
        ),
        pytest.param(
            reading(5_000, GpuProcess(WORKER, None)),
            Before(100),
            Attributed(4_900, "device minus baseline", 0),
            id="its own pid without bytes",
        ),
        pytest.param(
            reading(5_000, GpuProcess(WORKER, None), GpuProcess(77_001, 3_000)),
            Before(100),
            Attributed(4_900, "device minus baseline", 1),
            id="its own pid without bytes is not taken for the new one beside it",
        ),
        pytest.param(
            reading(5_000, GpuProcess(77_001, 3_000), GpuProcess(77_002, 1_000)),
            Before(100),
            Attributed(4_900, "device minus baseline", 1),
            id="two new processes",
        ),
        pytest.param(
            reading(5_000, GpuProcess(77_001, 3_000), GpuProcess(WORKER, 1_000)),
            Before(100),
            Attributed(1_000, "process", 1),
            id="its own pid beside a new one",
        ),
        pytest.param(
            reading(5_000, FOREIGN, SILENT, GpuProcess(WORKER, 3_200)),
            BEFORE,
            Attributed(3_200, "process", 2),
            id="its own pid and those before it",
        ),
        pytest.param(
            reading(5_000, FOREIGN, SILENT, GpuProcess(77_001, 3_200)),
            BEFORE,
            Attributed(3_200, "process under another pid", 2),
            id="the host's pid and those before it",
        ),
        pytest.param(
            reading(1_700, FOREIGN, SILENT),
            BEFORE,
            Attributed(200, "device minus baseline", 2),
            id="only those before it",
        ),
        pytest.param(reading(5_000), BEFORE, Attributed(3_500, "device minus baseline", 0), id="no process is listed"),
        pytest.param(
            reading(900), BEFORE, Attributed(0, "device minus baseline", 0), id="less than before the worker is none"
        ),
        pytest.param(
            reading(5_000, GpuProcess(WORKER, 0)), Before(), Attributed(0, "process", 0), id="no bytes are bytes"
        ),
    ],
)
def test_a_reading_s_memory_is_the_worker_s_as_far_as_the_driver_tells(
    seen: GpuReading, before: Before, expected: Attributed
) -> None:
    assert attribute(seen, WORKER, before) == expected


class Scripted:
    """A reader that answers what a test says now; None is a device that cannot be read.

    Only the thread that made it is answered so: the sampler's own thread gets errors, which leave no trace.
    """

    def __init__(self) -> None:
        self.now: GpuReading | None = None
        self._owner = threading.get_ident()

    def devices(self) -> tuple[GpuDevice, ...]:
        return (A,)

    def read(self, uuid: str) -> GpuReading:
        if self.now is None or threading.get_ident() != self._owner:
            raise GpuError(f"{uuid} is lost")
        return self.now

    def energy_j(self, uuid: str) -> float | None:
        return None

    def state(self, uuid: str) -> GpuStatePart:
        return GpuStatePart()


class Clock:
    """A clock that a test sets, in seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def gpu() -> Scripted:
    return Scripted()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@contextmanager
def sampling(gpu: Scripted, before: Before, clock: Clock) -> Iterator[Sampler]:
    with closing(Sampler(gpu, A.uuid, WORKER, before, clock)) as sampler:
        yield sampler


def peak_of(sampler: Sampler, gpu: Scripted, *readings: GpuReading | None) -> GpuPeak:
    """The peak after each of the readings was sampled once."""
    for gpu.now in readings:
        peak = sampler.peak()
    return peak


def test_a_phase_keeps_its_highest_readings_above_what_was_before(gpu: Scripted, clock: Clock) -> None:
    low, high = GpuProcess(WORKER, 2_000), GpuProcess(WORKER, 3_000)
    with sampling(gpu, Before(1_000), clock) as sampler:
        clock.now += 8.0
        peak = peak_of(sampler, gpu, reading(3_100, low), reading(5_000, high), reading(4_000, low))
    assert peak == GpuPeak(process_bytes=3_000, device_bytes=4_000, samples=3, others=0, source="process", seconds=8.0)


def test_a_phase_starts_anew(gpu: Scripted, clock: Clock) -> None:
    with sampling(gpu, Before(1_000), clock) as sampler:
        peak_of(sampler, gpu, reading(9_000, FOREIGN, GpuProcess(WORKER, 8_000)))
        clock.now += 5.0
        sampler.reset()
        clock.now += 2.0
        assert peak_of(sampler, gpu, None) == GpuPeak(seconds=2.0)
        peak = peak_of(sampler, gpu, reading(4_000, GpuProcess(WORKER, 2_500)))
    assert peak == GpuPeak(2_500, 3_000, samples=1, others=0, source="process", seconds=2.0)


def test_a_reading_that_fails_is_a_missing_sample_and_never_zero(gpu: Scripted, clock: Clock) -> None:
    with sampling(gpu, Before(), clock) as sampler:
        nothing = peak_of(sampler, gpu, None, None)
        assert (nothing.process_bytes, nothing.device_bytes, nothing.samples, nothing.source) == (None, None, 0, None)
        peak = peak_of(sampler, gpu, None, reading(700, GpuProcess(WORKER, 600)), None)
    assert (peak.process_bytes, peak.device_bytes, peak.samples) == (600, 700, 1)


def test_what_the_better_source_says_replaces_what_the_worse_one_said(gpu: Scripted, clock: Clock) -> None:
    with sampling(gpu, Before(1_000), clock) as sampler:
        peak = peak_of(sampler, gpu, reading(9_000))
        assert (peak.process_bytes, peak.source) == (8_000, "device minus baseline")
        peak = peak_of(sampler, gpu, reading(9_000, GpuProcess(77_001, 7_000)))
        assert (peak.process_bytes, peak.source) == (7_000, "process under another pid")
        peak = peak_of(sampler, gpu, reading(9_000, GpuProcess(WORKER, 6_000)))
        assert (peak.process_bytes, peak.source) == (6_000, "process")


def test_what_a_worse_source_says_later_is_left_out(gpu: Scripted, clock: Clock) -> None:
    with sampling(gpu, Before(1_000), clock) as sampler:
        peak = peak_of(sampler, gpu, reading(7_000, GpuProcess(WORKER, 5_500)), reading(9_500))
    assert (peak.process_bytes, peak.source, peak.device_bytes, peak.samples) == (5_500, "process", 8_500, 2)


def test_the_most_foreign_processes_seen_at_once_are_counted(gpu: Scripted, clock: Clock) -> None:
    own = GpuProcess(WORKER, 2_000)
    with sampling(gpu, Before(1_500, 600, (FOREIGN,)), clock) as sampler:
        peak = peak_of(
            sampler, gpu, reading(4_000, own, FOREIGN), reading(4_500, own, FOREIGN, SILENT), reading(4_000, own)
        )
    assert (peak.others, peak.process_bytes) == (2, 2_000)


class Blocked(Scripted):
    """Lets the reading of the sampler's thread wait until the test lets it go, then answers it."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = threading.Event()
        self.go_on = threading.Event()

    def read(self, uuid: str) -> GpuReading:
        if threading.get_ident() == self._owner:
            return super().read(uuid)
        self.under_way.set()
        if not self.go_on.wait(timeout=10.0):
            raise GpuError("the test let nothing go")
        return reading(9_000, GpuProcess(WORKER, 9_000))


def test_a_reading_begun_in_the_phase_before_does_not_count_in_the_next(clock: Clock) -> None:
    gpu = Blocked()
    sampler = Sampler(gpu, A.uuid, WORKER, Before(), clock)
    assert gpu.under_way.wait(timeout=10.0)
    sampler.reset()
    # The thread is told to end first: it takes the reading that is under way and no other.
    sampler._stop.set()
    gpu.go_on.set()
    sampler.close()
    assert not sampler._thread.is_alive()
    assert peak_of(sampler, gpu, reading(300, GpuProcess(WORKER, 200))).process_bytes == 200


class Counting(Scripted):
    """Answers every thread and notes when; the first reading takes half a second."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []
        self.enough = threading.Event()

    def read(self, uuid: str) -> GpuReading:
        self.times.append(time.monotonic())
        if len(self.times) == 1:
            time.sleep(0.5)
        if len(self.times) == 8:
            self.enough.set()
        return reading(100)


def test_the_thread_samples_by_itself_and_does_not_make_up_for_what_it_missed(clock: Clock) -> None:
    gpu = Counting()
    with sampling(gpu, Before(), clock) as sampler:
        assert gpu.enough.wait(timeout=30.0)
    assert sampler.peak().samples >= 8
    # Six intervals of 0.04 s, one of which a busy machine may shorten; the twelve that were missed would come at once.
    assert gpu.times[7] - gpu.times[1] > 0.12


def test_a_closed_sampler_reads_no_more(clock: Clock) -> None:
    gpu = Counting()
    with sampling(gpu, Before(), clock) as sampler:
        assert gpu.enough.wait(timeout=30.0)
    assert not sampler._thread.is_alive()
