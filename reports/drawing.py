"""The drawing of memory against ROUGE: it takes the figure's numbers and nothing else."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Transform

from reports.figures import MemoryFigure, MemoryPanel, Point
from reports.labelling import Anchor, PanelLabels
from reports.placement import Box
from study.metrics import METRICS

# A colour and a marker.
Style = tuple[str, str]
FORMATS = ("pdf", "png", "svg")
# Both columns of a paper for two panels, one column for one: inches.
_WIDTHS = {1: 3.5, 2: 7.0}
_HEIGHT = 2.9
DPI = 300
# Inches in a legend: a letter of 6.5 points (a wide guess), what stands before a name, and a row.
_LETTER, _HANDLE, _LEGEND_ROW = 0.058, 0.45, 0.15

# Okabe and Ito's colours, told apart by colour-blind readers; markers tell arms apart in grey too. Yellow is left out:
# it is too light for a thin line on white. Seven colours and eight markers: 56 arms before a pair comes again.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<")
_GREY = "0.35"
SETTINGS: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.7,
    # Names come from outside: a dollar sign in one is a dollar sign.
    "text.parse_math": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "qlora-ablation",
    "svg.fonttype": "path",
    "path.simplify": False,
}
# No build time and no version of the tools in any file.
_METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


def draw(figure: MemoryFigure) -> dict[str, bytes]:
    """The figure as PDF, PNG and SVG: the same value gives the same bytes."""
    with mpl.rc_context(SETTINGS), sns.axes_style("ticks"):
        canvas = Figure(figsize=(_WIDTHS.get(len(figure.panels), 7.0), _HEIGHT), dpi=DPI, layout="constrained")
        FigureCanvasAgg(canvas)
        axes = canvas.subplots(1, len(figure.panels), sharex=True, squeeze=False)[0]
        chosen = styles(figure)
        for axis, panel in zip(axes, figure.panels, strict=True):
            _panel(axis, panel, figure, chosen)
        # Labels are placed in the final layout, which must not move under them.
        labels = _measured(canvas, axes, figure)
        direct = all(panel.fit for panel in labels)
        if not direct:
            _legend(canvas, figure, chosen)
            labels = _measured(canvas, axes, figure)
        canvas.set_layout_engine("none")
        for panel_labels in labels:
            panel_labels.draw(names=direct)
        return as_files(canvas)


def _measured(canvas: Figure, axes: Iterable[Axes], figure: MemoryFigure) -> list[PanelLabels]:
    canvas.draw_without_rendering()
    return [_labels(axis, panel, figure) for axis, panel in zip(axes, figure.panels, strict=True)]


def _legend(canvas: Figure, figure: MemoryFigure, chosen: Mapping[str, Style]) -> None:
    """Every arm below the panels, in as many columns as are wide enough, on paper added for it."""
    hollow = {point.name for panel in figure.panels for point in panel.points if point.kind == "zero-shot"}
    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker="x" if name in figure.did_not_fit else marker,
            markersize=4,
            color=colour,
            markerfacecolor="white" if name in hollow else colour,
            label=f"{name}: did not fit" if name in figure.did_not_fit else name,
        )
        for name, (colour, marker) in chosen.items()
    ]
    longest = max(len(str(handle.get_label())) for handle in handles)
    width, height = canvas.get_size_inches()
    columns = max(min(int(width / (longest * _LETTER + _HANDLE)), len(handles)), 1)
    rows = -(-len(handles) // columns)
    canvas.set_size_inches(width, height + rows * _LEGEND_ROW)
    canvas.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=6.5)


def styles(figure: MemoryFigure) -> dict[str, Style]:
    """Colour and marker of every arm by name. A zero-shot model looks like the one arm trained on it, but hollow; where
    several arms are, or none, it is grey."""
    points = {point.name: point for panel in figure.panels for point in panel.points}
    trained = [name for name, point in points.items() if point.kind == "trained"]
    trained += [name for name in figure.did_not_fit if name not in points]
    chosen = {
        name: (_COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]) for index, name in enumerate(trained)
    }
    alone = 0
    for name in (name for name, point in points.items() if point.kind == "zero-shot"):
        children = [child for child in trained if child in points and points[child].base == name]
        if len(children) == 1:
            chosen[name] = chosen[children[0]]
        else:
            chosen[name] = (_GREY, _MARKERS[alone % len(_MARKERS)])
            alone += 1
    return chosen


def _panel(axis: Axes, panel: MemoryPanel, figure: MemoryFigure, chosen: Mapping[str, Style]) -> None:
    for point in panel.points:
        colour, marker = chosen[point.name]
        axis.errorbar(
            point.memory,
            point.score,
            xerr=[[point.memory - point.memory_low], [point.memory_high - point.memory]],
            yerr=[[point.score - point.low], [point.high - point.score]],
            fmt="none",
            ecolor=colour,
            elinewidth=0.8,
            capsize=2,
            capthick=0.8,
        )
        hollow = point.kind == "zero-shot"
        axis.plot(
            point.memory,
            point.score,
            linestyle="none",
            marker=marker,
            markersize=5,
            markerfacecolor="white" if hollow else colour,
            # A white rim keeps filled markers that overlap apart.
            markeredgecolor=colour if hollow else "white",
            markeredgewidth=1.0 if hollow else 0.5,
            zorder=3,
        )
    for _name, value in panel.floors:
        axis.axhline(value, color="0.55", linewidth=0.8, linestyle=":", zorder=0)
    if not panel.points:
        axis.text(0.5, 0.5, "no arm has a score", transform=axis.transAxes, ha="center", va="center", color=_GREY)
    metric = METRICS[panel.metric]
    axis.set_xlabel(figure.memory_label)
    axis.set_ylabel(f"{metric.label}, {metric.unit}")
    # Room for the labels, which must not leave the plot.
    axis.margins(x=0.2, y=0.14)
    axis.autoscale_view()
    _did_not_fit(axis, figure, chosen)
    sns.despine(ax=axis)


def _did_not_fit(axis: Axes, figure: MemoryFigure, chosen: Mapping[str, Style]) -> None:
    """Crosses at the right end of the memory axis: more memory than there was, and no score."""
    left, right = axis.get_xlim()
    if figure.did_not_fit and figure.panels[0].points:
        # Markers of arms that fitted must not stand where the crosses do.
        right += 0.08 * (right - left) * len(figure.did_not_fit)
    axis.set_xlim(left, right)
    for index, name in enumerate(figure.did_not_fit):
        axis.plot(
            *_cross(index, len(figure.did_not_fit)),
            transform=axis.transAxes,
            linestyle="none",
            marker="x",
            markersize=6,
            markeredgewidth=1.6,
            color=chosen[name][0],
            clip_on=False,
            zorder=5,
        )


def _cross(index: int, count: int) -> tuple[float, float]:
    """Where the cross of an arm that did not fit stands, as shares of the axes."""
    return 0.98 - 0.07 * (count - 1 - index), 0.0


def _labels(axis: Axes, panel: MemoryPanel, figure: MemoryFigure) -> PanelLabels:
    count = len(figure.did_not_fit)
    crosses = [_cross(index, count) for index in range(count)]
    anchors = [
        *(Anchor(point.name, *_pixels(axis.transData, point.memory, point.score)) for point in panel.points),
        *(
            Anchor(f"{name}: did not fit", *_pixels(axis.transAxes, *cross))
            for name, cross in zip(figure.did_not_fit, crosses, strict=True)
        ),
    ]
    bars = [box for point in panel.points for box in _bars(axis, point)]
    floors = [Anchor(name, *_pixels(axis.transData, 0.0, value)) for name, value in panel.floors]
    return PanelLabels(axis, anchors, bars, floors)


def _pixels(transform: Transform, x: float, y: float) -> tuple[float, float]:
    across, up = transform.transform((x, y))
    return float(across), float(up)


def _bars(axis: Axes, point: Point) -> list[Box]:
    """What the error bars of a point cover, in pixels."""
    left, bottom = _pixels(axis.transData, point.memory_low, point.low)
    right, top = _pixels(axis.transData, point.memory_high, point.high)
    x, y = _pixels(axis.transData, point.memory, point.score)
    cap = 3 * DPI / 72
    return [Box(x - cap, bottom, x + cap, top), Box(left, y - cap, right, y + cap)]


def as_files(canvas: Figure) -> dict[str, bytes]:
    """A figure drawn under `SETTINGS`, in every format: the same drawing gives the same bytes."""
    return {kind: _bytes(canvas, kind) for kind in FORMATS}


def _bytes(canvas: Figure, kind: str) -> bytes:
    out = io.BytesIO()
    canvas.savefig(out, format=kind, dpi=DPI, metadata=_METADATA[kind])
    return out.getvalue()
