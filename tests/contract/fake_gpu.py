"""A GPU that is not there, for tests on machines without one. It passes the contract that NVML passes."""

import os

from harness.gpu import GpuDevice, GpuError, GpuReading

RESERVED = 600 * 1024**2


class FakeGpus:
    """One GPU of 24 GiB whose memory in use a test sets."""

    def __init__(self) -> None:
        self._device = GpuDevice("GPU-11111111-2222-3333-4444-555555555555", "Fake 24", 24 * 1024**3, "580.1")
        self._used = 0
        self._energy = 0.0

    def use(self, device_bytes: int) -> None:
        """Sets the memory in use, all of it by this process."""
        self._used = device_bytes

    def devices(self) -> tuple[GpuDevice, ...]:
        return (self._device,)

    def read(self, uuid: str, pid: int) -> GpuReading:
        if uuid != self._device.uuid:
            raise GpuError(f"no such GPU: {uuid}")
        mine = self._used if pid == os.getpid() else None
        return GpuReading(self._used, RESERVED, mine, 0 if mine is not None else 1)

    def energy_j(self, uuid: str) -> float | None:
        self._energy += 1.0
        return self._energy if uuid == self._device.uuid else None
