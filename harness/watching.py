"""What the conductor sees of a worker's GPU: who was there before, peaks and energy of each phase, its state."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from harness.gpu import Before, GpuDevice, GpuError, GpuPeak, GpuReader, Sampler, visible
from harness.messages import Device, MemoryLimit
from results.schema import EnergyPart, GpuPart, GpuStatePart


@dataclass(frozen=True, slots=True)
class Outset:
    """A device before a worker starts: its memory and processes, its energy counter (J), its state, the time (s)."""

    device: GpuDevice
    before: Before
    energy_j: float | None
    state: GpuStatePart
    moment: float


def usable_device(reader: GpuReader | None) -> Device:
    """Where work can be done: on a GPU that CUDA_VISIBLE_DEVICES leaves in sight, or else on the CPU."""
    try:
        devices = () if reader is None else reader.devices()
    except GpuError:
        return "cpu"
    return "cuda" if visible(devices, os.environ.get("CUDA_VISIBLE_DEVICES")) else "cpu"


def outsets(reader: GpuReader | None, gpu: str | None = None) -> tuple[Outset, ...]:
    """Every device that a worker may get, before it starts: `gpu` alone where a UUID is given. A device that cannot be
    read is left out."""
    if reader is None:
        return ()
    found = []
    try:
        devices = reader.devices()
    except GpuError:
        # The driver is gone: what went wrong the worker will say.
        return ()
    for device in visible(devices, gpu or os.environ.get("CUDA_VISIBLE_DEVICES")):
        try:
            reading = reader.read(device.uuid)
            before = Before(reading.device_bytes, reading.reserved_bytes, reading.processes)
            found.append(
                Outset(device, before, reader.energy_j(device.uuid), reader.state(device.uuid), time.monotonic())
            )
        except GpuError:
            continue
    return tuple(found)


def played(limit_bytes: int | None, known: Iterable[Outset]) -> MemoryLimit | None:
    """The smaller card that the first of the devices is to play, if any.

    Raises:
        GpuError: a limit is asked for and no device could be read: a run without it would be recorded as within it.
    """
    if limit_bytes is None:
        return None
    outset = next(iter(known), None)
    if outset is None:
        raise GpuError(
            "training.memory_limit: no GPU can be read here, so that none can be made to play a smaller card"
        )
    reserve = outset.before.reserved_bytes or 0
    free = outset.device.total_bytes - reserve - outset.before.device_bytes
    return MemoryLimit(limit_bytes, free, reserve)


def of_worker(known: Iterable[Outset], uuid: str) -> Outset | None:
    """The device that a worker says it has. In MIG mode a worker may name the board instead of its instance."""
    bare = uuid.partition("-")[2]
    for outset in known:
        names = {name.partition("-")[2] for name in (outset.device.uuid, outset.device.parent) if name}
        if bare in names:
            return outset
    return None


class GpuWatch:
    """Watches one GPU for one worker, run after run."""

    def __init__(self, reader: GpuReader, outset: Outset, pid: int) -> None:
        self._reader = reader
        self._outset = outset
        self._sampler = Sampler(reader, outset.device.uuid, pid, outset.before)
        self._run = (outset.energy_j, outset.moment)
        self._state = outset.state
        self._phase = (outset.energy_j, outset.moment)
        self._peaks: list[GpuPeak] = []

    @property
    def device(self) -> GpuDevice:
        """The device that is watched."""
        return self._outset.device

    def run_started(self) -> None:
        """Another run of a worker that is there already: its window begins now."""
        self._run = self._now()
        self._state = self._read_state() or GpuStatePart()
        self._peaks = []

    def phase_started(self) -> None:
        """A phase begins: its peaks and its energy are its own."""
        self._sampler.reset()
        self._phase = self._now()

    def phase_ended(self) -> tuple[GpuPeak, EnergyPart | None]:
        """The peaks of the phase and what the device drew in it."""
        peak = self._sampler.peak()
        self._peaks.append(peak)
        return peak, _window(self._phase, self._now())

    def run_ended(self) -> tuple[GpuPart, EnergyPart | None]:
        """What the record says of the GPU, and what it drew from the run's start (of a fresh worker, from before it had
        a context)."""
        return self._part(), _window(self._run, self._now())

    def close(self) -> None:
        """Ends the sampling."""
        self._sampler.close()

    def _part(self) -> GpuPart:
        outset, state = self._outset, self._read_state()
        seconds = sum(peak.seconds for peak in self._peaks)
        samples = sum(peak.samples for peak in self._peaks)
        return GpuPart(
            uuid=outset.device.uuid,
            total_bytes=outset.device.total_bytes,
            baseline_bytes=outset.before.device_bytes,
            driver_reserved_bytes=outset.before.reserved_bytes,
            before=self._state,
            after=state,
            foreign_before=tuple((process.pid, process.used_bytes) for process in outset.before.processes),
            foreign_during=max((peak.others for peak in self._peaks), default=0),
            samples_per_second=round(samples / seconds, 2) if seconds > 0 else None,
        )

    def _now(self) -> tuple[float | None, float]:
        try:
            return self._reader.energy_j(self.device.uuid), time.monotonic()
        except GpuError:
            # A card that cannot be read leaves the energy unknown; what else went wrong the worker will say.
            return None, time.monotonic()

    def _read_state(self) -> GpuStatePart | None:
        try:
            return self._reader.state(self.device.uuid)
        except GpuError:
            return None


def _window(start: tuple[float | None, float], end: tuple[float | None, float]) -> EnergyPart | None:
    (first, since), (last, until) = start, end
    if first is None or last is None or last < first:
        return None
    return EnergyPart(joules=last - first, seconds=until - since)
