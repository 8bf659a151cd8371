"""Which examples go into which batch: plans that follow from lengths, settings and a seed alone."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from study.settings import Training

# A training epoch is cut into pools of at most this many batches, and at least four pools: lengths are grouped inside
# a pool, so that batches hold little padding, and which examples meet in a batch still depends on the seed.
POOL_BATCHES = 16
LEAST_POOLS = 4


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """The examples of every optimizer step, by index."""

    steps: tuple[tuple[int, ...], ...]


def step_count(examples: int, batch_size: int, *, steps: int | None, epochs: float | None) -> int:
    """Optimizer steps: `steps`, or as many as `epochs` passes over the examples need."""
    if steps is not None:
        return steps
    if epochs is None:
        raise ValueError("either steps or epochs must be given")
    return max(1, math.ceil(epochs * examples / batch_size))


def training_plan(lengths: Sequence[int], batch_size: int, count: int, seed: int, *, group: bool) -> TrainingPlan:
    """`count` batches of `batch_size` examples, drawn without replacement epoch by epoch.

    Args:
        lengths: tokens of each example.
        group: batch examples of similar length together.

    The first batch is the one with the most padded tokens: the memory peak then shows at once, and an out-of-memory
    within seconds.
    """
    rng = random.Random(seed)
    stream = _epochs(lengths, batch_size, rng, group=group)
    steps = [next(stream) for _ in range(count)]
    longest = max(range(count), key=lambda index: (max(lengths[example] for example in steps[index]), -index))
    steps[0], steps[longest] = steps[longest], steps[0]
    return TrainingPlan(tuple(steps))


def largest_batches(
    plan: TrainingPlan, lengths: Sequence[tuple[int, int]], training: Training
) -> tuple[tuple[int, int, int], ...]:
    """The micro-batches of which one decides the peak: dialogues, padded tokens of each, positions with logits.

    They are those that no other exceeds both in padded tokens and in logits; the one with most padded tokens first.

    Args:
        lengths: real tokens and completion tokens of each example.
    """
    size = training.micro_batch_size
    shapes = (
        _shape([lengths[index] for index in step[at : at + size]], training)
        for step in plan.steps
        for at in range(0, len(step), size)
    )
    ordered = sorted(set(shapes), key=lambda shape: (-shape[0] * shape[1], -shape[2]))
    largest: list[tuple[int, int, int]] = []
    for shape in ordered:
        if not largest or shape[2] > largest[-1][2]:
            largest.append(shape)
    return tuple(largest)


def _shape(lengths: Sequence[tuple[int, int]], training: Training) -> tuple[int, int, int]:
    width = rounded_up(max(total for total, _ in lengths), training.engine.pad_to_multiple)
    if not training.engine.completion_logits:
        return len(lengths), width, len(lengths) * width
    on_all = training.loss_on == "all"
    return len(lengths), width, sum(total - 1 if on_all else completion for total, completion in lengths)


def _epochs(lengths: Sequence[int], batch_size: int, rng: random.Random, *, group: bool) -> Iterator[tuple[int, ...]]:
    carried: list[int] = []
    while True:
        order = list(range(len(lengths)))
        rng.shuffle(order)
        carried += order
        whole = len(carried) - len(carried) % batch_size
        ready, carried = carried[:whole], carried[whole:]
        pool_size = batch_size * min(POOL_BATCHES, max(1, len(ready) // batch_size // LEAST_POOLS))
        for start in range(0, len(ready), pool_size):
            pool = ready[start : start + pool_size]
            if group:
                pool.sort(key=lambda example: lengths[example])
            batches = [tuple(pool[at : at + batch_size]) for at in range(0, len(pool), batch_size)]
            rng.shuffle(batches)
            yield from batches


def evaluation_plan(lengths: Sequence[int], batch_size: int) -> tuple[tuple[int, ...], ...]:
    """Batches of examples sorted from long to short: equal for every arm, since it depends on nothing else."""
    order = sorted(range(len(lengths)), key=lambda example: (-lengths[example], example))
    return tuple(tuple(order[at : at + batch_size]) for at in range(0, len(order), batch_size))


def rounded_up(length: int, multiple: int) -> int:
    """The smallest multiple that holds `length`."""
    return -(-length // multiple) * multiple
