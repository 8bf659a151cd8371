"""The Triton kernels against the same operations in plain PyTorch, which the CPU's tests hold against transformers."""

import importlib
from typing import Any

import pytest
import torch

from harness.engine import kernels
from harness.engine.kernels import Kernels, Plain

pytestmark = pytest.mark.gpu
PLAIN = Plain()
# Rounding to 8 bits of a number near one, and to 11.
ROUGH = {torch.bfloat16: 2**-7, torch.float16: 2**-10, torch.float32: 1e-5}


@pytest.fixture(scope="module")
def made() -> Kernels:
    assert kernels.missing("cuda", on=True) is None
    return Kernels()


def drawn(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(shape, generator=generator, device="cuda").to(dtype)


def near(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    # Plain PyTorch rounds after each operation, a kernel once.
    torch.testing.assert_close(found, expected, rtol=2 * ROUGH[dtype], atol=4 * ROUGH[dtype])


@pytest.mark.parametrize("dtype", list(ROUGH))
@pytest.mark.parametrize(("shape", "half"), [((3, 40, 32, 80), 16), ((1, 7, 9, 64), 32), ((2, 5, 3, 10), 2)])
@pytest.mark.parametrize("per_row", [False, True])
def test_heads_are_turned_as_plain_operations_turn_them(
    made: Kernels, dtype: torch.dtype, shape: tuple[int, int, int, int], half: int, per_row: bool
) -> None:
    batch, tokens, heads, size = shape
    given = drawn(batch, tokens, heads, size, dtype=dtype)
    angles = drawn(batch if per_row else 1, tokens, half, dtype=torch.float32, seed=1)
    cosines, sines = angles.cos().to(dtype), angles.sin().to(dtype)
    found, expected = given.clone(), given.clone()
    made.turn_(found, cosines, sines)
    PLAIN.turn_(expected, cosines, sines)
    near(found, expected, dtype)
    assert torch.equal(found[..., 2 * half :], given[..., 2 * half :])
    near(made.turned_back(given, cosines, sines), PLAIN.turned_back(given, cosines, sines), dtype)
    # Heads as attention hands their gradients over, and with gaps between them.
    crossed = given.transpose(1, 2).contiguous().transpose(1, 2)
    near(made.turned_back(crossed, cosines, sines), PLAIN.turned_back(given, cosines, sines), dtype)
    apart = drawn(batch, tokens, heads, size + 3, dtype=dtype)[..., :size]
    expected = apart.clone()
    PLAIN.turn_(expected, cosines, sines)
    made.turn_(apart, cosines, sines)
    near(apart, expected, dtype)


@pytest.mark.parametrize("dtype", list(ROUGH))
@pytest.mark.parametrize("shape", [(3, 40, 2560), (1, 5, 10), (7,)])
def test_three_are_added(made: Kernels, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    first, second, third = (drawn(*shape, dtype=dtype, seed=seed) for seed in range(3))
    near(made.sum_of_three(first, second, third), PLAIN.sum_of_three(first, second, third), dtype)


@pytest.mark.parametrize("dtype", list(ROUGH))
@pytest.mark.parametrize("rank", [1, 4, 16, 48, 128, 200])
@pytest.mark.parametrize(("rows", "columns"), [(200, 2560), (33, 576), (64, 50)])
def test_low_ranks_are_added_and_activated(
    made: Kernels, dtype: torch.dtype, rank: int, rows: int, columns: int
) -> None:
    base = drawn(rows, columns, dtype=dtype)
    # A part of the products of several adapters, and a matrix of either layout.
    middle = drawn(rows, 2 * rank, dtype=dtype, seed=1)[:, rank:] * 0.1
    before = drawn(rows, columns, dtype=dtype, seed=2)
    for matrix in (drawn(columns, rank, dtype=dtype, seed=3).T, drawn(rank, columns, dtype=dtype, seed=3)):
        low = (middle, matrix, 0.5)
        found, expected = base.clone(), base.clone()
        made.add_low_rank_(found, *low)
        PLAIN.add_low_rank_(expected, *low)
        near(found, expected, dtype)
        for given in (low, None):
            found, expected = base.clone(), base.clone()
            activated = made.add_and_activate_(found, given)
            near(activated, PLAIN.add_and_activate_(expected, given), dtype)
            near(found, expected, dtype)
            found = made.add_and_deactivate(base.clone(), given, before)
            near(found, PLAIN.add_and_deactivate(base.clone(), given, before), dtype)


@pytest.mark.parametrize("dtype", list(ROUGH))
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("shape", [(2560, 2560), (96, 64), (50, 70)])
def test_4_bit_weights_are_bitsandbytes_own_bit_for_bit(
    made: Kernels, dtype: torch.dtype, kind: str, nested: bool, shape: tuple[int, int]
) -> None:
    functional: Any = importlib.import_module("bitsandbytes.functional")
    packed, state = functional.quantize_4bit(drawn(*shape, dtype=dtype), quant_type=kind, compress_statistics=nested)
    assert torch.equal(made.unpacked(packed, state, dtype), PLAIN.unpacked(packed, state, dtype))


def test_a_compiler_that_fails_is_told_and_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("no C compiler\nfound")

    monkeypatch.setattr(Kernels, "sum_of_three", broken)
    kernels._tried.cache_clear()
    try:
        assert kernels.missing("cuda", on=True) == "Triton cannot compile: RuntimeError no C compiler"
    finally:
        kernels._tried.cache_clear()
