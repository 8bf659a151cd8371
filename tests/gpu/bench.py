"""A conductor on this machine's GPU with the examples of a grid in place."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from harness.adapters.host import environment
from harness.adapters.nvml import open_gpus
from harness.adapters.sources import load
from harness.conductor import Conductor, Machine
from harness.flow import examples_text
from harness.gpu import visible
from harness.specs import Specs
from harness.view import PlainView
from results.layout import StudyFolder
from results.store import write_atomically
from study.grid import Grid, load_grid

TINY = Path(__file__).parents[1] / "grids" / "tiny.yaml"


def tiny_grid(*overrides: str) -> Grid:
    """The tiny grid on the GPU, with `--set` overrides."""
    return load_grid(TINY.read_text(), ["training.device=gpu", *overrides])


@contextmanager
def bench(grid: Grid, results: Path, seats: int = 1) -> Iterator[tuple[Conductor, Specs]]:
    """A conductor and the run specifications of a grid."""
    folder = StudyFolder.of(results, grid.study)
    loaded = load(grid.data)
    specs = Specs.of(grid, loaded.splits)
    for split, part in specs.splits.items():
        write_atomically(folder.examples(split, part.hash), examples_text(loaded.splits[split]).encode())
    gpus = open_gpus()
    seen = () if gpus is None else visible(gpus.devices(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    pinned = (None,) if seats == 1 else tuple(device.uuid for device in seen[:seats])
    machine = Machine("cuda", gpus, environment(), pinned)
    conductor = Conductor(grid, folder, machine, loaded.splits, PlainView(Console(), 8))
    try:
        yield conductor, specs
    finally:
        conductor.close()
