"""Which examples go into which batch: plans that follow from lengths, settings and a seed alone."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from study.settings import Training

# Unless the grid says otherwise, a training epoch is cut into pools of at most this many batches, and at least four
# pools: lengths are grouped inside a pool, so that batches hold little padding, and which examples meet in a batch
# still depends on the seed.
POOL_BATCHES = 16
LEAST_POOLS = 4
# A loss that is only read is computed on batches of at most this many padded tokens: they keep a GPU busy, and hold
# less than reading prompts does. On a CPU four times as many took LLM.int8 of SmolLM2 from 3.3 to 5.7 GiB.
LOSS_TOKENS = 4_096
# A captured step has a multiple of this many positions with logits.
PLACES_MULTIPLE = 64


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


def training_plan(lengths: Sequence[int], training: Training, count: int, seed: int) -> TrainingPlan:
    """`count` batches of the grid's size, drawn without replacement epoch by epoch; of similar length where it says so.

    Args:
        lengths: tokens of each example.

    The first batch is the one with the pass of most padded tokens: the memory peak then shows at once, and an
    out-of-memory within seconds.
    """
    rng = random.Random(seed)
    stream = _epochs(lengths, training, rng)
    steps = [next(stream) for _ in range(count)]
    bounded = training.engine.pass_tokens is not None
    largest = [
        # Unless their tokens are bounded, all passes of a training have the same number of dialogues.
        max(max(lengths[index] for index in part) * (len(part) if bounded else 1) for part in parts)
        for parts in (list(passes(step, lengths, training)) for step in steps)
    ]
    first = max(range(count), key=lambda index: (largest[index], -index))
    steps[0], steps[first] = steps[first], steps[0]
    return TrainingPlan(tuple(steps))


def passes(step: Sequence[int], lengths: Sequence[int], training: Training) -> Iterator[tuple[int, ...]]:
    """The parts of a step that go through the model one after another; their gradients add up.

    Micro-batches of the size that the grid sets, in the plan's order. Where the engine bounds a pass's padded tokens, a
    micro-batch that has more is sorted by length and cut into halves, quarters and so on of itself, so that few shapes
    arise.

    Args:
        lengths: tokens of each example.
    """
    size, bound = training.micro_batch_size, training.engine.pass_tokens
    for at in range(0, len(step), size):
        part = tuple(step[at : at + size])
        if bound is None:
            yield part
        else:
            yield from _bounded(part, lengths, training.engine.pad_to_multiple, bound)


def _bounded(part: tuple[int, ...], lengths: Sequence[int], multiple: int, bound: int) -> Iterator[tuple[int, ...]]:
    sizes = [len(part)]
    while sizes[-1] > 1:
        sizes.append((sizes[-1] + 1) // 2)
    left = sorted(part, key=lambda example: (-lengths[example], example))
    while left:
        width = rounded_up(lengths[left[0]], multiple)
        size = next(size for size in sizes if size == 1 or (size <= len(left) and size * width <= bound))
        yield tuple(left[:size])
        left = left[size:]


def logit_places(
    plan: TrainingPlan, lengths: Sequence[tuple[int, int]], training: Training
) -> dict[tuple[int, int], int] | None:
    """Positions with logits of a pass by its dialogues and width, where passes are captured; None where they are not.

    A captured pass has a fixed shape. It has as many learned positions as the pass of that shape with most, rounded up;
    those left over are learned by nobody.

    Args:
        lengths: real tokens and completion tokens of each example.
    """
    if not training.engine.cuda_graphs:
        return None
    places: dict[tuple[int, int], int] = {}
    for dialogues, width, learned in _shapes(plan, lengths, training):
        shape = dialogues, width
        places[shape] = max(places.get(shape, 0), rounded_up(learned, PLACES_MULTIPLE))
    return places


def largest_batches(
    plan: TrainingPlan, lengths: Sequence[tuple[int, int]], training: Training
) -> tuple[tuple[int, int, int], ...]:
    """The passes of which one decides the peak: dialogues, padded tokens of each, positions with logits.

    They are those that no other exceeds both in padded tokens and in logits; the one with most padded tokens first.

    Args:
        lengths: real tokens and completion tokens of each example.
    """
    shapes = set(_shapes(plan, lengths, training))
    places = logit_places(plan, lengths, training)
    if places is not None and training.engine.completion_logits:
        shapes = {(dialogues, width, places[dialogues, width]) for dialogues, width, _ in shapes}
    ordered = sorted(shapes, key=lambda shape: (-shape[0] * shape[1], -shape[2]))
    largest: list[tuple[int, int, int]] = []
    for shape in ordered:
        if not largest or shape[2] > largest[-1][2]:
            largest.append(shape)
    return tuple(largest)


def _shapes(
    plan: TrainingPlan, lengths: Sequence[tuple[int, int]], training: Training
) -> Iterator[tuple[int, int, int]]:
    totals = [total for total, _ in lengths]
    for step in plan.steps:
        for part in passes(step, totals, training):
            yield _shape([lengths[index] for index in part], training)


def _shape(lengths: Sequence[tuple[int, int]], training: Training) -> tuple[int, int, int]:
    width = rounded_up(max(total for total, _ in lengths), training.engine.pad_to_multiple)
    if not training.engine.completion_logits:
        return len(lengths), width, len(lengths) * width
    on_all = training.loss_on == "all"
    return len(lengths), width, sum(total - 1 if on_all else completion for total, completion in lengths)


def _epochs(lengths: Sequence[int], training: Training, rng: random.Random) -> Iterator[tuple[int, ...]]:
    batch_size, pools = training.batch_size, training.engine.pool_steps
    carried: list[int] = []
    while True:
        order = list(range(len(lengths)))
        rng.shuffle(order)
        carried += order
        whole = len(carried) - len(carried) % batch_size
        ready, carried = carried[:whole], carried[whole:]
        steps = min(POOL_BATCHES, max(1, len(ready) // batch_size // LEAST_POOLS)) if pools is None else pools
        pool_size = batch_size * steps
        for start in range(0, len(ready), pool_size):
            pool = ready[start : start + pool_size]
            if training.length_grouping:
                pool.sort(key=lambda example: lengths[example])
            batches = [tuple(pool[at : at + batch_size]) for at in range(0, len(pool), batch_size)]
            rng.shuffle(batches)
            yield from batches


def evaluation_plan(lengths: Sequence[int], batch_size: int) -> tuple[tuple[int, ...], ...]:
    """Batches of examples sorted from long to short: equal for every arm, since it depends on nothing else."""
    order = sorted(range(len(lengths)), key=lambda example: (-lengths[example], example))
    return tuple(tuple(order[at : at + batch_size]) for at in range(0, len(order), batch_size))


def loss_plan(lengths: Sequence[int], bound: int = LOSS_TOKENS) -> tuple[tuple[int, ...], ...]:
    """Batches of at most `bound` padded tokens, sorted from long to short: how a loss over examples is computed."""
    order = sorted(range(len(lengths)), key=lambda example: (-lengths[example], example))
    batches: list[tuple[int, ...]] = []
    at = 0
    while at < len(order):
        size = max(1, bound // lengths[order[at]])
        batches.append(tuple(order[at : at + size]))
        at += size
    return tuple(batches)


def rounded_up(length: int, multiple: int) -> int:
    """The smallest multiple that holds `length`."""
    return -(-length // multiple) * multiple
