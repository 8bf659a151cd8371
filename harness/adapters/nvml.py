"""NVML behind the GpuReader port (nvidia-ml-py, https://docs.nvidia.com/deploy/nvml-api)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pynvml

from harness.gpu import GpuDevice, GpuError, GpuProcess, GpuReading
from results.schema import GpuStatePart

_ERRORS = (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError)
# The driver, or the driver for this board, does not know the question.
_UNKNOWN = (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound)
_NO_VERSION_2 = (*_UNKNOWN, pynvml.NVMLError_ArgumentVersionMismatch)
# The handle is known to be good when a sensor is asked: an invalid argument is then a sensor that a MIG instance lacks,
# and a virtual GPU answers that the sensor of the board below it may not be read.
_NO_SENSOR = (*_UNKNOWN, pynvml.NVMLError_InvalidArgument, pynvml.NVMLError_NoPermission, pynvml.NVMLError_NoData)
# NVML counts boards that this user or container may not use; CUDA does not. MIG indices have gaps.
_NOT_OURS = (pynvml.NVMLError_NoPermission,)
_NO_INSTANCE = (pynvml.NVMLError_NotFound, pynvml.NVMLError_NoPermission)


class Nvml:
    """The GPUs of this machine. May be asked from several threads at once."""

    def __init__(self) -> None:
        """Opens the library.

        Raises:
            GpuError: there is no NVIDIA driver here.
        """
        # A handle holds for as long as the driver is loaded: looking it up for each reading would double the calls.
        self._handles: dict[str, Any] = {}
        _ask("its library", "this machine", pynvml.nvmlInit)

    def devices(self) -> tuple[GpuDevice, ...]:
        driver = _text(_ask("the driver's version", "this machine", pynvml.nvmlSystemGetDriverVersion))
        count = int(_ask("the number of GPUs", "this machine", pynvml.nvmlDeviceGetCount))
        return tuple(device for index in range(count) for device in self._of_board(index, driver))

    def read(self, uuid: str) -> GpuReading:
        handle = self._handle(uuid)
        # Processes first: what one allocates between the two questions must not make it larger than its device.
        listed = _ask("the processes", uuid, pynvml.nvmlDeviceGetComputeRunningProcesses, handle, none_for=_UNKNOWN)
        memory = _memory(uuid, handle)
        return GpuReading(memory.used_bytes, memory.reserved_bytes, tuple(_process(entry) for entry in listed or ()))

    def energy_j(self, uuid: str) -> float | None:
        handle = self._handle(uuid)
        if uuid.startswith("MIG-"):
            # The counter is the board's: it counts what the other instances use too.
            return None
        millijoules = _ask("the energy", uuid, pynvml.nvmlDeviceGetTotalEnergyConsumption, handle, none_for=_NO_SENSOR)
        return _thousandth(millijoules)

    def state(self, uuid: str) -> GpuStatePart:
        handle = self._handle(uuid)

        def sensor(question: str, function: Callable[..., Any], *kind: int) -> Any:
            return _ask(question, uuid, function, handle, *kind, none_for=_NO_SENSOR)

        use = sensor("the utilisation", pynvml.nvmlDeviceGetUtilizationRates)
        return GpuStatePart(
            utilisation_percent=None if use is None else int(use.gpu),
            memory_utilisation_percent=None if use is None else int(use.memory),
            sm_clock_mhz=sensor("the SM clock", pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM),
            memory_clock_mhz=sensor("the memory clock", pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_MEM),
            temperature_c=sensor("the temperature", pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU),
            power_w=_thousandth(sensor("the power", pynvml.nvmlDeviceGetPowerUsage)),
            power_limit_w=_thousandth(sensor("the power limit", pynvml.nvmlDeviceGetEnforcedPowerLimit)),
        )

    def _handle(self, uuid: str) -> Any:
        if uuid not in self._handles:
            self._handles[uuid] = _ask("the handle", uuid, pynvml.nvmlDeviceGetHandleByUUID, uuid)
        return self._handles[uuid]

    def _of_board(self, index: int, driver: str) -> Iterator[GpuDevice]:
        """The board of an index in nvidia-smi's order, which is the PCI bus's, or its instances in MIG mode."""
        of = f"GPU {index}"
        board = _ask("the handle", of, pynvml.nvmlDeviceGetHandleByIndex, index, none_for=_NOT_OURS)
        if board is None:
            return
        # The mode now and the mode after the next reset.
        mode = _ask("the MIG mode", of, pynvml.nvmlDeviceGetMigMode, board, none_for=_UNKNOWN)
        if mode is None or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
            yield self._device(of, board, driver, None)
            return
        parent = _text(_ask("the UUID", of, pynvml.nvmlDeviceGetUUID, board))
        for place in range(int(_ask("the number of MIG instances", of, pynvml.nvmlDeviceGetMaxMigDeviceCount, board))):
            instance = f"MIG instance {place} of {of}"
            handle = _ask(
                "the handle", instance, pynvml.nvmlDeviceGetMigDeviceHandleByIndex, board, place, none_for=_NO_INSTANCE
            )
            if handle is not None:
                yield self._device(instance, handle, driver, parent)

    def _device(self, of: str, handle: Any, driver: str, parent: str | None) -> GpuDevice:
        uuid = _text(_ask("the UUID", of, pynvml.nvmlDeviceGetUUID, handle))
        name = _text(_ask("the name", uuid, pynvml.nvmlDeviceGetName, handle))
        self._handles[uuid] = handle
        return GpuDevice(uuid, name, _memory(uuid, handle).total_bytes, driver, parent)


@dataclass(frozen=True, slots=True)
class _Memory:
    """A device's memory in bytes; `reserved_bytes` None where `used_bytes` holds the driver's reserve too."""

    total_bytes: int
    used_bytes: int
    reserved_bytes: int | None


def _memory(uuid: str, handle: Any) -> _Memory:
    # Version 1 counts the driver's reserve as used: hundreds of MiB before any process has a context.
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
        return _Memory(int(memory.total), int(memory.used), int(memory.reserved))
    except _NO_VERSION_2:
        memory = _ask("the memory", uuid, pynvml.nvmlDeviceGetMemoryInfo, handle)
        return _Memory(int(memory.total), int(memory.used), None)
    except _ERRORS as error:
        raise _failed("the memory", uuid, error) from error


def _process(entry: Any) -> GpuProcess:
    return GpuProcess(int(entry.pid), None if entry.usedGpuMemory is None else int(entry.usedGpuMemory))


def _ask(
    question: str,
    of: str,
    function: Callable[..., Any],
    *arguments: Any,
    none_for: tuple[type[Exception], ...] = (),
) -> Any:
    """What an NVML function answers; None for the errors of `none_for`. Raises GpuError for every other."""
    try:
        return function(*arguments)
    except none_for:
        return None
    except _ERRORS as error:
        raise _failed(question, of, error) from error


def _failed(question: str, of: str, error: Exception) -> GpuError:
    return GpuError(f"NVML, asked for {question} of {of}, answers: {' '.join(str(error).split())}")


def _text(value: str | bytes) -> str:
    # Which of the two depends on the version of nvidia-ml-py.
    return value.decode() if isinstance(value, bytes) else value


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000.0


def open_gpus() -> Nvml | None:
    """The GPUs of this machine, or None where there are none."""
    try:
        gpus = Nvml()
        return gpus if gpus.devices() else None
    except GpuError:
        return None
