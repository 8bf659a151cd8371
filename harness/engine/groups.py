"""Linear layers that have one input, and the adapters beside them, as one operation of the training pass.

PEFT computes `base(x) + lora_B(lora_A(x)) * scaling` layer by layer and operation by operation, each with its own
casts, copies and kept tensors. Here the matrices A of all layers of a group are one product; each low-rank product is
added into its base's output, and on the way back the gradients of the common input into one tensor. What is kept is
the input, once, and the products with A. Position angles and the activation that follow a layer are applied where its
output lies anyway.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from harness.engine.kernels import Plain
from harness.engine.sharing import SharedInput, int8_product, shares

# Frozen weights (outputs, inputs) of a layer in a dtype: as they are, or unpacked.
Unpack = Callable[[torch.dtype], torch.Tensor]
Scaling = float | torch.Tensor
# Cosines and sines (1 or batch, tokens, half the turning part of a head).
Angles = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Adapted:
    """An adapter: A (rank, inputs), B (outputs, rank), its dropout if it has any, and alpha / rank: a number, or where
    captured steps find it, so that it can change without capturing them again."""

    down: nn.Parameter
    up: nn.Parameter
    dropout: nn.Module | None
    scaling: Scaling


@dataclass(frozen=True, slots=True)
class Layer:
    """A frozen linear layer, its own way forward, how its weights are had for the gradient of its input, and the
    adapter beside it, if any."""

    base: nn.Module
    plain: Callable[[torch.Tensor], torch.Tensor]
    unpack: Unpack
    shared: SharedInput
    adapter: Adapted | None = None
    # 4-bit layers whose weights a kernel unpacks multiply as bitsandbytes does above 1,536 rows, with any number.
    multiplies_unpacked: bool = False

    @property
    def drops(self) -> bool:
        """Whether the adapter's input has dropout."""
        return self.adapter is not None and self.adapter.dropout is not None

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """The frozen layer's own output."""
        if shares(self.base, x):
            return int8_product(self.base, x, self.shared, fixed=torch.cuda.is_current_stream_capturing())
        if self.multiplies_unpacked:
            base: Any = self.base
            return nn.functional.linear(x, self.unpack(x.dtype), base.bias)
        return self.plain(x)


@dataclass(frozen=True, slots=True)
class Group:
    """Layers with one input. The outputs of the first `turning` are heads of `head_size`, turned by the angles of their
    positions; `activates`: tanh-GELU of the last one's output is an output as well."""

    layers: tuple[Layer, ...]
    operations: Plain
    turning: int = 0
    head_size: int = 0
    activates: bool = False
    casts: "Casts" = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "casts", Casts([layer.adapter for layer in self.layers if layer.adapter is not None]))

    def __call__(
        self, x: torch.Tensor, angles: Angles | None = None, activated: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Outputs (…, outputs) of each layer for x (…, inputs).

        Args:
            angles: of each token, where layers turn.
            activated: where the layers multiply tanh-GELU of x, that.
        """
        dropped = None
        if any(layer.drops for layer in self.layers):
            (layer,) = self.layers
            if layer.adapter is not None and layer.adapter.dropout is not None:
                dropped = layer.adapter.dropout(x)
        function: Any = _Products
        outputs: tuple[torch.Tensor, ...] = function.apply(self, angles, x, dropped, activated, *self.casts.parameters)
        return outputs


class Together:
    """Layers with one input as one group; as a group each where dropout, which has a stream of its own in each, or
    scalings that differ keep them apart."""

    def __init__(
        self,
        layers: Sequence[Layer],
        operations: Plain,
        *,
        turning: int = 0,
        head_size: int = 0,
        activates: bool = False,
    ) -> None:
        # A tensor is the same as another only where it is that.
        scalings = {layer.adapter.scaling for layer in layers if layer.adapter is not None}
        if len(scalings) <= 1 and not any(layer.drops for layer in layers):
            self.groups = [Group(tuple(layers), operations, turning, head_size, activates)]
        else:
            last = len(layers) - 1
            self.groups = [
                Group((layer,), operations, int(number < turning), head_size, activates and number == last)
                for number, layer in enumerate(layers)
            ]

    def __call__(
        self, x: torch.Tensor, angles: Angles | None = None, activated: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Outputs of each layer, as `Group` has them."""
        return [output for group in self.groups for output in group(x, angles, activated)]


class Casts:
    """The matrices of a group's adapters in the dtype they are multiplied in, with all A in one matrix.

    They are cast once a pass, all of a model in one kernel: `Recast` does it.
    """

    def __init__(self, adapters: Sequence[Adapted]) -> None:
        self.adapters = tuple(adapters)
        self.parameters = [matrix for adapter in adapters for matrix in (adapter.down, adapter.up)]
        self.ranks = [adapter.down.shape[0] for adapter in adapters]
        self.scaling: Scaling = adapters[0].scaling if adapters else 1.0
        self._down: torch.Tensor | None = None
        self._ups: list[torch.Tensor] = []

    @property
    def down(self) -> torch.Tensor:
        """All A, one above the other (sum of ranks, inputs)."""
        if self._down is None:
            raise RuntimeError("the adapter's matrices are cast at the beginning of a pass")
        return self._down

    @property
    def ups(self) -> list[torch.Tensor]:
        """Each B (outputs, rank)."""
        return self._ups

    def lay_out_gradients(self) -> None:
        """Moves the gradients of all A, which are there, to lie one above the other: they are one product, and are
        added to as one."""
        downs = [adapter.down for adapter in self.adapters]
        held = [down.grad for down in downs if down.grad is not None]
        if len(held) > 1:
            for down, part in zip(downs, torch.cat(held).split(self.ranks), strict=True):
                down.grad = part

    def laid_out(self) -> torch.Tensor | None:
        """The gradients of all A as one (sum of ranks, inputs); None where they do not lie so."""
        held = [adapter.down.grad for adapter in self.adapters]
        first, at = held[0], 0
        for gradient in held:
            if first is None or gradient is None or not gradient.is_contiguous():
                return None
            same = gradient.untyped_storage()._cdata == first.untyped_storage()._cdata
            if not same or gradient.storage_offset() != first.storage_offset() + at:
                return None
            at += gradient.numel()
        return None if first is None else first.as_strided((sum(self.ranks), first.shape[1]), (first.shape[1], 1))

    def pairs(self, dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Where each matrix is copied to, and the matrix; none where it serves as it is."""
        first = self.adapters[0].down
        alone = len(self.adapters) == 1 and first.dtype == dtype
        if self._down is None or self._down.dtype != dtype:
            shape = (sum(self.ranks), first.shape[1])
            self._down = first.data if alone else first.new_empty(shape, dtype=dtype)
            self._ups = [
                one.up.data if one.up.dtype == dtype else torch.empty_like(one.up, dtype=dtype) for one in self.adapters
            ]
        downs = (
            [] if alone else zip(self._down.split(self.ranks), (one.down.data for one in self.adapters), strict=True)
        )
        ups = ((cast, one.up.data) for cast, one in zip(self._ups, self.adapters, strict=True))
        return [*downs, *((cast, matrix) for cast, matrix in ups if cast.dtype != matrix.dtype)]


class Recast:
    """Casts the adapters of all groups, called as a hook before the forward pass of the embedding, which begins one."""

    def __init__(self, groups: Sequence[Group], dtype: torch.dtype) -> None:
        self._casts = [group.casts for group in groups if group.casts.adapters]
        self._dtype = dtype

    @torch.no_grad()
    def __call__(self, *_: Any) -> None:
        pairs = [pair for casts in self._casts for pair in casts.pairs(self._dtype)]
        if pairs:
            torch._foreach_copy_([cast for cast, _ in pairs], [matrix for _, matrix in pairs])


class _Products(torch.autograd.Function):
    """y_i = base_i(x) + scaling_i · (x A_iᵀ) B_iᵀ for each layer of a group; the bases are frozen.

    `dropped` is x behind the adapter's dropout, None without one. Gradients of A and B have the dtype of A and B. A
    gradient that has its place already (a captured step's, a second micro-batch's) is added to where it lies, in fp32
    for fp32 adapters; one that has none is handed to autograd.
    """

    @staticmethod
    def forward(
        ctx: Any,
        group: Group,
        angles: Angles | None,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        activated: torch.Tensor | None,
        *_parameters: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        # Gradients are off in here: bitsandbytes keeps nothing of its own, and LLM.int8 not the input.
        multiplied = x if activated is None else activated
        source = (multiplied if dropped is None else dropped).reshape(-1, x.shape[-1])
        casts, operations = group.casts, group.operations
        middle, factor = (None, 1.0) if not casts.adapters else _scaled(source @ casts.down.T, casts.scaling)
        middles = iter(() if middle is None else middle.split(casts.ranks, dim=1))
        ups = iter(casts.ups)
        outputs: list[torch.Tensor] = []
        for number, layer in enumerate(group.layers):
            output = layer.product(multiplied)
            flat = output.view(-1, output.shape[-1])
            last = number == len(group.layers) - 1
            low = None
            if layer.adapter is not None:
                low = (next(middles), next(ups).T, factor)
            outputs.append(output)
            if group.activates and last:
                after = operations.add_and_activate_(flat, low)
                outputs.append(after.view(output.shape))
                ctx.mark_non_differentiable(outputs[-1])
            elif low is not None:
                operations.add_low_rank_(flat, *low)
            if number < group.turning and angles is not None:
                operations.turn_(_heads(output, group), *angles)
        kept = () if middle is None else (source, middle, casts.down, *casts.ups)
        ctx.save_for_backward(x if activated is not None else None, *(angles or (None, None)), *kept)
        ctx.group, ctx.shape, ctx.is_dropped = group, x.shape, dropped is not None
        # What is activated has no gradient, and would be given zeros as large as itself.
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        group: Group = ctx.group
        before, cosines, sines, *kept = ctx.saved_tensors
        operations, adapters = group.operations, group.casts.adapters
        flat = _unturned(group, gradients, None if cosines is None else (cosines, sines))
        learned: list[torch.Tensor | None] = []
        low = for_middle = None
        if adapters:
            source, middle, down, *ups = kept
            adapted = [
                gradient for gradient, layer in zip(flat, group.layers, strict=True) if layer.adapter is not None
            ]
            for_middle = torch.empty_like(middle)
            for part, gradient, up in zip(for_middle.split(group.casts.ranks, dim=1), adapted, ups, strict=True):
                torch.mm(gradient, up, out=part)
            for_middle, factor = _scaled(for_middle, group.casts.scaling)
            for_downs = _learned_downs(group.casts, for_middle.T, source, factor)
            parts = middle.split(group.casts.ranks, dim=1)
            for_ups = [
                _learned(adapter.up, gradient.T, part, factor)
                for adapter, gradient, part in zip(adapters, adapted, parts, strict=True)
            ]
            learned = [one for pair in zip(for_downs, for_ups, strict=True) for one in pair]
            low = (for_middle, down, factor)
        for_x = _for_input(group, flat) if ctx.needs_input_grad[2] else None
        for_dropped = None
        if ctx.is_dropped:
            if low is not None and ctx.needs_input_grad[3]:
                for_dropped = (low[0] @ low[1]).mul_(low[2]).view(ctx.shape)
            low = None
        if for_x is not None:
            if before is not None:
                for_x = operations.add_and_deactivate(for_x, low, before.view(for_x.shape))
            elif low is not None:
                operations.add_low_rank_(for_x, *low)
            for_x = for_x.view(ctx.shape)
        return None, None, for_x, for_dropped, None, *learned


def _unturned(group: Group, gradients: Sequence[torch.Tensor], angles: Angles | None) -> list[torch.Tensor]:
    """The gradients (rows, outputs) of what each layer computed, from those of what was made of it."""
    flat = []
    for number, (gradient, _) in enumerate(zip(gradients, group.layers, strict=False)):
        own = gradient
        if number < group.turning and angles is not None:
            own = group.operations.turned_back(_heads(gradient, group), *angles)
        flat.append(own.reshape(-1, gradient.shape[-1]))
    return flat


def _scaled(product: torch.Tensor, scaling: Scaling) -> tuple[torch.Tensor, float]:
    """A product (rows, ranks) and what is still to be multiplied with what is made of it: a number can wait, and costs
    nothing there."""
    return (product, scaling) if isinstance(scaling, float) else (product.mul_(scaling), 1.0)


def _heads(tensor: torch.Tensor, group: Group) -> torch.Tensor:
    return tensor.view(*tensor.shape[:-1], -1, group.head_size)


def _for_input(group: Group, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """The gradient of the common input through the frozen weights, added up where the products are made."""
    total: torch.Tensor | None = None
    for layer, gradient in zip(group.layers, gradients, strict=True):
        weights = layer.unpack(gradient.dtype)
        total = gradient @ weights if total is None else total.addmm_(gradient, weights)
        del weights
    if total is None:
        raise ValueError("a group has at least one layer")
    return total


def _learned(parameter: nn.Parameter, left: torch.Tensor, right: torch.Tensor, scaling: float) -> torch.Tensor | None:
    """scaling · left @ right as the gradient of a parameter; None where it was added to the one that is there."""
    if parameter.grad is None:
        return (left @ right).to(parameter.dtype).mul_(scaling)
    _add_product(parameter.grad, left, right, scaling)
    return None


def _learned_downs(
    casts: Casts, left: torch.Tensor, right: torch.Tensor, scaling: float
) -> Sequence[torch.Tensor | None]:
    """The same for all A of a group, which are one product."""
    if (together := casts.laid_out()) is not None:
        _add_product(together, left, right, scaling)
        return [None] * len(casts.ranks)
    product = (left @ right).to(casts.parameters[0].dtype)
    learned: list[torch.Tensor | None] = []
    for adapter, part in zip(casts.adapters, product.split(casts.ranks), strict=True):
        if adapter.down.grad is None:
            # In memory of its own: autograd keeps what it is given.
            learned.append(part.mul(scaling))
        else:
            adapter.down.grad.add_(part, alpha=scaling)
            learned.append(None)
    return learned


def _add_product(held: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scaling: float) -> None:
    """Adds scaling · left @ right where the sum lies, in its dtype."""
    if held.dtype == left.dtype:
        held.addmm_(left, right, alpha=scaling)
    elif held.is_cuda:
        torch.addmm(held, left, right, out_dtype=held.dtype, alpha=scaling, out=held)
    else:
        held.add_((left @ right).to(held.dtype), alpha=scaling)


class Sum(torch.autograd.Function):
    """The sum of three tensors of one shape, rounded once where a kernel makes it."""

    @staticmethod
    def forward(
        ctx: Any, operations: Plain, first: torch.Tensor, second: torch.Tensor, third: torch.Tensor
    ) -> torch.Tensor:
        return operations.sum_of_three(first, second, third)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        return None, gradient, gradient, gradient


def unpacking(base: Any, operations: Plain) -> Unpack:
    """How the frozen weights of a layer are had for its gradient: exactly as bitsandbytes has them on the way back."""
    if hasattr(base, "unpacked"):
        return base.unpacked  # type: ignore[no-any-return]
    if hasattr(base.weight, "quant_state"):

        def from_4bit(dtype: torch.dtype) -> torch.Tensor:
            return operations.unpacked(base.weight, base.weight.quant_state, dtype)

        return from_4bit
    if hasattr(base, "state"):

        def from_8bit(dtype: torch.dtype) -> torch.Tensor:
            scales = base.state.SCB.unsqueeze(1).mul(1.0 / 127.0)
            unpacked: torch.Tensor = base.state.CB.to(dtype, copy=True).mul_(scales)
            return unpacked

        return from_8bit
    return base.weight.to  # type: ignore[no-any-return]
