"""Studies whose trainings keep checkpoints, killed in the middle of one: the next start goes on to the same records."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from harness.engine.checkpoints import PAGE
from results.schema import Record
from results.store import read_records
from tests.faults.comparing import MEASURED, MEASURED_CHECKS
from tests.faults.kills import FAULTS
from tests.faults.starts import Place, Start, grid_text

SEED = 20261125
STEPS, EVERY = 50, 5
# What tells that a training was made in parts, and how many tokens its warm-ups had: there is one in each part.
OF_PARTS = ("resumed_from_step", "first_step_tokens")
OPTIONS = ("--checkpoint-every", str(EVERY))
ONE_RUN = (*OPTIONS, "--only", "lora")


def grid_in(root: Path, *, steps: int) -> Path:
    """The grid of the kills with long trainings, and dropout: what comes next depends on the random state."""
    grid = root / "grid.yaml"
    grid.write_text(grid_text(whole=False, steps=steps).replace("precision: bf16}", "precision: bf16, dropout: 0.1}"))
    return grid


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One trial of one arm, which nobody disturbs and which keeps no checkpoint."""
    root = tmp_path_factory.mktemp("alone")
    place = Place(grid_in(root, steps=STEPS), root)
    start = Start(place, "--only", "lora")
    # The other arm's trials are still to come.
    assert start.finish() == 1, start.said
    assert [record.status for record in read_records(place.folder).all] == ["completed"]
    assert not place.folder.checkpoints.exists()
    return place


def step_kept(place: Place) -> int:
    """The furthest step of any checkpoint on disk; 0 where there is none."""
    steps = [0]
    for page in place.folder.checkpoints.glob(f"*/{PAGE}"):
        try:
            steps.append(json.loads(page.read_bytes())["step"])
        except FileNotFoundError:
            continue
    return max(steps)


def unmeasured(record: Record) -> dict[str, Any]:
    content = record.model_dump(mode="json")
    checks = content.pop("checks")
    kept = {key: value for key, value in checks.items() if key not in (*MEASURED_CHECKS, *OF_PARTS)}
    return {key: value for key, value in content.items() if key not in MEASURED} | {"checks": kept}


def assert_same(reference: Place, place: Place) -> dict[str, Record]:
    """Records and predictions of two studies are equal but for what is measured; the last records of the second."""
    first, second = read_records(reference.folder).last, read_records(place.folder).last
    assert {key: unmeasured(record) for key, record in second.items()} == {
        key: unmeasured(record) for key, record in first.items()
    }
    for run_id in first:
        assert place.folder.predictions(run_id).read_bytes() == reference.folder.predictions(run_id).read_bytes()
    assert not place.folder.checkpoints.exists()
    return second


def broken_off(place: Place, fault: str, after: int, chance: random.Random) -> int:
    """Starts a study, injects a fault once a checkpoint is beyond a step, and returns the step that is kept then."""
    start = Start(place, *ONE_RUN)
    assert start.until(lambda: step_kept(place) > after), start.said
    assert FAULTS[fault].inject(start, chance)
    start.finish()
    assert start.left_behind() == 0
    assert "Traceback" not in start.said
    assert step_kept(place) < STEPS, "the machine was too fast: the training was over"
    return step_kept(place)


def end(reference: Place, place: Place, kept: int) -> Record:
    """The last start goes on from the step that is kept, and comes to the record of the reference."""
    start = Start(place, *ONE_RUN)
    assert start.finish() == 1, start.said
    assert f"goes on after step {kept} of {STEPS}" in start.said
    (record,) = assert_same(reference, place).values()
    assert record.checks["resumed_from_step"] == kept
    return record


def test_a_training_that_is_killed_and_preempted_comes_to_the_same_record(alone: Place, tmp_path: Path) -> None:
    place = Place(alone.grid, tmp_path)
    chance = random.Random(SEED)
    first = broken_off(place, "both", 0, chance)
    assert first >= EVERY
    second = broken_off(place, "preempt", first, chance)
    record = end(alone, place, second)
    seconds = record.seconds
    assert seconds.train is not None
    assert seconds.total is not None
    assert seconds.train < seconds.total
    assert (record.energy_j, record.energy) == (None, {})
    assert record.memory.train is not None
    assert "parts" in (record.memory.train.source or "")


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["conductor", "worker", "interrupt", "terminate"])
def test_a_training_goes_on_whatever_broke_it_off(alone: Place, tmp_path: Path, fault: str) -> None:
    place = Place(alone.grid, tmp_path)
    chance = random.Random(SEED)
    first = broken_off(place, fault, 0, chance)
    second = broken_off(place, fault, first, chance)
    end(alone, place, second)
    told = [each for each in read_records(place.folder).all if each.status in ("interrupted", "killed")]
    assert [each.checks.get("resumed_from_step") for each in told] == ([] if fault == "conductor" else [None, first])


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_whole_study_that_is_killed_in_every_training_ends_as_if_nobody_had(tmp_path: Path) -> None:
    grid = grid_in(tmp_path, steps=60)
    reference = Place(grid, tmp_path / "reference")
    start = Start(reference)
    assert start.finish() == 0, start.said
    place = Place(grid, tmp_path / "killed")
    chance = random.Random(SEED)
    for _ in range(40):
        start = Start(place, *OPTIONS)
        there = {path.name for path in place.folder.checkpoints.glob("*")}

        def fresh(seen: set[str] = there) -> bool:
            # A run that was not hit before has a checkpoint.
            return any(path.parent.name not in seen for path in place.folder.checkpoints.glob(f"*/{PAGE}"))

        if start.until(fresh, timeout_s=120):
            FAULTS[chance.choice(["both", "preempt", "interrupt", "conductor"])].inject(start, chance)
        if start.finish() == 0:
            break
        assert start.left_behind() == 0
    records = assert_same(reference, place)
    resumed = {key for key, record in records.items() if "resumed_from_step" in record.checks}
    assert len(resumed) >= len(records) // 2
