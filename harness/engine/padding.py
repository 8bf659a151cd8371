"""Adapters of different ranks and alphas in one: that of the largest rank, with zeros beyond a trial's own.

Captured steps hold shapes, addresses and numbers. In an adapter that is padded to one rank, with alpha / rank in memory
instead of in the graphs, trials of any rank and alpha replay the same steps. Rows of A and columns of B that are zero
are inert: both their products and their gradients are products with zeros, and AdamW moves a zero by zero.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import peft
import torch
from torch import nn

from harness.engine.adapting import Adapter
from harness.engine.graphs import obstacle
from harness.engine.loading import Base
from study.arms import Arm, Method
from study.settings import Training
from study.space import Hyperparameters


@dataclass(frozen=True, slots=True)
class Start:
    """Where a training in a padded adapter begins: A (rank, inputs) of each layer, in the model's order and in host
    memory, and what PEFT multiplies with at this rank and alpha. B begins with zeros."""

    downs: tuple[torch.Tensor, ...]
    scaling: float


def unpaddable(base: Base, arm: Arm, training: Training) -> str | None:
    """Why an arm's trials cannot share captured steps across ranks; None where they can.

    Without graphs there is nothing to share, and only the fused form reads alpha / rank from memory.
    """
    if arm.method is Method.DORA:
        return "DoRA is no plain sum"
    if not training.engine.fused:
        return "layers are not fused"
    # Asked before there is an adapter: a model without dropout of its own is taken to have some where it may.
    drops = training.model_dropout or arm.dropout > 0.0
    return obstacle(base, training, repeats_dropout=arm.checkpointing and drops, fused=True)


def start_of(adapter: Adapter, hyperparameters: Hyperparameters, seed: int) -> Start:
    """Where a trial begins in an adapter that is padded: with the weights that `attach` gives an adapter of its own
    rank, bit for bit.

    Raises:
        ValueError: the adapter is not padded, or to less than the trial's rank.
    """
    rank = hyperparameters.rank
    if adapter.padded_rank is None or rank > adapter.padded_rank:
        raise ValueError(f"an adapter padded to rank {adapter.padded_rank} does not hold one of rank {rank}")
    generator = torch.Generator().manual_seed(seed)
    downs: list[torch.Tensor] = []
    scaling = 0.0
    for layer, name in _layers(adapter.model):
        down = torch.empty(rank, layer.lora_A[name].weight.shape[1])
        up = torch.empty(layer.lora_B[name].weight.shape[0], rank)
        # Each linear layer draws its own weights when it is made; PEFT then draws A again, and empties B.
        for matrix in (down, up, down):
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5), generator=generator)
        frozen = layer.get_base_layer()
        # PEFT rounds to what the frozen layer has (4-bit ones: computes in), before the adapter gets its own dtype.
        dtype = getattr(frozen, "compute_dtype", frozen.weight.dtype)
        downs.append(down.to(dtype) if dtype.is_floating_point else down)
        scaling = hyperparameters.alpha / (math.sqrt(rank) if layer.use_rslora[name] else rank)
    return Start(tuple(downs), scaling)


@torch.no_grad()
def put(adapter: Adapter, start: Start) -> None:
    """Sets a padded adapter to a start, in the tensors that are there, and for evaluation, which PEFT computes, its
    scaling."""
    for (layer, name), values in zip(_layers(adapter.model), start.downs, strict=True):
        down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
        down[: len(values)].copy_(values)
        down[len(values) :].zero_()
        up.zero_()
        layer.scaling[name] = start.scaling


def own_parameters(adapter: Adapter, rank: int) -> dict[str, int]:
    """What `Adapter.parameters` tells of an adapter of this rank, from one that is padded."""
    padded = adapter.parameters
    own = {key: _own(adapter, padded[key], rank) for key in ("trainable", "adapter_bytes")}
    return own | {"total": padded["total"] - padded["trainable"] + own["trainable"]}


def own_census(adapter: Adapter, census: Mapping[str, Mapping[str, int]], rank: int) -> dict[str, dict[str, int]]:
    """A census of dtypes (parameters by role and dtype) as it is with an adapter of this rank."""
    own = {dtype: _own(adapter, count, rank) for dtype, count in census["adapter"].items()}
    return {role: dict(counts) for role, counts in census.items()} | {"adapter": own}


def _own(adapter: Adapter, padded: int, rank: int) -> int:
    # Matrices of an adapter grow with its rank and have nothing else.
    return padded * rank // (adapter.padded_rank or rank)


def _layers(model: Any) -> Iterator[tuple[Any, str]]:
    """The adapted layers in the order in which PEFT draws their weights, and the name of the adapter in each."""
    for module in model.modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            yield module, module.active_adapters[0]
