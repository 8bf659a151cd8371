"""Training losses step by step, as values: `reports.drawing_curves` draws them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.evidence import ArmEvidence, Evidence
from reports.figure_forecast import trained_arms
from results.schema import Record
from study.problems import one_line

# Points of a line: more would make a file large and nothing clearer.
_POINTS = 200


@dataclass(frozen=True, slots=True)
class Curve:
    """The losses of one run in nats a learned token, at steps; each is the mean over the steps since the last one."""

    seed: int
    steps: tuple[float, ...]
    losses: tuple[float, ...]
    run_id: str


@dataclass(frozen=True, slots=True)
class CurvePanel:
    """One arm: its runs, and the mean over them where all have a loss."""

    arm: str
    runs: tuple[Curve, ...]
    steps: tuple[float, ...]
    mean: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CurveFigure:
    """The numbers of the figure, one panel an arm; `arms` are all that train, in the plan's order."""

    arms: tuple[str, ...]
    panels: tuple[CurvePanel, ...]
    caption: str


def curve_figure(evidence: Evidence) -> CurveFigure | None:
    """The losses of every completed confirm run that kept them; None where none did."""
    kept = {arm.part.name: losses for arm in evidence.arms if (losses := _losses_of(arm))}
    if not kept:
        return None
    longest = max(len(losses) for runs in kept.values() for _, losses in runs)
    width = -(-longest // _POINTS)
    panels = tuple(_panel(name, runs, width) for name, runs in kept.items())
    return CurveFigure(trained_arms(evidence), panels, _caption(width, panels))


def _losses_of(arm: ArmEvidence) -> list[tuple[Record, tuple[float, ...]]]:
    found = ((record, read_losses(record.checks.get("losses"))) for record in arm.runs)
    return [(record, losses) for record, losses in found if losses]


def read_losses(kept: Any) -> tuple[float, ...]:
    """The losses of a record's checks; none where they are anything but finite numbers: checks have no schema."""
    if not isinstance(kept, list | tuple) or not all(_is_number(loss) for loss in kept):
        return ()
    return tuple(float(loss) for loss in kept)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _panel(name: str, runs: Sequence[tuple[Record, tuple[float, ...]]], width: int) -> CurvePanel:
    curves = tuple(_curve(record, losses, width) for record, losses in runs)
    common = _common([curve.steps for curve in curves])
    mean = tuple(sum(curve.losses[index] for curve in curves) / len(curves) for index in range(len(common)))
    return CurvePanel(one_line(name), curves, common, mean)


def _common(steps: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """The steps that all begin with: runs of one arm end together, but a record can say anything."""
    count = 0
    for together in zip(*steps, strict=False):
        if len(set(together)) > 1:
            break
        count += 1
    return steps[0][:count]


def _curve(record: Record, losses: tuple[float, ...], width: int) -> Curve:
    bins = [losses[start : start + width] for start in range(0, len(losses), width)]
    ends = [min((index + 1) * width, len(losses)) for index in range(len(bins))]
    # The middle of the steps that a point stands for; steps are counted from 1.
    steps = tuple(end - (len(part) - 1) / 2 for end, part in zip(ends, bins, strict=True))
    return Curve(record.seed, steps, tuple(sum(part) / len(part) for part in bins), record.run_id)


def _caption(width: int, panels: Sequence[CurvePanel]) -> str:
    caption = (
        "Training loss against optimizer step, of the completed runs of the test split: thin lines are runs (one a "
        "seed), the thick line is their mean"
    )
    if len(panels) > 1:
        caption += "; the means of the other arms stand behind it in grey"
    caption += "."
    if width > 1:
        return caption + f" Each point is the mean over {width} consecutive steps; nothing else is smoothed."
    return caption + " Nothing is smoothed."
