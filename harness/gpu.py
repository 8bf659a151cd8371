"""GPU readings as the conductor takes them: the port that NVML stands behind, what readings mean, and the sampler."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from results.schema import GpuStatePart

# Samples a second; 20 is the least that a record's peaks are trusted at. A training step of the smallest studies takes
# tens of milliseconds.
RATE_HZ = 25.0
# How a process's bytes were come by, best first.
Source = Literal["process", "process under another pid", "device minus baseline"]
SOURCES: tuple[Source, ...] = ("process", "process under another pid", "device minus baseline")


class GpuError(RuntimeError):
    """The GPU cannot be read; says what was tried."""


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """One GPU or MIG instance. Memory in bytes; `driver` is the driver's version; `parent` the GPU of an instance."""

    uuid: str
    name: str
    total_bytes: int
    driver: str
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process with a context on a GPU, as the driver numbers it; `used_bytes` None where it may not be told."""

    pid: int
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One look at a device's memory, in bytes. `device_bytes` leaves out the driver's own reserve (None where unknown).

    `processes` are those with a compute context.
    """

    device_bytes: int
    reserved_bytes: int | None
    processes: tuple[GpuProcess, ...]

    @property
    def pids(self) -> frozenset[int]:
        """The processes on the device."""
        return frozenset(process.pid for process in self.processes)


class GpuReader(Protocol):
    """What the conductor asks of a GPU library."""

    def devices(self) -> tuple[GpuDevice, ...]:
        """Every GPU, and the instances of one in MIG mode in its place; also those that CUDA_VISIBLE_DEVICES hides.

        In the order of the PCI bus. Raises GpuError.
        """

    def read(self, uuid: str) -> GpuReading:
        """Memory of one device now. Raises GpuError."""

    def energy_j(self, uuid: str) -> float | None:
        """The device's energy counter in joules since the driver was loaded; None where the board has none.

        Raises GpuError where there is no such device.
        """

    def state(self, uuid: str) -> GpuStatePart:
        """Utilisation, clocks, temperature and power now. Raises GpuError where there is no such device."""


def visible(devices: Sequence[GpuDevice], value: str | None) -> tuple[GpuDevice, ...]:
    """The devices that CUDA shows a process whose CUDA_VISIBLE_DEVICES is `value`, in CUDA's order.

    Forms as in CUDA's documentation: not set (all), indices, UUIDs or their unambiguous beginnings (`GPU-8932f937`,
    `MIG-…`), a mixture; what follows the first entry that means no device, or a device twice, is not seen. Indices
    count whole GPUs in PCI order: with unlike GPUs and without CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA may count otherwise,
    so that the UUID which a worker reports is what decides.
    """
    if value is None:
        return tuple(devices)
    chosen: list[GpuDevice] = []
    for entry in (part.strip() for part in value.split(",")):
        found = _named(devices, entry)
        if found is None:
            break
        if found in chosen:
            # CUDA shows no device at all when one is named twice.
            return ()
        chosen.append(found)
    return tuple(chosen)


def _named(devices: Sequence[GpuDevice], entry: str) -> GpuDevice | None:
    if entry.isascii() and entry.isdigit():
        # An index counts boards; of a board in MIG mode CUDA takes the first instance.
        boards = list(dict.fromkeys(device.parent or device.uuid for device in devices))
        index = int(entry)
        if index >= len(boards):
            return None
        return next(device for device in devices if boards[index] in (device.uuid, device.parent))
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    matching = [device for device in devices if device.uuid.startswith(entry)]
    if not matching and entry.startswith("GPU-"):
        matching = [device for device in devices if device.parent is not None and device.parent.startswith(entry)][:1]
    return matching[0] if len(matching) == 1 else None


@dataclass(frozen=True, slots=True)
class Before:
    """A device before a worker started: memory in use in bytes, the driver's reserve, and who was on it."""

    device_bytes: int = 0
    reserved_bytes: int | None = None
    processes: tuple[GpuProcess, ...] = ()

    @property
    def pids(self) -> frozenset[int]:
        """The processes that were there."""
        return frozenset(process.pid for process in self.processes)


@dataclass(frozen=True, slots=True)
class Attributed:
    """A worker's share of a reading: its bytes, how they were come by, and how many others are on the device."""

    process_bytes: int
    source: Source
    others: int


def attribute(reading: GpuReading, pid: int, before: Before) -> Attributed:
    """Which of a device's memory is the worker's.

    By its process id where the driver lists it with bytes. In a container the driver may know it by the host's number:
    then the one process that was not there before is it. Where neither gives bytes (usedGpuMemory is None in some
    containers and under WSL) the device's bytes above those before the worker are the best that can be said.
    """
    own = [process for process in reading.processes if process.pid == pid and pid not in before.pids]
    new = [process for process in reading.processes if process.pid not in before.pids]
    others = len(reading.processes) - len(own or new[:1])
    if own and own[0].used_bytes is not None:
        return Attributed(own[0].used_bytes, "process", others)
    if not own and len(new) == 1 and new[0].used_bytes is not None:
        return Attributed(new[0].used_bytes, "process under another pid", others)
    return Attributed(max(0, reading.device_bytes - before.device_bytes), "device minus baseline", others)


@dataclass(frozen=True, slots=True)
class GpuPeak:
    """The highest readings of one phase, in bytes, the device's above those before the worker started.

    Process bytes are the highest of those come by in the best way that gave any, which `source` names; `others` is the
    most foreign processes seen at once, `seconds` the time over which the samples are spread.
    """

    process_bytes: int | None = None
    device_bytes: int | None = None
    samples: int = 0
    others: int = 0
    source: Source | None = None
    seconds: float = 0.0


class Sampler:
    """Reads one GPU at a steady rate in a thread of the conductor and keeps the peaks of the current phase."""

    def __init__(
        self,
        reader: GpuReader,
        uuid: str,
        pid: int,
        before: Before,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._uuid = uuid
        self._pid = pid
        self._before = before
        self._clock = clock
        self._lock = threading.Lock()
        self._peak = GpuPeak()
        self._since = clock()
        self._phase = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="gpu-sampler")
        self._thread.start()

    def reset(self) -> None:
        """Starts the peaks anew."""
        with self._lock:
            self._peak = GpuPeak()
            self._since = self._clock()
            self._phase += 1

    def peak(self) -> GpuPeak:
        """The peaks since the last reset, with one more reading taken now."""
        self._sample()
        with self._lock:
            return replace(self._peak, seconds=self._clock() - self._since)

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join(timeout=2.0)

    def _loop(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self._sample()
            # What was missed is not made up for: a burst after a pause would look like samples at the full rate.
            due = max(due + 1.0 / RATE_HZ, time.monotonic())
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _sample(self) -> None:
        phase = self._phase
        try:
            reading = self._reader.read(self._uuid)
        except GpuError:
            # A reading that fails is a sample that is missing: the count of samples says so.
            return
        mine = attribute(reading, self._pid, self._before)
        above = max(0, reading.device_bytes - self._before.device_bytes)
        with self._lock:
            # A reading that was under way when the phase changed tells of the phase before.
            if phase == self._phase:
                self._peak = _raised(self._peak, mine, above)


def _raised(peak: GpuPeak, mine: Attributed, above: int) -> GpuPeak:
    """The peak with one more sample. Until the driver lists a new process only the device tells of it: once the better
    source has spoken, what the worse one said is dropped."""
    process_bytes, source = peak.process_bytes, peak.source
    if source is None or process_bytes is None or SOURCES.index(mine.source) < SOURCES.index(source):
        process_bytes, source = mine.process_bytes, mine.source
    elif mine.source == source:
        process_bytes = max(process_bytes, mine.process_bytes)
    return GpuPeak(
        process_bytes=process_bytes,
        device_bytes=above if peak.device_bytes is None else max(peak.device_bytes, above),
        samples=peak.samples + 1,
        others=max(peak.others, mine.others),
        source=source,
    )
