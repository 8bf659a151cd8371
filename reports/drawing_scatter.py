"""The drawing of arms as points with intervals on both axes: what memory and cost against ROUGE share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.drawing_style import (
    COLUMN,
    DPI,
    PAGE,
    SETTINGS,
    Style,
    as_files,
    canvas_of,
    legend_below,
    pixels,
    say_nothing,
    short,
)
from reports.labelling import Anchor, PanelLabels
from reports.placement import Box

# Both columns of a paper for two panels, one column for one: inches.
_WIDTHS = {1: COLUMN, 2: PAGE}
_HEIGHT = 2.9


@dataclass(frozen=True, slots=True)
class Mark:
    """One arm in a panel: hollow without training; ranges are (low, high)."""

    name: str
    hollow: bool
    x: float
    y: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]


@dataclass(frozen=True, slots=True)
class ScatterPanel:
    """One panel: floors are (name, height) of lines across, `front` the corners of a step line, from the left."""

    x_label: str
    y_label: str
    marks: tuple[Mark, ...]
    floors: tuple[tuple[str, float], ...] = ()
    front: tuple[tuple[float, float], ...] = ()


def draw_scatter(
    panels: Sequence[ScatterPanel],
    chosen: Mapping[str, Style],
    *,
    did_not_fit: Sequence[str] = (),
    share_y: bool = False,
) -> dict[str, bytes]:
    """The panels beside each other, on one x or one y axis, as PDF, PNG and SVG: arms are labelled directly, or in a
    legend where there is no room."""
    with mpl.rc_context(SETTINGS), sns.axes_style("ticks"):
        canvas = canvas_of(_WIDTHS.get(len(panels), PAGE), _HEIGHT)
        axes = canvas.subplots(1, len(panels), sharex=not share_y, sharey=share_y, squeeze=False)[0]
        for axis, panel in zip(axes, panels, strict=True):
            _panel(axis, panel, chosen, did_not_fit)
        for axis, panel in zip(axes, panels, strict=True):
            # Not before: a shared axis may have become longer.
            _front(axis, panel.front)
            if share_y and axis is not axes[0]:
                axis.set_ylabel("")
        # Labels are placed in the final layout, which must not move under them.
        labels = _measured(canvas, axes, panels, did_not_fit)
        direct = all(found.fit for found in labels)
        if not direct:
            legend_below(canvas, _handles(panels, chosen, did_not_fit))
            labels = _measured(canvas, axes, panels, did_not_fit)
        canvas.set_layout_engine("none")
        for panel_labels in labels:
            panel_labels.draw(names=direct)
        return as_files(canvas)


def _measured(
    canvas: Figure, axes: Iterable[Axes], panels: Sequence[ScatterPanel], did_not_fit: Sequence[str]
) -> list[PanelLabels]:
    canvas.draw_without_rendering()
    return [_labels(axis, panel, did_not_fit) for axis, panel in zip(axes, panels, strict=True)]


def _handles(panels: Sequence[ScatterPanel], chosen: Mapping[str, Style], did_not_fit: Sequence[str]) -> list[Line2D]:
    hollow = {mark.name for panel in panels for mark in panel.marks if mark.hollow}
    shown = {mark.name for panel in panels for mark in panel.marks} | set(did_not_fit)
    return [
        Line2D(
            [],
            [],
            linestyle="none",
            marker="x" if name in did_not_fit else marker,
            markersize=4,
            color=colour,
            markerfacecolor="white" if name in hollow else colour,
            label=f"{short(name)}: did not fit" if name in did_not_fit else short(name),
        )
        for name, (colour, marker) in chosen.items()
        if name in shown
    ]


def _panel(axis: Axes, panel: ScatterPanel, chosen: Mapping[str, Style], did_not_fit: Sequence[str]) -> None:
    for mark in panel.marks:
        _mark(axis, mark, chosen[mark.name])
    for _name, value in panel.floors:
        axis.axhline(value, color="0.55", linewidth=0.8, linestyle=":", zorder=0)
    if not panel.marks:
        say_nothing(axis, "no arm has a score")
    axis.set_xlabel(panel.x_label)
    axis.set_ylabel(panel.y_label)
    axis.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    # Room for the labels, which must not leave the plot.
    axis.margins(x=0.2, y=0.14)
    axis.autoscale_view()
    _did_not_fit(axis, panel, chosen, did_not_fit)
    sns.despine(ax=axis)


def _mark(axis: Axes, mark: Mark, style: Style) -> None:
    colour, marker = style
    axis.errorbar(
        mark.x,
        mark.y,
        xerr=[[mark.x - mark.x_range[0]], [mark.x_range[1] - mark.x]],
        yerr=[[mark.y - mark.y_range[0]], [mark.y_range[1] - mark.y]],
        fmt="none",
        ecolor=colour,
        elinewidth=0.8,
        capsize=2,
        capthick=0.8,
    )
    axis.plot(
        mark.x,
        mark.y,
        linestyle="none",
        marker=marker,
        markersize=5,
        markerfacecolor="white" if mark.hollow else colour,
        # A white rim keeps filled markers that overlap apart.
        markeredgecolor=colour if mark.hollow else "white",
        markeredgewidth=1.0 if mark.hollow else 0.5,
        zorder=3,
    )


def _front(axis: Axes, corners: Sequence[tuple[float, float]]) -> None:
    """A step line through the corners, which goes on to the right edge: more memory buys nothing more there."""
    if not corners:
        return
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    limits = axis.get_xlim(), axis.get_ylim()
    right = limits[0][1]
    axis.plot([*xs, right], [*ys, ys[-1]], drawstyle="steps-post", color="0.4", linewidth=0.6, zorder=1)
    axis.set(xlim=limits[0], ylim=limits[1])


def _did_not_fit(axis: Axes, panel: ScatterPanel, chosen: Mapping[str, Style], did_not_fit: Sequence[str]) -> None:
    """Crosses at the right end of the memory axis: more memory than there was, and no score."""
    left, right = axis.get_xlim()
    if did_not_fit and panel.marks:
        # Markers of arms that fitted must not stand where the crosses do.
        right += 0.08 * (right - left) * len(did_not_fit)
    axis.set_xlim(left, right)
    for index, name in enumerate(did_not_fit):
        axis.plot(
            *_cross(index, len(did_not_fit)),
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


def _labels(axis: Axes, panel: ScatterPanel, did_not_fit: Sequence[str]) -> PanelLabels:
    count = len(did_not_fit)
    anchors = [
        *(Anchor(mark.name, *pixels(axis.transData, mark.x, mark.y)) for mark in panel.marks),
        *(
            Anchor(f"{name}: did not fit", *pixels(axis.transAxes, *_cross(index, count)))
            for index, name in enumerate(did_not_fit)
        ),
    ]
    bars = [box for mark in panel.marks for box in _bars(axis, mark)]
    floors = [Anchor(name, *pixels(axis.transData, 0.0, value)) for name, value in panel.floors]
    return PanelLabels(axis, anchors, [*bars, *_steps(axis, panel.front)], floors)


def _bars(axis: Axes, mark: Mark) -> list[Box]:
    """What the error bars of a point cover, in pixels."""
    left, bottom = pixels(axis.transData, mark.x_range[0], mark.y_range[0])
    right, top = pixels(axis.transData, mark.x_range[1], mark.y_range[1])
    x, y = pixels(axis.transData, mark.x, mark.y)
    cap = 3 * DPI / 72
    return [Box(x - cap, bottom, x + cap, top), Box(left, y - cap, right, y + cap)]


def _steps(axis: Axes, corners: Sequence[tuple[float, float]]) -> list[Box]:
    """What the step line covers, in pixels."""
    boxes: list[Box] = []
    ends = [*corners[1:], (axis.get_xlim()[1], corners[-1][1])] if corners else []
    for (x, y), (next_x, next_y) in zip(corners, ends, strict=True):
        left, low = pixels(axis.transData, x, y)
        right, high = pixels(axis.transData, next_x, next_y)
        boxes += [Box(left, low - 1, right, low + 1), Box(right - 1, low, right + 1, high)]
    return boxes
