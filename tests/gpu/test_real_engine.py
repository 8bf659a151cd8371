"""The training engine on a GPU: captured steps against the same steps one by one."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from harness.engine import sharing
from harness.engine.adapting import attach, detach
from harness.engine.attention import unmasked
from harness.engine.batching import gathered
from harness.engine.encoding import Encoder
from harness.engine.loading import Base, load_base
from harness.engine.sharing import SharedInput
from harness.engine.sources import model_folder
from harness.engine.training import Recipe, Trained, train
from harness.engine.trying import PROBE, probe_arm
from study.arms import Precision
from study.dialogues import generate
from study.prompts import TEMPLATES
from study.settings import EngineSettings
from study.space import Hyperparameters

pytestmark = pytest.mark.gpu
USES_CUDA_HERE = True
SET = Hyperparameters(rank=8, alpha=16, learning_rate=2e-3)
SETTINGS = replace(PROBE, steps=30, batch_size=4, micro_batch_size=4, max_tokens=512, length_grouping=True)


def fitted(base: Base, precision: Precision, engine: EngineSettings, *, checkpointing: bool = False) -> Trained:
    settings = replace(SETTINGS, engine=engine)
    examples = generate(5, {"train": 64}, turns=(4, 8))["train"]
    encoded = Encoder(base.tokenizer, TEMPLATES["summarize"], settings.max_tokens).encode(examples)
    adapter = attach(base, probe_arm(precision), SET, settings, seed=7)
    try:
        return train(base, adapter, encoded, Recipe(settings, 2e-3, 7, checkpointing), lambda *_: None)
    finally:
        detach(adapter)


def loaded(precision: Precision) -> Base:
    return load_base(
        model_folder("random/tiny-phi", None, "cuda").folder, probe_arm(precision), "cuda", model_dropout=False
    )


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16, Precision.NF4])
def test_captured_steps_lose_what_single_ones_lose(precision: Precision, checkpointing: bool) -> None:
    base = loaded(precision)
    wide = EngineSettings(pad_to_multiple=32)
    captured = fitted(base, precision, wide, checkpointing=checkpointing)
    single = fitted(base, precision, replace(wide, cuda_graphs=None), checkpointing=checkpointing)
    assert captured.levers.no_graphs is None
    assert captured.levers.captured >= 2
    assert single.levers.captured == 0
    # The same kernels in the same order, but for the head's, which has a few positions more.
    tolerance = 1e-5 if precision is Precision.FP32 else 5e-3
    assert captured.losses == pytest.approx(single.losses, rel=tolerance)
    assert captured.tokens == single.tokens


def with_outliers(base: Base) -> Base:
    """A few numbers of every input of attention and of the MLP are far from the others, as in large models."""
    for layer in base.decoder.layers:
        layer.input_layernorm.weight.data[3:6] *= 30.0
    return base


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("outliers", [False, True])
def test_int8_steps_are_captured_and_lose_what_single_ones_lose(outliers: bool, checkpointing: bool) -> None:
    base = with_outliers(loaded(Precision.INT8)) if outliers else loaded(Precision.INT8)
    wide = EngineSettings(pad_to_multiple=32)
    captured = fitted(base, Precision.INT8, wide, checkpointing=checkpointing)
    single = fitted(base, Precision.INT8, replace(wide, cuda_graphs=None), checkpointing=checkpointing)
    assert captured.levers.no_graphs is None
    assert captured.levers.captured >= 2
    assert captured.levers.redone <= 1
    assert captured.losses == pytest.approx(single.losses, rel=5e-3)


def test_int8_steps_with_too_little_room_for_outliers_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    base = with_outliers(loaded(Precision.INT8))
    wide = EngineSettings(pad_to_multiple=32)
    single = fitted(base, Precision.INT8, replace(wide, cuda_graphs=None))
    monkeypatch.setattr(sharing, "LEAST_ROOM", 1)
    as_found, seen = SharedInput._as_found, 0

    def forgetful(self: SharedInput, rows: torch.Tensor, state: object) -> object:
        nonlocal seen
        made = as_found(self, rows, state)
        seen += 1
        # The first step, of 2 layers that quantise 3 times, is as if it had met no outlier; those made again are not.
        if seen <= blind:
            self._seen.clear()
        else:
            monkeypatch.setattr(sharing, "LEAST_ROOM", 32)
        return made

    monkeypatch.setattr(SharedInput, "_as_found", forgetful)
    blind = 2 * 3
    made_again = fitted(base, Precision.INT8, wide)
    assert made_again.levers.no_graphs is None
    assert made_again.levers.redone > 0
    assert made_again.losses == pytest.approx(single.losses, rel=5e-3)
    # Where it never sees what it needs, it gives graphs up, says so, and goes on.
    blind = 10**6
    monkeypatch.setattr(sharing, "LEAST_ROOM", 1)
    given_up = fitted(base, Precision.INT8, wide)
    assert given_up.levers.captured == 0
    assert "more outlier columns" in str(given_up.levers.no_graphs)
    assert given_up.losses == pytest.approx(single.losses, rel=5e-3)


def test_what_is_not_fused_cannot_be_captured_in_int8_and_says_why() -> None:
    base = loaded(Precision.INT8)
    fused = fitted(base, Precision.INT8, EngineSettings(pad_to_multiple=32))
    plain = fitted(base, Precision.INT8, EngineSettings(pad_to_multiple=32, fused=None))
    assert plain.losses == pytest.approx(fused.losses, rel=5e-3)
    assert plain.levers.captured == 0
    assert "LLM.int8" in str(plain.levers.no_graphs)
    assert len(plain.losses) == 30


def test_captures_hold_no_more_than_a_single_step_needs() -> None:
    peaks = []
    for engine in (EngineSettings(cuda_graphs=None), EngineSettings()):
        base = loaded(Precision.BF16)
        # Each stream has cuBLAS workspaces of its own, which would add up here; a run has one stream.
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        fitted(base, Precision.BF16, replace(engine, pad_to_multiple=64))
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] == pytest.approx(peaks[0], rel=0.05)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_attention_with_grouped_queries_makes_no_scores(precision: Precision) -> None:
    config = transformers.LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    dtype = torch.float32 if precision is Precision.FP32 else torch.bfloat16
    model: Any = transformers.LlamaForCausalLM(config)
    base = Base(model.to("cuda", dtype).train(), None, "cuda", dtype)
    tokens = 2048
    ids = torch.randint(0, 512, (1, tokens), device="cuda")
    with unmasked(base, tokens):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        base.decoder(input_ids=ids, use_cache=False).last_hidden_state.sum().backward()
        held = torch.cuda.max_memory_allocated() - before
    # The scores of four heads are 64 MiB in fp32; made all at once, they are kept and needed again on the way back.
    assert held < 2 * 4 * tokens * tokens * 4


def test_a_batch_in_pinned_memory_arrives_whole() -> None:
    base = loaded(Precision.BF16)
    examples = generate(5, {"train": 4}, turns=(4, 8))["train"]
    encoded = Encoder(base.tokenizer, TEMPLATES["summarize"], 512).encode(examples)
    host = gathered(encoded, 0, EngineSettings(), pinned=True)
    assert host.ids.is_pinned()
    assert torch.equal(host.to("cuda").ids.cpu(), host.ids)
