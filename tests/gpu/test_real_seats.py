"""What only two GPUs can show: runs side by side, each alone on its own."""

from dataclasses import replace
from pathlib import Path

import pytest

from results.schema import Record
from study.runs import Purpose, Stage
from tests.gpu.bench import bench, tiny_grid

pytestmark = pytest.mark.gpu


def test_two_measured_runs_at_a_time_are_each_alone_on_a_gpu_of_its_own(tmp_path: Path) -> None:
    grid = tiny_grid("training.steps=40")
    with bench(grid, tmp_path, seats=2) as (conductor, specs):
        if conductor.seats < 2:
            pytest.skip("there is one GPU here")
        trial = specs.trial(grid.arm("lora"), 0, grid.block(grid.arm("lora"))[0])
        test = replace(trial, stage=Stage.CONFIRM, purpose=Purpose.TUNED, trial=None, evaluated=specs.splits["test"])
        records: list[Record] = []
        conductor.run_all([replace(test, seed=seed) for seed in range(11, 15)], records.append)
    assert [record.status for record in records] == ["completed"] * 4
    assert len({record.gpu.uuid for record in records if record.gpu}) == 2
    assert all(record.gpu is not None and record.gpu.alone for record in records)
    assert all(record.gpu is not None and record.environment["gpu_uuid"] == record.gpu.uuid for record in records)
    assert max(record.checks["side_by_side"] for record in records) == 2
