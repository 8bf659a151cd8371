"""The fused training pass against PEFT's own: the same losses, the same gradients, less kept."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import peft
import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from transformers.models.phi.modeling_phi import apply_rotary_pos_emb

from harness.engine.adapting import attach
from harness.engine.attention import with_keys_repeated, written_out
from harness.engine.batches import logit_places, training_plan
from harness.engine.batching import IGNORED, collate, gathered
from harness.engine.blocks import angles_of
from harness.engine.encoding import Encoded
from harness.engine.fusing import Fused
from harness.engine.kernels import Plain
from harness.engine.loading import Base
from harness.engine.stepping import summed_loss
from harness.engine.training import Recipe, Trained, train
from harness.engine.trying import probe_arm
from study.arms import Method, Precision
from study.examples import Example
from study.settings import EngineSettings
from study.space import Hyperparameters
from tests.unit.harness.conftest import encode, fused, training

Load = Callable[[Precision], Base]
SET = Hyperparameters(rank=4, alpha=8, learning_rate=1e-2)
PLAIN = EngineSettings(fused=None, cuda_graphs=None)


def llama(base: Base) -> Base:
    """A tiny Llama with grouped queries and the tokenizer of the tiny Phi."""
    config = transformers.LlamaConfig(
        vocab_size=512,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).requires_grad_(False)
    return Base(model, base.tokenizer, "cpu", torch.float32)


def fitted(
    base: Base, encoded: tuple[Encoded, ...], engine: EngineSettings, precision: Precision, **changes: object
) -> tuple[Trained, list[torch.Tensor]]:
    dropout = float(str(changes.pop("dropout", 0.0)))
    arm = replace(probe_arm(precision), dropout=dropout)
    checkpointing = bool(changes.pop("checkpointing", False))
    settings = training(engine=engine, **changes)
    adapter = attach(base, arm, SET, settings, seed=7)
    trained = train(base, adapter, encoded, Recipe(settings, 5e-3, 7, checkpointing), lambda *_: None)
    weights = [p.detach().clone() for p in adapter.model.parameters() if p.requires_grad]
    adapter.model.unload()
    return trained, weights


@pytest.mark.parametrize("model", ["phi", "llama"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_fifty_steps_lose_the_same_as_the_plain_loop(
    load: Load, examples: tuple[Example, ...], model: str, checkpointing: bool
) -> None:
    base = load(Precision.FP32)
    base = llama(base) if model == "llama" else base
    encoded = encode(base, examples)
    losses = [
        fitted(base, encoded, engine, Precision.FP32, steps=50, checkpointing=checkpointing)[0].losses
        for engine in (EngineSettings(), PLAIN)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0][-1] < 0.97 * losses[0][0]


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.NF4, Precision.FP4])
def test_quantised_bases_in_fp32_lose_the_same(load: Load, examples: tuple[Example, ...], precision: Precision) -> None:
    losses = []
    for engine in (EngineSettings(), PLAIN):
        base = load(precision)
        losses.append(fitted(base, encode(base, examples), engine, precision, steps=12)[0].losses)
    # The quantised product itself has bf16 activations here; only the adapter's part is rounded elsewhere.
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_dropout_draws_the_same_masks(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    encoded = encode(base, examples)
    fitted_both = [
        fitted(base, encoded, engine, Precision.FP32, steps=10, dropout=0.3) for engine in (EngineSettings(), PLAIN)
    ]
    assert fitted_both[0][0].losses == pytest.approx(fitted_both[1][0].losses, rel=1e-5)
    without = fitted(base, encoded, PLAIN, Precision.FP32, steps=10)[0].losses
    assert without != pytest.approx(fitted_both[0][0].losses, rel=1e-3)


def test_gradients_are_those_of_peft(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    settings = training()
    adapter = attach(base, probe_arm(Precision.FP32), SET, settings, seed=7)
    for name, parameter in adapter.model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    batch = collate(encode(base, examples)[:3], 0, "cpu", EngineSettings())
    found = []
    for on in (True, False):
        with fused(adapter.model, on=on) as reason:
            assert (reason is None) == on
            summed_loss(base, batch, EngineSettings()).backward()
        found.append([p.grad.clone() for p in adapter.model.parameters() if p.grad is not None])
        adapter.model.zero_grad(set_to_none=True)
    assert len(found[0]) == len(found[1]) == 2 * 6 * 2
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model", ["phi", "llama"])
def test_gradients_that_have_their_place_are_added_to(load: Load, examples: tuple[Example, ...], model: str) -> None:
    base = load(Precision.FP32)
    base = llama(base) if model == "llama" else base
    adapter = attach(base, probe_arm(Precision.FP32), SET, training(), seed=7)
    batch = collate(encode(base, examples)[:3], 0, "cpu", EngineSettings())
    trained = [p for p in adapter.model.parameters() if p.requires_grad]
    with fused(adapter.model, on=True):
        summed_loss(base, batch, EngineSettings()).backward()
        once = [p.grad.clone() for p in trained if p.grad is not None]
        summed_loss(base, batch, EngineSettings()).backward()
        places = [p.grad.data_ptr() for p in trained if p.grad is not None]
        summed_loss(base, batch, EngineSettings()).backward()
    assert len(once) == len(trained)
    assert [p.grad.data_ptr() for p in trained if p.grad is not None] == places
    for parameter, first in zip(trained, once, strict=True):
        torch.testing.assert_close(parameter.grad, 3.0 * first, rtol=1e-4, atol=1e-6)


def test_a_scaling_that_lies_in_memory_scales_as_a_number_does(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    adapter = attach(base, probe_arm(Precision.FP32), SET, training(), seed=7)
    batch = collate(encode(base, examples)[:3], 0, "cpu", EngineSettings())
    found = []
    for scaling in (None, torch.tensor(SET.alpha / SET.rank)):
        with Fused(adapter.model, scaling=scaling).applied():
            loss = summed_loss(base, batch, EngineSettings())
            loss.backward()
        found.append((loss.item(), [p.grad.clone() for p in adapter.model.parameters() if p.grad is not None]))
        adapter.model.zero_grad(set_to_none=True)
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for first, second in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_afterwards_the_model_is_as_it_was(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    adapter = attach(base, probe_arm(Precision.FP32), SET, training(), seed=7)
    kinds = [type(module) for module in adapter.model.modules()]
    with fused(adapter.model, on=True):
        assert [type(module) for module in adapter.model.modules()] != kinds
    assert [type(module) for module in adapter.model.modules()] == kinds
    layers = [module for module in adapter.model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    assert not any("forward" in vars(layer) for layer in layers)


def test_dora_is_left_alone_and_says_why(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    adapter = attach(base, probe_arm(Precision.FP32, Method.DORA), SET, training(), seed=7)
    with fused(adapter.model, on=True) as reason:
        assert reason == "DoRA is no plain sum"
    trained = train(base, adapter, encode(base, examples), Recipe(training(), 1e-3, 7), lambda *_: None)
    assert trained.levers.facts()["fused_not"] == "DoRA is no plain sum"


def test_less_is_kept_for_the_way_back(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    adapter = attach(base, probe_arm(Precision.FP32), SET, training(), seed=7)
    adapter.model.train()
    batch = collate(encode(base, examples)[:4], 0, "cpu", EngineSettings())
    kept = {}
    for on in (True, False):
        storages: dict[int, int] = {}

        def pack(tensor: torch.Tensor, storages: dict[int, int] = storages) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with fused(adapter.model, on=on), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            summed_loss(base, batch, EngineSettings())
        kept[on] = sum(storages.values())
    assert kept[True] < 0.75 * kept[False]


def test_without_a_gpu_it_says_that_nothing_was_captured(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    trained, _ = fitted(base, encode(base, examples), EngineSettings(), Precision.FP32)
    assert trained.levers.facts() == {
        "fused": True,
        "fused_not": None,
        "cuda_graphs": 0,
        "cuda_graphs_not": "no GPU",
        "kernels": False,
        "kernels_not": "no GPU",
    }


def test_places_that_nobody_learns_move_no_number(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    encoded = encode(base, examples)
    settings = training(steps=6, engine=EngineSettings())
    plan = training_plan([e.length for e in encoded], settings, 6, 3)
    places = logit_places(plan, [(e.length, len(e.completion)) for e in encoded], settings)
    assert places is not None
    for step in plan.steps:
        chosen = [encoded[index] for index in step]
        exact = gathered(chosen, 0, settings.engine)
        filled = gathered(chosen, 0, settings.engine, places=places)
        assert filled.targets.numel() == places[filled.ids.shape[0], filled.ids.shape[1]] > exact.targets.numel()
        assert filled.learned == exact.learned == exact.targets.numel()
        assert (filled.targets == IGNORED).sum() == filled.targets.numel() - exact.learned
        losses = [summed_loss(base, batch, settings.engine).item() for batch in (exact, filled)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_no_places_where_nothing_is_captured() -> None:
    pairs = training(batch_size=2, micro_batch_size=2, engine=EngineSettings())
    plan = training_plan([10, 20, 30, 40], pairs, 2, 0)
    lengths = [(10, 2), (20, 3), (30, 4), (40, 5)]
    assert logit_places(plan, lengths, replace(pairs, engine=PLAIN)) is None
    assert logit_places(plan, lengths, pairs) == {(2, 32): 64, (2, 40): 64}


def test_a_bound_on_the_tokens_of_a_pass_moves_no_number(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    # Every step has all of them: which step is made first depends on the bound.
    encoded = encode(base, examples[:8])
    longest = max(example.length for example in encoded)
    bounded = replace(PLAIN, pass_tokens=2 * longest)
    losses = [
        fitted(base, encoded, engine, Precision.FP32, steps=20, batch_size=8, micro_batch_size=8)[0].losses
        for engine in (bounded, PLAIN)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_rotation_is_that_of_transformers() -> None:
    generator = torch.Generator().manual_seed(1)
    heads = torch.randn((2, 5, 3, 10), generator=generator, dtype=torch.float64)
    angles = torch.rand((2, 5, 2), generator=generator, dtype=torch.float64).repeat(1, 1, 2)
    turned = heads.clone()
    half = angles_of((angles.cos(), angles.sin()))
    Plain().turn_(turned, *half)
    key = heads.transpose(1, 2)
    expected, _ = apply_rotary_pos_emb(key[..., :4], key[..., :4], angles.cos(), angles.sin())
    torch.testing.assert_close(turned[..., :4], expected.transpose(1, 2))
    assert torch.equal(turned[..., 4:], heads[..., 4:])
    torch.testing.assert_close(Plain().turned_back(turned, *half), heads)


@pytest.mark.parametrize("attend", [written_out, with_keys_repeated])
@pytest.mark.parametrize(("heads", "shared"), [(6, 2), (4, 4)])
def test_attention_in_another_form_is_the_kernel_s(attend: Callable[..., Any], heads: int, shared: int) -> None:
    draw = torch.Generator().manual_seed(2)
    query = torch.randn((2, heads, 7, 8), generator=draw, requires_grad=True)
    key, value = (torch.randn((2, shared, 7, 8), generator=draw, requires_grad=True) for _ in range(2))
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(1, 2)
    found, _ = attend(nn.Identity(), query, key, value, scaling=8**-0.5)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(expected.shape, generator=draw)
    for mine, its in zip(
        torch.autograd.grad((found * weight).sum(), (query, key, value)),
        torch.autograd.grad((expected * weight).sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(mine, its)
