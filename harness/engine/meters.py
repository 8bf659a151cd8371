"""What a worker can read of itself: seconds on a synchronised clock, allocator peaks, host memory peaks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from harness.messages import Device, Event, Phase, PhaseEnded, PhaseStarted
from harness.resuming import most

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class PhaseMeter:
    """Times phases and reads their peaks, each with its own reset; `phase` is the one that is running. In a `fresh`
    process, whose figures may be quoted, the allocator keeps nothing from one phase to the next."""

    def __init__(self, device: Device, emit: Callable[[Event], None], *, fresh: bool = False) -> None:
        self._device = device
        self._fresh = fresh
        # Seconds of the phase that is running which are the measurement's own, and are not counted.
        self.excluded_s = 0.0
        # The peak of host memory before what was aside, which has a peak of its own.
        self._rss_before: int | None = None
        self._began = 0.0
        self._emit = emit
        self.phase: Phase | None = None

    @contextmanager
    def measure(self, phase: Phase) -> Iterator[None]:
        """Reports the start of a phase and its end with seconds and peaks; those of a phase that failed are of what it
        got to, and `phase` stays."""
        self.phase = phase
        self.excluded_s = 0.0
        self._rss_before = None
        self._reset()
        self._emit(PhaseStarted(phase))
        self._began = time.monotonic()
        try:
            yield
            self._synchronise()
        except BaseException:
            self._emit(self.reading(phase, failed=True))
            raise
        self._emit(self.reading(phase))
        self.phase = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is done inside is no part of the phase: its peak of host memory does not count. (Nothing on the GPU is
        left out, and seconds are the caller's to leave out.)"""
        self._rss_before = most(self._rss_before, host_rss_peak_bytes())
        try:
            yield
        finally:
            reset_host_rss_peak()

    def reading(self, phase: Phase, *, failed: bool = False) -> PhaseEnded:
        """What the phase that is running would be if it ended now; the device is not waited for."""
        seconds = time.monotonic() - self._began
        # The allocator's counters are the host's own: they can be read after any failure of the device.
        on_gpu = self._device == "cuda"
        return PhaseEnded(
            phase=phase,
            seconds=max(0.0, seconds - self.excluded_s),
            allocated_bytes=torch.cuda.max_memory_allocated() if on_gpu else None,
            reserved_bytes=torch.cuda.max_memory_reserved() if on_gpu else None,
            host_rss_bytes=most(self._rss_before, host_rss_peak_bytes()),
            failed=failed,
        )

    def _synchronise(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def _reset(self) -> None:
        self._synchronise()
        if self._device == "cuda":
            # cuBLAS keeps 32 MiB for every stream and thread that multiplied, also when the stream is gone.
            torch._C._cuda_clearCublasWorkspaces()
            if self._fresh:
                # Between two phases, never inside one: what the last phase had reserved is not this one's.
                torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        reset_host_rss_peak()


def reset_host_rss_peak() -> bool:
    """Starts the kernel's peak of resident memory anew (proc(5), clear_refs 5); False where the kernel refuses."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def host_rss_peak_bytes() -> int | None:
    """Peak resident memory of this process since the last reset, in bytes (VmHWM); None where it cannot be read."""
    try:
        text = _STATUS.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
