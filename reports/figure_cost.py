"""Training time and energy against ROUGE, as values: `reports.drawing_cost` draws them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from reports.decomposition import FEWEST
from reports.evidence import ArmEvidence, Evidence
from reports.figure_forecast import trained_arms
from reports.remarks import resumed_remark, shared_remark, side_by_side_remark
from reports.stats import single_arm_interval
from results.schema import Record
from study.metrics import CLAIMABLE, METRICS
from study.problems import one_line


@dataclass(frozen=True, slots=True)
class CostPoint:
    """One arm: median cost with its range over runs, and mean score with its 95% interval, in points."""

    name: str
    cost: float
    cost_low: float
    cost_high: float
    score: float
    low: float
    high: float
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CostPanel:
    """One kind of cost, with its unit in `label`."""

    label: str
    points: tuple[CostPoint, ...]


@dataclass(frozen=True, slots=True)
class CostFigure:
    """The numbers of the figure; `arms` are all that train, in the plan's order."""

    metric: str
    arms: tuple[str, ...]
    panels: tuple[CostPanel, ...]
    caption: str


_COSTS: tuple[tuple[str, Callable[[Record], float | None]], ...] = (
    ("training time, s", lambda record: record.seconds.train),
    ("energy of a run, kJ", lambda record: None if record.energy_j is None else record.energy_j / 1000),
)


def cost_figure(evidence: Evidence) -> CostFigure | None:
    """Costs against the metric of the first claim; a cost that nothing measured has no panel, and None with neither."""
    metric = main_metric(evidence)
    panels = tuple(
        CostPanel(label, points)
        for label, read in _COSTS
        if (points := tuple(point for arm in evidence.arms if (point := _point(arm, metric, read)) is not None))
    )
    if not panels:
        return None
    return CostFigure(metric, trained_arms(evidence), panels, _caption(evidence, metric, panels))


def main_metric(evidence: Evidence) -> str:
    """The metric that a figure shows where it has room for one: the first claim's, or ROUGE-L."""
    claims = () if evidence.frozen is None else evidence.frozen.claims
    claimed = [metric for claim in claims for metric in claim.metrics if metric in CLAIMABLE]
    return claimed[0] if claimed else "rougeL"


def _point(arm: ArmEvidence, metric: str, read: Callable[[Record], float | None]) -> CostPoint | None:
    """An arm that trains; what a model without training costs is another thing."""
    known = {record.run_id: value for record in arm.fresh_runs if (value := read(record)) is not None}
    # One dialogue has a score, and no interval.
    if not known or not arm.trains or arm.scored is None or len(arm.scored.example_ids) < FEWEST:
        return None
    interval = single_arm_interval(arm.scored.scores[metric], confidence=0.95)
    return CostPoint(
        name=one_line(arm.part.name),
        cost=median(known.values()),
        cost_low=min(known.values()),
        cost_high=max(known.values()),
        score=interval.mean,
        low=interval.low,
        high=interval.high,
        run_ids=tuple(dict.fromkeys((*arm.scored.run_ids, *known))),
    )


def _caption(evidence: Evidence, metric: str, panels: Sequence[CostPanel]) -> str:
    costs = " and ".join(panel.label.rpartition(",")[0] for panel in panels)
    caption = (
        f"{costs[0].upper()}{costs[1:]}, against {METRICS[metric].label} on the test split. Vertical bars are 95% "
        "intervals over seeds and dialogues, horizontal ones the range over seeds around the median. The intervals of "
        "two arms share their dialogues: whether they overlap says nothing about the arms' difference."
    )
    if any(panel.label.startswith("energy") for panel in panels):
        caption += " Energy is what the whole device drew in all phases of a run."
    shown = [record for arm in evidence.arms if arm.trains for record in arm.fresh_runs]
    caption += shared_remark(shown) + side_by_side_remark(shown) + resumed_remark(shown)
    unfit = [one_line(arm.part.name) for arm in evidence.arms if arm.did_not_fit]
    return caption + (f" Did not fit in memory: {', '.join(unfit)}." if unfit else "")
