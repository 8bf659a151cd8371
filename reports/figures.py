"""Figures as values: the numbers of memory against ROUGE, and of memory arm by arm.

`reports.drawing` and `reports.drawing_memory` draw them, and take nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Literal

from reports.decomposition import FEWEST
from reports.evidence import ArmEvidence, Evidence, peak_bytes
from reports.measured_tables import PARTS, phase_memory
from reports.stats import single_arm_interval
from reports.tables import GIB
from results.schema import Record
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
    """Memory against one metric; floors are systems without memory as (name, score in points)."""

    metric: str
    points: tuple[Point, ...]
    floors: tuple[tuple[str, float], ...]

    @property
    def front(self) -> tuple[tuple[float, float], ...]:
        """(memory, score) of the trained arms that no other one beats, least memory first."""
        return pareto_front([(point.memory, point.score) for point in self.points if point.kind == "trained"])


@dataclass(frozen=True, slots=True)
class MemoryFigure:
    """The numbers of the figure, one panel a metric. `did_not_fit` are arms without a score for want of memory; `arms`
    are all that train, in the plan's order."""

    memory_label: str
    panels: tuple[MemoryPanel, ...]
    did_not_fit: tuple[str, ...]
    caption: str
    arms: tuple[str, ...] = ()


def pareto_front(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Of (cost, score) pairs those that no other beats, cheapest first: less cost is better, and a higher score is."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return tuple(front)


def memory_figure(evidence: Evidence, metrics: tuple[str, ...] = ("rouge1", "rougeL")) -> MemoryFigure:
    """The numbers of memory against ROUGE."""
    label = "peak GPU memory allocated, GiB" if evidence.on_gpu else "peak host memory (RSS), GiB"
    panels = tuple(
        MemoryPanel(
            metric=metric,
            points=tuple(point for arm in evidence.arms if (point := _point(arm, metric)) is not None),
            floors=(*_floors(evidence, metric), *_elsewhere(evidence, metric)),
        )
        for metric in metrics
    )
    unfit = tuple(one_line(arm.part.name) for arm in evidence.arms if arm.did_not_fit)
    arms = tuple(one_line(arm.part.name) for arm in evidence.arms if arm.trains)
    return MemoryFigure(label, panels, unfit, _caption(evidence, label, metrics, unfit, panels), arms)


def _floors(evidence: Evidence, metric: str) -> list[tuple[str, float]]:
    return [
        (one_line(name), scores[metric])
        for name, scores in evidence.plan.floors.items()
        if name != _CEILING and metric in scores
    ]


def _elsewhere(evidence: Evidence, metric: str) -> list[tuple[str, float]]:
    """Systems that were not trained here: they have a score, and no memory that could be told."""
    return [
        (one_line(arm.part.name), float(arm.scored.scores[metric].mean()))
        for arm in evidence.external
        if arm.scored is not None
    ]


def _point(arm: ArmEvidence, metric: str) -> Point | None:
    # One dialogue has a score, and no interval.
    if arm.memory is None or arm.scored is None or len(arm.scored.example_ids) < FEWEST:
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


def _caption(
    evidence: Evidence,
    label: str,
    metrics: tuple[str, ...],
    unfit: tuple[str, ...],
    panels: Sequence[MemoryPanel],
) -> str:
    scores = " and ".join(METRICS[metric].label for metric in metrics)
    caption = (
        f"{label[0].upper()}{label[1:]}, against {scores} on the test split ({evidence.description}). "
        "Filled markers are trained arms, at the peak of training; hollow ones are models without training, at the "
        "peak of evaluation. Vertical bars are 95% intervals over seeds and dialogues, horizontal ones the range of "
        "memory over seeds. The intervals of two arms share their dialogues: whether they overlap says nothing about "
        "the arms' difference, which the verdict gives. Dotted lines are systems that learn nothing"
    )
    if any(arm.scored is not None for arm in evidence.external):
        caption += ", or were not trained here and have no measured memory"
    caption += "."
    if any(panel.front for panel in panels):
        caption += (
            " The thin step line is the Pareto front of the trained arms, by these estimates: no other arm needs less "
            "memory and scores as high."
        )
    return caption + (f" Did not fit in memory: {', '.join(unfit)}." if unfit else "")


# --- memory arm by arm ---


@dataclass(frozen=True, slots=True)
class Bar:
    """One arm: its peak in GiB (None where nothing was read), and the parts of it as (name, GiB), where known.

    An arm that did not fit has the highest peak that it reached, and `limit`, the card that was played, if any.
    """

    name: str
    kind: Kind | Literal["did not fit"]
    peak: float | None
    parts: tuple[tuple[str, float], ...] = ()
    limit: float | None = None
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MemoryBars:
    """The numbers of the figure, one bar an arm, the first on top."""

    label: str
    bars: tuple[Bar, ...]
    caption: str


def memory_bars(evidence: Evidence) -> MemoryBars | None:
    """Peak memory arm by arm: of studies without scores, and wherever a peak was broken down; None elsewhere."""
    bars = tuple(bar for arm in evidence.arms if (bar := _bar(arm, on_gpu=evidence.on_gpu)) is not None)
    if not bars or not (evidence.random_weights or any(bar.parts for bar in bars)):
        return None
    label = "peak GPU memory allocated, GiB" if evidence.on_gpu else "peak host memory (RSS), GiB"
    return MemoryBars(label, bars, _bars_caption(label, bars))


def _bar(arm: ArmEvidence, *, on_gpu: bool) -> Bar | None:
    name = one_line(arm.part.name)
    if arm.did_not_fit:
        return _unfit_bar(name, arm.too_large, on_gpu=on_gpu)
    if arm.memory is None:
        return None
    return Bar(
        name=name,
        kind="trained" if arm.trains else "zero-shot",
        peak=arm.memory.median_bytes / GIB,
        parts=_parts(arm) if on_gpu else (),
        run_ids=arm.memory.run_ids,
    )


def _unfit_bar(name: str, records: Sequence[Record], *, on_gpu: bool) -> Bar:
    last = [phase_memory(record, None if record.error is None else record.error.phase) for record in records]
    peaks = [peak for part in last if part is not None and (peak := peak_bytes(part, on_gpu=on_gpu)) is not None]
    limits = [record.memory_limit_bytes for record in records if record.memory_limit_bytes is not None]
    return Bar(
        name=name,
        kind="did not fit",
        peak=max(peaks) / GIB if peaks else None,
        limit=max(limits) / GIB if limits else None,
        run_ids=tuple(record.run_id for record in records),
    )


def _parts(arm: ArmEvidence) -> tuple[tuple[str, float], ...]:
    """What the median peak consists of: of one run, for medians of parts need not add up to anything."""
    known = {record.run_id: record.breakdown for record in arm.fresh_runs if record.breakdown is not None}
    if not known:
        return ()
    middle = median_low(breakdown.total for breakdown in known.values())
    chosen = next(breakdown for breakdown in known.values() if breakdown.total == middle)
    return tuple((label, getattr(chosen, part) / GIB) for part, label in PARTS.items())


def _bars_caption(label: str, bars: Sequence[Bar]) -> str:
    kinds = {bar.kind for bar in bars}
    caption = (
        f"{label[0].upper()}{label[1:]}, of each arm while training: the median over runs, printed beside the bar."
    )
    if any(bar.parts for bar in bars):
        caption += (
            " Colours are what the peak consists of, in the run of the median total; the frame around them is what was "
            "measured."
        )
    if "zero-shot" in kinds:
        caption += " Models without training are hollow, at the peak of evaluation."
    unfit = [bar.name for bar in bars if bar.kind == "did not fit"]
    if unfit:
        caption += (
            f" Did not fit in memory: {', '.join(unfit)} (dotted up to where memory ran out, where that is known)."
        )
    return caption
