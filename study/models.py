"""Models: where weights come from, and the shapes that are known without loading anything."""

import re
from dataclasses import dataclass
from typing import Literal

from study.problems import choices

Weights = Literal["pretrained", "random"]
EMBEDDED = "embedded/smollm2-135m-instruct"
RANDOM = ("random/tiny-phi", "random/phi-2")

_HUB_NAME = r"[A-Za-z0-9_](?:[\w.-]{0,94}\w)?"
_HUB_ID = re.compile(rf"(?P<owner>{_HUB_NAME}/)?{_HUB_NAME}", re.ASCII)


def is_hub_id(text: str, *, owner_needed: bool = True) -> bool:
    """Whether `text` is written as the Hugging Face Hub writes an id: owner/name (old datasets have no owner)."""
    match = _HUB_ID.fullmatch(text)
    return match is not None and (match["owner"] is not None or not owner_needed) and ".." not in text


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model: a Hub id, a local folder, `embedded/…` (from a Python package) or `random/…` (made on the spot)."""

    id: str
    revision: str | None
    weights: Weights

    @property
    def source(self) -> Literal["hub", "local", "embedded", "random"]:
        """Where the weights are found."""
        if self.id.startswith("embedded/"):
            return "embedded"
        if self.id.startswith("random/"):
            return "random"
        return "local" if self.id.startswith((".", "/", "~")) else "hub"


@dataclass(frozen=True, slots=True)
class Linear:
    """One kind of linear layer inside a decoder layer: its module name, group and size."""

    name: str
    group: Literal["attention", "mlp"]
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes that memory and parameter counts follow from; `parameters` counts every weight once."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    parameters: int
    linears: tuple[Linear, ...]

    @property
    def linear_parameters(self) -> int:
        """Weights that quantisation packs: those of the linear layers inside the decoder layers."""
        return self.layers * sum(linear.inputs * linear.outputs for linear in self.linears)

    def targeted(self, targets: tuple[str, ...]) -> tuple[Linear, ...]:
        """The linear layers that a group (`all-linear`, `attention`, `mlp`) or a list of names means.

        Raises:
            ValueError: a group or a name that no decoder layer has.
        """
        chosen: list[Linear] = []
        for target in targets:
            found = [linear for linear in self.linears if target in ("all-linear", linear.group, linear.name)]
            if not found:
                raise ValueError(f"no linear layer {target!r}: {choices(linear.name for linear in self.linears)}")
            chosen += (linear for linear in found if linear not in chosen)
        return tuple(chosen)

    def lora_parameters(self, targets: tuple[str, ...], rank: int) -> int:
        """Trainable parameters of LoRA: rank · (inputs + outputs) for each adapted layer (Hu et al. 2021)."""
        return self.layers * rank * sum(linear.inputs + linear.outputs for linear in self.targeted(targets))


def phi_shape(*, vocabulary: int, hidden: int, intermediate: int, layers: int, heads: int) -> ModelShape:
    """The shape of a Phi model: biased linears and LayerNorms, one norm a layer, untied head with bias."""
    attention = tuple(Linear(name, "attention", hidden, hidden) for name in ("q_proj", "k_proj", "v_proj", "dense"))
    mlp = (Linear("fc1", "mlp", hidden, intermediate), Linear("fc2", "mlp", intermediate, hidden))
    linears = (*attention, *mlp)
    per_layer = sum(linear.inputs * linear.outputs + linear.outputs for linear in linears) + 2 * hidden
    parameters = layers * per_layer + 2 * vocabulary * hidden + vocabulary + 2 * hidden
    return ModelShape(vocabulary, hidden, layers, heads, parameters, linears)


def llama_shape(
    *, vocabulary: int, hidden: int, intermediate: int, layers: int, heads: tuple[int, int], tied: bool
) -> ModelShape:
    """The shape of a Llama model; `heads` are query heads and key-value heads."""
    query_heads, key_value_heads = heads
    narrow = hidden // query_heads * key_value_heads
    linears = (
        Linear("q_proj", "attention", hidden, hidden),
        Linear("k_proj", "attention", hidden, narrow),
        Linear("v_proj", "attention", hidden, narrow),
        Linear("o_proj", "attention", hidden, hidden),
        Linear("gate_proj", "mlp", hidden, intermediate),
        Linear("up_proj", "mlp", hidden, intermediate),
        Linear("down_proj", "mlp", intermediate, hidden),
    )
    per_layer = sum(linear.inputs * linear.outputs for linear in linears) + 2 * hidden
    parameters = layers * per_layer + (1 if tied else 2) * vocabulary * hidden + hidden
    return ModelShape(vocabulary, hidden, layers, query_heads, parameters, linears)


_PHI_2 = phi_shape(vocabulary=51200, hidden=2560, intermediate=10240, layers=32, heads=32)

KNOWN_SHAPES: dict[str, ModelShape] = {
    "microsoft/phi-2": _PHI_2,
    "random/phi-2": _PHI_2,
    "random/tiny-phi": phi_shape(vocabulary=512, hidden=64, intermediate=256, layers=2, heads=4),
    EMBEDDED: llama_shape(vocabulary=49152, hidden=576, intermediate=1536, layers=30, heads=(9, 3), tied=True),
}
