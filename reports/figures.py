"""Figures as values: the numbers of memory against ROUGE. `reports.drawing` draws them, and takes nothing else."""

from dataclasses import dataclass
from typing import Literal

from reports.evidence import ArmEvidence, Evidence
from reports.stats import single_arm_interval
from reports.tables import GIB
from study.metrics import METRICS
from study.problems import one_line

Kind = Literal["trained", "zero-shot"]
# A ceiling rather than a floor: among the floors of the data, but not drawn as one.
_CEILING = "reference against reference"


@dataclass(frozen=True, slots=True)
class Point:
    """One arm: median peak memory with its range over runs, in GiB, and mean score with its 95% interval, in points.

    `base` is the arm's zero-shot model, by name (its own name for a zero-shot arm).
    """

    name: str
    kind: Kind
    base: str
    memory: float
    memory_low: float
    memory_high: float
    score: float
    low: float
    high: float
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemoryPanel:
    """Memory against one metric; floors are (name, score in points)."""

    metric: str
    points: tuple[Point, ...]
    floors: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class MemoryFigure:
    """The numbers of the figure, one panel a metric. `did_not_fit` are arms without a score for want of memory."""

    memory_label: str
    panels: tuple[MemoryPanel, ...]
    did_not_fit: tuple[str, ...]
    caption: str


def memory_figure(evidence: Evidence, metrics: tuple[str, ...] = ("rouge1", "rougeL")) -> MemoryFigure:
    """The numbers of memory against ROUGE."""
    label = "peak GPU memory allocated, GiB" if evidence.on_gpu else "peak host memory (RSS), GiB"
    panels = tuple(
        MemoryPanel(
            metric=metric,
            points=tuple(point for arm in evidence.arms if (point := _point(arm, metric)) is not None),
            floors=tuple(
                (one_line(name), scores[metric])
                for name, scores in evidence.plan.floors.items()
                if name != _CEILING and metric in scores
            ),
        )
        for metric in metrics
    )
    unfit = tuple(one_line(arm.part.name) for arm in evidence.arms if arm.did_not_fit)
    return MemoryFigure(label, panels, unfit, _caption(evidence, label, metrics, unfit))


def _point(arm: ArmEvidence, metric: str) -> Point | None:
    if arm.memory is None or arm.scored is None:
        return None
    interval = single_arm_interval(arm.scored.scores[metric], confidence=0.95)
    return Point(
        name=one_line(arm.part.name),
        kind="trained" if arm.trains else "zero-shot",
        base=one_line(arm.part.zero_shot or arm.part.name),
        memory=arm.memory.median_bytes / GIB,
        memory_low=arm.memory.low_bytes / GIB,
        memory_high=arm.memory.high_bytes / GIB,
        score=interval.mean,
        low=interval.low,
        high=interval.high,
        run_ids=tuple(dict.fromkeys((*arm.scored.run_ids, *arm.memory.run_ids))),
    )


def _caption(evidence: Evidence, label: str, metrics: tuple[str, ...], unfit: tuple[str, ...]) -> str:
    scores = " and ".join(METRICS[metric].label for metric in metrics)
    caption = (
        f"{label[0].upper()}{label[1:]}, against {scores} on the test split ({evidence.description}). "
        "Filled markers are trained arms, at the peak of training; hollow ones are models without training, at the "
        "peak of evaluation. Vertical bars are 95% intervals over seeds and dialogues, horizontal ones the range of "
        "memory over seeds. The intervals of two arms share their dialogues: whether they overlap says nothing about "
        "the arms' difference, which the verdict gives. Dotted lines are systems that learn nothing."
    )
    return caption + (f" Did not fit in memory: {', '.join(unfit)}." if unfit else "")
