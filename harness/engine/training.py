"""The training loop: plain PyTorch, one optimizer step after another, every number in sight."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from harness.engine.adapting import Adapter
from harness.engine.attention import unmasked
from harness.engine.batches import logit_places, step_count, training_plan
from harness.engine.batching import Batch, collate
from harness.engine.census import counted, make_workspaces
from harness.engine.checkpoints import Tally
from harness.engine.encoding import Encoded
from harness.engine.graphs import Crowded
from harness.engine.keeping import Beside
from harness.engine.loading import Base
from harness.engine.padding import Start
from harness.engine.restoring import Live
from harness.engine.rigging import Course, Rig
from harness.engine.stepping import summed_loss
from study.settings import EngineSettings, Training

# Each costs the captures of all shapes again.
_REDONE_AT_MOST = 4
# A step's loss, its number (from 1), the number of steps, and real tokens per second so far.
OnStep = Callable[[int, int, float, float], None]
NOTHING = Beside()


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one training is besides its model and data: settings, peak learning rate, seed, checkpointing, and where it
    starts in an adapter that is padded."""

    training: Training
    learning_rate: float
    seed: int
    checkpointing: bool = False
    start: Start | None = None


@dataclass(frozen=True, slots=True)
class Levers:
    """Which levers of speed a training was computed with: None, or why not."""

    no_fused: str | None
    no_graphs: str | None
    no_kernels: str | None
    captured: int
    # Steps whose graphs had too little room for LLM.int8's outliers, made again without.
    redone: int = 0
    # Of the captured shapes, those that an earlier training in this process had captured.
    reused: int = 0
    # The rank that the adapter was padded to.
    padded_rank: int | None = None
    # Whether the weights of a 4-bit base were kept unpacked.
    unpacked_base: bool = False

    def facts(self) -> dict[str, Any]:
        """As a record keeps them."""
        return {
            "fused": self.no_fused is None,
            "fused_not": self.no_fused,
            "cuda_graphs": self.captured,
            "cuda_graphs_not": self.no_graphs,
            "kernels": self.no_kernels is None,
            "kernels_not": self.no_kernels,
            **({"steps_redone": self.redone} if self.redone else {}),
            **({"graphs_reused": self.reused} if self.reused else {}),
            **({"padded_rank": self.padded_rank} if self.padded_rank is not None else {}),
            **({"unpacked_base": True} if self.unpacked_base else {}),
        }


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training was: losses in nats per learned token, one a step, and counts of tokens.

    The first step, which loads kernels, and steps that were captured are told apart as warm-up: their seconds and their
    real tokens."""

    losses: tuple[float, ...]
    steps: int
    tokens: int
    completion_tokens: int
    padding: int
    first_seconds: float
    first_tokens: int
    levers: Levers


def train(
    base: Base,
    adapter: Adapter,
    examples: Sequence[Encoded],
    recipe: Recipe,
    on_step: OnStep,
    beside: Beside = NOTHING,
) -> Trained:
    """Trains the adapter in place.

    The loss of a step is the mean over all learned tokens of its batch, also when the batch is split into
    micro-batches of different lengths. The first step, which holds the longest batch and therefore the peak of memory,
    is counted into the census `beside` where there is one (GPU only). Where checkpoints are kept, the training goes on
    from the last one, if it has any, to the same adapter as without a break.

    Raises:
        Diverged: a loss or a gradient norm that is not finite (with fp16 scaling, only when it persists).
    """
    return train_with(rig_for(base, adapter, examples, recipe), examples, recipe, on_step, beside)


def rig_for(base: Base, adapter: Adapter, examples: Sequence[Encoded], recipe: Recipe, *, again: bool = False) -> Rig:
    """What a training is made with. With `again` it serves others after it, on the same examples and of a recipe that
    differs in the learning rate alone, and in the start where the adapter is padded."""
    training = recipe.training
    lengths = [example.length for example in examples]
    count = step_count(len(examples), training.batch_size, steps=training.steps, epochs=training.epochs)
    plan = training_plan(lengths, training, count, recipe.seed)
    places = logit_places(plan, [(e.length, len(_learned(e, training))) for e in examples], training)
    course = Course(plan, max(lengths), places, repeats_dropout=recipe.checkpointing and drops(adapter.model))
    return Rig(base, adapter, training, course, recipe.learning_rate, again=again)


def train_with(
    rig: Rig, examples: Sequence[Encoded], recipe: Recipe, on_step: OnStep, beside: Beside = NOTHING
) -> Trained:
    """Trains the adapter of a rig as `train` does; losses and adapter are those of a new rig.

    Raises:
        Diverged: as `train`.
    """
    base, model, count = rig.base, rig.adapter.model, len(rig.course.plan.steps)
    model.train()
    set_checkpointing(base.model, on=recipe.checkpointing, keep_random_state=rig.course.repeats_dropout)
    rig.begin(recipe.learning_rate, recipe.start)
    torch.manual_seed(recipe.seed + 1)
    try:
        with rig.installed():
            if base.device == "cuda":
                # With or without a census: the peak is the same.
                make_workspaces()
            live = Live(model, rig.optimizer, rig.scaler, rig.stepper, base.device)
            page = None if beside.keeper is None else beside.keeper.put_back(live, count)
            tally = Tally() if page is None else page.tally
            no_graphs = rig.no_graphs or tally.given_up
            # What a later step holds is not the peak of the training.
            census = beside.census if page is None else None
            first = nullcontext() if census is None else counted(base, rig.adapter, rig.optimizer, census)
            loop = _Loop(rig, examples, recipe, on_step, no_graphs)
            return loop.run(first, tally, lambda: beside.step_made(live, tally, count))
    finally:
        set_checkpointing(base.model, on=False)
        model.eval()


def _learned(example: Encoded, training: Training) -> Sequence[int]:
    return range(1, example.length) if training.loss_on == "all" else example.completion


def drops(model: Any) -> bool:
    """Whether any dropout of a model is active in training."""
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules()) or any(
        getattr(module, "attention_dropout", 0.0) for module in model.modules()
    )


class _Loop:
    """The steps of one training, one after another; the host prepares a batch while the GPU computes the last one."""

    def __init__(
        self,
        rig: Rig,
        examples: Sequence[Encoded],
        recipe: Recipe,
        on_step: OnStep,
        no_graphs: str | None,
    ) -> None:
        self._rig = rig
        self._stepper = rig.stepper
        self._examples = examples
        self._recipe = recipe
        self._on_step = on_step
        self._captured = rig.captured() if no_graphs is None else None
        self._no_graphs = no_graphs
        self._tally = Tally()

    def run(
        self,
        first: AbstractContextManager[None],
        tally: Tally,
        step_made: Callable[[], None],
    ) -> Trained:
        """Makes the steps that `tally` has not counted yet."""
        self._tally = tally
        made, known_tokens = len(tally.losses), tally.tokens
        reused = self._captured.shapes if self._captured else 0
        start = last = time.monotonic()
        steps = [[self._examples[index] for index in indices] for indices in self._rig.course.plan.steps]
        batches = self._stepper.gathered(steps[made]) if made < len(steps) else []
        for number, chosen in enumerate(steps[made:], start=made + 1):
            known = self._captured.shapes if self._captured else 0
            self._stepper.set_rate(rate_factor(number - 1, len(steps), self._recipe.training))
            with first if number == made + 1 else nullcontext():
                finish = self._launch(batches, outside=number == made + 1)
                following = self._stepper.gathered(steps[number]) if number < len(steps) else []
                loss = finish()
            tally.losses.append(loss)
            now = time.monotonic()
            real = sum(batch.tokens for batch in batches)
            tally.tokens += real
            tally.completion += sum(len(example.completion) for example in chosen)
            tally.padding += sum(batch.padding for batch in batches)
            if number == made + 1 or (self._captured and self._captured.shapes > known):
                # The loss was read, so that the device is done with the step.
                tally.warm_seconds += now - last
                tally.warm_tokens += real
            tally.captured = max(tally.captured, self._captured.shapes) if self._captured else 0
            self._on_step(number, len(steps), loss, (tally.tokens - known_tokens) / max(now - start, 1e-9))
            step_made()
            last = time.monotonic()
            batches = following
        rig = self._rig
        levers = Levers(
            no_fused=rig.no_fused,
            no_graphs=self._no_graphs,
            no_kernels=rig.no_kernels,
            captured=tally.captured,
            redone=tally.redone,
            reused=reused,
            padded_rank=rig.adapter.padded_rank,
            unpacked_base=bool(rig.base.unpacked) and rig.no_fused is None,
        )
        return Trained(
            tuple(tally.losses),
            len(steps),
            tally.tokens,
            tally.completion,
            tally.padding,
            tally.warm_seconds,
            tally.warm_tokens,
            levers,
        )

    def _launch(self, batches: Sequence[Batch], *, outside: bool) -> Callable[[], float]:
        """Starts a step; what comes back waits for its loss. The first step, which loads kernels and holds the peak
        that is broken down, is computed outside any graph."""
        if self._captured is None or outside:
            loss = self._stepper.step(batches)
            return lambda: loss
        try:
            return self._stepper.reader(*self._captured.launch(batches))
        except Crowded:
            # Made again, the step shows how much room is needed.
            self._tally.redone += 1
            self._rig.worn = True
            self._captured.forget()
            if self._tally.redone == _REDONE_AT_MOST:
                self._give_graphs_up("LLM.int8 met more outlier columns than captured steps have room for")
            self._stepper.forget_gradients()
            return self._launch(batches, outside=True)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # Nothing was computed yet: the step is made without a graph, and so are those that follow.
            self._give_graphs_up(f"capture failed: {str(error).strip().splitlines()[0][:200]}")
            return self._launch(batches, outside=True)

    def _give_graphs_up(self, reason: str) -> None:
        self._no_graphs = self._tally.given_up = reason
        self._captured = None
        self._rig.give_up()
        torch.cuda.synchronize()


def rate_factor(step: int, steps: int, training: Training) -> float:
    """The share of the peak learning rate at `step` (from 0): linear warm-up, then the schedule."""
    warmup = math.ceil(training.warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    if training.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    return 1.0 if training.schedule == "constant" else max(0.0, 1.0 - progress)


def set_checkpointing(model: Any, *, on: bool, keep_random_state: bool = True) -> None:
    """Switches checkpointing; without dropout there is no random state to keep, and keeping it bars a capture."""
    # transformers renamed this in 5.2x; both names are understood, so that neither version warns.
    new = hasattr(model, "activation_checkpointing_enable")
    name = f"{'activation' if new else 'gradient'}_checkpointing"
    if on:
        getattr(model, f"{name}_enable")(
            **{f"{name}_kwargs": {"use_reentrant": False, "preserve_rng_state": keep_random_state}}
        )
    else:
        getattr(model, f"{name}_disable")()


@torch.no_grad()
def validation_loss(
    base: Base, examples: Sequence[Encoded], plan: Sequence[Sequence[int]], engine: EngineSettings
) -> float:
    """Mean cross-entropy over all completion tokens, in nats per token."""
    total, learned = torch.zeros((), dtype=torch.float64, device=base.device), 0
    with unmasked(base, max(example.length for example in examples) + engine.pad_to_multiple):
        for indices in plan:
            chosen = [examples[index] for index in indices]
            batch = collate(chosen, base.tokenizer.pad_token_id, base.device, engine)
            # Added up where it is: a sum on the host would wait for every batch.
            total += summed_loss(base, batch, engine)
            learned += batch.learned
    return float(total) / learned
