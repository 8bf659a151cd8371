"""NVML behind the GpuReader port (nvidia-ml-py, https://docs.nvidia.com/deploy/nvml-api)."""

import pynvml

from harness.gpu import GpuDevice, GpuError, GpuReading


class Nvml:
    """The GPUs of this machine."""

    def __init__(self) -> None:
        """Opens the library.

        Raises:
            GpuError: there is no NVIDIA driver here.
        """
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise GpuError(f"NVML cannot be used: {error}") from error

    def devices(self) -> tuple[GpuDevice, ...]:
        try:
            driver = str(pynvml.nvmlSystemGetDriverVersion())
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            return tuple(
                GpuDevice(
                    uuid=str(pynvml.nvmlDeviceGetUUID(handle)),
                    name=str(pynvml.nvmlDeviceGetName(handle)),
                    total_bytes=int(_memory(handle).total),
                    driver=driver,
                )
                for handle in handles
            )
        except pynvml.NVMLError as error:
            raise GpuError(f"NVML cannot list the GPUs: {error}") from error

    def read(self, uuid: str, pid: int) -> GpuReading:
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            memory = _memory(handle)
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except pynvml.NVMLError as error:
            raise GpuError(f"NVML cannot read {uuid}: {error}") from error
        # In a container the process id may be the host's, and usedGpuMemory may be None: then the figure is unknown.
        ours = [process.usedGpuMemory for process in processes if process.pid == pid]
        return GpuReading(
            device_bytes=int(memory.used),
            reserved_bytes=int(memory.reserved),
            process_bytes=int(ours[0]) if ours and ours[0] is not None else None,
            others=sum(process.pid != pid for process in processes),
        )

    def energy_j(self, uuid: str) -> float | None:
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000.0
        except pynvml.NVMLError:
            return None


def _memory(handle: object) -> "pynvml.c_nvmlMemory_v2_t":
    # Version 1 counts the driver's reserve as used: hundreds of MiB before any process has a context.
    return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)


def open_gpus() -> Nvml | None:
    """The GPUs of this machine, or None where there are none."""
    try:
        gpus = Nvml()
        return gpus if gpus.devices() else None
    except GpuError:
        return None
