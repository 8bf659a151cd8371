"""A worker that is killed while an arm is tuned: no trial is proposed, and nothing frozen, on what is not known."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from harness.adapters.sources import Loaded, load
from harness.flow import Options, Study
from harness.outcomes import Stopped
from harness.runlog import RunLog
from harness.scores import Scorer
from harness.view import PlainView
from results.layout import StudyFolder
from results.schema import Frozen, Record
from results.store import RecordStore, read_frozen, read_records
from study.grid import Grid, load_grid
from study.metrics import METRICS
from study.runs import RunSpec

GRID = """
study: tuned
model: {id: microsoft/phi-2, revision: ef382358ec9e382308935a992d908de099b64c23}
data:
  source: generated
  limits: {train: 8, validation: 4, test: 4}
  generated: {seed: 3, turns: [4, 5]}
prompt: {template: summarize}
arms:
  - {name: lora, precision: bf16}
  - {name: qlora, precision: nf4}
space: {rank: [4, 8], alpha: [8, 16], learning_rate: {low: 1e-4, high: 1e-2}}
tune: {trials: 4, tpe_trials: 2, reselect: 2, reselect_seeds: [1, 2]}
seeds: [11, 12]
training: {device: cpu, steps: 2, batch_size: 4, max_tokens: 512}
generation: {max_new_tokens: 6, batch_size: 4}
"""


@dataclass
class Scripted:
    """A conductor without workers: a run's scores follow from its specification, and the runs of some turns are
    killed."""

    folder: StudyFolder
    killed: frozenset[int]
    status: Literal["killed", "diverged"] = "killed"
    seats: int = 1
    turn: int = 0
    store: RecordStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = RecordStore(self.folder)

    def expect(self, specs: Iterable[RunSpec]) -> None:
        pass

    def recall(self, specs: Iterable[RunSpec], last: Mapping[str, Record]) -> None:
        pass

    def run_all(self, specs: Sequence[RunSpec], keep: Callable[[Record], None], then: RunSpec | None = None) -> None:
        for spec in specs:
            log = RunLog(spec, "paper", {}, Scorer(), warm=False)
            record = log.record(Stopped(self.status, "WorkerDied", "ended by SIGKILL", "train"), {}, 1.0)
            if self.turn not in self.killed:
                score = 20 + int(spec.run_id, 16) % 997 / 100
                quality = dict.fromkeys(METRICS, score)
                record = record.model_copy(update={"status": "completed", "error": None, "quality": quality})
            self.turn += 1
            self.store.append(record)
            keep(record)


def study(root: Path, grid: Grid, loaded: Loaded, killed: frozenset[int] = frozenset()) -> tuple[int, StudyFolder]:
    """One start; how many runs it made."""
    folder = StudyFolder.of(root, grid.study)
    conductor = Scripted(folder, killed)
    view = cast(PlainView, Silent())
    Study(grid, folder, loaded, cast(Any, conductor), view, Options()).run()
    return conductor.turn, folder


class Silent:
    """A view that shows nothing."""

    def stage(self, name: str, planned: int, done: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def outcome(folder: StudyFolder) -> tuple[set[str], dict[str, Any]]:
    """The runs of a study, and what was chosen."""
    frozen = cast(Frozen, read_frozen(folder)).model_dump()
    return set(read_records(folder).last), {**frozen, "frozen_at": None}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Grid, Loaded, int, tuple[set[str], dict[str, Any]]]:
    """The study that nobody disturbed."""
    grid = load_grid(GRID)
    loaded = load(grid.data)
    made, folder = study(tmp_path_factory.mktemp("whole"), grid, loaded)
    return grid, loaded, made, outcome(folder)


def test_a_worker_killed_in_any_run_adds_no_run_and_changes_no_choice(
    whole: tuple[Grid, Loaded, int, tuple[set[str], dict[str, Any]]], tmp_path: Path
) -> None:
    grid, loaded, made, expected = whole
    assert made == len(expected[0])
    for turn in range(made):
        root = tmp_path / str(turn)
        study(root, grid, loaded, frozenset({turn}))
        _, folder = study(root, grid, loaded)
        assert outcome(folder) == expected, turn


def test_an_arm_that_joins_a_frozen_study_is_chosen_for_when_its_trials_are_over(
    whole: tuple[Grid, Loaded, int, tuple[set[str], dict[str, Any]]], tmp_path: Path
) -> None:
    grid, loaded, _, _ = whole
    wider = load_grid(GRID.replace("space:", "  - {name: int8-lora, precision: int8}\nspace:", 1))
    _, undisturbed = study(tmp_path / "undisturbed", wider, loaded)
    study(tmp_path, grid, loaded)
    # Every run of the new arm is killed once, then each goes on.
    for killed in (frozenset({2}), frozenset({1}), frozenset[int]()):
        _, folder = study(tmp_path, wider, loaded, killed)
    ids, frozen = outcome(folder)
    expected_ids, expected = outcome(undisturbed)
    assert ids == expected_ids
    assert frozen["choices"] == expected["choices"]


def test_a_trial_that_diverged_is_no_hole_in_a_study_and_a_confirm_run_is(
    whole: tuple[Grid, Loaded, int, tuple[set[str], dict[str, Any]]], tmp_path: Path
) -> None:
    grid, loaded, made, _ = whole
    found = {}
    for turn in (1, made - 1):
        folder = StudyFolder.of(tmp_path / str(turn), grid.study)
        conductor = Scripted(folder, frozenset({turn}), "diverged")
        found[turn] = Study(grid, folder, loaded, cast(Any, conductor), cast(PlainView, Silent()), Options()).run()
    assert [len(finish.findings) for finish in found.values()] == [1, 1]
    assert [finish.undone for finish in found.values()] == [(), ()]
    assert [finish.exit_code for finish in found.values()] == [0, 1]
