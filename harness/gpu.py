"""GPU readings as the conductor takes them: the port that NVML stands behind, and the sampler."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

# Samples a second. A training step of the smallest studies takes tens of milliseconds.
RATE_HZ = 25.0


class GpuError(RuntimeError):
    """The GPU cannot be read; says what was tried."""


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """One GPU. Memory in bytes; `driver` is the driver's version."""

    uuid: str
    name: str
    total_bytes: int
    driver: str


@dataclass(frozen=True, slots=True)
class GpuReading:
    """Memory in use on a device, in bytes, without the driver's own reserve; None where it cannot be told.

    `process_bytes` is what the given process holds, `others` the number of other processes on the device.
    """

    device_bytes: int
    reserved_bytes: int | None
    process_bytes: int | None
    others: int


class GpuReader(Protocol):
    """What the conductor asks of a GPU library."""

    def devices(self) -> tuple[GpuDevice, ...]:
        """Every GPU, also those that CUDA_VISIBLE_DEVICES hides."""

    def read(self, uuid: str, pid: int) -> GpuReading:
        """Memory of one GPU now. Raises GpuError."""

    def energy_j(self, uuid: str) -> float | None:
        """The device's energy counter in joules; None where the board has none."""


@dataclass(frozen=True, slots=True)
class GpuPeak:
    """The highest readings of one phase, in bytes, above the `baseline` of the device before the worker started."""

    process_bytes: int | None
    device_bytes: int | None
    samples: int
    others: int


class Sampler:
    """Reads one GPU at a steady rate in a thread of the conductor and keeps the peaks of the current phase."""

    def __init__(self, reader: GpuReader, uuid: str, pid: int, baseline_bytes: int) -> None:
        self._reader = reader
        self._uuid = uuid
        self._pid = pid
        self._baseline = baseline_bytes
        self._lock = threading.Lock()
        self._peak = GpuPeak(None, None, 0, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """Starts the peaks anew."""
        with self._lock:
            self._peak = GpuPeak(None, None, 0, 0)

    def peak(self) -> GpuPeak:
        """The peaks since the last reset, with one more reading taken now."""
        self._sample()
        with self._lock:
            return self._peak

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join(timeout=2.0)

    def _loop(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self._sample()
            due += 1.0 / RATE_HZ
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _sample(self) -> None:
        try:
            reading = self._reader.read(self._uuid, self._pid)
        except GpuError:
            # A reading that fails is a sample that is missing: the count of samples says so.
            return
        with self._lock:
            peak = self._peak
            self._peak = replace(
                peak,
                process_bytes=highest((peak.process_bytes, reading.process_bytes)),
                device_bytes=highest((peak.device_bytes, max(0, reading.device_bytes - self._baseline))),
                samples=peak.samples + 1,
                others=max(peak.others, reading.others),
            )


def highest(values: Sequence[int | None]) -> int | None:
    """The highest of the values that are known."""
    known = [value for value in values if value is not None]
    return max(known) if known else None
