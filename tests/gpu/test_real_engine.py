"""The training engine on a GPU: captured steps against the same steps one by one."""

from dataclasses import replace

import pytest
import torch

from harness.engine.adapting import attach, detach
from harness.engine.batching import gathered
from harness.engine.encoding import Encoder
from harness.engine.loading import Base, load_base
from harness.engine.sources import model_folder
from harness.engine.training import Recipe, Trained, train
from harness.engine.trying import PROBE, probe_arm
from study.arms import Precision
from study.dialogues import generate
from study.prompts import TEMPLATES
from study.settings import EngineSettings
from study.space import Hyperparameters

pytestmark = pytest.mark.gpu
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


def test_what_cannot_be_captured_says_why_and_is_computed() -> None:
    base = loaded(Precision.INT8)
    trained = fitted(base, Precision.INT8, EngineSettings(pad_to_multiple=32))
    plain = fitted(base, Precision.INT8, EngineSettings(pad_to_multiple=32, fused=None, cuda_graphs=None))
    assert trained.losses == pytest.approx(plain.losses, rel=5e-3)
    assert trained.levers.captured == 0
    assert "LLM.int8" in str(trained.levers.no_graphs)
    assert len(trained.losses) == 30


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


def test_a_batch_in_pinned_memory_arrives_whole() -> None:
    base = loaded(Precision.BF16)
    examples = generate(5, {"train": 4}, turns=(4, 8))["train"]
    encoded = Encoder(base.tokenizer, TEMPLATES["summarize"], 512).encode(examples)
    host = gathered(encoded, 0, EngineSettings(), pinned=True)
    assert host.ids.is_pinned()
    assert torch.equal(host.to("cuda").ids.cpu(), host.ids)
