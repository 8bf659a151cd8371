"""Operations of the training pass that have a kernel of their own on a GPU, and the same in plain PyTorch elsewhere.

A kernel reads and writes each number once where PyTorch has an operation, a pass over memory, for each step of a
formula; a step of training is bound by memory in just these places (docs/speed.md).
"""

import importlib
import importlib.util
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

# Elements of a program of `add_three`, blocks of weights of one of `unpack_4bit`, rows and columns of one of
# `add_low_rank`; ranks above the last are left to cuBLAS.
_SUM_BLOCK = 2048
_BLOCKS = 32
_TILE = (32, 128)
_MOST_RANK = 128
# A product of middle (rows, rank) and matrix (rank, columns), and what it is scaled by.
Low = tuple[torch.Tensor, torch.Tensor, float]


def missing(device: str, *, on: bool) -> str | None:
    """Why the kernels are not used on `device` (`cpu`, `cuda`); None where they are.

    Triton compiles a kernel for the card when it is first used, and needs a C compiler for it: a small one is tried.
    """
    if not on:
        return "switched off"
    if device != "cuda":
        return "no GPU"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return _tried()


@cache
def _tried() -> str | None:
    # As many as the kernel takes: fewer would be added without it.
    ones = torch.ones(16, device="cuda")
    try:
        total = Kernels().sum_of_three(ones, ones, ones)
    except Exception as error:  # noqa: BLE001 - compilers fail in ways of their own, and the study goes on without
        lines = str(error).strip().splitlines()
        return f"Triton cannot compile: {type(error).__name__} {lines[0][:150] if lines else ''}".rstrip()
    return None if bool((total == 3.0).all()) else "Triton computes wrong sums"


class Plain:
    """The operations in plain PyTorch, for every device."""

    def turn_(self, heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> None:
        """Turns heads (batch, tokens, heads, size) in place by the angles (1 or batch, tokens, half the turning part).

        The first half of the turning part is turned against the second; what is beyond it stays.
        """
        half = cosines.shape[-1]
        cosines, sines = cosines.unsqueeze(2), sines.unsqueeze(2)
        first, second = heads[..., :half], heads[..., half : 2 * half]
        was = first.clone()
        first.mul_(cosines).addcmul_(second, sines, value=-1.0)
        second.mul_(cosines).addcmul_(was, sines)

    def turned_back(self, heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        """Heads turned by the opposite angles, in a tensor of their own: the gradient of `turn_`."""
        result = heads.clone(memory_format=torch.contiguous_format)
        self.turn_(result, cosines, -sines)
        return result

    def sum_of_three(self, first: torch.Tensor, second: torch.Tensor, third: torch.Tensor) -> torch.Tensor:
        """The sum of three tensors of one shape."""
        return (first + second).add_(third)

    def add_low_rank_(self, base: torch.Tensor, middle: torch.Tensor, matrix: torch.Tensor, scaling: float) -> None:
        """Adds scaling · middle @ matrix to base (rows, columns), in place."""
        base.addmm_(middle, matrix, alpha=scaling)

    def add_and_activate_(self, base: torch.Tensor, low: Low | None) -> torch.Tensor:
        """The same where there is something to add, and tanh-GELU of the result in a tensor of its own."""
        if low is not None:
            self.add_low_rank_(base, *low)
        return F.gelu(base, approximate="tanh")

    def add_and_deactivate(self, base: torch.Tensor, low: Low | None, before: torch.Tensor) -> torch.Tensor:
        """The gradient of tanh-GELU's input `before` from that of its output: base, which is written over, and what is
        added to it."""
        if low is not None:
            self.add_low_rank_(base, *low)
        gradient: torch.Tensor = torch.ops.aten.gelu_backward(base, before, approximate="tanh")
        return gradient

    def unpacked(self, weight: torch.Tensor, state: Any, dtype: torch.dtype) -> torch.Tensor:
        """4-bit weights (outputs, inputs), as bitsandbytes unpacks them on the way back."""
        functional: Any = importlib.import_module("bitsandbytes.functional")
        unpacked: torch.Tensor = functional.dequantize_4bit(weight.view(-1, 1), state)
        return unpacked.to(dtype)


class Kernels(Plain):
    """The operations as Triton kernels; where a tensor lies in another way than they expect, in plain PyTorch."""

    def __init__(self) -> None:
        triton: Any = importlib.import_module("triton")
        self._power = triton.next_power_of_2
        self._made: Any = importlib.import_module("harness.engine.triton_kernels")

    def turn_(self, heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> None:
        if _rows_lie_apart(heads):
            self._turn(heads, heads, cosines, sines, back=False)
        else:
            super().turn_(heads, cosines, sines)

    def turned_back(self, heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        if not _rows_lie_apart(heads):
            heads = heads.contiguous()
        result = torch.empty_like(heads, memory_format=torch.contiguous_format)
        self._turn(heads, result, cosines, sines, back=True)
        return result

    def sum_of_three(self, first: torch.Tensor, second: torch.Tensor, third: torch.Tensor) -> torch.Tensor:
        count = first.numel()
        if count % 16:
            # The kernel is compiled for counts that divide, and would be anew for one that does not, in a capture too.
            return super().sum_of_three(first, second, third)
        parts = [part.contiguous() for part in (first, second, third)]
        result = torch.empty_like(parts[0])
        self._made.add_three[(-(-count // _SUM_BLOCK),)](*parts, result, count, BLOCK=_SUM_BLOCK)
        return result

    def add_low_rank_(self, base: torch.Tensor, middle: torch.Tensor, matrix: torch.Tensor, scaling: float) -> None:
        if _fits(base, middle):
            self._add_low_rank(base, (middle, matrix, scaling), form=0)
        else:
            super().add_low_rank_(base, middle, matrix, scaling)

    def add_and_activate_(self, base: torch.Tensor, low: Low | None) -> torch.Tensor:
        if not _fits(base, None if low is None else low[0]):
            return super().add_and_activate_(base, low)
        after = torch.empty_like(base)
        self._add_low_rank(base, low, form=1, after=after)
        return after

    def add_and_deactivate(self, base: torch.Tensor, low: Low | None, before: torch.Tensor) -> torch.Tensor:
        if not (_fits(base, None if low is None else low[0]) and before.is_contiguous()):
            return super().add_and_deactivate(base, low, before)
        self._add_low_rank(base, low, form=2, before=before)
        return base

    def unpacked(self, weight: torch.Tensor, state: Any, dtype: torch.dtype) -> torch.Tensor:
        packed = weight.view(-1)
        blocks, left = divmod(packed.numel() * 2, state.blocksize)
        whole = packed.dtype == torch.uint8 and not left
        if not whole or state.dtype != dtype or (state.nested and state.state2.code.numel() != 256):
            return super().unpacked(weight, state, dtype)
        result = torch.empty(state.shape, dtype=dtype, device=packed.device)
        nested = state.state2 if state.nested else None
        self._made.unpack_4bit[(-(-blocks // _BLOCKS),)](
            packed,
            result,
            state.code,
            state.absmax,
            nested.code if nested else state.code,
            nested.absmax if nested else state.absmax,
            state.offset if nested else state.absmax,
            blocks,
            HALF_BLOCK=state.blocksize // 2,
            NESTED=bool(nested),
            SCALE_BLOCK=nested.blocksize if nested else 1,
            ROWS=_BLOCKS,
            enable_fp_fusion=False,
        )
        return result

    def _add_low_rank(
        self,
        base: torch.Tensor,
        low: Low | None,
        *,
        form: int,
        before: torch.Tensor | None = None,
        after: torch.Tensor | None = None,
    ) -> None:
        rows, columns = base.shape
        # Where nothing is added any tensor will do: it is not read.
        middle, matrix, scaling = low or (base, base, 0.0)
        rank = 0 if low is None else middle.shape[1]
        self._made.add_low_rank[(-(-rows // _TILE[0]), -(-columns // _TILE[1]))](
            base,
            middle,
            matrix,
            base if before is None else before,
            base if after is None else after,
            scaling,
            rows,
            columns,
            middle.stride(0),
            matrix.stride(0),
            matrix.stride(1),
            FORM=form,
            RANK=rank,
            BLOCK_RANK=max(16, self._power(rank)),
            BLOCK_ROWS=_TILE[0],
            BLOCK_COLUMNS=_TILE[1],
        )

    def _turn(
        self, source: torch.Tensor, target: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, *, back: bool
    ) -> None:
        batch, tokens, heads, size = source.shape
        half = cosines.shape[-1]
        self._made.turn[(batch * tokens,)](
            source,
            target,
            cosines,
            sines,
            tokens * cosines.shape[0],
            source.stride(1),
            target.stride(1),
            cosines.stride(1),
            HEADS=heads,
            SIZE=size,
            HALF=half,
            BACK=back,
            COPIES=source is not target and size > 2 * half,
            BLOCK_HEADS=self._power(heads),
            BLOCK_HALF=self._power(half),
            BLOCK_REST=self._power(max(1, size - 2 * half)),
        )


def _fits(base: torch.Tensor, middle: torch.Tensor | None) -> bool:
    """Whether the kernel for low ranks is made for these: it multiplies in 16 bits (in fp32 it would in TF32)."""
    small = middle is None or (middle.stride(1) == 1 and middle.shape[1] <= _MOST_RANK)
    return base.dtype in (torch.bfloat16, torch.float16) and base.is_contiguous() and small


def _rows_lie_apart(heads: torch.Tensor) -> bool:
    """Whether tokens follow each other in equal steps through the batch, and a token's heads without gaps."""
    batch, tokens, _, size = heads.shape
    ordered = heads.stride(3) == 1 and heads.stride(2) == size
    return ordered and (batch == 1 or heads.stride(0) == tokens * heads.stride(1))
