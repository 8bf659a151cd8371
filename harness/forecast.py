"""What can be said of an arm before it runs: arithmetic over a ModelShape."""

from dataclasses import dataclass

from study.arms import Arm, Precision
from study.models import ModelShape

# bitsandbytes keeps one fp32 absmax a block of 64 weights; double quantisation keeps it in 8 bits, with one fp32 a
# block of 256 of those (Dettmers et al. 2023, section 3).
_BLOCK, _DOUBLE_BLOCK = 64, 256
_BYTES = {Precision.FP32: 4.0, Precision.FP16: 2.0, Precision.BF16: 2.0, Precision.INT8: 1.0}


@dataclass(frozen=True, slots=True)
class ArmForecast:
    """Weights of the base in bytes, and parameters of the adapter at a rank."""

    weight_bytes: int
    trainable: int
    total: int


def forecast_arm(arm: Arm, shape: ModelShape, rank: int) -> ArmForecast:
    """Weights and adapter parameters of an arm on a model of known shape.

    Quantisation packs the linear layers of the decoder; embeddings, norms, biases and head keep the compute dtype.
    """
    packed = shape.linear_parameters if arm.precision.is_quantised else 0
    plain = shape.parameters - packed
    plain_bytes = 4 if arm.compute_dtype == "fp32" else 2
    per_weight = _packed_bytes(arm) if packed else 0.0
    # LLM.int8 keeps one fp32 scale a row of each quantised weight.
    rows = shape.layers * sum(linear.outputs for linear in shape.linears) if arm.precision is Precision.INT8 else 0
    trainable = shape.lora_parameters(arm.targets, rank) if arm.trains else 0
    return ArmForecast(
        weight_bytes=round(plain * plain_bytes + packed * per_weight + 4 * rows),
        trainable=trainable,
        total=shape.parameters + trainable,
    )


def _packed_bytes(arm: Arm) -> float:
    if not arm.precision.is_4bit:
        return _BYTES[arm.precision]
    scales = 4 / _BLOCK
    if arm.double_quant:
        scales = 1 / _BLOCK + 4 / (_BLOCK * _DOUBLE_BLOCK)
    return 0.5 + scales
