"""The drawing of expected validation performance: it takes the figure's numbers and nothing else."""

from collections.abc import Sequence
from typing import Literal

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.drawing_style import COLUMN, PAGE, SETTINGS, Style, as_files, canvas_of, legend_below, looks, short, taken
from reports.figure_expected import ExpectedFigure
from study.metrics import METRICS

_HEIGHT = 2.3
_DASHES: tuple[Literal["-", "--", "-.", ":"], ...] = ("-", "--", "-.", ":")
# Markers of a line, at most: more would cover it.
_MARKED = 8


def draw_expected(figure: ExpectedFigure) -> dict[str, bytes]:
    """The figure as PDF, PNG and SVG: the same value gives the same bytes."""
    with mpl.rc_context(SETTINGS), sns.axes_style("ticks"):
        timed = any(line.seconds for line in figure.lines)
        canvas = canvas_of(PAGE if timed else COLUMN, _HEIGHT)
        axes = canvas.subplots(1, 2 if timed else 1, sharey=True, squeeze=False)[0]
        chosen = looks(figure.arms)
        for index, line in enumerate(figure.lines):
            style = taken(chosen, line.arm)
            _curve(axes[0], line.trials, line.scores, style, index)
            if line.seconds:
                _curve(axes[1], line.seconds, line.scores, style, index)
        metric = METRICS[figure.metric]
        axes[0].set_xlabel("trials")
        axes[0].set_ylabel(f"expected best validation\n{_named(metric.label)}, {metric.unit}")
        axes[0].xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 4, 8, 10]))
        if timed:
            axes[1].set_xlabel(f"{'GPU time' if figure.on_gpu else 'time'} of training, s")
            axes[1].set_xlim(left=0)
        for axis in axes:
            sns.despine(ax=axis)
        legend_below(canvas, _handles(figure, chosen))
        return as_files(canvas)


def _named(label: str) -> str:
    return label.removeprefix("validation ")


def _curve(axis: Axes, xs: Sequence[float], ys: Sequence[float], style: Style, index: int) -> None:
    colour, marker = style
    every = max(-(-len(xs) // _MARKED), 1)
    axis.plot(
        xs,
        ys,
        color=colour,
        linewidth=1.0,
        linestyle=_DASHES[index % len(_DASHES)],
        marker=marker,
        markersize=3.5,
        # Not all at the same place: lines of arms that tune alike lie on each other.
        markevery=(index % every, every),
        markeredgecolor="white",
        markeredgewidth=0.4,
    )


def _handles(figure: ExpectedFigure, chosen: dict[str, Style]) -> list[Line2D]:
    looked = (
        (line.arm, _DASHES[index % len(_DASHES)], *taken(chosen, line.arm)) for index, line in enumerate(figure.lines)
    )
    return [
        Line2D([], [], color=colour, linewidth=1.0, linestyle=dashes, marker=marker, markersize=3.5, label=short(name))
        for name, dashes, colour, marker in looked
    ]
