"""A training step on the meta device: what the GPU's allocator will hold, without a GPU and without weights.

The model is built from its configuration alone, its adapter is attached and one step is computed by the code that
trains, with every tensor a shape without bytes. A ledger follows each storage from its first operation to its end, as
the allocator would, so that activations, casts, logits and temporaries need no formula of their own. Stand-ins take the
place of what has no kernel on the meta device, and make and keep the tensors that the real thing makes and keeps.
"""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch import nn

from harness.engine.adapting import Adapter, attach
from harness.engine.batches import LOSS_TOKENS
from harness.engine.batching import Batch
from harness.engine.decoding import Decoding, SlotDecoder
from harness.engine.fusing import Fused, unfusable
from harness.engine.graphs import obstacle
from harness.engine.ledger import CATEGORIES, Category, Ledger
from harness.engine.loading import TORCH_DTYPES, Base, disable_dropout
from harness.engine.sections import Section, adapter_gradients, watched
from harness.engine.standins import InPlace, PackedLinear, attention, fused_dropout, quantise
from harness.engine.stepping import summed_loss
from harness.engine.training import drops, set_checkpointing
from study.arms import Arm
from study.settings import EngineSettings, Training
from study.space import Hyperparameters

ATTENTION = "rehearsal"
# bitsandbytes pages the state of matrices of at least this many elements (optim/optimizer.py, get_state_buffer).
PAGED_ELEMENTS = 100_000
# cuBLAS keeps a workspace for each of the two threads that multiply, forward and backward: 32 MiB each on Hopper and
# 8 MiB before (aten/src/ATen/cuda/CUDABlas.cpp); measured on an H200: see docs/measurements.md.
WORKSPACE_BYTES = 2 * 32 * 1024**2


@dataclass(frozen=True, slots=True)
class Stage:
    """A model on the meta device with its adapter, if any, and its parameter counts."""

    base: Base
    adapter: Adapter | None
    trainable: int
    total: int


def set_stage(config: Any, arm: Arm, rank: int | None, training: Training | None) -> Stage:
    """Builds a model from its configuration, as transformers keeps it, quantised and adapted as `arm` says."""
    # A name without a mask function: transformers then makes no mask, as it makes none for a causal batch on the GPU.
    transformers.AttentionInterface.register(ATTENTION, attention)
    with torch.device("meta"):
        base = _base(config, arm)
        total = _weights(base)
        if training is None or not training.model_dropout:
            # Before the adapter is there, as when a base is loaded: the adapter's own dropout stays.
            disable_dropout(base.model)
        if training is None or rank is None:
            return Stage(base, None, 0, total)
        adapter = attach(base, arm, Hyperparameters(rank, rank, 1e-4), training, seed=0)
    trainable = sum(p.numel() for p in adapter.model.parameters() if p.requires_grad)
    return Stage(base, adapter, trainable, total + trainable)


def training_peak(stage: Stage, arm: Arm, training: Training, batch: tuple[int, int, int]) -> dict[str, int]:
    """Bytes at the peak of a training step by category.

    Args:
        batch: dialogues, padded tokens of each, positions whose logits are made.
    """
    if stage.adapter is None:
        raise ValueError("a zero-shot arm has no training")
    stage.adapter.model.train()
    set_checkpointing(stage.base.model, on=arm.checkpointing)
    fuses = unfusable(stage.adapter.model, on=bool(training.engine.fused)) is None
    form = Fused(stage.adapter.model, operations=InPlace() if training.engine.kernels else None) if fuses else None
    with torch.device("meta"), fused_dropout(), nullcontext() if form is None else form.applied():
        repeats_dropout = arm.checkpointing and drops(stage.adapter.model)
        held = obstacle(stage.base, training, repeats_dropout=repeats_dropout, fused=fuses) is None
        ledger = _step(stage.base, stage.adapter, training, _batch(batch), held=held, form=form)
    set_checkpointing(stage.base.model, on=False)
    return _with_workspace(ledger)


def evaluation_peak(stage: Stage, batch: tuple[int, int, int, int], *, static_cache: bool = True) -> dict[str, int]:
    """Bytes at the peak of evaluation by category: the loss of the references, reading the longest prompts, then the
    last of the new tokens.

    Args:
        batch: dialogues, padded tokens of their prompts, new tokens, and reference tokens of all of them.
        static_cache: keys and values in slots that are there from the start; else they grow.
    """
    dialogues, width, fresh, learned = batch
    base = stage.base
    base.model.eval()
    ledger = Ledger()
    _hold_model(ledger, base)
    ledger.category = "activations"
    with torch.device("meta"), torch.no_grad(), ledger:
        total = width + -(-learned // dialogues)
        together = min(dialogues, max(1, LOSS_TOKENS // total))
        summed_loss(base, _batch((together, total, -(-learned * together // dialogues))), EngineSettings())
        if static_cache:
            SlotDecoder(_without_device(base), Decoding("eager"), fresh).rehearse(dialogues, width)
        else:
            _grow(base, dialogues, width, fresh)
    return _with_workspace(ledger)


def _without_device(base: Base) -> Base:
    """A base whose decoder asks for no GPU and no tokenizer."""
    meta: Any = "meta"
    return replace(base, device=meta, tokenizer=SimpleNamespace(pad_token_id=0, eos_token_id=0))


def _grow(base: Base, dialogues: int, width: int, fresh: int) -> None:
    """Reads prompts, and the last of the new tokens, with keys and values that grow."""
    # Padding on the left needs a mask, kept as booleans and made to numbers for the kernel.
    masks = [torch.empty((dialogues, 1, width, width), dtype=kind) for kind in (torch.bool, base.dtype)]
    for tokens, before in ((width, 0), (1, width + fresh - 1)):
        cache = transformers.DynamicCache(config=base.model.config)
        _fill(cache, base, dialogues, before)
        ids = torch.empty((dialogues, tokens), dtype=torch.long)
        positions = torch.empty((dialogues, tokens), dtype=torch.long)
        hidden = base.decoder(
            input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        base.head(hidden[:, -1]).argmax(-1)
        masks.clear()


def _fill(cache: Any, base: Base, dialogues: int, tokens: int) -> None:
    """Keys and values of tokens that were read before."""
    if not tokens:
        return
    config = base.model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for layer in range(config.num_hidden_layers):
        keys, values = (torch.empty((dialogues, heads, tokens, size), dtype=base.dtype) for _ in range(2))
        cache.update(keys, values, layer)


def _with_workspace(ledger: Ledger) -> dict[str, int]:
    parts: dict[str, int] = dict.fromkeys(CATEGORIES, 0)
    parts |= ledger.peak
    return parts | {"rest": parts["rest"] + WORKSPACE_BYTES}


def _hold_model(ledger: Ledger, base: Base) -> None:
    for tensor in (*base.model.parameters(), *base.model.buffers()):
        ledger.add(tensor, _category(tensor))


def _step(
    base: Base, adapter: Adapter, training: Training, batch: Batch, *, held: bool, form: Fused | None = None
) -> Ledger:
    ledger = Ledger()
    _hold_model(ledger, base)
    trainable = [p for p in adapter.model.parameters() if p.requires_grad]
    if training.optimizer == "adamw":
        # Two moments of each matrix and its step count, there from the first step on.
        moments = [torch.empty_like(p) for p in (*trainable, *trainable)]
        steps = [torch.empty((), dtype=torch.float32) for _ in trainable]
        state = [*moments, *steps]
    else:
        # bitsandbytes pages large matrices only; the moments of others are two bytes a weight of ordinary memory.
        small = [p for p in trainable if p.numel() < PAGED_ELEMENTS]
        state = [torch.empty(p.numel(), dtype=torch.uint8) for p in (*small, *small)]
    for tensor in state:
        ledger.add(tensor, "optimizer")
    for tensor in (batch.ids, batch.rows, batch.columns, batch.targets):
        ledger.add(tensor, "rest")
    if held:
        # Captured passes add into gradients that have their place before the first step.
        for parameter in trainable:
            parameter.grad = torch.empty_like(parameter)
        if form is not None:
            form.lay_out_gradients()
        for parameter in trainable:
            if parameter.grad is not None:
                ledger.add(parameter.grad, "gradients")
    hooks = adapter_gradients(adapter.model, lambda gradient: ledger.move(gradient, "gradients"))

    def entered(section: Section) -> None:
        ledger.category = section

    try:
        with watched(base, entered), ledger:
            # Clipping and the update follow, in place: a number a matrix is all that they add. Where a step has several
            # micro-batches, gradients of an earlier one are there when the longest comes.
            alone = training.micro_batch_size >= training.batch_size and training.engine.pass_tokens is None
            for _ in range(1 if alone else 2):
                summed_loss(base, batch, training.engine).backward()
    finally:
        for hook in hooks:
            hook.remove()
    return ledger


def _category(tensor: torch.Tensor) -> Category:
    if isinstance(tensor, nn.Parameter) and tensor.requires_grad:
        return "adapters"
    return "quantisation" if getattr(tensor, "is_quantisation", False) else "base_weights"


def _batch(shape: tuple[int, int, int]) -> Batch:
    dialogues, width, logits = shape
    ids = torch.empty((dialogues, width), dtype=torch.long)
    rows, columns, targets = (torch.empty(logits, dtype=torch.long) for _ in range(3))
    return Batch(ids, rows, columns, targets, dialogues * width, logits)


def _base(config: Any, arm: Arm) -> Base:
    dtype = TORCH_DTYPES[arm.compute_dtype]
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=dtype, attn_implementation=ATTENTION, trust_remote_code=False
    )
    model.requires_grad_(False)
    base = Base(model, None, "cuda", dtype)
    if arm.precision.is_quantised:
        for layer in base.decoder.layers:
            quantise(layer, arm, dtype)
    return base


def _weights(base: Base) -> int:
    """Parameters of the base, packed ones counted as what they stand for."""
    packed = [module for module in base.model.modules() if isinstance(module, PackedLinear)]
    plain: int = sum(p.numel() for p in base.model.parameters())
    return plain - sum(module.weight.numel() for module in packed) + sum(module.weights for module in packed)
