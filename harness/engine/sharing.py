"""LLM.int8 products that share what they have in common: the quantised input.

bitsandbytes quantises the input of every product anew: a cast to fp16, a search for outlier columns that waits for the
GPU, and the rounding itself. Queries, keys, values and, in Phi, the first product of the MLP have the same input, so
that it is done once for all of them here. The numbers are the same: the same operations on the same tensor.
"""

import importlib
import weakref
from typing import Any

import torch


class SharedInput:
    """The last input that was quantised, for as long as it is the input of what follows."""

    def __init__(self) -> None:
        self._of: Any = None
        self._threshold = 0.0
        self._made: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] | None = None

    def quantised(self, x: torch.Tensor, threshold: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Rows of x (…, inputs) as int8, their scales, and which columns are outliers (Dettmers et al. 2022)."""
        same = self._of is not None and self._of() is x and self._threshold == threshold
        if not same or self._made is None:
            functional: Any = importlib.import_module("bitsandbytes.functional")
            rows = x.detach().reshape(-1, x.shape[-1]).to(torch.float16)
            self._made = functional.int8_vectorwise_quant(rows, threshold=threshold)
            self._of, self._threshold = weakref.ref(x), threshold
        return self._made


def shares(base: Any, x: torch.Tensor) -> bool:
    """Whether a layer's product on x is one that can share: LLM.int8 as a GPU computes it, with outliers apart."""
    state = getattr(base, "state", None)
    return state is not None and x.is_cuda and state.threshold > 0.0 and not state.has_fp16_weights


def int8_product(base: Any, x: torch.Tensor, shared: SharedInput) -> torch.Tensor:
    """What a `Linear8bitLt` returns for x (…, inputs), without a gradient (bitsandbytes, MatMul8bitLt.forward)."""
    state = base.state
    if base.weight.CB is not None:
        base.init_8bit_state()
    if base.bias is not None and base.bias.dtype != x.dtype:
        base.bias.data = base.bias.data.to(x.dtype)
    rows, scales, outliers = shared.quantised(x, state.threshold)
    flat = x.reshape(-1, x.shape[-1])
    operation: Any = torch.ops.bitsandbytes.int8_mixed_scaled_mm
    output: torch.Tensor = operation(flat, rows, state.CB, scales, state.SCB, outliers, base.bias)[0]
    return output.reshape(*x.shape[:-1], -1)
