"""Whole optimizer steps as CUDA graphs: one capture a shape of batch, replayed for every batch that has it.

A step of a small adapter launches thousands of kernels, and at a study's batch sizes the GPU waits for the host to do
so. A replayed graph launches them at once; the kernels and their order are the same.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from harness.engine.batching import Batch
from harness.engine.loading import Base, asks_the_host
from harness.engine.sharing import SharedInput
from study.settings import Training

# Computes a pass, given one over the step's learned tokens, and adds to the gradients; returns its share of the loss.
Pass = Callable[[Batch, torch.Tensor], torch.Tensor]
# Clips the gradients, updates the adapter and empties them; returns their norm.
Update = Callable[[], torch.Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Graph:
    graph: Any
    batch: Batch
    share: torch.Tensor
    loss: torch.Tensor


class Crowded(Exception):
    """A replayed step met more outlier columns than its products have room for; nothing was updated."""


def obstacle(base: Base, training: Training, *, repeats_dropout: bool, fused: bool) -> str | None:
    """Why the steps of a training cannot be captured; None where they can."""
    reasons = {
        "switched off": not training.engine.cuda_graphs,
        "no GPU": base.device != "cuda",
        "the optimizer pages its state": training.optimizer != "adamw",
        "fp16 gradients are scaled by what the last step showed": base.dtype == torch.float16,
        "checkpointing repeats dropout from a state that only the host knows": repeats_dropout,
    }
    first = next((reason for reason, holds in reasons.items() if holds), None)
    # Fused products of LLM.int8 have a form that asks nothing.
    return first or (None if fused else asks_the_host(base.model))


@contextmanager
def side_stream(*, on: bool, stream: Any = None) -> Iterator[None]:
    """Runs the block on a stream of its own, as captures must be; everything before is waited for, and the block after.

    Steps that are not captured run there too: memory freed on one stream is not used on another. `stream` is the one of
    an earlier block, whose memory this one is to use.
    """
    if not on:
        yield
        return
    stream = stream or torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


class Captured:
    """The steps of a training, and of others like it: a graph for each shape of pass, and one for the update. All share
    one pool of memory, since no two of them run at once, and gradients keep their place from step to step."""

    def __init__(self, compute: Pass, update: Update, largest: Shape, inputs: SharedInput) -> None:
        self._inputs = inputs
        self._compute = compute
        self._update = update
        self._largest = largest
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[Shape, _Graph] = {}
        self._updating: Any = None
        self._norm: torch.Tensor | None = None
        self._loss = torch.zeros((), device="cuda")

    @property
    def shapes(self) -> int:
        """How many shapes have been captured."""
        return len(self._graphs)

    def launch(self, batches: Sequence[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
        """Starts a step on batches that lie on the host, and returns where its loss and its norm will be.

        Raises:
            Crowded: the step must be made without graphs; what it added to the gradients is still there.
        """
        if self._norm is None:
            self._norm = self._prepare()
        graphs = [self._known(batch.shape) for batch in batches]
        learned = sum(batch.learned for batch in batches)
        self._loss.zero_()
        self._inputs.begin()
        for batch, graph in zip(batches, graphs, strict=True):
            graph.batch.fill(batch)
            graph.share.fill_(1.0 / learned)
            graph.graph.replay()
            self._loss.add_(graph.loss)
        if self._inputs.crowded():
            raise Crowded
        self._updating.replay()
        return self._loss, self._norm

    def forget(self) -> None:
        """Drops the graphs of passes: they are captured again, with more room."""
        self._graphs.clear()
        self._inputs.make_room()

    def _prepare(self) -> torch.Tensor:
        """Captures the update, and the largest shape before any other: the pool then has room for the rest."""
        # What steps outside the pool had reserved would stay beside the pool, which holds as much again.
        gc.collect()
        torch.cuda.synchronize()
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()
        self._known(self._largest)
        self._updating, norm = self._capture(self._update)
        return norm

    def _known(self, shape: Shape) -> _Graph:
        found = self._graphs.get(shape)
        if found is None:
            dialogues, width, places = shape
            batch, share = Batch.blank(dialogues, width, places, "cuda"), torch.ones((), device="cuda")
            graph, loss = self._capture(lambda: self._compute(batch, share))
            found = self._graphs[shape] = _Graph(graph, batch, share, loss)
        return found

    def _capture(self, work: Callable[[], torch.Tensor]) -> tuple[Any, torch.Tensor]:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        # cuBLAS makes a workspace where it finds none: in the pool, then, for as long as there are graphs. One from
        # outside is freed when the next phase begins, and a graph that is kept would write to somebody else's memory.
        torch._C._cuda_clearCublasWorkspaces()
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            result = work()
        finally:
            graph.capture_end()
            # Back to the pool, for the next capture; no step outside may find it.
            torch._C._cuda_clearCublasWorkspaces()
        return graph, result
