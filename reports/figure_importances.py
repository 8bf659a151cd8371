"""What each hyperparameter mattered, as values: computed at the freeze, drawn by `reports.drawing_importances`."""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.evidence import Evidence
from reports.public_text import public_text
from results.schema import Importances
from study.problems import one_line

# In this order, whichever of them an arm has.
HYPERPARAMETERS = {"learning_rate": "learning rate", "rank": "rank", "alpha": "alpha"}


@dataclass(frozen=True, slots=True)
class ImportanceRow:
    """One arm: shares that add up to 1, as (hyperparameter, share), from so many scored trials; or why there are
    none."""

    arm: str
    shares: tuple[tuple[str, float], ...]
    trials: int
    reason: str | None
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImportanceFigure:
    """The numbers of the figure, the first arm on top; `names` are the hyperparameters that any arm has a share of."""

    names: tuple[str, ...]
    rows: tuple[ImportanceRow, ...]
    caption: str


def importance_figure(evidence: Evidence) -> ImportanceFigure | None:
    """The importances of every arm that the freeze looked at; None where no arm has any."""
    stored = {} if evidence.frozen is None else {item.arm: item for item in evidence.frozen.importances}
    rows = tuple(
        _row(stored[arm.part.name], tuple(run.run_id for run in arm.planned if run.stage == "tune"))
        for arm in evidence.arms
        if arm.part.name in stored
    )
    if not any(row.shares for row in rows):
        return None
    known = {name for row in rows for name, _ in row.shares}
    names = tuple(name for name in HYPERPARAMETERS.values() if name in known)
    others = tuple(sorted(known - set(names)))
    evaluators = sorted({public_text(item.evaluator) for item in stored.values() if item.shares})
    return ImportanceFigure((*names, *others), rows, _caption(evaluators, rows))


def _row(item: Importances, run_ids: tuple[str, ...]) -> ImportanceRow:
    order = [
        *(name for name in HYPERPARAMETERS if name in item.shares),
        *sorted(set(item.shares) - set(HYPERPARAMETERS)),
    ]
    return ImportanceRow(
        arm=one_line(item.arm),
        shares=tuple((HYPERPARAMETERS.get(name, one_line(name)), item.shares[name]) for name in order),
        trials=item.trials,
        reason=None if item.reason is None else public_text(item.reason),
        run_ids=run_ids,
    )


def _caption(evaluators: Sequence[str], rows: Sequence[ImportanceRow]) -> str:
    counts = sorted({row.trials for row in rows if row.shares})
    trials = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        "How far each hyperparameter decided whether a trial came out in the better half of its arm's trials, as "
        f"shares of all that varied ({'; '.join(evaluators)}; {trials} scored trials an arm). So few trials give a "
        "rough guide: where nothing matters, chance alone gives shares too, about equal ones on average."
    )
