"""Trials that share a batch against the same trials on their own, through the project's own training."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import peft
import pytest
import torch

from harness.engine.adapting import Adapter, attach, detach
from harness.engine.encoding import Encoded
from harness.engine.loading import Base
from harness.engine.training import Recipe, train
from harness.engine.trying import probe_arm
from study.arms import Arm, Method, Precision
from study.examples import Example
from study.settings import Training
from study.space import Hyperparameters
from tests.benchmarks.stacked import NotStackable, Stack, Trial, mask_like
from tests.benchmarks.stacked_batches import Batches, plan_of
from tests.benchmarks.stacked_training import train_stacked
from tests.unit.harness.conftest import encode, training

Load = Callable[[Precision], Base]
Matrices = dict[str, tuple[torch.Tensor, torch.Tensor]]
STEPS = 20
# Unequal in everything that is a trial's own; gradients are clipped at some steps of the first trial, at every step of
# the second and at none of the third.
TRIALS = (
    Trial(Hyperparameters(rank=4, alpha=8, learning_rate=1e-2), seed=7),
    Trial(Hyperparameters(rank=2, alpha=16, learning_rate=3e-3), seed=8),
    Trial(Hyperparameters(rank=8, alpha=4, learning_rate=2e-2), seed=9),
)
SETTINGS = training(steps=STEPS, schedule="cosine", warmup_ratio=0.1, weight_decay=0.1, max_grad_norm=0.2)


def together(
    base: Base, arm: Arm, trials: Sequence[Trial], encoded: tuple[Encoded, ...], settings: Training
) -> tuple[Stack, list[list[float]]]:
    stack = Stack(base, arm, trials, settings)
    plans = [plan_of(encoded, settings, STEPS, trial.seed) for trial in trials]
    batches = Batches(encoded, plans, settings, base.tokenizer.pad_token_id)
    return stack, train_stacked(base, stack, batches, settings, lambda _: None, graphs=False)


def alone(
    base: Base,
    arm: Arm,
    trial: Trial,
    encoded: tuple[Encoded, ...],
    settings: Training,
    prepare: Callable[[Adapter], None] = lambda _: None,
) -> tuple[Matrices, tuple[float, ...]]:
    adapter = attach(base, arm, trial.hyperparameters, settings, trial.seed)
    prepare(adapter)
    recipe = Recipe(settings, trial.hyperparameters.learning_rate, trial.seed)
    losses = train(base, adapter, encoded, recipe, lambda *_: None).losses
    layers: dict[str, Any] = {
        path: module for path, module in base.model.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)
    }
    found = {
        path: (layer.lora_A["default"].weight.detach().clone(), layer.lora_B["default"].weight.detach().clone())
        for path, layer in layers.items()
    }
    detach(adapter)
    return found, losses


def furthest(one: Matrices, other: Matrices) -> float:
    """The largest distance of two matrices, in units of their size. Of single numbers it would say little: AdamW moves
    one whose gradient is next to nothing as far as any other, in a direction that rounding decides."""
    assert set(one) == set(other)
    pairs = [pair for path in one for pair in zip(one[path], other[path], strict=True)]
    return max(float((first - second).norm() / second.norm()) for first, second in pairs)


@pytest.mark.parametrize("method", [Method.LORA, Method.RSLORA])
def test_stacked_trials_have_the_losses_and_weights_of_separate_runs(
    load: Load, examples: tuple[Example, ...], method: Method
) -> None:
    base = load(Precision.FP32)
    encoded = encode(base, examples)
    arm = probe_arm(Precision.FP32, method)
    stack, losses = together(base, arm, TRIALS, encoded, SETTINGS)
    assert len(set(stack.widths)) > 1, "the last batches of the trials should differ in width"
    for number, trial in enumerate(TRIALS):
        matrices, expected = alone(base, arm, trial, encoded, SETTINGS)
        assert losses[number] == pytest.approx(expected, abs=1e-5)
        assert furthest(stack.adapter(number), matrices) < 2e-4
    assert all(own[-1] < own[0] - 0.1 for own in losses)


def test_dropout_has_a_stream_for_each_trial(load: Load, examples: tuple[Example, ...]) -> None:
    class Drawn(torch.nn.Module):
        def __init__(self, generator: torch.Generator) -> None:
            super().__init__()
            self._generator = generator

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * mask_like(x, 0.2, self._generator)

    def prepared(seed: int) -> Callable[[Adapter], None]:
        def prepare(adapter: Adapter) -> None:
            generator = torch.Generator().manual_seed(seed + 1)
            for module in adapter.model.modules():
                if isinstance(module, peft.tuners.lora.LoraLayer):
                    module.lora_dropout["default"] = Drawn(generator)

        return prepare

    base = load(Precision.FP32)
    encoded = encode(base, examples)
    arm = replace(probe_arm(Precision.FP32), dropout=0.2)
    _, losses = together(base, arm, TRIALS[:2], encoded, SETTINGS)
    for own, trial in zip(losses, TRIALS, strict=False):
        _, expected = alone(base, arm, trial, encoded, SETTINGS, prepared(trial.seed))
        assert own == pytest.approx(expected, abs=1e-5)
        _, other = alone(base, arm, trial, encoded, SETTINGS, prepared(trial.seed + 1))
        assert own != pytest.approx(other, abs=1e-4)


def test_padded_ranks_stay_exactly_zero(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    stack, _ = together(base, probe_arm(Precision.FP32), TRIALS, encode(base, examples), SETTINGS)
    padding = [part for part in stack.padding() if part.numel()]
    assert len(padding) == 2 * 4 * len(stack.layers)
    assert not any(part.any() for part in padding)
    assert stack.gradients.any(dim=1).all()


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.NF4])
def test_stacked_trials_follow_separate_runs_over_other_precisions_and_leave_their_base(
    load: Load, examples: tuple[Example, ...], precision: Precision
) -> None:
    base = load(precision)
    before = {name: value.clone() for name, value in base.model.state_dict().items() if isinstance(value, torch.Tensor)}
    encoded = encode(base, examples)
    _, losses = together(base, probe_arm(precision), TRIALS, encoded, SETTINGS)
    for number, trial in enumerate(TRIALS):
        _, expected = alone(base, probe_arm(precision), trial, encoded, SETTINGS)
        assert losses[number] == pytest.approx(expected, abs=2e-3)
    after: dict[str, Any] = base.model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_base_is_as_it_was_behind_a_stack(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    encoded = encode(base, examples)
    arm = probe_arm(Precision.FP32)
    _, expected = alone(base, arm, TRIALS[0], encoded, SETTINGS)
    together(base, arm, TRIALS, encoded, SETTINGS)
    assert alone(base, arm, TRIALS[0], encoded, SETTINGS)[1] == expected
    assert not base.model.training
    assert base.model.config._attn_implementation == "sdpa"


def test_what_cannot_share_a_batch_is_refused(load: Load) -> None:
    base = load(Precision.FP32)
    with pytest.raises(NotStackable, match=r"'lora-int8'.*what else is in its batch"):
        Stack(base, probe_arm(Precision.INT8), TRIALS, SETTINGS)
    with pytest.raises(NotStackable, match="DoRA"):
        Stack(base, probe_arm(Precision.FP32, Method.DORA), TRIALS, SETTINGS)
    with pytest.raises(NotStackable, match="several micro-batches"):
        Stack(base, probe_arm(Precision.FP32), TRIALS, replace(SETTINGS, micro_batch_size=1))
