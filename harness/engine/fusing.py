"""The training pass of an adapted model in fused form: the same arithmetic in fewer kernels, keeping less.

Only training takes this path: evaluation, also that of a model without an adapter, is computed as PEFT and transformers
have it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import peft
import torch
from torch import nn

from harness.engine.blocks import WRITTEN_OUT, known_block
from harness.engine.groups import Adapted, Group, Layer, Recast, unpacking
from harness.engine.kernels import Kernels, Plain
from harness.engine.sharing import SharedInput


def unfusable(model: Any, *, on: bool) -> str | None:
    """Why the adapted layers of `model` cannot be fused; None where they can.

    DoRA rescales whole columns of the sum, which this form does not know: its layers stay as they are.
    """
    return next(filter(None, map(_unfusable, _adapted(model))), None) if on else "switched off"


class Fused:
    """The fused form of a model. It is made once for an adapter: captured graphs read the casts that it keeps."""

    def __init__(
        self,
        model: Any,
        *,
        inputs: SharedInput | None = None,
        operations: Plain | None = None,
        scaling: torch.Tensor | None = None,
        unpacked: Mapping[int, torch.Tensor] | None = None,
    ) -> None:
        """Makes it; nothing is computed in it before it is `applied`.

        Args:
            inputs: where products of LLM.int8 share what they quantise.
            operations: what it is computed with, plain PyTorch where nothing is given.
            scaling: alpha / rank of all adapters, instead of their own.
            unpacked: 4-bit weights that need not be unpacked in each pass, by the id of their layer.
        """
        self._model = model
        self._unpacked = unpacked or {}
        self._scaling = scaling
        self._operations = operations or Plain()
        self._shared = inputs or SharedInput()
        self._replaced = [
            (parent, name, child)
            for parent in model.modules()
            for name, child in parent.named_children()
            if isinstance(child, WRITTEN_OUT)
        ]
        self._forwards: list[tuple[Any, Callable[..., Any]]] = []
        layers = {id(module): module for module in _adapted(model)}
        inside = {id(module.get_base_layer()) for module in layers.values()}
        groups: list[Group] = []
        grouped: set[int] = set()
        for block in model.modules():
            members = {id(module) for module in block.modules()}
            if grouped & members or not members & layers.keys():
                continue
            if (known := known_block(block, self._layer, self._operations)) is not None:
                self._forwards.append((block, known[0]))
                groups += known[1]
                grouped |= members
        for module in model.modules():
            alone = id(module) in layers or (_is_int8(module) and id(module) not in inside)
            if alone and id(module) not in grouped:
                group = Group((self._layer(module),), self._operations)
                self._forwards.append((module, partial(_only, group)))
                groups.append(group)
        self._groups = groups
        self._recast = Recast(groups, model.get_input_embeddings().weight.dtype)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model computes in this form in the block."""
        hook = self._model.get_input_embeddings().register_forward_pre_hook(self._recast)
        for module, forward in self._forwards:
            module.forward = forward
        for parent, name, _ in self._replaced:
            setattr(parent, name, nn.GELU(approximate="tanh"))
        try:
            yield
        finally:
            hook.remove()
            for module, _ in self._forwards:
                del module.forward
            for parent, name, child in self._replaced:
                setattr(parent, name, child)

    def lay_out_gradients(self) -> None:
        """Puts gradients that have their place where they are added to as one: before anything is counted or captured,
        for they move."""
        for group in self._groups:
            group.casts.lay_out_gradients()

    def _layer(self, module: Any) -> Layer:
        adapted = isinstance(module, peft.tuners.lora.LoraLayer)
        base: Any = module.get_base_layer() if adapted else module
        kept = self._unpacked.get(id(base))
        by_kernel = isinstance(self._operations, Kernels) and hasattr(base.weight, "quant_state")
        return Layer(
            base,
            base.forward,
            unpacking(base, self._operations) if kept is None else kept.to,
            self._shared,
            self._adapter(module) if adapted else None,
            multiplies_unpacked=by_kernel or kept is not None,
        )

    def _adapter(self, layer: Any) -> Adapted:
        name = layer.active_adapters[0]
        dropout = layer.lora_dropout[name]
        drops = not isinstance(dropout, nn.Identity)
        scaling = float(layer.scaling[name]) if self._scaling is None else self._scaling
        return Adapted(layer.lora_A[name].weight, layer.lora_B[name].weight, dropout if drops else None, scaling)


def _only(group: Group, x: torch.Tensor) -> torch.Tensor:
    (result,) = group(x)
    return result


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
