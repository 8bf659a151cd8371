"""The forest plot of differences: it takes the figure's numbers and nothing else."""

from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from reports.drawing_style import COLOURS, GREY, INK, PAGE, SETTINGS, as_files, canvas_of, legend_below, short, spaced
from reports.figure_differences import DifferenceGroup, DifferenceRow, Differences, Estimate

# Inches: a row, and what the axis takes; rows between two claims.
_ROW, _FRAME, _GAP = 0.17, 0.55, 0.5
_SIZE = 7.0
# Letters of a heading that fit in one line, and of each of its arms.
_HEADING_CHARACTERS, _ARM_CHARACTERS = 68, 38
# Points from the right edge of the plot to the two columns of text.
_ESTIMATE_AT, _VERDICT_AT = 8.0, 102.0
_BAND = "0.9"
_MAIN, _SECOND = COLOURS[0], "0.55"
# The verdict's word: colour beside the word, never instead of it.
_WORDS = {"supported": COLOURS[2], "refuted": COLOURS[1], "inconclusive": "0.3"}


def draw_differences(figure: Differences) -> dict[str, bytes]:
    """The figure as PDF, PNG and SVG, as high as its claims need: the same value gives the same bytes."""
    with mpl.rc_context(SETTINGS), sns.axes_style("ticks"):
        rows = sum(len(_heading(group)) + len(group.rows) + _GAP for group in figure.groups)
        canvas = canvas_of(PAGE, _FRAME + _ROW * (rows + 1))
        axis = canvas.subplots()
        axis.set_xlim(*_limits(figure))
        top = 0.0
        ticks: list[tuple[float, str]] = []
        for group in figure.groups:
            first = top + len(_heading(group))
            _head(axis, group, top)
            _rows(axis, group, first)
            ticks += [(first + index, row.label) for index, row in enumerate(group.rows)]
            top = first + len(group.rows) + _GAP
        axis.set_ylim(top - _GAP - 0.3, -1.4)
        axis.set_yticks([at for at, _ in ticks], [label for _, label in ticks], fontsize=_SIZE)
        axis.tick_params(axis="y", length=0)
        _beside(axis, -1.0, "estimate [90% interval]", "verdict", GREY, {})
        axis.set_xlabel(figure.label)
        sns.despine(ax=axis, left=True)
        legend_below(canvas, _handles(figure))
        return as_files(canvas)


def _limits(figure: Differences) -> tuple[float, float]:
    ends = [end for group in figure.groups for row in group.rows if row.estimate for end in row.estimate.outer]
    margins = [group.margin for group in figure.groups]
    return spaced(min(*ends, -max(margins)), max(*ends, *margins), 0.04)


def _heading(group: DifferenceGroup) -> list[str]:
    """A claim in one line, or in two where its names are long."""
    arms = (
        f"{short(group.candidate, _ARM_CHARACTERS)} − {short(group.reference, _ARM_CHARACTERS)}, Δ = {group.margin:g}"
    )
    name = short(group.name)
    one = f"{name}  ({arms})"
    return [one] if len(one) <= _HEADING_CHARACTERS else [name, arms]


def _head(axis: Axes, group: DifferenceGroup, top: float) -> None:
    for index, text in enumerate(_heading(group)):
        axis.annotate(
            text,
            (0.0, top + index),
            xycoords=axis.get_yaxis_transform(),
            va="center",
            ha="left",
            fontsize=_SIZE,
            fontweight="bold" if index == 0 else "normal",
        )
    # A claim of one metric says its verdict in that metric's row.
    if sum(not row.drop_in for row in group.rows) > 1:
        _beside(axis, top, "", group.verdict, _WORDS.get(group.verdict, GREY), {"fontweight": "bold"})


def _rows(axis: Axes, group: DifferenceGroup, first: float) -> None:
    """The rows of a claim on its band, with a line at no difference."""
    above, below = first - 0.55, first + len(group.rows) - 0.45
    axis.add_patch(
        Rectangle((-group.margin, above), 2 * group.margin, below - above, facecolor=_BAND, linewidth=0, zorder=0)
    )
    axis.plot((0.0, 0.0), (above, below), color=INK, linewidth=0.6, zorder=1)
    for index, row in enumerate(group.rows):
        _row(axis, row, first + index)


def _row(axis: Axes, row: DifferenceRow, at: float) -> None:
    colour = _SECOND if row.drop_in else _MAIN
    found = row.estimate
    if found is not None:
        axis.plot(found.outer, (at, at), color=colour, linewidth=0.9, solid_capstyle="butt", zorder=2)
        axis.plot(found.inner, (at, at), color=colour, linewidth=2.6, solid_capstyle="butt", zorder=2)
        axis.plot(
            found.difference,
            at,
            marker="o" if row.drop_in else "D",
            markersize=4.5,
            color=colour,
            markerfacecolor="white" if row.drop_in else colour,
            markeredgecolor=colour if row.drop_in else "white",
            markeredgewidth=0.6,
            zorder=3,
        )
    verdict = row.verdict or ("not judged" if row.drop_in else "")
    ink = _SECOND if row.drop_in else _WORDS.get(verdict, GREY)
    _beside(axis, at, "nothing to compare" if found is None else _said(found), verdict, ink, {})


def _said(found: Estimate) -> str:
    low, high = found.inner
    return f"{_number(found.difference)}  [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    # A typographic minus, as on the axis.
    return f"{value:+z.2f}".replace("-", "−")


def _beside(axis: Axes, at: float, said: str, verdict: str, colour: str, style: dict[str, Any]) -> None:
    """The two columns of text to the right of the plot, at fixed distances from it: the layout makes room for them."""
    for points, text, ink in (
        (_ESTIMATE_AT, said, INK if verdict in _WORDS else colour),
        (_VERDICT_AT, verdict, colour),
    ):
        if text:
            axis.annotate(
                text,
                (1.0, at),
                xycoords=axis.get_yaxis_transform(),
                xytext=(points, 0),
                textcoords="offset points",
                va="center",
                ha="left",
                fontsize=_SIZE,
                color=ink,
                annotation_clip=False,
                **style,
            )


def _handles(figure: Differences) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=_MAIN, linewidth=2.6, label="90% interval"),
        Line2D([], [], color=_MAIN, linewidth=0.9, label="95% interval"),
        Patch(facecolor=_BAND, label="±Δ, the margin"),
    ]
    if any(row.drop_in for group in figure.groups for row in group.rows):
        handles.append(
            Line2D(
                [], [], color=_SECOND, marker="o", markersize=4, markerfacecolor="white", label="drop-in (secondary)"
            )
        )
    return handles
