"""One optimizer step: loss, gradients, clipping, update."""

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from harness.engine.batches import passes
from harness.engine.batching import Batch, gathered
from harness.engine.encoding import Encoded
from harness.engine.loading import Base
from study.settings import EngineSettings, Training


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


def summed_loss(base: Base, batch: Batch, engine: EngineSettings) -> torch.Tensor:
    """Cross-entropy summed over the learned tokens of a batch, in nats, computed in fp32; positions without a target
    add nothing.

    With `completion_logits` the head sees only the positions that are learned; the logits of a dialogue's prompt,
    most of its tokens, are never made.
    """
    hidden = base.decoder(input_ids=batch.ids, use_cache=False).last_hidden_state
    if engine.completion_logits:
        logits = base.head(hidden[batch.rows, batch.columns])
    else:
        logits = base.head(hidden)[batch.rows, batch.columns]
    return F.cross_entropy(logits.float(), batch.targets, reduction="sum")


class Stepper:
    """One optimizer step: forward and backward of every micro-batch, clip, update."""

    # Steps in a row that fp16 loss scaling may skip before the run counts as diverged (2^16 down to 2^0).
    SKIPS = 16

    def __init__(
        self,
        base: Base,
        model: Any,
        optimizer: Any,
        scaler: Any,
        training: Training,
        places: Mapping[tuple[int, int], int] | None = None,
    ) -> None:
        self._base = base
        self._optimizer = optimizer
        self._scaler = scaler
        self._training = training
        self._places = places
        self._trainable = [p for p in model.parameters() if p.requires_grad]
        self._peak_rate = float(optimizer.param_groups[0]["lr"])
        # Updates in a row that fp16's scaling has left out.
        self.skipped = 0
        self._held = False

    def gathered(self, examples: Sequence[Encoded]) -> list[Batch]:
        """The passes of a step, in host memory."""
        parts = passes(range(len(examples)), [example.length for example in examples], self._training)
        return [
            gathered(
                [examples[index] for index in part],
                self._base.tokenizer.pad_token_id,
                self._training.engine,
                on_all=self._training.loss_on == "all",
                pinned=self._base.device == "cuda",
                places=self._places,
            )
            for part in parts
        ]

    def hold_gradients(self) -> None:
        """Gives every gradient its place, which it keeps: captured passes add into it."""
        for parameter in self._trainable:
            parameter.grad = torch.zeros_like(parameter)
        self._held = True

    def release_gradients(self) -> None:
        """Gradients come and go with each step again."""
        self._held = False
        self.forget_gradients()

    def begin_again(self, rate: float) -> None:
        """As before the first step, with this peak learning rate; gradients that have a place keep it."""
        for group in self._optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        # From where it is, in its precision, as for the first training.
        self._peak_rate = float(self._optimizer.param_groups[0]["lr"])
        self.skipped = 0
        self.forget_gradients()

    def set_rate(self, factor: float) -> None:
        """The learning rate of the next step, as a share of its peak."""
        for group in self._optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                # A captured update reads it from where it is.
                group["lr"].fill_(self._peak_rate * factor)
            else:
                group["lr"] = self._peak_rate * factor

    def compute(self, batch: Batch, share: torch.Tensor | float) -> torch.Tensor:
        """A pass on a batch on the device: adds to the gradients, and returns its share of the loss, not waited for."""
        loss = summed_loss(self._base, batch, self._training.engine) * share
        self._scaler.scale(loss).backward()
        return loss.detach()

    def update(self) -> torch.Tensor:
        """Clips, updates and forgets the gradients; their norm, not waited for."""
        norm = torch.nn.utils.clip_grad_norm_(self._trainable, self._training.max_grad_norm, foreach=True)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.forget_gradients()
        return norm

    def step(self, batches: Sequence[Batch]) -> float:
        """A step, waited for; its loss."""
        learned = sum(batch.learned for batch in batches)
        total = 0.0
        for batch in batches:
            total += self.compute(batch.to(self._base.device), 1.0 / learned).item()
        if not math.isfinite(total):
            raise Diverged(f"the training loss is {total}")
        self._scaler.unscale_(self._optimizer)
        self._watch(self.update().item())
        return total

    def forget_gradients(self) -> None:
        """Frees the gradients, and the next step makes its own; or empties those that keep their place."""
        self._optimizer.zero_grad(set_to_none=not self._held)

    def reader(self, loss: torch.Tensor, norm: torch.Tensor) -> Callable[[], float]:
        """Reads what a started step will leave, once it is there."""
        both = torch.stack([loss, norm.float()]).to("cpu", non_blocking=True)
        done = torch.cuda.Event()
        done.record()

        def read() -> float:
            done.synchronize()
            value, length = both.tolist()
            if not math.isfinite(value):
                raise Diverged(f"the training loss is {value}")
            self._watch(length)
            return float(value)

        return read

    def _watch(self, norm: float) -> None:
        if math.isfinite(norm):
            self.skipped = 0
            return
        self.skipped += 1
        if not self._scaler.is_enabled() or self.skipped > self.SKIPS:
            raise Diverged(f"the gradient norm is {norm}")


def optimizer_for(model: Any, training: Training, rate: float, device: str, *, captured: bool) -> Any:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if training.optimizer == "paged_adamw_8bit":
        optimizers: Any = importlib.import_module("bitsandbytes.optim")
        return optimizers.PagedAdamW8bit(parameters, lr=rate, weight_decay=training.weight_decay)
    if captured:
        changing: Any = torch.tensor(rate, device=device)
        return torch.optim.AdamW(
            parameters, lr=changing, weight_decay=training.weight_decay, fused=True, capturable=True
        )
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
