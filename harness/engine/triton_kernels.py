"""The project's own GPU kernels, in Triton: what takes libraries several passes over the same memory, in one.

Nothing here is imported where Triton is missing; `harness.engine.kernels` decides that, and has the same operations in
plain PyTorch. Arguments that change from batch to batch are not specialised on: each kernel is compiled once for a
model, in the first step, and never while a CUDA graph is captured. Sums are made in fp32 and rounded once.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["period"])
def turn(
    source,
    target,
    cosines,
    sines,
    period,
    source_stride,
    target_stride,
    angle_stride,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    HALF: tl.constexpr,
    BACK: tl.constexpr,
    COPIES: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_REST: tl.constexpr,
):
    """Turns the heads of one token a program by the angles of its position; `COPIES` what does not turn as well."""
    token = tl.program_id(0).to(tl.int64)
    place = token % period
    heads = tl.arange(0, BLOCK_HEADS)[:, None]
    columns = tl.arange(0, BLOCK_HALF)[None, :]
    inside = (heads < HEADS) & (columns < HALF)
    at = heads * SIZE + columns
    first = tl.load(source + token * source_stride + at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(source + token * source_stride + at + HALF, mask=inside, other=0.0).to(tl.float32)
    angle = place * angle_stride + columns
    cosine = tl.load(cosines + angle, mask=columns < HALF, other=0.0).to(tl.float32)
    sine = tl.load(sines + angle, mask=columns < HALF, other=0.0).to(tl.float32)
    if BACK:
        sine = -sine
    kind = target.dtype.element_ty
    tl.store(target + token * target_stride + at, (first * cosine - second * sine).to(kind), mask=inside)
    tl.store(target + token * target_stride + at + HALF, (second * cosine + first * sine).to(kind), mask=inside)
    if COPIES:
        others = 2 * HALF + tl.arange(0, BLOCK_REST)[None, :]
        there = (heads < HEADS) & (others < SIZE)
        kept = heads * SIZE + others
        tl.store(
            target + token * target_stride + kept,
            tl.load(source + token * source_stride + kept, mask=there, other=0.0),
            mask=there,
        )


@triton.jit
def add_three(first, second, third, target, count, BLOCK: tl.constexpr):
    """The sum of three tensors, rounded once."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    total = tl.load(first + at, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(second + at, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(third + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(target + at, total.to(target.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def add_low_rank(
    base,
    middle,
    matrix,
    before,
    after,
    scaling,
    rows,
    columns,
    middle_stride,
    matrix_row_stride,
    matrix_column_stride,
    FORM: tl.constexpr,
    RANK: tl.constexpr,
    BLOCK_RANK: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """base + scaling * middle @ matrix for base (rows, columns), in place.

    FORM 1: tanh-GELU of that in `after` too. FORM 2: what is written is that, times the derivative of tanh-GELU at
    `before`. Without a RANK nothing is added.
    """
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]
    inside = (row < rows) & (column < columns)
    at = row * columns + column
    kind = base.dtype.element_ty
    total = tl.load(base + at, mask=inside, other=0.0).to(tl.float32)
    if RANK > 0:
        inner = tl.arange(0, BLOCK_RANK)
        left = tl.load(
            middle + row * middle_stride + inner[None, :], mask=(row < rows) & (inner[None, :] < RANK), other=0.0
        )
        right = tl.load(
            matrix + inner[:, None] * matrix_row_stride + column * matrix_column_stride,
            mask=(inner[:, None] < RANK) & (column < columns),
            other=0.0,
        )
        total += scaling * tl.dot(left, right)
    if FORM == 2:
        x = tl.load(before + at, mask=inside, other=0.0).to(tl.float32)
        tanh = 2.0 * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x)) - 1.0
        slope = 0.7978845608028654 * (1.0 + 0.134145 * x * x)
        total *= 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * slope
    tl.store(base + at, total.to(kind), mask=inside)
    if FORM == 1:
        # Of what was written, as an operation of its own would have it.
        x = total.to(kind).to(tl.float32)
        share = tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
        tl.store(after + at, (x * share).to(kind), mask=inside)


@triton.jit(do_not_specialize=["blocks"])
def unpack_4bit(
    packed,
    target,
    code,
    scales,
    scale_code,
    scale_scales,
    offset,
    blocks,
    HALF_BLOCK: tl.constexpr,
    NESTED: tl.constexpr,
    SCALE_BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Weights of bitsandbytes' 4-bit types: two to a byte, the first in the upper bits, with a scale a block; with
    double quantisation the scales are 8-bit themselves. Launched without fusing products and sums, for the same bits.
    """
    block = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = block < blocks
    if NESTED:
        level = tl.load(scales + block, mask=inside, other=0).to(tl.int32)
        scale = tl.load(scale_code + level) * tl.load(scale_scales + block // SCALE_BLOCK, mask=inside, other=0.0)
        scale = scale + tl.load(offset)
    else:
        scale = tl.load(scales + block, mask=inside, other=0.0)
    columns = tl.arange(0, HALF_BLOCK)[None, :]
    pairs = tl.load(packed + block[:, None] * HALF_BLOCK + columns, mask=inside[:, None], other=0).to(tl.int32)
    upper = tl.load(code + (pairs >> 4)) * scale[:, None]
    lower = tl.load(code + (pairs & 15)) * scale[:, None]
    weights = tl.interleave(upper, lower).to(target.dtype.element_ty)
    at = block[:, None] * (2 * HALF_BLOCK) + tl.arange(0, 2 * HALF_BLOCK)[None, :]
    tl.store(target + at, weights, mask=inside[:, None])
