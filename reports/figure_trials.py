"""Every trial by its learning rate, as values: `reports.drawing_trials` draws them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from reports.evidence import ArmEvidence, Evidence
from reports.figure_forecast import trained_arms
from results.schema import Record
from study.metrics import METRICS
from study.problems import one_line

_SAID = {"out_of_memory": "did not fit", "diverged": "diverged", "pruned": "pruned"}


@dataclass(frozen=True, slots=True)
class TrialPoint:
    """One run of a trial: its learning rate and rank, and its value; None where it gave none, and `outcome` says
    why."""

    learning_rate: float
    rank: int | None
    value: float | None
    outcome: str
    chosen: bool
    run_id: str


@dataclass(frozen=True, slots=True)
class TrialPanel:
    """The trials of one arm, in the plan's order."""

    arm: str
    points: tuple[TrialPoint, ...]


@dataclass(frozen=True, slots=True)
class TrialFigure:
    """The numbers of the figure, one panel an arm; `metric` is what was selected by, `ranks` all that were tried,
    `arms` all arms that train, in the plan's order."""

    metric: str
    arms: tuple[str, ...]
    ranks: tuple[int, ...]
    panels: tuple[TrialPanel, ...]
    caption: str


def selected_by(evidence: Evidence) -> str:
    """The metric that the hyperparameters were chosen by; ROUGE-L, the default, before the freeze."""
    chosen = "rougeL" if evidence.frozen is None else evidence.frozen.select_by
    return chosen if chosen in METRICS else "rougeL"


def trial_figure(evidence: Evidence) -> TrialFigure | None:
    """Every recorded trial of every arm; None where no trial of any arm has a value."""
    metric = selected_by(evidence)
    usable = {record.run_id for record in evidence.validation}
    panels = tuple(panel for arm in evidence.arms if (panel := _panel(arm, metric, usable)).points)
    points = [point for panel in panels for point in panel.points]
    if not any(point.value is not None for point in points):
        return None
    ranks = tuple(sorted({point.rank for point in points if point.rank is not None}))
    return TrialFigure(
        metric, trained_arms(evidence), ranks, panels, _caption(metric, points, _left_out(evidence, usable))
    )


def trial_records(arm: ArmEvidence) -> tuple[Record, ...]:
    """The last record of each trial of an arm, in the plan's order."""
    ids = (run.run_id for run in arm.planned if run.stage == "tune")
    return tuple(arm.recorded[run_id] for run_id in ids if run_id in arm.recorded)


def _is_left_out(record: Record, usable: Collection[str]) -> bool:
    """Whether a trial has a value that may not stand beside those of the others."""
    return record.status == "completed" and record.run_id not in usable


def _left_out(evidence: Evidence, usable: Collection[str]) -> int:
    return sum(_is_left_out(record, usable) for arm in evidence.arms for record in trial_records(arm))


def _panel(arm: ArmEvidence, metric: str, usable: Collection[str]) -> TrialPanel:
    chosen = None if arm.choice is None else arm.choice.run_id
    points = [
        TrialPoint(
            learning_rate=record.learning_rate,
            rank=record.adapter.rank,
            value=None if record.quality is None else record.quality.get(metric),
            outcome=_SAID.get(record.status, "completed" if record.status == "completed" else "failed"),
            chosen=record.run_id == chosen,
            run_id=record.run_id,
        )
        for record in trial_records(arm)
        # A rate of 0 has no place on a logarithmic axis.
        if record.learning_rate is not None and record.learning_rate > 0.0 and not _is_left_out(record, usable)
    ]
    return TrialPanel(one_line(arm.part.name), tuple(points))


def _caption(metric: str, points: Sequence[TrialPoint], left_out: int) -> str:
    label = METRICS[metric].label
    what = label if metric == "validation_loss" else f"{label} on the validation split"
    caption = (
        f"{what[0].upper()}{what[1:]} of every trial against its learning rate, one panel an arm; markers are ranks. "
        "Alpha is not shown. A trial that was run again on further seeds has a point for each."
    )
    if any(point.chosen for point in points):
        caption += " The ring is around the set that was chosen."
    if any(point.value is None for point in points):
        caption += " Signs on the lower edge are trials without a value: they count against the budget."
    if left_out:
        caption += f" Not shown: {left_out} completed trials that cannot be compared with the others."
    return caption
