"""The drawing of hyperparameter importances: it takes the figure's numbers and nothing else."""

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from reports.drawing_style import COLOURS, COLUMN, GREY, INK, PAGE, SETTINGS, as_files, canvas_of, legend_below, short
from reports.figure_importances import ImportanceFigure, ImportanceRow

# Inches: a bar, the gap between two arms in bars, and what the axis takes.
_BAR, _GAP, _FRAME = 0.105, 0.9, 0.55
_SIZE = 7.0
# Longer names leave no room for bars in one column.
_COLUMN_CHARACTERS = 22
# A colour and a hatch each.
_LOOKS = ((COLOURS[0], ""), (COLOURS[4], "////"), ("0.85", "...."), (COLOURS[3], "xxxx"), (COLOURS[2], "----"))


def draw_importances(figure: ImportanceFigure) -> dict[str, bytes]:
    """The figure as PDF, PNG and SVG, as high as its arms need: the same value gives the same bytes."""
    with mpl.rc_context(SETTINGS), sns.axes_style("ticks"):
        longest = max(len(row.arm) for row in figure.rows)
        slot = len(figure.names) + _GAP
        canvas = canvas_of(COLUMN if longest <= _COLUMN_CHARACTERS else PAGE, _FRAME + _BAR * slot * len(figure.rows))
        axis = canvas.subplots()
        for index, row in enumerate(figure.rows):
            _row(axis, row, figure.names, slot * index)
        middles = [slot * index + (len(figure.names) - 1) / 2 for index in range(len(figure.rows))]
        axis.set_yticks(middles, [short(row.arm) for row in figure.rows], fontsize=_SIZE)
        axis.tick_params(axis="y", length=0)
        axis.set_ylim(slot * len(figure.rows) - _GAP, -0.5 - _GAP / 2)
        # Room for the number beside a bar of everything.
        axis.set_xlim(0, 1.12)
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
        axis.set_xlabel("importance, % of all that varied")
        sns.despine(ax=axis)
        legend_below(canvas, _handles(figure.names))
        return as_files(canvas)


def _row(axis: Axes, row: ImportanceRow, names: tuple[str, ...], top: float) -> None:
    shares = dict(row.shares)
    if not shares:
        said = "none" if row.reason is None else f"none: {row.reason}"
        middle = top + (len(names) - 1) / 2
        axis.annotate(
            short(said, 46), (0, middle), xytext=(4, 0), textcoords="offset points", va="center", size=6, color=GREY
        )
        return
    for index, name in enumerate(names):
        if name not in shares:
            continue
        colour, hatch = _LOOKS[index % len(_LOOKS)]
        axis.barh(top + index, shares[name], 0.86, color=colour, hatch=hatch, edgecolor=INK, linewidth=0.4)
        axis.annotate(
            f"{100 * shares[name]:.0f}",
            (shares[name], top + index),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=5.5,
        )


def _handles(names: tuple[str, ...]) -> list[Patch]:
    pairs = ((name, *_LOOKS[index % len(_LOOKS)]) for index, name in enumerate(names))
    return [
        Patch(facecolor=colour, hatch=hatch, edgecolor=INK, linewidth=0.4, label=name) for name, colour, hatch in pairs
    ]
