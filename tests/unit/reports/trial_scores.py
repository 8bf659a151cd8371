"""Simulated studies whose trials have chosen scores, and trials that the plan lists after the block."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results.layout import StudyFolder
from results.schema import PlannedRun, Record
from results.store import RecordStore, read_frozen, read_plan, read_records, write_frozen, write_plan
from tests.unit.reports.records import run_id, write_study

# Hyperparameters of trial 0, 1, …: each its own set.
RATES = (2e-4, 1e-4, 5e-5, 4e-4, 8e-4, 3e-5, 6e-4, 9e-4)


def trial_id(arm: str, trial: int) -> str:
    """The id of an arm's trial."""
    return run_id("tune", None, arm, 0, trial)


def write_tuned(results: Path, scores: Mapping[str, Sequence[float | None]], **changes: Any) -> StudyFolder:
    """A study whose arms' completed trials have these ROUGE-L scores, in points, ranked by them at the freeze.

    Each trial trains for 100 s more than the one before. None leaves a trial as it was recorded.
    """
    folder = write_study(results, **changes)
    for arm, values in scores.items():
        for trial, value in enumerate(values):
            if value is not None:
                score(folder, trial_id(arm, trial), value, rate=RATES[trial], seconds=100.0 * (trial + 1))
    _rank(folder, scores)
    return folder


def score(folder: StudyFolder, which: str, value: float, *, rate: float, seconds: float) -> None:
    """Writes a completed trial's record again, with this ROUGE-L and 2 points more of every other ROUGE."""
    record = read_records(folder).last[which]
    quality = dict.fromkeys(record.quality or {}, value + 2.0) | {"rougeL": value, "validation_loss": 100.0 - value}
    timed = record.seconds.model_copy(update={"train": seconds})
    update = {"quality": quality, "learning_rate": rate, "seconds": timed}
    RecordStore(folder).append(Record.model_validate(record.model_dump() | update))


def _rank(folder: StudyFolder, scores: Mapping[str, Sequence[float | None]]) -> None:
    frozen = read_frozen(folder)
    if frozen is None:
        return
    choices = []
    for choice in frozen.choices:
        values = {trial: value for trial, value in enumerate(scores.get(choice.arm, ())) if value is not None}
        ranking = tuple(trial_id(choice.arm, trial) for trial in sorted(values, key=lambda trial: -values[trial]))
        update = {"ranking": ranking, "run_id": ranking[0], "score": max(values.values())} if ranking else {}
        choices.append(choice.model_copy(update=update))
    write_frozen(folder, frozen.model_copy(update={"choices": tuple(choices)}))


def add_trial(folder: StudyFolder, arm: str, trial: int, value: float, *, seed: int = 0) -> str:
    """A completed trial of the sampler, or with another `seed` a repetition: the plan lists it after all others."""
    plan, first = read_plan(folder), read_records(folder).last[trial_id(arm, 0)]
    assert plan is not None
    which = run_id("tune", None, arm, seed, trial, "later")
    planned = PlannedRun(
        run_id=which, stage="tune", purpose=None, arm=arm, split="validation", seed=seed, trial=trial, repeat=0
    )
    write_plan(folder, plan.model_copy(update={"runs": (*plan.runs, planned)}))
    RecordStore(folder).append(first.model_copy(update={"run_id": which, "trial": trial, "seed": seed}))
    score(folder, which, value, rate=RATES[trial], seconds=100.0)
    return which
