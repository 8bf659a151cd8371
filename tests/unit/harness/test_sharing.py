"""LLM.int8 products with shared inputs, and in the form that a CUDA graph can hold, against bitsandbytes' own."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bitsandbytes import functional

from harness.engine import sharing
from harness.engine.adapting import attach, detach
from harness.engine.batching import collate
from harness.engine.loading import Base
from harness.engine.sharing import SharedInput, fixed_form, int8_product
from harness.engine.stepping import summed_loss
from harness.engine.trying import probe_arm
from study.arms import Precision
from study.examples import Example
from study.settings import EngineSettings
from study.space import Hyperparameters
from tests.unit.harness.conftest import encode, fused, training

Load = Callable[[Precision], Base]
STATE = SimpleNamespace(threshold=6.0)


def inputs(outliers: int, kind: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Two dialogues of nine tokens of 64 numbers, with so many columns that hold a number of at least 6."""
    x = torch.randn((2, 9, 64), generator=torch.Generator().manual_seed(3)).clamp(-4, 4).to(kind)
    for column in range(outliers):
        x[column % 2, column % 9, 5 + 3 * column] = 6.0 if column == 0 else -40.0
    return x


def as_a_gpu_has_it(layer: Any) -> Any:
    """LLM.int8 with outliers apart: on a CPU a training takes another path."""
    layer.eval()
    layer.state.threshold = 6.0
    return layer


def test_a_shared_input_gives_the_product_s_own_numbers(load: Load) -> None:
    layer = load(Precision.INT8).decoder.layers[0]
    x, shared, quantised = inputs(2), SharedInput(), []
    for linear in map(as_a_gpu_has_it, (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.mlp.fc1)):
        expected = linear(x)
        quantised.append(shared.quantised(x, linear.state, fixed=False).rows)
        assert torch.equal(int8_product(linear, x, shared), expected)
    assert all(rows is quantised[0] for rows in quantised)
    other = x * 2
    made = functional.int8_vectorwise_quant(x.reshape(-1, 64).to(torch.float16), threshold=6.0)
    assert not torch.equal(shared.quantised(other, STATE, fixed=False).scales, made[1])


def test_another_tensor_at_the_same_place_is_not_taken_for_the_last() -> None:
    shared = SharedInput()
    for fill in (1.0, 2.0, 3.0):
        x = torch.full((2, 64), fill, dtype=torch.bfloat16)
        assert shared.quantised(x, STATE, fixed=False).scales.tolist() == [fill, fill]
        del x
        assert shared._made is None


@pytest.mark.parametrize("outliers", [0, 1, 3, 8])
def test_a_fixed_form_holds_what_bitsandbytes_finds(outliers: int) -> None:
    rows = inputs(outliers).reshape(-1, 64).to(torch.float16)
    small, scales, columns = functional.int8_vectorwise_quant(rows, threshold=6.0)
    made, found = fixed_form(rows, 6.0, room=8)
    assert torch.equal(made.rows, small)
    assert torch.equal(made.scales, scales)
    assert made.columns is not None
    assert made.real is not None
    assert made.columns[made.real].tolist() == ([] if columns is None else columns.tolist())
    assert int(found) == outliers


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("outliers", [0, 1, 3, 8])
def test_a_product_of_fixed_form_is_the_product(load: Load, outliers: int, kind: torch.dtype) -> None:
    linear = as_a_gpu_has_it(load(Precision.INT8).decoder.layers[0].mlp.fc1)
    x, shared = inputs(outliers, kind), SharedInput()
    shared.prepare("cpu")
    torch.testing.assert_close(int8_product(linear, x, shared, fixed=True), linear(x))
    assert not shared.crowded()


def test_more_outliers_than_there_is_room_for_are_told_and_given_room_once_seen(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = as_a_gpu_has_it(load(Precision.INT8).decoder.layers[0].mlp.fc1)
    monkeypatch.setattr(sharing, "LEAST_ROOM", 8)
    x, shared = inputs(12), SharedInput()
    shared.prepare("cpu")
    int8_product(linear, x, shared, fixed=True)
    assert shared.crowded()
    # Other products of the same step do not take that back; the next step does.
    int8_product(linear, inputs(1), shared, fixed=True)
    assert shared.crowded()
    shared.begin()
    assert not shared.crowded()
    shared.make_room()
    int8_product(linear, x, shared, fixed=True)
    assert not shared.crowded()
    again = SharedInput()
    again.prepare("cpu")
    int8_product(linear, x, again, fixed=False)
    shared = again
    torch.testing.assert_close(int8_product(linear, x, shared, fixed=True), linear(x))
    assert not shared.crowded()


def test_an_infinite_input_gives_no_number_in_either_form(load: Load) -> None:
    linear = as_a_gpu_has_it(load(Precision.INT8).decoder.layers[0].mlp.fc1)
    x, shared = inputs(1), SharedInput()
    x[0, 0, 0] = float("nan")
    shared.prepare("cpu")
    for fixed in (False, True):
        assert not int8_product(linear, x, shared, fixed=fixed).isfinite().all()


def test_int8_layers_without_an_adapter_are_fused_too_and_give_the_same_gradients(
    load: Load, examples: tuple[Example, ...]
) -> None:
    base = load(Precision.INT8)
    arm, settings = replace(probe_arm(Precision.INT8), targets=("attention",)), training()
    adapter = attach(base, arm, Hyperparameters(4, 8, 1e-2), settings, seed=7)
    for name, parameter in adapter.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    block = base.decoder.layers[0]
    batch = collate(encode(base, examples)[:3], 0, "cpu", EngineSettings())
    found = []
    for on in (True, False):
        with fused(adapter.model, on=on):
            assert ("forward" in vars(block)) == on
            summed_loss(base, batch, EngineSettings()).backward()
        found.append([p.grad.clone() for p in adapter.model.parameters() if p.grad is not None])
        adapter.model.zero_grad(set_to_none=True)
    assert "forward" not in vars(block)
    assert len(found[0]) == len(found[1]) > 0
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=5e-2, atol=5e-3)
    detach(adapter)
