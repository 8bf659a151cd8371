"""When a worker is started ahead: what the conductor asks of a seat, and what a study tells the conductor."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from harness.adapters.sources import load
from harness.ahead import WorkerAhead
from harness.conductor import Conductor, Machine
from harness.desk import Seat, warm_key
from harness.flow import Options, Study
from harness.messages import Device, ModelReady, Prepare
from harness.specs import Specs
from harness.view import PlainView
from harness.workers import NoWorkers, Template
from results.layout import StudyFolder
from results.schema import Record
from study.dialogues import generate
from study.grid import Grid, load_grid
from study.runs import RunSpec
from tests.faults.test_flow import GRID, Scripted, Silent
from tests.unit.study.small_grid import SMALL

EXAMPLES = generate(0, {"train": 8, "validation": 4, "test": 4}, turns=(4, 5))
SPECS = Specs.of(load_grid(SMALL), EXAMPLES)
BASELINE, TEST_BASELINE = SPECS.baselines("validation")[0], SPECS.baselines("test")[0]
LORA, QLORA = (SPECS.block(SPECS.grid.arm(arm)) for arm in ("lora", "qlora@double_quant=true"))
CONFIRM = next(SPECS.possible_confirms())
ALONE: tuple[str | None, ...] = (None,)


class Asked:
    """A seat that remembers which workers it is to start ahead."""

    def __init__(self) -> None:
        self.commands: list[Prepare] = []

    def start_ahead(self, command: Prepare) -> None:
        self.commands.append(command)


@pytest.mark.parametrize(
    ("spec", "then", "cores", "seats", "expected"),
    [
        (LORA[-1], QLORA[0], 3, ALONE, True),
        (BASELINE, QLORA[0], 3, ALONE, True),
        # The worker that is there serves the next run too.
        (LORA[0], LORA[1], 3, ALONE, False),
        (LORA[-1], None, 3, ALONE, False),
        # The one that is under way is measured, or the next one is.
        (CONFIRM, QLORA[0], 3, ALONE, False),
        (TEST_BASELINE, QLORA[0], 3, ALONE, False),
        (LORA[-1], CONFIRM, 3, ALONE, False),
        (LORA[-1], TEST_BASELINE, 3, ALONE, False),
        # It would take a core that the run needs.
        (LORA[-1], QLORA[0], 2, ALONE, False),
        # Nobody knows which seat takes the next run.
        (LORA[-1], QLORA[0], 8, (None, None), False),
    ],
)
def test_a_worker_is_started_ahead_only_between_two_runs_that_nobody_measures(
    spec: RunSpec, then: RunSpec | None, cores: int, seats: tuple[str | None, ...], expected: bool, tmp_path: Path
) -> None:
    machine = Machine("cpu", None, {}, seats, cores=cores)
    folder, view = StudyFolder.of(tmp_path, "small"), PlainView(Console(file=io.StringIO()), 1)
    conductor = Conductor(SPECS.grid, folder, machine, EXAMPLES, view)
    asked = Asked()
    conductor._look_ahead(cast(Seat, asked), spec, then, ModelReady("weights", None))
    assert [command.spec for command in asked.commands] == ([then] if expected else [])
    for command in asked.commands:
        train, evaluated = SPECS.splits["train"], SPECS.splits["validation"]
        assert command.train_file == str(folder.examples("train", train.hash))
        assert command.evaluated_file == str(folder.examples("validation", evaluated.hash))
        assert (command.model_folder, command.device) == ("weights", "cpu")


class Broken:
    """A template that starts nothing."""

    def start(self, device: Device, log: Path, gpu: str | None = None) -> None:
        raise NoWorkers("it died again and again")


def test_a_worker_that_cannot_be_started_ahead_is_none(tmp_path: Path) -> None:
    worker = WorkerAhead(cast(Template, Broken()), tmp_path / "log", None, Prepare(LORA[0], "", None, "", "cpu"))
    worker.start()
    assert not worker.ready_for(LORA[1])
    assert not worker.ready_for(LORA[0])
    assert worker.take() is None
    worker.end()


@dataclass
class Telling(Scripted):
    """A conductor without workers that remembers every run, and what it was told would come after it."""

    told: list[tuple[RunSpec, RunSpec | None]] = field(default_factory=list)

    def run_all(self, specs: Sequence[RunSpec], keep: Callable[[Record], None], then: RunSpec | None = None) -> None:
        self.told += zip(specs, (*specs, then)[1:], strict=True)
        super().run_all(specs, keep, then)


def told_in(grid: Grid, root: Path, *only: str, killed: frozenset[int] = frozenset()) -> list[Any]:
    """A study without workers: each run, what was said of the next, and what that was."""
    folder, loaded = StudyFolder.of(root, grid.study), load(grid.data)
    conductor = Telling(folder, killed)
    Study(grid, folder, loaded, cast(Conductor, conductor), cast(PlainView, Silent()), Options(only)).run()
    following = [*(spec for spec, _ in conductor.told[1:]), None]
    return [(spec, then, real) for (spec, then), real in zip(conductor.told, following, strict=True)]


@pytest.mark.parametrize(
    "tune",
    [
        "tune: {trials: 2}",
        "tune: {trials: 2, tpe_trials: 2}",
        "tune: {trials: 2, reselect: 2, reselect_seeds: [1, 2]}",
        "tune: {trials: 2, tpe_trials: 1, reselect: 2, reselect_seeds: [1, 2]}",
    ],
)
@pytest.mark.parametrize("only", [(), ("lora", "int8-lora")])
def test_a_study_tells_of_every_change_of_the_base_what_comes_then(
    tune: str, only: tuple[str, ...], tmp_path: Path
) -> None:
    arms = "  - {name: zero-shot, precision: bf16, method: none}\n  - {name: int8-lora, precision: int8}\nspace:"
    text = GRID.replace("space:", arms, 1).replace(
        "tune: {trials: 4, tpe_trials: 2, reselect: 2, reselect_seeds: [1, 2]}", tune
    )
    told = told_in(load_grid(text), tmp_path, *only)
    changes = 0
    for spec, then, real in told:
        # What is said of the next run holds.
        assert then is None or then == real
        if real is not None and None not in (warm_key(spec), warm_key(real)) and warm_key(spec) != warm_key(real):
            assert then == real
            changes += 1
    assert changes == (1 if only else 2)


def test_a_study_that_goes_on_tells_of_the_arms_that_are_not_done_yet(tmp_path: Path) -> None:
    wider = load_grid(GRID.replace("space:", "  - {name: int8-lora, precision: int8}\nspace:", 1), ["tune={trials: 2}"])
    assert {spec.arm.name for spec, _, _ in told_in(wider, tmp_path, "qlora")} == {"qlora"}
    told = told_in(wider, tmp_path)
    last = next(then for spec, then, _ in told if spec.arm.name == "lora" and spec.trial == 1)
    assert last is not None
    assert (last.arm.name, last.trial) == ("int8-lora", 0)
