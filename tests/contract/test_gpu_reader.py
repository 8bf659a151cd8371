"""What every GPU reader keeps: the same tests over the fake and over NVML where there is a GPU."""

import os
from collections.abc import Callable

import pytest

from harness.adapters.nvml import open_gpus
from harness.gpu import GpuError, GpuReader, Sampler
from tests.contract.fake_gpu import FakeGpus


def fake() -> GpuReader:
    return FakeGpus()


def real() -> GpuReader:
    gpus = open_gpus()
    assert gpus is not None
    return gpus


READERS = [fake, pytest.param(real, marks=pytest.mark.gpu)]


@pytest.mark.parametrize("make", READERS)
def test_every_device_has_a_name_a_uuid_and_memory(make: Callable[[], GpuReader]) -> None:
    devices = make().devices()
    assert devices
    for device in devices:
        assert device.uuid.startswith("GPU-")
        assert device.name
        assert device.driver
        assert device.total_bytes > 1024**3


@pytest.mark.parametrize("make", READERS)
def test_memory_in_use_is_part_of_the_whole_and_without_the_driver_s_reserve(make: Callable[[], GpuReader]) -> None:
    reader = make()
    device = reader.devices()[0]
    reading = reader.read(device.uuid, os.getpid())
    assert 0 <= reading.device_bytes <= device.total_bytes
    assert reading.reserved_bytes is not None
    assert reading.device_bytes + reading.reserved_bytes <= device.total_bytes
    assert reading.process_bytes is None or reading.process_bytes <= reading.device_bytes


@pytest.mark.parametrize("make", READERS)
def test_a_device_that_is_not_there_is_an_error_of_the_house(make: Callable[[], GpuReader]) -> None:
    with pytest.raises(GpuError, match="GPU-00000000"):
        make().read("GPU-00000000-0000-0000-0000-000000000000", 1)


@pytest.mark.parametrize("make", READERS)
def test_energy_never_falls(make: Callable[[], GpuReader]) -> None:
    reader = make()
    uuid = reader.devices()[0].uuid
    first, second = reader.energy_j(uuid), reader.energy_j(uuid)
    assert first is None or (second is not None and second >= first)


@pytest.mark.parametrize("make", READERS)
def test_the_sampler_keeps_the_peak_of_a_phase(make: Callable[[], GpuReader]) -> None:
    reader = make()
    device = reader.devices()[0]
    sampler = Sampler(reader, device.uuid, os.getpid(), baseline_bytes=0)
    try:
        peak = sampler.peak()
    finally:
        sampler.close()
    assert peak.samples >= 1
    assert peak.device_bytes is not None
    assert 0 <= peak.device_bytes <= device.total_bytes


def test_a_reading_that_fails_is_a_missing_sample_and_never_zero() -> None:
    sampler = Sampler(FakeGpus(), "GPU-unknown", 1, baseline_bytes=0)
    try:
        peak = sampler.peak()
    finally:
        sampler.close()
    assert (peak.samples, peak.device_bytes, peak.process_bytes) == (0, None, None)


def test_the_peak_is_counted_above_the_baseline_and_starts_anew_with_each_phase() -> None:
    gpus = FakeGpus()
    uuid = gpus.devices()[0].uuid
    gpus.use(5_000_000_000)
    sampler = Sampler(gpus, uuid, os.getpid(), baseline_bytes=1_000_000_000)
    try:
        assert sampler.peak().device_bytes == 4_000_000_000
        gpus.use(2_000_000_000)
        assert sampler.peak().device_bytes == 4_000_000_000
        sampler.reset()
        assert sampler.peak().device_bytes == 1_000_000_000
    finally:
        sampler.close()
