"""What has no kernel on the meta device: quantised layers and attention, which make and keep the tensors of real ones.

Each holds to the library's source as it is (bitsandbytes 0.50, autograd/_functions.py; PyTorch's flash attention), and
`tests/gpu` holds the peaks that follow from them against measured ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from harness.engine.attention import repeated
from harness.engine.kernels import Low, Plain
from study.arms import Arm, Precision


def quantise(layer: nn.Module, arm: Arm, dtype: torch.dtype) -> None:
    for parent in list(layer.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, PackedLinear(child, arm, dtype))


class InPlace(Plain):
    """What the Triton kernels make and keep: nothing where they write over what they read."""

    def turn_(self, heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> None:
        pass

    def turned_back(self, heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(heads, memory_format=torch.contiguous_format)

    def sum_of_three(self, first: torch.Tensor, second: torch.Tensor, third: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(first)

    def add_and_deactivate(self, base: torch.Tensor, low: Low | None, before: torch.Tensor) -> torch.Tensor:
        # In fp32 the kernel is not used.
        return super().add_and_deactivate(base, low, before) if base.dtype == torch.float32 else base


class PackedLinear(nn.Linear):
    """A quantised linear layer as bitsandbytes keeps and computes it, on the meta device."""

    def __init__(self, linear: nn.Linear, arm: Arm, dtype: torch.dtype) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, dtype=dtype)
        self.requires_grad_(False)
        count = linear.in_features * linear.out_features
        self.weights = count
        self.int8 = arm.precision is Precision.INT8
        self.compute_dtype = dtype
        packed = torch.empty((linear.out_features, linear.in_features) if self.int8 else (count // 2, 1))
        kind = torch.int8 if self.int8 else torch.uint8
        self.weight = nn.Parameter(packed.to(kind), requires_grad=False)
        for number, state in enumerate(_quantisation_state(count, linear.out_features, arm)):
            state.is_quantisation = True  # type: ignore[attr-defined]
            self.register_buffer(f"state_{number}", state, persistent=False)

    def unpacked(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight as the way back needs it."""
        return self.weight.new_empty((self.out_features, self.in_features), dtype=dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        shape = (self.out_features, self.in_features)
        if self.int8:
            result: torch.Tensor = _apply(_Int8Product, input, shape, self.bias)
        else:
            result = _apply(_FourBitProduct, input, shape, self.bias)
        return result


def _quantisation_state(weights: int, outputs: int, arm: Arm) -> Iterator[torch.Tensor]:
    """What unpacking needs: a scale a row (int8), or a scale a block of 64 weights with a code book (4-bit; with double
    quantisation the scales are 8-bit in blocks of 256: Dettmers et al. 2023, section 3)."""
    if arm.precision is Precision.INT8:
        yield torch.empty(outputs, dtype=torch.float32)
        return
    blocks = -(-weights // 64)
    yield torch.empty(16, dtype=torch.float32)
    if not arm.double_quant:
        yield torch.empty(blocks, dtype=torch.float32)
        return
    yield torch.empty(blocks, dtype=torch.uint8)
    yield torch.empty(-(-blocks // 256), dtype=torch.float32)
    yield torch.empty(256, dtype=torch.float32)
    yield torch.empty((), dtype=torch.float32)


class _FourBitProduct(torch.autograd.Function):
    """bitsandbytes' 4-bit product above a few rows: the weight is unpacked, used and dropped, both ways."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, shape: tuple[int, int], bias: torch.Tensor | None) -> torch.Tensor:
        ctx.shape = shape
        return F.linear(inputs, inputs.new_empty(shape), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        return gradient @ gradient.new_empty(ctx.shape), None, None


class _Int8Product(torch.autograd.Function):
    """LLM.int8 (bitsandbytes, MatMul8bitLt): the input is kept although nothing is learned from it; it is cast to fp16
    and to int8 on the way forward, and the weight is unpacked on the way back."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, shape: tuple[int, int], bias: torch.Tensor | None) -> torch.Tensor:
        flat = inputs.reshape(-1, inputs.shape[-1])
        half = flat.to(torch.float16)
        outliers = half.abs() >= 6.0
        small, scale = half.to(torch.int8), half.new_empty(half.shape[0], dtype=torch.float32)
        del half, outliers
        summed = small.new_empty((small.shape[0], shape[0]), dtype=torch.int32)
        output = summed.to(torch.float16)
        del summed, small, scale
        if bias is not None:
            output = output + bias.to(torch.float16)
        result = output.to(inputs.dtype)
        ctx.kept, ctx.shape, ctx.grad_shape = flat, shape, inputs.shape
        return result.reshape(*inputs.shape[:-1], shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1]).contiguous()
        weight = gradient.new_empty(ctx.shape)
        return (gradient @ weight).view(ctx.grad_shape), None, None


class _FlashAttention(torch.autograd.Function):
    """scaled_dot_product_attention on its flash path: the output and one fp32 number a row and head are kept."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        batch, heads, tokens, _ = query.shape
        # Laid out as the query is (empty_like in aten), which decides whether what follows must copy it.
        output = torch.empty_like(query)
        row_sums = query.new_empty((batch, heads, tokens), dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, row_sums)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        query, key, value, _, _ = ctx.saved_tensors
        batch, heads, tokens, size = query.shape
        # Rows are padded to 128 and head sizes to 32; gradients of the queries are summed in fp32.
        padded = (batch, -(-tokens // 128) * 128, heads, -(-size // 32) * 32)
        summed = query.new_empty(padded, dtype=torch.float32)
        row_products = query.new_empty((batch, heads, padded[1]), dtype=torch.float32)
        made = tuple(torch.empty_like(tensor) for tensor in (query, key, value))
        del summed, row_products
        return made


@contextmanager
def fused_dropout() -> Iterator[None]:
    """Dropout as a GPU computes it, with a mask of one byte an element; elsewhere the mask has the inputs' type."""
    original = nn.Dropout.forward

    def forward(self: nn.Dropout, input: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0.0:
            return input
        return torch.native_dropout(input, self.p, True)[0]

    nn.Dropout.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Dropout.forward = original  # type: ignore[method-assign]


def attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    if query.dtype == torch.float32:
        key, value = (repeated(tensor, query.shape[1]) for tensor in (key, value))
    return _apply(_FlashAttention, query, key, value).transpose(1, 2).contiguous(), None


def _apply(function: Any, *arguments: Any) -> torch.Tensor:
    result: torch.Tensor = function.apply(*arguments)
    return result
