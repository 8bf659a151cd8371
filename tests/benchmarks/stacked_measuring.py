"""Timing trainings of several trials: at once as a stack, and each on its own through the project's own engine."""

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from harness.engine import training as engine
from harness.engine.adapting import attach, detach
from harness.engine.batches import TrainingPlan, rounded_up
from harness.engine.encoding import Encoded
from harness.engine.loading import Base
from harness.engine.training import Recipe, train
from harness.messages import Device
from study.arms import Arm
from study.settings import Training
from tests.benchmarks.stacked import Stack, Trial
from tests.benchmarks.stacked_batches import Batches, plan_of
from tests.benchmarks.stacked_training import train_stacked


class OutOfTime(RuntimeError):
    """The limit of `--limit-s` has passed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One training's timed pass: seconds, real and padded tokens; the seconds of all before it; bytes at the peak."""

    seconds: float
    tokens: int
    padded: int
    warm_seconds: float
    peak_allocated_bytes: int | None

    def __add__(self, other: "Reading") -> "Reading":
        """One after the other."""
        peaks = [peak for peak in (self.peak_allocated_bytes, other.peak_allocated_bytes) if peak is not None]
        return Reading(
            self.seconds + other.seconds,
            self.tokens + other.tokens,
            self.padded + other.padded,
            self.warm_seconds + other.warm_seconds,
            max(peaks, default=None),
        )

    @property
    def rate(self) -> float:
        """Real tokens per second."""
        return self.tokens / self.seconds


class Clock:
    """Times the last of several passes over the same steps; ends a training that outlasts the limit."""

    def __init__(self, device: Device, passes: int, steps: int, deadline: float) -> None:
        self._device = device
        self._before, self._all = (passes - 1) * steps, passes * steps
        self._deadline = deadline
        self._marks: list[float] = []
        if device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self._mark()
        if self._before == 0:
            self._mark()

    def _mark(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()
        self._marks.append(time.monotonic())

    def on_step(self, number: int) -> None:
        """Step `number` (from 1) has been computed."""
        if number in (self._before, self._all):
            self._mark()
        if time.monotonic() > self._deadline:
            raise OutOfTime

    def reading(self, tokens: int, padded: int) -> Reading:
        """What was timed, of a pass with so many tokens."""
        start, before, end = self._marks
        peak = torch.cuda.max_memory_allocated() if self._device == "cuda" else None
        return Reading(end - before, tokens, padded, before - start, peak)


@dataclass(frozen=True, slots=True)
class Bench:
    """One base and its dialogues, ready to be trained on."""

    base: Base
    arm: Arm
    encoded: tuple[Encoded, ...]
    training: Training
    passes: int
    graphs: bool
    deadline: float

    @property
    def steps(self) -> int:
        """Steps of one pass."""
        return (self.training.steps or 0) // self.passes

    def plan(self, seed: int) -> TrainingPlan:
        """The steps of a data order, as often as there are passes."""
        once = plan_of(self.encoded, self.training, self.steps, seed)
        return TrainingPlan(once.steps * self.passes)

    def clock(self) -> Clock:
        """A clock for the next training."""
        return Clock(self.base.device, self.passes, self.steps, self.deadline)

    def separate(self, trial: Trial) -> tuple[Reading, tuple[float, ...], Any]:
        """A trial on its own through the project's training; its losses, and the levers it was computed with."""
        plan = self.plan(trial.seed)
        adapter = attach(self.base, self.arm, trial.hyperparameters, self.training, trial.seed)
        recipe = Recipe(self.training, trial.hyperparameters.learning_rate, trial.seed)
        clock = self.clock()
        try:
            with mock.patch.object(engine, "training_plan", return_value=plan):
                trained = train(self.base, adapter, self.encoded, recipe, lambda number, *_: clock.on_step(number))
        finally:
            detach(adapter)
        once = [[self.encoded[index].length for index in step] for step in plan.steps[: self.steps]]
        widths = [rounded_up(max(step), self.training.engine.pad_to_multiple) for step in once]
        padded = sum(width * len(step) for width, step in zip(widths, once, strict=True))
        return clock.reading(sum(map(sum, once)), padded), trained.losses, trained.levers.facts()

    def stacked(self, trials: Sequence[Trial]) -> tuple[Reading, list[list[float]]]:
        """Trials at once."""
        plans = [self.plan(trial.seed) for trial in trials]
        batches = Batches(self.encoded, plans, self.training, self.base.tokenizer.pad_token_id)
        clock = self.clock()
        stack = Stack(self.base, self.arm, trials, self.training)
        losses = train_stacked(self.base, stack, batches, self.training, clock.on_step, graphs=self.graphs)
        tokens = sum(batches.tokens(step) for step in range(self.steps))
        return clock.reading(tokens, sum(batches.padded(step) for step in range(self.steps))), losses
