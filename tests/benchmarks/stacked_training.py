"""The training loop of a stack of trials: as the engine's, with each step computed for all of them."""

import math
from collections.abc import Callable
from typing import Any

import torch

from harness.engine.graphs import side_stream
from harness.engine.loading import Base
from harness.engine.stepping import Diverged
from harness.engine.training import rate_factor
from study.settings import Training
from tests.benchmarks.stacked import Stack
from tests.benchmarks.stacked_batches import Batches, StackedBatch

# The number of a step that has been computed (from 1).
OnStep = Callable[[int], None]


def train_stacked(
    base: Base, stack: Stack, batches: Batches, training: Training, on_step: OnStep, *, graphs: bool
) -> list[list[float]]:
    """Trains all adapters of a stack in place; returns each trial's losses, one a step.

    With `graphs`, on a GPU and without dropout, whose masks have a trial's own width, steps are captured and replayed.

    Raises:
        Diverged: a loss or a gradient norm of any trial that is not finite.
    """
    on_gpu = base.device == "cuda"
    captures = on_gpu and graphs and not stack.drops
    losses: list[list[float]] = [[] for _ in stack.trials]
    with stack.installed(), side_stream(on=captures):
        launch = _Captured(stack.compute).launch if captures else None
        batch = batches.gathered(0, pinned=on_gpu)
        for number in range(len(batches)):
            stack.set_rates(rate_factor(number, len(batches), training))
            stack.widths = batch.widths
            # The first step, which loads kernels, is computed outside any graph.
            results = stack.compute(batch.to(base.device)) if launch is None or number == 0 else launch(batch)
            following = batches.gathered(number + 1, pinned=on_gpu) if number + 1 < len(batches) else batch
            values, norms = results.tolist()
            if not all(map(math.isfinite, (*values, *norms))):
                raise Diverged(f"losses {values}, gradient norms {norms}")
            for own, value in zip(losses, values, strict=True):
                own.append(value)
            on_step(number + 1)
            batch = following
    return losses


class _Captured:
    """Whole steps as CUDA graphs, one a shape of batch, in one pool of memory: no two run at once."""

    def __init__(self, step: Callable[[StackedBatch], torch.Tensor]) -> None:
        self._step = step
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._graphs: dict[tuple[int, ...], tuple[Any, StackedBatch, torch.Tensor]] = {}

    def launch(self, batch: StackedBatch) -> torch.Tensor:
        """Starts the step of a batch that is in host memory; returns where its results will be."""
        if batch.shape not in self._graphs:
            own = batch.to("cuda")
            graph: Any = torch.cuda.CUDAGraph()
            torch.cuda.synchronize()
            with torch.cuda.graph(
                graph, pool=self._pool, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"
            ):
                results = self._step(own)
            self._graphs[batch.shape] = graph, own, results
        graph, own, results = self._graphs[batch.shape]
        for mine, its in zip(own.parts(), batch.parts(), strict=True):
            mine.copy_(its, non_blocking=True)
        graph.replay()
        return results
