"""A GPU that is not there, for tests on machines without one. It passes the contract that NVML passes."""

import os

from harness.gpu import GpuDevice, GpuError, GpuProcess, GpuReading
from results.schema import GpuStatePart

DEVICE = GpuDevice("GPU-11111111-2222-3333-4444-555555555555", "Fake 24", 24 * 1024**3, "580.1")
RESERVED = 600 * 1024**2
STATE = GpuStatePart(
    utilisation_percent=40,
    memory_utilisation_percent=10,
    sm_clock_mhz=1_500,
    memory_clock_mhz=2_600,
    temperature_c=45,
    power_w=210.5,
    power_limit_w=350.0,
)


class FakeGpus:
    """One GPU of 24 GiB whose readings a test sets. Its energy counter grows by one joule a call."""

    def __init__(self, *, counts_energy: bool = True, state: GpuStatePart = STATE) -> None:
        """`counts_energy` False makes it a board without an energy counter."""
        self._reading = GpuReading(0, RESERVED, ())
        self._energy_j: float | None = 1_000.0 if counts_energy else None
        self._state = state

    def use(self, device_bytes: int) -> None:
        """Sets the memory in use, all of it by this process."""
        self.hold(device_bytes, GpuProcess(os.getpid(), device_bytes))

    def hold(self, device_bytes: int, *processes: GpuProcess) -> None:
        """Sets the memory in use and who is on the device."""
        self._reading = GpuReading(device_bytes, RESERVED, processes)

    def add_energy(self, joules: float) -> None:
        """Lets the board use energy; nothing on a board that does not count it."""
        if self._energy_j is not None:
            self._energy_j += joules

    def devices(self) -> tuple[GpuDevice, ...]:
        return (DEVICE,)

    def read(self, uuid: str) -> GpuReading:
        _known(uuid)
        return self._reading

    def energy_j(self, uuid: str) -> float | None:
        _known(uuid)
        self.add_energy(1.0)
        return self._energy_j

    def state(self, uuid: str) -> GpuStatePart:
        _known(uuid)
        return self._state


def _known(uuid: str) -> None:
    if uuid != DEVICE.uuid:
        raise GpuError(f"no such GPU: {uuid}")
