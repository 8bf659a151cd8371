"""The drawing of forecast against measured memory: it takes the figure's numbers and nothing else."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reports.drawing_style import (
    COLUMN,
    INK,
    PAGE,
    SETTINGS,
    Style,
    as_files,
    canvas_of,
    legend_below,
    looks,
    short,
    taken,
)
from reports.figure_forecast import BAND, ForecastFigure

_HEIGHT = 3.1
_BAND = "0.9"
_NAME_CHARACTERS = 56
# Arms that a legend of one column's width can name.
_FEW = 8


def draw_forecast(figure: ForecastFigure) -> dict[str, bytes]:
    """The figure as PDF, PNG and SVG: the same value gives the same bytes."""
    with mpl.rc_context(SETTINGS), sns.axes_style("ticks"):
        names = tuple(dict.fromkeys(figure.group(arm) for arm in figure.arms))
        shown = {figure.group(point.arm) for point in figure.points}
        canvas = canvas_of(COLUMN if len(shown) <= _FEW else PAGE, _HEIGHT)
        # Crosses stand half above the upper edge.
        canvas.set_layout_engine("constrained", h_pad=0.08)
        axis = canvas.subplots()
        chosen = looks(names)
        _frame(axis, figure)
        for point in figure.points:
            colour, marker = taken(chosen, figure.group(point.arm))
            if point.measured is None:
                axis.plot(point.forecast, 1.0, transform=axis.get_xaxis_transform(), **_cross(colour))
                continue
            axis.plot(
                point.forecast,
                point.measured,
                linestyle="none",
                marker=marker,
                markersize=4.5,
                markerfacecolor=colour if point.fresh else "none",
                markeredgecolor="white" if point.fresh else colour,
                markeredgewidth=0.5 if point.fresh else 0.8,
                zorder=4 if point.fresh else 3,
            )
        axis.set_xlabel("forecast peak, GiB")
        axis.set_ylabel("measured peak, GiB")
        sns.despine(ax=axis)
        legend_below(canvas, _handles(figure, chosen))
        return as_files(canvas)


def _cross(colour: str) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": "x",
        "markersize": 5.5,
        "markeredgewidth": 1.4,
        "color": colour,
        "clip_on": False,
        "zorder": 5,
    }


def _frame(axis: Axes, figure: ForecastFigure) -> None:
    """Equal axes, the line of equality and the band around it."""
    forecasts = [point.forecast for point in figure.points]
    measured = [point.measured for point in figure.points if point.measured is not None]
    # Wide enough to see the band also where all runs are alike.
    low, high = 0.85 * min((*forecasts, *measured)), 1.12 * max((*forecasts, *measured)) or 1.0
    axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axis.fill_between(
        [low, high], [(1 - BAND) * low, (1 - BAND) * high], [(1 + BAND) * low, (1 + BAND) * high], color=_BAND, lw=0
    )
    axis.plot([low, high], [low, high], color=INK, linewidth=0.7)
    # The same ticks on both axes.
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))


def _handles(figure: ForecastFigure, chosen: Mapping[str, Style]) -> list[Artist]:
    shown = {figure.group(point.arm) for point in figure.points}
    handles: list[Artist] = [
        Line2D([], [], linestyle="none", marker=marker, markersize=4, color=colour, label=short(name, _NAME_CHARACTERS))
        for name, (colour, marker) in chosen.items()
        if name in shown
    ]
    if not all(point.fresh for point in figure.points):
        handles.append(
            Line2D(
                [], [], linestyle="none", marker="o", markersize=4, color=INK, markerfacecolor="none", label="trials"
            )
        )
    if any(point.measured is None for point in figure.points):
        handles.append(Line2D([], [], linestyle="none", marker="x", markersize=4, color=INK, label="did not fit"))
    handles.append(Line2D([], [], color=INK, linewidth=0.7, label="equal"))
    handles.append(Patch(facecolor=_BAND, label=f"within {BAND:.0%}"))
    return handles
