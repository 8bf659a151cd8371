"""Arithmetic over shapes, against figures that were measured."""

import pytest

from harness.engine.trying import probe_arm
from harness.forecast import forecast_arm
from study.arms import Precision
from study.models import KNOWN_SHAPES

PHI_2 = KNOWN_SHAPES["microsoft/phi-2"]
MIB = 1024**2


@pytest.mark.parametrize(
    ("precision", "measured_mib"),
    # Allocated after loading, as this project's own loading code measured it on an H100 (tests/grids/phi2_shape.yaml).
    [(Precision.BF16, 5302), (Precision.INT8, 2982 - 73), (Precision.NF4, 1781)],
)
def test_weights_of_phi_2_are_forecast_within_three_percent(precision: Precision, measured_mib: int) -> None:
    forecast = forecast_arm(probe_arm(precision), PHI_2, rank=16)
    assert forecast.weight_bytes / MIB == pytest.approx(measured_mib, rel=0.03)


def test_trainable_parameters_are_lora_s() -> None:
    assert forecast_arm(probe_arm(Precision.BF16), PHI_2, rank=16).trainable == 1_474_560 * 16
