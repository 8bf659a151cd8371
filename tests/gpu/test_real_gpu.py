"""What only a GPU can show: peaks of real runs, in real worker processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from harness.adapters.host import environment
from harness.adapters.nvml import open_gpus
from harness.adapters.sources import load
from harness.conductor import Conductor, Machine
from harness.flow import examples_text
from harness.specs import Specs
from harness.view import PlainView
from results.layout import StudyFolder
from results.store import write_atomically
from study.grid import Grid, load_grid
from study.runs import Purpose

pytestmark = pytest.mark.gpu
TINY = Path(__file__).parents[1] / "grids" / "tiny.yaml"


@pytest.fixture
def grid() -> Grid:
    return load_grid(TINY.read_text(), ["training.device=gpu"])


@pytest.fixture
def bench(grid: Grid, tmp_path: Path) -> Iterator[tuple[Conductor, Specs]]:
    """A conductor on the GPU with its examples in place."""
    folder = StudyFolder.of(tmp_path, grid.study)
    loaded = load(grid.data)
    specs = Specs.of(grid, loaded.splits)
    for split, part in specs.splits.items():
        write_atomically(folder.examples(split, part.hash), examples_text(loaded.splits[split]).encode())
    machine = Machine("cuda", open_gpus(), environment())
    conductor = Conductor(grid, folder, machine, loaded.splits, PlainView(Console(), 8))
    yield conductor, specs
    conductor.close()


@pytest.mark.parametrize("arm", ["lora", "int8-lora", "qlora"])
def test_a_warm_worker_s_allocated_peak_is_that_of_a_fresh_process(
    grid: Grid, bench: tuple[Conductor, Specs], arm: str
) -> None:
    conductor, specs = bench
    chosen = grid.block(grid.arm(arm))
    runs = [conductor.run(specs.trial(grid.arm(arm), number, chosen[0], seed=number)) for number in range(3)]
    warm = runs[-1].memory.train
    assert runs[-1].checks["warm_worker"] is True
    conductor.close()
    fresh = conductor.run(specs.trial(grid.arm(arm), 7, chosen[0], seed=7))
    assert fresh.checks["warm_worker"] is False
    assert warm is not None
    assert fresh.memory.train is not None
    assert warm.allocated_bytes == pytest.approx(fresh.memory.train.allocated_bytes, rel=0.01)
    assert warm.reserved_bytes is None


def test_every_phase_has_its_four_numbers_and_nvml_sees_what_the_allocator_took(
    grid: Grid, bench: tuple[Conductor, Specs]
) -> None:
    conductor, specs = bench
    arm = grid.arm("lora")
    spec = next(iter(specs._seeds(arm, grid.block(arm)[0], Purpose.TUNED)))
    record = conductor.run(spec)
    assert record.status == "completed"
    for phase in (record.memory.load, record.memory.prepare, record.memory.train, record.memory.evaluate):
        assert phase is not None
        assert None not in (phase.allocated_bytes, phase.reserved_bytes, phase.device_bytes, phase.host_rss_bytes)
        assert phase.source is not None
        assert phase.source.startswith("NVML")
    train = record.memory.train
    assert train is not None
    taken = train.process_bytes if train.process_bytes is not None else train.device_bytes
    assert (taken or 0) >= (train.reserved_bytes or 0) >= (train.allocated_bytes or 0) > 0
    assert record.environment["gpu"]
    assert record.environment["driver"]
