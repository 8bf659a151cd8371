"""LLM.int8 products that share what they have in common, the quantised input, and that a CUDA graph can hold.

bitsandbytes quantises the input of every product anew: a cast to fp16, a search for outlier columns that waits for the
GPU, and the rounding itself. Queries, keys, values and, in Phi, the first product of the MLP have the same input, so
that it is done once for all of them here. The numbers are the same: the same operations on the same tensor.

A graph cannot wait for the host to count the outlier columns. While one is captured, a product has room for a fixed
number of them, twice what was seen outside graphs; columns that are none are multiplied by zero. Where more turn up
than there is room for, a flag on the device says so, the step is made again without a graph, and there is twice the
room from then on.
"""

import importlib
import math
import weakref
from dataclasses import dataclass
from typing import Any

import torch

# Outlier columns that a captured product has room for at least; a product with these is hardly slower than without.
LEAST_ROOM = 32


@dataclass(frozen=True, slots=True)
class Quantised:
    """An input (rows, inputs) as int8 with a scale a row, and the columns that are multiplied in 16 bits.

    `real` tells which of `columns` are outliers; None where all of them are.
    """

    rows: torch.Tensor
    scales: torch.Tensor
    columns: torch.Tensor | None
    real: torch.Tensor | None = None


class SharedInput:
    """The last input that was quantised, for as long as it is the input of what follows."""

    def __init__(self) -> None:
        self._of: Any = None
        self._key: tuple[float, bool] | None = None
        self._made: Quantised | None = None
        self._seen: dict[int, int] = {}
        self._spare = 2
        self._excess: torch.Tensor | None = None

    def quantised(self, x: torch.Tensor, state: Any, *, fixed: bool) -> Quantised:
        """x (…, inputs) as the product of the layer with this state needs it; `fixed`: without asking the host."""
        key = (float(state.threshold), fixed)
        if self._made is None or self._of is None or self._of() is not x or self._key != key:
            rows = x.detach().reshape(-1, x.shape[-1]).to(torch.float16)
            made = self._in_fixed_room(rows, state) if fixed else self._as_found(rows, state)
            # Kept no longer than its input: it lies in the memory of the graph that is being captured.
            self._made, self._key, self._of = made, key, weakref.ref(x, self._forget)
            return made
        return self._made

    def prepare(self, device: str) -> None:
        """Makes the flag that captured products write to."""
        self._excess = torch.zeros((), dtype=torch.long, device=device)

    def begin(self) -> None:
        """A step is about to be replayed."""
        if self._excess is not None:
            self._excess.zero_()

    def crowded(self) -> bool:
        """Whether a product of the replayed step met more outlier columns than it had room for; waits for the GPU."""
        return self._excess is not None and int(self._excess) > 0

    def make_room(self) -> None:
        """Products that are captured from here on have twice the room."""
        self._spare *= 2

    def _forget(self, of: Any) -> None:
        if self._of is of:
            self._of = self._made = None

    def _as_found(self, rows: torch.Tensor, state: Any) -> Quantised:
        functional: Any = importlib.import_module("bitsandbytes.functional")
        small, scales, columns = functional.int8_vectorwise_quant(rows, threshold=state.threshold)
        count = 0 if columns is None else columns.numel()
        self._seen[id(state)] = max(self._seen.get(id(state), 0), count)
        return Quantised(small, scales, columns)

    def _in_fixed_room(self, rows: torch.Tensor, state: Any) -> Quantised:
        if self._excess is None:
            raise RuntimeError("prepare() comes before products of a fixed form")
        room = min(rows.shape[-1], self._spare * max(LEAST_ROOM // 2, self._seen.get(id(state), 0)))
        made, found = fixed_form(rows, state.threshold, room)
        torch.maximum(self._excess, found - room, out=self._excess)
        return made


def fixed_form(rows: torch.Tensor, threshold: float, room: int) -> tuple[Quantised, torch.Tensor]:
    """What `int8_vectorwise_quant` (bitsandbytes, backends/cuda/ops.py) makes of rows (rows, inputs) in fp16, with
    `room` columns whatever they hold; and how many outlier columns there are, on the device.

    Outliers count neither for a row's scale nor in its product, and the rest of their column not in its product.
    """
    functional: Any = importlib.import_module("bitsandbytes.functional")
    largest = torch.linalg.vector_norm(rows, ord=math.inf, dim=0)
    outlier = largest >= threshold
    # In ascending order, as the products are summed where outliers are looked for on the host.
    columns = largest.topk(room, sorted=False).indices.sort().values
    small, scales, _ = functional.int8_vectorwise_quant(rows.masked_fill(rows.abs() >= threshold, 0.0), threshold=0.0)
    small.masked_fill_(outlier, 0)
    return Quantised(small, scales, columns, outlier[columns]), outlier.sum()


def shares(base: Any, x: torch.Tensor) -> bool:
    """Whether a layer's product on x is one that can share: LLM.int8 as a GPU computes it, with outliers apart."""
    state = getattr(base, "state", None)
    return state is not None and x.is_cuda and state.threshold > 0.0 and not state.has_fp16_weights


def int8_product(base: Any, x: torch.Tensor, shared: SharedInput, *, fixed: bool = False) -> torch.Tensor:
    """What a `Linear8bitLt` returns for x (…, inputs), without a gradient (bitsandbytes, MatMul8bitLt.forward)."""
    state = base.state
    if base.weight.CB is not None:
        base.init_8bit_state()
    if base.bias is not None and base.bias.dtype != x.dtype:
        base.bias.data = base.bias.data.to(x.dtype)
    made = shared.quantised(x, state, fixed=fixed)
    flat = x.reshape(-1, x.shape[-1])
    operations: Any = torch.ops.bitsandbytes
    if made.real is None:
        scales = made.scales
        output: torch.Tensor = operations.int8_mixed_scaled_mm(
            flat, made.rows, state.CB, scales, state.SCB, made.columns, base.bias
        )[0]
    else:
        weights = operations.int8_vectorwise_dequant(state.CB[:, made.columns].contiguous(), state.SCB).to(x.dtype)
        output = operations.int8_scaled_mm(made.rows, state.CB, made.scales, state.SCB, bias=base.bias, dtype=x.dtype)
        # An infinite value in a column that is no outlier would not be one: it is left out, not multiplied by zero.
        output.addmm_(flat[:, made.columns].masked_fill(~made.real, 0.0), weights.T)
    return output.reshape(*x.shape[:-1], -1)
