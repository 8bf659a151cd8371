"""Arms: the ways to adapt a model that a study compares."""

from dataclasses import dataclass, fields
from enum import StrEnum


class Precision(StrEnum):
    """The number format in which the frozen base weights are kept."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    NF4 = "nf4"
    FP4 = "fp4"

    @property
    def is_4bit(self) -> bool:
        """Whether bitsandbytes' blockwise 4-bit formats are meant (QLoRA, Dettmers et al. 2023)."""
        return self in (Precision.NF4, Precision.FP4)

    @property
    def is_quantised(self) -> bool:
        """Whether the base is quantised at all (LLM.int8 or 4-bit)."""
        return self.is_4bit or self is Precision.INT8


class Dtype(StrEnum):
    """A floating-point format for arithmetic or for the adapters."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


class Method(StrEnum):
    """How the model is adapted; `none` is the zero-shot model."""

    LORA = "lora"
    RSLORA = "rslora"
    DORA = "dora"
    NONE = "none"


TARGET_GROUPS = ("all-linear", "attention", "mlp")

DEFAULT_COMPUTE: dict[Precision, Dtype] = {
    Precision.FP32: Dtype.FP32,
    Precision.FP16: Dtype.FP16,
    Precision.BF16: Dtype.BF16,
    Precision.INT8: Dtype.BF16,
    Precision.NF4: Dtype.BF16,
    Precision.FP4: Dtype.BF16,
}


@dataclass(frozen=True, slots=True)
class Arm:
    """One column of a study: a precision and a method, every choice resolved.

    `targets` is a group of linear layers (`all-linear`, `attention`, `mlp`) or module names; `double_quant` is
    None unless the base is 4-bit. `rank`, `alpha` and `learning_rate` are set where the arm fixes them and None
    where they are tuned. `family` is the name before axes were expanded, `axes` the axis values of this member.
    """

    name: str
    family: str
    axes: tuple[tuple[str, str], ...]
    precision: Precision
    method: Method
    compute_dtype: Dtype
    double_quant: bool | None
    targets: tuple[str, ...]
    dropout: float
    checkpointing: bool
    rank: int | None = None
    alpha: int | None = None
    learning_rate: float | None = None

    @property
    def trains(self) -> bool:
        """False for a zero-shot arm."""
        return self.method is not Method.NONE

    @property
    def base(self) -> tuple[object, ...]:
        """What decides the frozen base that is loaded: arms with equal `base` share their zero-shot model."""
        return (self.precision, self.compute_dtype, self.double_quant)

    def content(self) -> dict[str, object]:
        """Everything that can change numbers, without the names: two arms of equal content are one arm twice."""
        named = {"name", "family", "axes"}
        content = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in named}
        # Adapters are attached in the model's order, whatever the order they were asked for in.
        return content | {"targets": tuple(sorted(self.targets))}
