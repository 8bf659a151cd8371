"""Several trials at once over one frozen base: their adapters stacked, their batches concatenated.

The frozen layers see one large batch; each adapted layer adds, for the dialogues of trial i, its own
`alpha_i / r_i · (x A_iᵀ) B_iᵀ`, as products of batched matrices A (trials, rank, inputs) and B (trials, outputs, rank).
Smaller ranks are padded with zeros, which stay zeros: the gradient of a padded row of A is a product with the padded
column of B, and the other way round. Learning rate, clipping, data order and dropout are each trial's own.

Not over LLM.int8: which columns it computes in fp16 depends on all rows of a batch, so trials would change each other.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import peft
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from harness.engine.adapting import attach, detach
from harness.engine.fusing import Fused
from harness.engine.groups import unpacking
from harness.engine.kernels import Plain
from harness.engine.loading import Base
from harness.engine.stepping import make_state
from study.arms import Arm, Method, Precision
from study.settings import Training
from study.space import Hyperparameters
from tests.benchmarks.stacked_batches import StackedBatch

# An attention that transformers knows no mask function for: it then makes none. For "sdpa" it asks the GPU at each step
# whether sequences are packed, and while a graph is captured, when it cannot ask, it makes a mask of every position,
# with which scaled_dot_product_attention leaves its fast path.
MASKLESS = "sdpa-without-a-mask"


class NotStackable(ValueError):
    """An arm or a setting that trials cannot share a batch under."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial: its hyperparameters, and the seed of its adapter's start and of its data order."""

    hyperparameters: Hyperparameters
    seed: int


def mask_like(x: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Dropout's factors for x: 0 with probability `share`, else 1 / (1 − share)."""
    drawn = torch.rand(x.shape, generator=generator, device=x.device)
    return (drawn >= share).to(x.dtype) / (1.0 - share)


class Stack:
    """The adapters of k trials as one tensor (k, weights), each trial a row; every matrix is a view into it.

    Rows make what is a trial's own simple: its gradient norm is that of a row, its AdamW updates a row.
    """

    def __init__(self, base: Base, arm: Arm, trials: Sequence[Trial], training: Training) -> None:
        _check(arm, training)
        self.trials = tuple(trials)
        self._base = base
        self._training = training
        self._dropout = arm.dropout
        self._generators = [torch.Generator(base.device).manual_seed(trial.seed + 1) for trial in trials]
        # Padded tokens that each trial's own batch would have; masks are drawn for these.
        self.widths: tuple[int, ...] = ()
        starts = [_start(base, arm, trial, training) for trial in trials]
        self.rank = max(trial.hyperparameters.rank for trial in trials)
        sizes = {path: (start.down.shape[1], start.up.shape[0]) for path, start in starts[0].items()}
        total = sum(self.rank * sum(size) for size in sizes.values())
        self.weights = torch.zeros((len(trials), total), device=base.device)
        self.gradients = torch.zeros_like(self.weights)
        self.layers: dict[str, _Layer] = {}
        at = 0
        for path, (inputs, outputs) in sizes.items():
            middle, end = at + self.rank * inputs, at + self.rank * (inputs + outputs)
            down, for_down = (
                tensor[:, at:middle].unflatten(1, (self.rank, inputs)) for tensor in (self.weights, self.gradients)
            )
            up, for_up = (
                tensor[:, middle:end].unflatten(1, (outputs, self.rank)) for tensor in (self.weights, self.gradients)
            )
            for number, start in enumerate(starts):
                own = start[path]
                down[number, : own.down.shape[0]] = own.down
                up[number, :, : own.up.shape[1]] = own.up
            scales = torch.tensor([start[path].scaling for start in starts], device=base.device).view(-1, 1, 1)
            linear: Any = base.model.get_submodule(path)
            # Leaves that share the row's memory: a first layer, whose input needs no gradient, is on the tape by them.
            views = down.detach().requires_grad_(), up.detach().requires_grad_()
            self.layers[path] = _Layer(
                linear, linear.forward, unpacking(linear, Plain()), *views, for_down, for_up, scales, self._masks
            )
            at = end
        self._optimizer = self._adamw()

    @property
    def drops(self) -> bool:
        """Whether its adapters have dropout."""
        return self._dropout > 0.0

    def adapter(self, trial: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """A (rank, inputs) and B (outputs, rank) of a trial by module path, without padding."""
        rank = self.trials[trial].hyperparameters.rank
        return {
            path: (layer.down[trial, :rank].detach(), layer.up[trial, :, :rank].detach())
            for path, layer in self.layers.items()
        }

    def padding(self) -> Iterator[torch.Tensor]:
        """What pads smaller ranks, weights and gradients: all of it must be zero at any time."""
        for number, trial in enumerate(self.trials):
            rank = trial.hyperparameters.rank
            for layer in self.layers.values():
                yield from (layer.down[number, rank:].detach(), layer.up[number, :, rank:].detach())
                yield from (layer.for_down[number, rank:], layer.for_up[number, :, rank:])

    def set_rates(self, factor: float) -> None:
        """The learning rates of the next step, as a share of each trial's peak."""
        for trial, group in zip(self.trials, self._optimizer.param_groups, strict=True):
            rate = trial.hyperparameters.learning_rate * factor
            if isinstance(group["lr"], torch.Tensor):
                # A captured update reads it from where it is.
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def compute(self, batch: StackedBatch) -> torch.Tensor:
        """A whole step: losses and gradient norms (2, trials), not waited for."""
        losses = stacked_losses(self._base, batch)
        losses.sum().backward()
        norms = torch.linalg.vector_norm(self.gradients, dim=1)
        # The arithmetic of torch.nn.utils.clip_grad_norm_, a row each.
        self.gradients.mul_((self._training.max_grad_norm / (norms + 1e-6)).clamp(max=1.0).unsqueeze(1))
        self._optimizer.step()
        return torch.stack([losses.detach(), norms])

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The base with all adapters in the block, in training mode, in the engine's fast forms."""
        config, model = self._base.model.config, self._base.model
        sdpa: Any = importlib.import_module("transformers.integrations.sdpa_attention")
        transformers.AttentionInterface.register(MASKLESS, sdpa.sdpa_attention_forward)
        kept = config._attn_implementation
        with ExitStack() as undo:
            undo.callback(setattr, config, "_attn_implementation", kept)
            undo.callback(model.eval)
            # The base holds no adapter of PEFT's: what is fused here is its GELU.
            undo.enter_context(Fused(model).applied())
            config._attn_implementation = MASKLESS
            model.train()
            for layer in self.layers.values():
                layer.linear.forward = partial(_forward, layer)
                undo.callback(delattr, layer.linear, "forward")
            yield

    def _masks(self, x: torch.Tensor) -> torch.Tensor | None:
        """The dropout of an adapter's input x (trials · dialogues, tokens, inputs), from each trial's own stream."""
        if self._dropout == 0.0:
            return None
        mask = torch.ones_like(x)
        each = mask.unflatten(0, (len(self.trials), -1))
        for number, (width, generator) in enumerate(zip(self.widths, self._generators, strict=True)):
            # Drawn as the trial alone would; what the widest trial pads beyond that is seen by no real token.
            each[number, :, :width] = mask_like(each[number, :, :width], self._dropout, generator)
        return mask

    def _adamw(self) -> torch.optim.AdamW:
        """PyTorch's own AdamW, a group of one row for each trial."""
        on_gpu = self._base.device == "cuda"
        rows = [nn.Parameter(row) for row in self.weights]
        rates = [trial.hyperparameters.learning_rate for trial in self.trials]
        groups: list[dict[str, Any]] = [
            {"params": [row], "lr": torch.tensor(rate, device="cuda") if on_gpu else rate}
            for row, rate in zip(rows, rates, strict=True)
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=self._training.weight_decay, fused=on_gpu, capturable=on_gpu)
        # A capture would make the moments anew at every replay.
        make_state(optimizer)
        for row, gradient in zip(rows, self.gradients, strict=True):
            row.grad = gradient
        return optimizer


def stacked_losses(base: Base, batch: StackedBatch) -> torch.Tensor:
    """Each trial's mean cross-entropy over its own learned tokens, in nats, computed in fp32 (trials)."""
    hidden = base.decoder(input_ids=batch.ids, use_cache=False).last_hidden_state
    logits = base.head(hidden[batch.rows, batch.columns])
    each = F.cross_entropy(logits.float(), batch.targets, reduction="none")
    return each.view(batch.shares.numel(), -1).sum(1) * batch.shares


@dataclass(frozen=True, slots=True)
class _Start:
    down: torch.Tensor
    up: torch.Tensor
    scaling: float


def _start(base: Base, arm: Arm, trial: Trial, training: Training) -> dict[str, _Start]:
    """A fresh adapter by module path, as a run of its own would have it."""
    adapter = attach(base, arm, trial.hyperparameters, training, trial.seed)
    found: dict[str, _Start] = {}
    layers: list[tuple[str, Any]] = [
        (path, module) for path, module in base.model.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)
    ]
    for path, layer in layers:
        (name,) = layer.active_adapters
        down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
        found[path] = _Start(down.detach().clone(), up.detach().clone(), float(layer.scaling[name]))
    detach(adapter)
    return found


def _check(arm: Arm, training: Training) -> None:
    reasons = {
        "LLM.int8 computes a dialogue by what else is in its batch": arm.precision is Precision.INT8,
        "fp16 gradients are scaled for all trials at once": arm.precision is Precision.FP16,
        "DoRA is no plain sum": arm.method is Method.DORA,
        "activations are not checkpointed here": arm.checkpointing,
        "the optimizer is not AdamW": training.optimizer != "adamw",
        "adapters are not kept in fp32": training.adapter_dtype != "fp32",
        "a step has several micro-batches": training.micro_batch_size != training.batch_size,
        "the loss is not over completions": training.loss_on != "completion",
    }
    for reason, holds in reasons.items():
        if holds:
            raise NotStackable(f"arm {arm.name!r} cannot be stacked: {reason}")


@dataclass(frozen=True, slots=True)
class _Layer:
    """A frozen linear layer, its own forward, the stacked adapters on it, and where their gradients go."""

    linear: Any
    base: Callable[[torch.Tensor], torch.Tensor]
    unpack: Callable[[torch.dtype], torch.Tensor]
    down: torch.Tensor
    up: torch.Tensor
    for_down: torch.Tensor
    for_up: torch.Tensor
    scales: torch.Tensor
    masks: Callable[[torch.Tensor], torch.Tensor | None]


def _forward(layer: _Layer, x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = _StackedLinear.apply(x, layer.down, layer.up, layer)  # type: ignore[no-untyped-call]
    return result


class _StackedLinear(torch.autograd.Function):
    """y = base(x) + scale_i · (x A_iᵀ) B_iᵀ for the dialogues of trial i: the engine's fused layer, batched.

    Gradients of A and B are written to where the optimizer reads them instead of being returned: each layer is used
    once a step, so that there is nothing to accumulate.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, down: torch.Tensor, up: torch.Tensor, layer: _Layer) -> torch.Tensor:
        output: torch.Tensor = layer.base(x)
        mask = layer.masks(x)
        source = (x if mask is None else x * mask).reshape(down.shape[0], -1, x.shape[-1])
        middle = source @ down.to(x.dtype).transpose(1, 2)
        scaled = (up * layer.scales).to(x.dtype)
        output.view(down.shape[0], -1, output.shape[-1]).baddbmm_(middle, scaled.transpose(1, 2))
        ctx.save_for_backward(source, middle, down, up, mask)
        ctx.layer, ctx.shape = layer, x.shape
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        source, middle, down, up, mask = ctx.saved_tensors
        layer: _Layer = ctx.layer
        gradient = gradients[0].reshape(down.shape[0], -1, gradients[0].shape[-1])
        dtype = gradient.dtype
        for_middle = gradient @ (up * layer.scales).to(dtype)
        torch.mul(gradient.transpose(1, 2) @ middle, layer.scales, out=layer.for_up)
        layer.for_down.copy_(for_middle.transpose(1, 2) @ source)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        for_x = (gradient.flatten(0, 1) @ layer.unpack(dtype)).view(down.shape[0], -1, down.shape[2])
        if mask is None:
            for_x.baddbmm_(for_middle, down.to(dtype))
        else:
            for_x += (for_middle @ down.to(dtype)) * mask.view(for_x.shape)
        return for_x.view(ctx.shape), None, None, None
