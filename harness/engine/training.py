"""The training loop: plain PyTorch, one optimizer step after another, every number in sight."""

import importlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from harness.engine.adapting import Adapter
from harness.engine.batches import TrainingPlan, rounded_up, step_count, training_plan
from harness.engine.census import Census, counted
from harness.engine.encoding import Encoded
from harness.engine.loading import Base
from study.settings import EngineSettings, Training

# A step's loss, its number (from 1), the number of steps, and real tokens per second so far.
OnStep = Callable[[int, int, float, float], None]


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded token ids (batch, tokens) and the positions whose next token is learned.

    There is no attention mask: under causal attention what is padded on the right is seen by no real token, and
    without a mask scaled_dot_product_attention takes its fast path.
    """

    ids: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    targets: torch.Tensor
    tokens: int

    @property
    def padding(self) -> int:
        """Padded positions of the batch."""
        return self.ids.numel() - self.tokens


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one training is besides its model and data: settings, peak learning rate, seed, checkpointing."""

    training: Training
    learning_rate: float
    seed: int
    checkpointing: bool = False


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training was: losses in nats per learned token, one a step, and counts of tokens.

    The first step, which loads kernels, is told apart: its seconds and its real tokens."""

    losses: tuple[float, ...]
    steps: int
    tokens: int
    completion_tokens: int
    padding: int
    first_seconds: float
    first_tokens: int


def collate(
    examples: Sequence[Encoded], pad_id: int, device: str, engine: EngineSettings, *, on_all: bool = False
) -> Batch:
    """Examples as one batch. With `on_all` the loss is over every token, otherwise over the completion alone."""
    longest = max(example.length for example in examples)
    width = rounded_up(longest, engine.pad_to_multiple)
    ids = torch.full((len(examples), width), pad_id, dtype=torch.long)
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    for row, example in enumerate(examples):
        tokens = (*example.prompt, *example.completion)
        ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        first = 1 if on_all else len(example.prompt)
        rows += [row] * (len(tokens) - first)
        columns += range(first - 1, len(tokens) - 1)
        targets += tokens[first:]
    total = sum(example.length for example in examples)
    pinned = device == "cuda"
    made = [ids, *(torch.tensor(values, dtype=torch.long) for values in (rows, columns, targets))]
    moved = [(tensor.pin_memory() if pinned else tensor).to(device, non_blocking=True) for tensor in made]
    return Batch(moved[0], moved[1], moved[2], moved[3], total)


def summed_loss(base: Base, batch: Batch, engine: EngineSettings) -> torch.Tensor:
    """Cross-entropy summed over the learned tokens of a batch, in nats, computed in fp32.

    With `completion_logits` the head sees only the positions that are learned; the logits of a dialogue's prompt,
    most of its tokens, are never made.
    """
    hidden = base.decoder(input_ids=batch.ids, use_cache=False).last_hidden_state
    if engine.completion_logits:
        logits = base.head(hidden[batch.rows, batch.columns])
    else:
        logits = base.head(hidden)[batch.rows, batch.columns]
    return F.cross_entropy(logits.float(), batch.targets, reduction="sum")


def train(
    base: Base,
    adapter: Adapter,
    examples: Sequence[Encoded],
    recipe: Recipe,
    on_step: OnStep,
    census: Census | None = None,
) -> Trained:
    """Trains the adapter in place.

    The loss of a step is the mean over all learned tokens of its batch, also when the batch is split into
    micro-batches of different lengths. The first step, which holds the longest batch and therefore the peak of memory,
    is counted into `census` where one is given (GPU only).

    Raises:
        Diverged: a loss or a gradient norm that is not finite (with fp16 scaling, only when it persists).
    """
    training = recipe.training
    lengths = [example.length for example in examples]
    count = step_count(len(examples), training.batch_size, steps=training.steps, epochs=training.epochs)
    plan = training_plan(lengths, training.batch_size, count, recipe.seed, group=training.length_grouping)
    model = adapter.model
    model.train()
    set_checkpointing(base.model, on=recipe.checkpointing)
    optimizer = _optimizer(model, training, recipe.learning_rate, base.device)
    if training.optimizer == "adamw":
        make_state(optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, count, training))
    scaler = torch.amp.GradScaler(base.device, enabled=base.dtype == torch.float16)
    stepper = _Stepper(base, model, optimizer, scaler, training)
    torch.manual_seed(recipe.seed + 1)
    first = nullcontext() if census is None else counted(base, adapter, optimizer, census)
    try:
        return _loop(stepper, schedule, examples, plan, on_step, first)
    finally:
        set_checkpointing(base.model, on=False)
        model.eval()


def _loop(
    stepper: "_Stepper",
    schedule: Any,
    examples: Sequence[Encoded],
    plan: TrainingPlan,
    on_step: OnStep,
    first: AbstractContextManager[None],
) -> Trained:
    losses: list[float] = []
    tokens = completion = padding = first_tokens = 0
    first_seconds = 0.0
    start = time.monotonic()
    for number, indices in enumerate(plan.steps, start=1):
        batches = stepper.batches([examples[index] for index in indices])
        with first if number == 1 else nullcontext():
            loss = stepper.step(batches)
        schedule.step()
        losses.append(loss)
        tokens += sum(batch.tokens for batch in batches)
        completion += sum(len(examples[index].completion) for index in indices)
        padding += sum(batch.padding for batch in batches)
        on_step(number, len(plan.steps), loss, tokens / max(time.monotonic() - start, 1e-9))
        if number == 1:
            # The loss was read, so that the device is done with the step.
            first_seconds, first_tokens = time.monotonic() - start, tokens
    return Trained(tuple(losses), len(plan.steps), tokens, completion, padding, first_seconds, first_tokens)


class _Stepper:
    """One optimizer step: forward and backward of every micro-batch, clip, update."""

    # Steps in a row that fp16 loss scaling may skip before the run counts as diverged (2^16 down to 2^0).
    SKIPS = 16

    def __init__(self, base: Base, model: Any, optimizer: Any, scaler: Any, training: Training) -> None:
        self._base = base
        self._optimizer = optimizer
        self._scaler = scaler
        self._training = training
        self._trainable = [p for p in model.parameters() if p.requires_grad]
        self._skipped = 0

    def batches(self, examples: Sequence[Encoded]) -> list[Batch]:
        size = self._training.micro_batch_size
        on_all = self._training.loss_on == "all"
        return [
            collate(
                examples[at : at + size],
                self._base.tokenizer.pad_token_id,
                self._base.device,
                self._training.engine,
                on_all=on_all,
            )
            for at in range(0, len(examples), size)
        ]

    def step(self, batches: Sequence[Batch]) -> float:
        learned = sum(batch.targets.numel() for batch in batches)
        total = 0.0
        for batch in batches:
            loss = summed_loss(self._base, batch, self._training.engine) / learned
            self._scaler.scale(loss).backward()
            total += loss.detach().item()
        if not math.isfinite(total):
            raise Diverged(f"the training loss is {total}")
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._trainable, self._training.max_grad_norm, foreach=True)
        self._watch(norm.item())
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return total

    def _watch(self, norm: float) -> None:
        if math.isfinite(norm):
            self._skipped = 0
            return
        self._skipped += 1
        if not self._scaler.is_enabled() or self._skipped > self.SKIPS:
            raise Diverged(f"the gradient norm is {norm}")


def rate_factor(step: int, steps: int, training: Training) -> float:
    """The share of the peak learning rate at `step` (from 0): linear warm-up, then the schedule."""
    warmup = math.ceil(training.warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    if training.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
    return 1.0 if training.schedule == "constant" else max(0.0, 1.0 - progress)


def _optimizer(model: Any, training: Training, rate: float, device: str) -> Any:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if training.optimizer == "paged_adamw_8bit":
        optimizers: Any = importlib.import_module("bitsandbytes.optim")
        return optimizers.PagedAdamW8bit(parameters, lr=rate, weight_decay=training.weight_decay)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=training.weight_decay, fused=device == "cuda")


def make_state(optimizer: torch.optim.Optimizer) -> None:
    """Has AdamW make its moments now, as they are before the first step: zeros, and no step counted.

    They would otherwise exist from the second step on only, and the first step, which holds the longest batch, would
    not show the peak that the same batch has later. Numbers do not move: an update by zero gradients leaves zero
    moments, and a learning rate of zero leaves the weights (an epsilon of one also in fp16, where 1e-8 is 0, and 0 / 0
    is no number).
    """
    kept = [(group["lr"], group["weight_decay"], group["eps"]) for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"], group["eps"] = 0.0, 0.0, 1.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, (rate, decay, epsilon) in zip(optimizer.param_groups, kept, strict=True):
        group["lr"], group["weight_decay"], group["eps"] = rate, decay, epsilon
    for state in optimizer.state.values():
        state["step"].zero_()


def set_checkpointing(model: Any, *, on: bool) -> None:
    # transformers renamed this in 5.2x; both names are understood, so that neither version warns.
    new = hasattr(model, "activation_checkpointing_enable")
    name = f"{'activation' if new else 'gradient'}_checkpointing"
    if on:
        getattr(model, f"{name}_enable")(**{f"{name}_kwargs": {"use_reentrant": False}})
    else:
        getattr(model, f"{name}_disable")()


@torch.no_grad()
def validation_loss(
    base: Base, examples: Sequence[Encoded], plan: Sequence[Sequence[int]], engine: EngineSettings
) -> float:
    """Mean cross-entropy over all completion tokens, in nats per token."""
    total, learned = 0.0, 0
    for batch in _batched(base, examples, plan, engine):
        total += summed_loss(base, batch, engine).item()
        learned += batch.targets.numel()
    return total / learned


def _batched(
    base: Base, examples: Sequence[Encoded], plan: Sequence[Sequence[int]], engine: EngineSettings
) -> Iterator[Batch]:
    for indices in plan:
        yield collate([examples[index] for index in indices], base.tokenizer.pad_token_id, base.device, engine)
