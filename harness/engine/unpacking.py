"""A 4-bit base with its weights unpacked as well, for trials: what each pass of each step would otherwise unpack anew.

It costs the memory of a 16-bit base beside the packed one, and its times are not those of the arm: a trial made on it
tells neither. Its numbers are the arm's, which is shown on each machine before it is used.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.engine.adapting import attach, detach
from harness.engine.encoding import Encoded
from harness.engine.kernels import Plain
from harness.engine.loading import Base
from harness.engine.training import Recipe, rig_for, train_with
from study.arms import Arm
from study.settings import Training
from study.space import Hyperparameters

# What a comparison is made of: enough for a difference in any layer to reach the losses, and over in seconds.
STEPS = 20
DIALOGUES = 2
SET = Hyperparameters(rank=8, alpha=16, learning_rate=1e-3)
# Weights (outputs, inputs) by the id of the layer that keeps them packed.
Unpacked = Mapping[int, torch.Tensor]


def packed_layers(model: Any) -> Iterator[Any]:
    """The 4-bit layers of a model."""
    return (module for module in model.modules() if getattr(getattr(module, "weight", None), "quant_state", None))


def unpacked_bytes(base: Base) -> int:
    """What the unpacked weights take beside the packed ones."""
    count: int = sum(prod(layer.weight.quant_state.shape) for layer in packed_layers(base.model))
    return count * base.dtype.itemsize


@torch.no_grad()
def unpacked(base: Base) -> Unpacked:
    """Every packed weight of a base, as each pass would unpack it."""
    plain = Plain()
    return {
        id(layer): plain.unpacked(layer.weight, layer.weight.quant_state, base.dtype)
        for layer in packed_layers(base.model)
    }


def difference(
    base: Base, arm: Arm, training: Training, examples: Sequence[Encoded], weights: Unpacked, seed: int
) -> str | None:
    """Why trainings on unpacked weights cannot stand for those on the packed base; None where `STEPS` steps have the
    same losses and leave the same adapter, bit for bit.

    Attention is computed by its formula meanwhile, and steps are not captured: attention's fast kernels add gradients
    up in an order that is chance, so that not even two trainings on the same base are alike.
    """
    engine = replace(training.engine, cuda_graphs=None)
    batch = min(DIALOGUES, training.micro_batch_size)
    settings = replace(training, steps=STEPS, epochs=None, batch_size=batch, micro_batch_size=batch, engine=engine)
    losses: list[tuple[float, ...]] = []
    adapters: list[list[torch.Tensor]] = []
    for each in (base, replace(base, unpacked=weights)):
        adapter = attach(each, arm, SET, settings, seed)
        try:
            with _one_order(base):
                recipe = Recipe(settings, SET.learning_rate, seed, arm.checkpointing)
                rig = rig_for(each, adapter, examples, recipe)
                trained = train_with(rig, examples, recipe, lambda *_: None)
            losses.append(trained.losses)
            if each.unpacked and not trained.levers.unpacked_base:
                return "layers are not fused"
            adapters.append([p.detach().clone() for p in adapter.model.parameters() if p.requires_grad])
        finally:
            detach(adapter)
    apart = next((step for step, pair in enumerate(zip(*losses, strict=True), start=1) if pair[0] != pair[1]), None)
    if apart is not None:
        return f"its loss is another in step {apart} of {STEPS}"
    if not all(torch.equal(one, other) for one, other in zip(*adapters, strict=True)):
        return f"its adapter is another after {STEPS} steps"
    return None


def _one_order(base: Base) -> AbstractContextManager[None]:
    if base.device != "cuda":
        return nullcontext()
    only: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return only
