"""Expected validation performance, as values: `reports.drawing_expected` draws what `reports.expected` computed."""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.evidence import Evidence
from reports.expected import ExpectedCurve, expected_curves
from reports.figure_forecast import trained_arms
from study.metrics import METRICS
from study.problems import one_line


@dataclass(frozen=True, slots=True)
class ExpectedLine:
    """One arm: the expected best score after so many trials and, where they were timed, seconds of training."""

    arm: str
    trials: tuple[int, ...]
    scores: tuple[float, ...]
    seconds: tuple[float, ...]
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExpectedFigure:
    """The numbers of the figure; `arms` are all that train, in the plan's order. `on_gpu`: seconds are a GPU's."""

    metric: str
    arms: tuple[str, ...]
    lines: tuple[ExpectedLine, ...]
    on_gpu: bool
    caption: str


def expected_figure(evidence: Evidence) -> ExpectedFigure | None:
    """The curve of every arm that has one; None where none has."""
    curves = expected_curves(evidence)
    lines = tuple(_line(curve) for curve in curves if _has_score(curve))
    if not lines:
        return None
    metric = next(curve.metric for curve in curves if _has_score(curve))
    return ExpectedFigure(metric, trained_arms(evidence), lines, evidence.on_gpu, _caption(metric, curves))


def _has_score(curve: ExpectedCurve) -> bool:
    """Whether any trial of the arm has a score: a line of nothing but the worst score of others would mislead."""
    return curve.counted_as_worst < len(curve.points)


def _line(curve: ExpectedCurve) -> ExpectedLine:
    seconds = tuple(point.seconds for point in curve.points if point.seconds is not None)
    return ExpectedLine(
        arm=one_line(curve.arm),
        trials=tuple(point.trials for point in curve.points),
        scores=tuple(point.score for point in curve.points),
        seconds=seconds if len(seconds) == len(curve.points) else (),
        run_ids=curve.run_ids,
    )


def _caption(metric: str, curves: Sequence[ExpectedCurve]) -> str:
    caption = (
        f"Expected {METRICS[metric].label} on the validation split of the best of n trials (Dodge et al. 2019), over "
        "the block of hyperparameter sets that every arm was given alike, against n and against n times the mean "
        "seconds of training of its trials. It says what tuning an arm costs, and has no interval."
    )
    lost = sum(curve.counted_as_worst for curve in curves if _has_score(curve))
    if lost:
        caption += f" {lost} trials without a score count as the worst score of any arm's trial."
    for curve in curves:
        if not _has_score(curve):
            caption += f" No curve for {one_line(curve.arm)}: {curve.reason or 'none of its trials has a score'}."
    return caption
