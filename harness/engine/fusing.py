"""The training pass of an adapted layer as one operation: the same arithmetic in fewer kernels, keeping less.

PEFT computes `base(x) + lora_B(lora_A(x)) * scaling` operation by operation, each with its own casts, copies and kept
tensors. Here the low-rank product is added into the base's output in place, and its gradient into the base's; what is
kept for the way back is the layer's input, once, and the product with A. Only training takes this path: evaluation,
also that of a model without an adapter, is computed as PEFT and transformers have it.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import peft
import torch
from torch import nn
from transformers import activations

from harness.engine.rotary import fused_attention
from harness.engine.sharing import SharedInput, int8_product, shares

# These compute 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) operation by operation (transformers/activations.py).
_WRITTEN_OUT = (activations.NewGELUActivation, activations.FastGELUActivation)
# Frozen weights (outputs, inputs) of a layer in a dtype: as they are, or unpacked.
Unpack = Callable[[torch.dtype], torch.Tensor]


def unfusable(model: Any, *, on: bool) -> str | None:
    """Why the adapted layers of `model` cannot be fused; None where they can.

    DoRA rescales whole columns of the sum, which this form does not know: its layers stay as they are.
    """
    return next(filter(None, map(_unfusable, _adapted(model))), None) if on else "switched off"


@contextmanager
def fused(model: Any, *, on: bool, inputs: SharedInput | None = None) -> Iterator[str | None]:
    """Adapted layers, rotary attention and tanh-GELU of `model` in fused form for the block; yields why not, if not.

    Layers of LLM.int8 without an adapter keep their inputs no longer either, and share them through `inputs`.
    """
    layers = _adapted(model)
    reason = unfusable(model, on=on)
    if reason is not None:
        yield reason
        return
    replaced = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, _WRITTEN_OUT)
    ]
    shared = inputs or SharedInput()
    inside = {id(layer.get_base_layer()) for layer in layers}
    frozen: list[Any] = [module for module in model.modules() if _is_int8(module) and id(module) not in inside]
    for layer in layers:
        layer.forward = partial(_forward, _side(layer, shared))
    for layer in frozen:
        layer.forward = partial(_frozen_forward, _Frozen(layer, layer.forward, _unpacking(layer), shared))
    for parent, name, _ in replaced:
        setattr(parent, name, nn.GELU(approximate="tanh"))
    attentions: list[Any] = [(module, forward) for module in model.modules() if (forward := fused_attention(module))]
    for module, forward in attentions:
        module.forward = forward
    try:
        yield None
    finally:
        for module in (*layers, *frozen, *(module for module, _ in attentions)):
            del module.forward
        for parent, name, child in replaced:
            setattr(parent, name, child)


def _adapted(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]


def _is_int8(module: Any) -> bool:
    # On the meta device a stand-in says so itself.
    return hasattr(getattr(module, "state", None), "CB") or bool(getattr(module, "int8", False))


def _unfusable(layer: Any) -> str | None:
    if len(layer.active_adapters) != 1 or layer.merged or layer.disable_adapters:
        return "not exactly one adapter is active"
    if layer.lora_variant:
        return "DoRA is no plain sum"
    return None


def _unpacking(base: Any) -> Unpack:
    """How the frozen weights of a layer are had for its gradient: exactly as bitsandbytes has them on the way back."""
    if hasattr(base, "unpacked"):
        return base.unpacked  # type: ignore[no-any-return]
    if hasattr(base.weight, "quant_state"):
        functional: Any = importlib.import_module("bitsandbytes.functional")

        def from_4bit(dtype: torch.dtype) -> torch.Tensor:
            unpacked: torch.Tensor = functional.dequantize_4bit(base.weight.view(-1, 1), base.weight.quant_state)
            return unpacked.to(dtype)

        return from_4bit
    if hasattr(base, "state"):

        def from_8bit(dtype: torch.dtype) -> torch.Tensor:
            scales = base.state.SCB.unsqueeze(1).mul(1.0 / 127.0)
            unpacked: torch.Tensor = base.state.CB.to(dtype, copy=True).mul_(scales)
            return unpacked

        return from_8bit
    return base.weight.to  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class _Frozen:
    """A frozen layer, its own way forward, and how its weights are had for the gradient of its input."""

    base: nn.Module
    plain: Callable[[torch.Tensor], torch.Tensor]
    unpack: Unpack
    shared: SharedInput

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's own output."""
        if shares(self.base, x):
            return int8_product(self.base, x, self.shared, fixed=torch.cuda.is_current_stream_capturing())
        return self.plain(x)


@dataclass(frozen=True, slots=True)
class _Side(_Frozen):
    """An adapter beside its frozen layer."""

    down: nn.Parameter
    up: nn.Parameter
    dropout: nn.Module
    scaling: float


def _side(layer: Any, shared: SharedInput) -> _Side:
    name, base = layer.active_adapters[0], layer.get_base_layer()
    return _Side(
        base,
        base,
        _unpacking(base),
        shared,
        layer.lora_A[name].weight,
        layer.lora_B[name].weight,
        layer.lora_dropout[name],
        layer.scaling[name],
    )


def _forward(side: _Side, x: torch.Tensor) -> torch.Tensor:
    dropped = None if isinstance(side.dropout, nn.Identity) else side.dropout(x)
    function: Any = _AdaptedLinear
    result: torch.Tensor = function.apply(x, dropped, side.down, side.up, side)
    return result


def _frozen_forward(layer: _Frozen, x: torch.Tensor) -> torch.Tensor:
    function: Any = _FrozenLinear
    result: torch.Tensor = function.apply(x, layer)
    return result


class _FrozenLinear(torch.autograd.Function):
    """y = base(x) of a frozen layer that nothing is learned beside: nothing is kept for the way back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: _Frozen) -> torch.Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        return gradient @ ctx.layer.unpack(gradient.dtype), None


class _AdaptedLinear(torch.autograd.Function):
    """y = base(x) + scaling · (x Aᵀ) Bᵀ for x (…, inputs), A (rank, inputs), B (outputs, rank); the base is frozen.

    `dropped` is x behind the adapter's dropout, None without one. A and B are cast to the dtype of x, as
    `AdapterLinear` does, and their gradients back.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        side: _Side,
    ) -> torch.Tensor:
        # Gradients are off in here: bitsandbytes keeps nothing of its own, and LLM.int8 not the input.
        output = side.product(x)
        source = (x if dropped is None else dropped).reshape(-1, x.shape[-1])
        # In the dtype of x, as they are needed again on the way back.
        down, up = down.to(x.dtype), (up * side.scaling).to(x.dtype)
        middle = source @ down.T
        output.view(-1, output.shape[-1]).addmm_(middle, up.T)
        ctx.save_for_backward(source, middle, down, up)
        ctx.side, ctx.shape, ctx.is_dropped = side, x.shape, dropped is not None
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        source, middle, down, up = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1])
        dtype = gradient.dtype
        for_middle = gradient @ up
        for_up = (gradient.T @ middle).to(ctx.side.up.dtype).mul_(ctx.side.scaling)
        for_down = (for_middle.T @ source).to(ctx.side.down.dtype)
        for_x = gradient @ ctx.side.unpack(dtype) if ctx.needs_input_grad[0] else None
        for_dropped = None
        if ctx.is_dropped:
            for_dropped = (for_middle @ down).view(ctx.shape) if ctx.needs_input_grad[1] else None
        elif for_x is not None:
            for_x.addmm_(for_middle, down)
        return None if for_x is None else for_x.view(ctx.shape), for_dropped, for_down, for_up, None
