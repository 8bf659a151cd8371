"""A study in two seats at a time: the same records as in one, and nothing left behind when it is stopped."""

import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from harness.adapters.sources import load
from harness.conductor import Conductor, Machine
from harness.engine.sources import model_folder
from harness.flow import Finish, Options, Study
from harness.view import PlainView
from results.layout import StudyFolder
from results.schema import Record
from results.store import read_frozen, read_predictions, read_records
from study.grid import Grid, load_grid
from tests.integration.commands import ROOT, command, environment

pytestmark = pytest.mark.slow
GRID = """
study: seats
model: {{id: {model}}}
data:
  source: generated
  limits: {{train: 8, validation: 4, test: 4}}
  generated: {{seed: 3, turns: [4, 5]}}
prompt: {{template: summarize}}
arms:
  - {{name: zero-shot, precision: bf16, method: none}}
  - {{name: lora, precision: bf16}}
  - {{name: qlora, precision: nf4}}
space: {{rank: 4, alpha: [8, 16], learning_rate: {{low: 1e-3, high: 1e-2}}}}
tune: {{trials: 4, tpe_trials: 1}}
seeds: [11, 12]
training: {{device: cpu, steps: {steps}, batch_size: 4, max_tokens: 512}}
generation: {{max_new_tokens: 6, batch_size: 4}}
"""
# The command of a person, on a machine that has two seats without a GPU.
TWO_SEATS = (
    "import sys, harness.start as s, run_study; s._cpu_seats = lambda *_: (None, None); sys.exit(run_study.main())"
)


def grid_text(steps: int = 2) -> str:
    return GRID.format(model=model_folder("random/tiny-phi", None, "cpu").folder, steps=steps)


def study_in(seats: int, root: Path, grid: Grid) -> tuple[Finish, StudyFolder]:
    """A whole study in so many seats on the CPU."""
    folder = StudyFolder.of(root, grid.study)
    loaded = load(grid.data)
    machine = Machine("cpu", None, {}, (None,) * seats)
    with open(root / "said", "w", encoding="utf-8") as said:
        view = PlainView(Console(file=said, width=200), 20)
        conductor = Conductor(grid, folder, machine, loaded.splits, view)
        try:
            finish = Study(grid, folder, loaded, conductor, view, Options()).run()
        finally:
            conductor.close()
    return finish, folder


def numbers(record: Record) -> Mapping[str, Any]:
    """What must not depend on when and beside what a run was made."""
    told = record.model_dump(mode="json", exclude={"started_at", "seconds", "memory"})
    for key in ("first_step_s", "warm_worker", "side_by_side", "started_ahead"):
        told["checks"].pop(key, None)
    return told


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Finish, StudyFolder]]:
    """The same study in one seat and in two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        grid = load_grid(grid_text())
        return {seats: study_in(seats, tmp_path_factory.mktemp(f"seats-{seats}"), grid) for seats in (1, 2)}


def test_two_seats_make_the_runs_that_one_makes_and_the_same_numbers(
    studies: dict[int, tuple[Finish, StudyFolder]],
) -> None:
    one, two = ({r.run_id: r for r in read_records(folder).all} for _, folder in studies.values())
    # Baselines of both splits, a block and one more trial of two arms, and two seeds of each.
    assert len(one) == 2 + 2 * 5 + 2 * 2
    assert {run_id: numbers(record) for run_id, record in one.items()} == {
        run_id: numbers(record) for run_id, record in two.items()
    }
    for run_id in one:
        assert read_predictions(studies[1][1], run_id) == read_predictions(studies[2][1], run_id)
    chosen = [frozen for _, folder in studies.values() if (frozen := read_frozen(folder)) is not None]
    assert chosen[0] == chosen[1].model_copy(update={"frozen_at": chosen[0].frozen_at})
    assert [finish for finish, _ in studies.values()] == [Finish(16, 0, ())] * 2


def test_a_record_tells_how_many_runs_shared_the_machine(studies: dict[int, tuple[Finish, StudyFolder]]) -> None:
    one, two = ([(r.stage, r.checks["side_by_side"]) for r in read_records(f).all] for _, f in studies.values())
    assert {count for _, count in one} == {1}
    # Of two threads that take turns at four confirm runs at least the first two meet.
    assert sum(count == 2 for stage, count in two if stage == "confirm") >= 2
    assert sum(count == 2 for stage, count in two if stage == "tune") >= 2


def test_every_confirm_run_has_a_process_of_its_own(studies: dict[int, tuple[Finish, StudyFolder]]) -> None:
    for _, folder in studies.values():
        records = read_records(folder).all
        assert not any(record.checks["warm_worker"] for record in records if record.stage == "confirm")
        assert any(record.checks["warm_worker"] for record in records if record.stage == "tune")


def test_an_interrupt_ends_both_seats_and_both_runs_are_recorded(tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(grid_text(steps=2000))
    line = ["--grid", str(grid), "--results", str(tmp_path), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        command("-c", TWO_SEATS, *line), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    deadline = time.monotonic() + 120
    while len(workers := _training(process)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130, said
    _, alive = psutil.wait_procs([*children, *workers], timeout=10)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
    last = read_records(StudyFolder.of(tmp_path, "seats")).all[-2:]
    assert [record.status for record in last] == ["interrupted"] * 2
    assert {record.arm for record in last} == {"lora", "qlora"}
    assert {record.checks["side_by_side"] for record in last} == {2}


def _training(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Workers that have worked for a while: the template's children, once their run is well under way."""
    found = []
    for template in psutil.Process(process.pid).children():
        for worker in template.children():
            try:
                times = worker.cpu_times()
            except psutil.NoSuchProcess:
                continue
            if times.user > 1.5:
                found.append(worker)
    return found
