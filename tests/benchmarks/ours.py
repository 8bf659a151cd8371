"""The project's own engine as a row: load, attach and train as a study does, read from outside."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from harness.engine.adapting import attach
from harness.engine.batches import TrainingPlan, passes, rounded_up, training_plan
from harness.engine.encoding import Encoded
from harness.engine.fusing import unfusable
from harness.engine.graphs import obstacle
from harness.engine.loading import load_base
from harness.engine.training import Recipe, train
from harness.engine.trying import probe_arm
from study.arms import Arm
from study.settings import EngineSettings, Training
from study.space import Hyperparameters
from tests.benchmarks.measuring import LEARNING_RATE, SEED, Count, Job, Meter, Options, Row, flops_of, row_of

# The levers that are on: without one of these words both are.
_LEVERS = {"eager": (False, False), "fused": (True, False), "graphs": (False, True)}
_WORDS = (
    *_LEVERS,
    *("padN", "passN", "poolN", "rankN"),
    *("full-logits", "checkpointing", "bf16-adapters", "ungrouped", "no-kernels"),
)


class _Enough(Exception):
    """The time is up; raised in `on_step`, which is where a training can be left."""


def run_ours(job: Job, options: Options, examples: Sequence[Encoded]) -> Row:
    """Trains with the project's engine.

    Where steps are captured as CUDA graphs, a width costs a capture when it is met first. Such a training runs `rounds`
    times the steps of the others, and its steady rate leaves out the warm-up and the first step of every width: in a
    study of three epochs nearly all steps are replays. `rate` holds everything.
    """
    start = time.monotonic()
    arm, training = _asked(job, options)
    base = load_base(options.folder, arm, options.device, model_dropout=options.model_dropout)
    rank = _given(job, "rank") or options.rank
    hyperparameters = Hyperparameters(rank, rank, LEARNING_RATE)
    adapter = attach(base, arm, hyperparameters, training, SEED)
    flops = flops_of(adapter.model)
    fuses = unfusable(adapter.model, on=bool(training.engine.fused)) is None
    no_graphs = obstacle(base, training, repeats_dropout=False, fused=fuses)
    steps = options.warmup + options.steps * (1 if no_graphs else options.rounds)
    training = replace(training, steps=steps)
    lengths = [example.length for example in examples]
    plan = training_plan(lengths, training, steps, SEED)
    row = row_of(job, rank)
    row.load_seconds = time.monotonic() - start
    row.facts = {"cuda_graphs_not": no_graphs, "pad_to_multiple": training.engine.pad_to_multiple}
    meter = Meter(options.device, options.warmup, steps, options.seconds_limit)
    losses: list[float] = []

    def on_step(_number: int, _steps: int, loss: float, _rate: float) -> None:
        losses.append(loss)
        if meter.step() and meter.steps < steps:
            raise _Enough

    meter.start()
    with suppress(_Enough):
        trained = train(base, adapter, examples, Recipe(training, LEARNING_RATE, SEED, arm.checkpointing), on_step)
        row.facts |= {**trained.levers.facts(), "warm_seconds": trained.first_seconds}
        if trained.tokens != sum(lengths[index] for step in plan.steps for index in step):
            raise RuntimeError("the engine trained on other batches than its plan says")
    row.loss_mean, row.loss_last = sum(losses) / len(losses), losses[-1]
    firsts = set() if no_graphs else _first_visits(plan, lengths, training)
    row.facts["captured_steps"] = len(firsts)
    meter.read(row, [_count(step, examples, training) for step in plan.steps], flops, firsts)
    return row


def _asked(job: Job, options: Options) -> tuple[Arm, Training]:
    unknown = [
        word for word in job.variants if word not in _WORDS and not re.fullmatch(r"(pad|pass|pool|rank)\d+", word)
    ]
    if unknown or job.precision is None:
        raise ValueError(f"{job.label}: variants of ours are {', '.join(_WORDS)}, not {', '.join(unknown)}")
    chosen = next((_LEVERS[word] for word in job.variants if word in _LEVERS), (True, True))
    engine = EngineSettings(
        completion_logits="full-logits" not in job.variants,
        pad_to_multiple=_given(job, "pad") or (8 if "eager" in job.variants else 32),
        fused=chosen[0] or None,
        pass_tokens=_given(job, "pass"),
        pool_steps=_given(job, "pool"),
        cuda_graphs=chosen[1] or None,
        kernels=None if "no-kernels" in job.variants else True,
    )
    training = Training(
        steps=None,
        epochs=None,
        batch_size=job.batch,
        micro_batch_size=job.batch,
        max_tokens=2048,
        optimizer="adamw",
        schedule="constant",
        warmup_ratio=0.0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        adapter_dtype="compute" if "bf16-adapters" in job.variants else "fp32",
        model_dropout=options.model_dropout,
        loss_on="completion",
        length_grouping="ungrouped" not in job.variants,
        engine=engine,
    )
    return replace(probe_arm(job.precision), checkpointing="checkpointing" in job.variants), training


def _given(job: Job, name: str) -> int | None:
    """The number of a variant such as pad64."""
    found = [re.fullmatch(rf"{name}(\d+)", word) for word in job.variants]
    return next((int(match[1]) for match in found if match), None)


def _first_visits(plan: TrainingPlan, lengths: Sequence[int], training: Training) -> set[int]:
    """Numbers of the steps that capture something: the second, and every later one with a shape that is new."""
    seen: set[tuple[int, int]] = set()
    firsts: set[int] = set()
    for number, step in enumerate(plan.steps[1:], start=2):
        shapes = {shape for shape, _ in _parts(step, lengths, training)}
        if number == 2 or shapes - seen:
            firsts.add(number)
        seen |= shapes
    return firsts


def _parts(
    step: Sequence[int], lengths: Sequence[int], training: Training
) -> Iterator[tuple[tuple[int, int], tuple[int, ...]]]:
    """Dialogues and padded tokens of each pass of a step, and which examples it has."""
    for part in passes(step, lengths, training):
        yield (len(part), rounded_up(max(lengths[index] for index in part), training.engine.pad_to_multiple)), part


def _count(step: Sequence[int], examples: Sequence[Encoded], training: Training) -> Count:
    lengths = [example.length for example in examples]
    return Count(
        sum(lengths[index] for index in step),
        sum(dialogues * width for (dialogues, width), _ in _parts(step, lengths, training)),
        sum(len(examples[index].completion) for index in step),
        sum(lengths[index] ** 2 for index in step),
    )
