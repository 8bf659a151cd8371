"""Workers that are started ahead: the same records, none near a measured run, and nothing lost or left where one dies.

The machine is said to have four cores, and for comparison two, on which no worker is started ahead.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from harness import ahead
from harness.adapters.sources import load
from harness.ahead import WorkerAhead
from harness.conductor import Conductor, Machine
from harness.desk import warm_key
from harness.engine.sources import model_folder
from harness.flow import Finish, Options, Study
from harness.messages import Prepared
from harness.view import PlainView
from harness.workers import NoWorkers, Template, Worker
from results.layout import StudyFolder
from results.schema import Record
from results.store import read_predictions, read_records
from study.grid import load_grid
from study.runs import RunSpec
from tests.integration.commands import ROOT, command, environment
from tests.integration.test_side_by_side import numbers

pytestmark = pytest.mark.slow
GRID = """
study: ahead
model: {{id: {model}}}
data:
  source: generated
  limits: {{train: 8, validation: 4, test: 4}}
  generated: {{seed: 3, turns: [4, 5]}}
prompt: {{template: summarize}}
arms:
  - {{name: zero-shot, precision: fp32, method: none}}
  - {{name: lora, precision: bf16}}
  - {{name: qlora, precision: nf4}}
space: {{rank: 4, alpha: [8, 16], learning_rate: {{low: 1e-3, high: 1e-2}}}}
tune: {{trials: 2}}
seeds: [11]
training: {{device: cpu, steps: {steps}, batch_size: 4, max_tokens: 512}}
generation: {{max_new_tokens: 6, batch_size: 4}}
"""
# The command of a person, on a machine with four cores.
FOUR_CORES = "import os, sys, run_study; os.sched_getaffinity = lambda _: set(range(4)); sys.exit(run_study.main())"


@dataclass
class Seen:
    """What happened in a study, in its order: runs that began and ended, and workers that were started.

    `alive` are the workers that were there when one was started, by their logs; `starter` is what a test does to a
    worker, or instead of it, that is started ahead.
    """

    told: list[tuple[str, str]] = field(default_factory=list)
    alive: dict[str, list[str]] = field(default_factory=dict)
    specs: dict[str, RunSpec] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    starter: Callable[[Worker], None] = lambda worker: None

    def start(self, original: Callable[..., Worker]) -> Callable[..., Worker]:
        """Starts workers as `original` does."""

        def started(*arguments: Any, **named: Any) -> Worker:
            before = [worker.log.stem for worker in self.workers if psutil.pid_exists(worker.pid) and worker.alive]
            worker = original(*arguments, **named)
            self.workers.append(worker)
            self.alive[worker.log.stem] = before
            self.told.append(("start", worker.log.stem))
            if threading.current_thread() is not threading.main_thread():
                self.starter(worker)
            return worker

        return started

    def at(self, what: str, run_id: str) -> int:
        """When something happened to a run."""
        return self.told.index((what, run_id))

    def under_way(self, worker: str) -> set[str]:
        """The runs that were under way when a worker was started."""
        moment = self.at("start", worker)
        return {run for what, run in self.told[:moment] if what == "begin"} - {
            run for what, run in self.told[:moment] if what == "end"
        }


class Watching(PlainView):
    """A view that remembers when runs began and ended."""

    def __init__(self, console: Console, seen: Seen) -> None:
        super().__init__(console, 20)
        self._seen = seen

    def run_started(self, spec: RunSpec) -> None:
        super().run_started(spec)
        self._seen.specs[spec.run_id] = spec
        self._seen.told.append(("begin", spec.run_id))

    def run_finished(self, spec: RunSpec, record: Record) -> None:
        super().run_finished(spec, record)
        self._seen.told.append(("end", spec.run_id))


def study_on(cores: int, root: Path, seen: Seen) -> tuple[Finish, StudyFolder]:
    """A whole study on a machine with so many cores."""
    grid = load_grid(GRID.format(model=model_folder("random/tiny-phi", None, "cpu").folder, steps=4))
    folder, loaded = StudyFolder.of(root, grid.study), load(grid.data)
    with open(root / "said", "w", encoding="utf-8") as said, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(Template, "start", seen.start(Template.start))
        view = Watching(Console(file=said, width=200), seen)
        conductor = Conductor(grid, folder, Machine("cpu", None, {}, cores=cores), loaded.splits, view)
        try:
            finish = Study(grid, folder, loaded, conductor, view, Options()).run()
        finally:
            conductor.close()
    assert not [worker for worker in seen.workers if psutil.pid_exists(worker.pid)]
    return finish, folder


@dataclass(frozen=True)
class Made:
    """A study that is over, and what was seen of it."""

    finish: Finish
    folder: StudyFolder
    seen: Seen

    def first(self, arm: str) -> str:
        """The run that an arm's warm worker began with."""
        return next(run_id for run_id, spec in self.seen.specs.items() if spec.arm.name == arm)

    def last(self, arm: str) -> str:
        """The last run before the freeze of an arm."""
        return [key for key, spec in self.seen.specs.items() if spec.arm.name == arm and warm_key(spec) is not None][-1]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Made]:
    """The same study on two cores and on four."""
    made = {}
    for cores in (2, 4):
        seen = Seen()
        made[cores] = Made(*study_on(cores, tmp_path_factory.mktemp(f"cores-{cores}"), seen), seen)
    return made


def assert_equal(one: StudyFolder, two: StudyFolder) -> None:
    """The same runs with the same numbers, one record of each."""
    first, second = ({record.run_id: numbers(record) for record in read_records(folder).all} for folder in (one, two))
    assert len(read_records(two).all) == len(second)
    assert second == first
    for run_id in first:
        assert read_predictions(two, run_id) == read_predictions(one, run_id)


def test_a_study_with_workers_ahead_has_the_records_of_one_without(studies: dict[int, Made]) -> None:
    # Baselines of both splits, two trials and one seed of two arms.
    assert [made.finish for made in studies.values()] == [Finish(8, 0, ())] * 2
    assert_equal(studies[2].folder, studies[4].folder)
    told = {
        cores: {record.run_id for record in read_records(made.folder).all if record.checks.get("started_ahead")}
        for cores, made in studies.items()
    }
    # What a start takes is not in the seconds of these runs.
    assert told[2] == set()
    assert told[4] == {studies[4].first(arm) for arm in ("zero-shot", "lora", "qlora")}


def test_the_next_arm_s_worker_is_started_while_the_last_trial_before_it_is_under_way(
    studies: dict[int, Made],
) -> None:
    for cores, made in studies.items():
        for before, arm in (("zero-shot", "lora"), ("lora", "qlora")):
            expected = {made.last(before)} if cores == 4 else {made.first(arm)}
            assert made.seen.under_way(made.first(arm)) == expected
    # The first one is started while the model is looked for.
    first = studies[4].first("zero-shot")
    assert studies[4].seen.at("start", first) < studies[4].seen.at("begin", first)
    assert studies[2].seen.at("start", first) > studies[2].seen.at("begin", first)
    # Each of them was used: as many were started as without.
    assert len(studies[4].seen.workers) == len(studies[2].seen.workers)
    warm = [record.checks["warm_worker"] for record in read_records(studies[4].folder).all if record.stage == "tune"]
    assert warm == [False, True, False, True]


def test_no_worker_of_another_run_is_there_before_beside_or_after_a_measured_one(studies: dict[int, Made]) -> None:
    for made in studies.values():
        measured = [run_id for run_id, spec in made.seen.specs.items() if warm_key(spec) is None]
        assert len(measured) == 3
        for run_id in measured:
            # The worker before it is gone, and only its own is started while it is under way.
            assert made.seen.alive[run_id] == []
            own = made.seen.told[made.seen.at("begin", run_id) : made.seen.at("end", run_id)]
            assert own == [("begin", run_id), ("start", run_id)]
        # Nor is one started beside the last run before the first of them.
        assert made.seen.under_way(measured[0]) == {measured[0]}


def _killed(worker: Worker) -> None:
    os.kill(worker.pid, signal.SIGKILL)


def _stopped(worker: Worker) -> None:
    os.kill(worker.pid, signal.SIGSTOP)


def _none(worker: Worker) -> None:
    worker.end()
    raise NoWorkers("the template is not there")


@pytest.mark.parametrize("fault", [_killed, _stopped, _none])
def test_a_worker_ahead_that_dies_hangs_or_cannot_start_costs_no_run(
    fault: Callable[[Worker], None], studies: dict[int, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "PATIENCE_S", 1.0)
    seen = Seen(starter=fault)
    finish, folder = study_on(4, tmp_path, seen)
    assert finish == Finish(8, 0, ())
    assert_equal(studies[2].folder, folder)
    # Three were started ahead, and three more in their place.
    assert len(seen.workers) == len(studies[2].seen.workers) + 3


def test_a_worker_ahead_that_dies_after_it_is_prepared_costs_no_run(
    studies: dict[int, Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, seen, heard, hear = WorkerAhead.take, Seen(), list[str](), Worker.next_event

    def take(self: WorkerAhead) -> Any:
        assert self._worker is not None
        _killed(self._worker)
        self._worker._process.join()
        return taken(self)

    def next_event(self: Worker, *arguments: Any) -> Any:
        event = hear(self, *arguments)
        if isinstance(event, Prepared):
            heard.append(self.log.stem)
        return event

    monkeypatch.setattr(WorkerAhead, "take", take)
    monkeypatch.setattr(Worker, "next_event", next_event)
    finish, folder = study_on(4, tmp_path, seen)
    assert finish == Finish(8, 0, ())
    assert len(heard) == 3
    assert_equal(studies[2].folder, folder)
    assert len(seen.workers) == len(studies[2].seen.workers) + 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_study_that_is_stopped_leaves_no_worker_ahead_behind(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    grid = tmp_path / "grid.yaml"
    text = GRID.format(model=model_folder("random/tiny-phi", None, "cpu").folder, steps=5000)
    grid.write_text(text.replace("trials: 2", "trials: 1"))
    line = ["--grid", str(grid), "--results", str(tmp_path), "--out", str(tmp_path / "out"), "--only", "lora", "qlora"]
    process = subprocess.Popen(
        command("-c", FOUR_CORES, *line), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while len(workers := _workers(process)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # The one that is ahead may be anywhere on its way.
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == code, said
    _, alive = psutil.wait_procs([*children, *workers], timeout=10)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
    if number != signal.SIGKILL:
        (record,) = read_records(StudyFolder.of(tmp_path, "ahead")).all
        assert (record.arm, record.status) == ("lora", "interrupted")


def _workers(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The template's children that have a run's log."""
    found = []
    for template in psutil.Process(process.pid).children():
        for worker in template.children():
            try:
                logs = [Path(file.path) for file in worker.open_files()]
            except psutil.NoSuchProcess:
                continue
            if any(log.suffix == ".log" and log.stem != "model" for log in logs):
                found.append(worker)
    return found
