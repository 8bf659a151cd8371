"""From options to a study under way."""

from dataclasses import replace

import pytest

from harness.gpu import GpuDevice
from harness.start import Refused, _seats
from tests.contract.fake_gpu import DEVICE, FakeGpus

OTHER = replace(DEVICE, uuid="GPU-22222222-2222-3333-4444-555555555555")


class Two(FakeGpus):
    """Two GPUs."""

    def devices(self) -> tuple[GpuDevice, ...]:
        return (DEVICE, OTHER)


@pytest.fixture(autouse=True)
def _all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_one_run_at_a_time_is_pinned_to_nothing() -> None:
    assert _seats(1, "cuda", Two()) == (None,)
    assert _seats(1, "cpu", None) == (None,)


def test_runs_at_a_time_have_a_gpu_each() -> None:
    assert _seats(2, "cuda", Two()) == (DEVICE.uuid, OTHER.uuid)
    assert _seats(None, "cuda", Two()) == (DEVICE.uuid, OTHER.uuid)


def test_all_gpus_are_those_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert _seats(None, "cuda", Two()) == (None,)
    assert _seats(None, "cpu", Two()) == (None,)


def test_more_runs_than_gpus_are_refused() -> None:
    with pytest.raises(Refused, match="--gpus 3: 2 in sight"):
        _seats(3, "cuda", Two())
    with pytest.raises(Refused, match="on the CPU"):
        _seats(2, "cpu", Two())
