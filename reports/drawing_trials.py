"""The drawing of every trial by its learning rate: it takes the figure's numbers and nothing else."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reports.drawing_facets import facets, finished
from reports.drawing_style import INK, MARKERS, SETTINGS, looks, spaced, taken
from reports.figure_trials import TrialFigure, TrialPanel, TrialPoint
from study.metrics import METRICS

# What gave no value: signs that differ without colour.
_SIGNS = {"did not fit": "x", "diverged": "+", "failed": "s", "pruned": "d"}
# Where they stand, as a share of the panel's height, below every value.
_EDGE = 0.05


def draw_trials(figure: TrialFigure) -> dict[str, bytes]:
    """The figure as PDF, PNG and SVG, one panel an arm: the same value gives the same bytes."""
    with mpl.rc_context(SETTINGS), sns.axes_style("ticks"):
        metric = METRICS[figure.metric]
        canvas, axes = facets([panel.arm for panel in figure.panels], "learning rate")
        points = [point for panel in figure.panels for point in panel.points]
        values = [point.value for point in points if point.value is not None]
        rates = [point.learning_rate for point in points]
        axes[0].set_xscale("log")
        axes[0].set_xlim(*(math.exp(end) for end in spaced(math.log(min(rates)), math.log(max(rates)), 0.06)))
        low, high = spaced(min(values), max(values), 0.1)
        # Signs without a value stand below all values.
        lost = any(point.value is None for point in points)
        axes[0].set_ylim(low - 0.1 * (high - low) * lost, high)
        chosen = looks(figure.arms)
        for axis, panel in zip(axes, figure.panels, strict=True):
            _panel(axis, panel, figure.ranks, taken(chosen, panel.arm)[0])
        _ticks(axes)
        label = f"validation {metric.label.removeprefix('validation ')}, {metric.unit}"
        return finished(canvas, axes, label, _handles(figure, points))


def _panel(axis: Axes, panel: TrialPanel, ranks: Sequence[int], colour: str) -> None:
    for point in panel.points:
        if point.value is None:
            axis.plot(point.learning_rate, _EDGE, transform=axis.get_xaxis_transform(), **_sign(point.outcome))
            continue
        axis.plot(
            point.learning_rate,
            point.value,
            linestyle="none",
            marker=_marker(point.rank, ranks),
            markersize=4.5,
            color=colour,
            markeredgecolor="white",
            markeredgewidth=0.4,
            zorder=3,
        )
        if point.chosen:
            axis.plot(point.learning_rate, point.value, **_ring())


def _marker(rank: int | None, ranks: Sequence[int]) -> str:
    return "." if rank is None else MARKERS[ranks.index(rank) % len(MARKERS)]


def _sign(outcome: str) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": _SIGNS.get(outcome, _SIGNS["failed"]),
        "markersize": 4.5,
        "markeredgewidth": 0.9,
        "markerfacecolor": "none",
        "color": INK,
        "zorder": 4,
    }


def _ring() -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": "o",
        "markersize": 9,
        "markerfacecolor": "none",
        "markeredgecolor": INK,
        "markeredgewidth": 0.9,
        "zorder": 4,
    }


def _ticks(axes: Sequence[Axes]) -> None:
    """Plain numbers at round rates: powers of ten where there are enough, and 2 and 5 between them elsewhere."""
    low, high = axes[0].get_xlim()
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for leading in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        ticks = [digit * 10.0**power for power in decades for digit in leading if low <= digit * 10.0**power <= high]
        if len(ticks) >= 2:
            break
    else:
        ticks = [math.sqrt(low * high)]
    for axis in axes:
        axis.set_xticks(ticks, [_rate(tick) for tick in ticks])
        axis.xaxis.set_minor_locator(mpl.ticker.LogLocator(subs=range(2, 10)))
        axis.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())


def _rate(value: float) -> str:
    """2e−5: a rate as papers write it."""
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{float(digits):g}e{int(power)}".replace("-", "−")


def _handles(figure: TrialFigure, points: Sequence[TrialPoint]) -> list[Artist]:
    handles: list[Artist] = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=_marker(rank, figure.ranks),
            markersize=4,
            color=INK,
            label=f"rank {rank}",
        )
        for rank in figure.ranks
    ]
    if any(point.chosen and point.value is not None for point in points):
        handles.append(Line2D([], [], **_ring() | {"markersize": 7, "label": "chosen"}))
    outcomes = {point.outcome if point.outcome in _SIGNS else "failed" for point in points if point.value is None}
    handles += [Line2D([], [], **_sign(outcome), label=outcome) for outcome in _SIGNS if outcome in outcomes]
    return handles
