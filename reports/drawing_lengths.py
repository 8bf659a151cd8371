"""The drawing of output lengths: it takes the figure's numbers and nothing else."""

from collections.abc import Mapping

import matplotlib as mpl
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

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
from reports.figure_lengths import LengthFigure

# Inches: a row an arm, and what axis and legend take.
_ROW, _FRAME = 0.2, 0.6
_SIZE = 7.0
# Empty outputs and cut ones, half a row each: a hatch tells them apart in grey.
_THICK = 0.32
_SHARES = (("empty outputs", "0.25", ""), ("cut at the limit of tokens", "0.85", "/////"))


def draw_lengths(figure: LengthFigure) -> dict[str, bytes]:
    """The figure as PDF, PNG and SVG, as high as its arms need: the same value gives the same bytes."""
    with mpl.rc_context(SETTINGS), sns.axes_style("ticks"):
        shares = any(row.empty is not None or row.cut is not None for row in figure.rows)
        canvas = canvas_of(PAGE if shares else COLUMN, _FRAME + _ROW * len(figure.rows))
        axes = canvas.subplots(1, 2 if shares else 1, sharey=True, squeeze=False, width_ratios=[3, 2][: 1 + shares])[0]
        chosen = looks(figure.arms)
        _ratios(axes[0], figure, chosen)
        if shares:
            _shares(axes[1], figure)
        names = [short(row.arm) for row in figure.rows]
        axes[0].set_yticks(range(len(names)), names, fontsize=_SIZE)
        axes[0].set_ylim(len(names) - 0.4, -0.6)
        for axis in axes:
            axis.tick_params(axis="y", length=0)
            axis.grid(axis="y", color="0.92", linewidth=0.5)
            axis.set_axisbelow(True)
            sns.despine(ax=axis, left=True)
        legend_below(canvas, _handles(figure, shares=shares))
        return as_files(canvas)


def _ratios(axis: Axes, figure: LengthFigure, chosen: Mapping[str, Style]) -> None:
    axis.axvline(1.0, color=INK, linewidth=0.6, linestyle="--", zorder=1)
    for at, row in enumerate(figure.rows):
        colour, marker = taken(chosen, row.arm)
        axis.plot(
            row.ratios, [at] * len(row.ratios), linestyle="none", marker="|", markersize=7, color=colour, zorder=2
        )
        axis.plot(
            row.mean,
            at,
            linestyle="none",
            marker=marker,
            markersize=5,
            markerfacecolor=colour if row.trained else "white",
            markeredgecolor="white" if row.trained else colour,
            markeredgewidth=0.5 if row.trained else 1.0,
            zorder=3,
        )
    axis.margins(x=0.08)
    axis.set_xlabel("words written / words of the references")


def _shares(axis: Axes, figure: LengthFigure) -> None:
    highest = 1.0
    for at, row in enumerate(figure.rows):
        for value, shift, (_, colour, hatch) in zip((row.empty, row.cut), (-0.5, 0.5), _SHARES, strict=True):
            if value is not None:
                axis.barh(at + shift * _THICK, value, _THICK, color=colour, hatch=hatch, edgecolor=INK, linewidth=0.4)
                highest = max(highest, value)
    axis.set_xlim(0, 1.08 * highest)
    axis.set_xlabel("share of the outputs, %")


def _handles(figure: LengthFigure, *, shares: bool) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], linestyle="none", marker="o", markersize=4, color=INK, label="mean over runs"),
        Line2D([], [], linestyle="none", marker="|", markersize=6, color=INK, label="one run"),
    ]
    if not all(row.trained for row in figure.rows):
        handles.append(
            Line2D(
                [],
                [],
                linestyle="none",
                marker="o",
                markersize=4,
                color=INK,
                markerfacecolor="white",
                label="without training",
            )
        )
    if shares:
        handles += [
            Patch(facecolor=colour, hatch=hatch, edgecolor=INK, linewidth=0.4, label=label)
            for label, colour, hatch in _SHARES
        ]
    return handles
