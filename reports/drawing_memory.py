"""The drawing of memory arm by arm: it takes the figure's numbers and nothing else."""

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from reports.drawing_style import DPI, PAGE, SETTINGS, as_files, canvas_of, settle
from reports.figures import Bar, MemoryBars
from study.problems import shortened_within

# Inches: a row an arm, and what the axis and the legend take.
_ROW, _FRAME = 0.19, 0.95
# Height of a bar, as a share of its row.
_THICK = 0.72
_SIZE = 7.0
_NAME_CHARACTERS = 60

# Colour and hatch of each part. The colours are Okabe and Ito's; neighbours differ in lightness, and hatches tell the
# parts apart in grey too.
_PARTS = {
    "base weights": ("#0072B2", ""),
    "quantisation": ("#56B4E9", "////"),
    "adapters": ("#009E73", "----"),
    "gradients": ("#F0E442", "...."),
    "optimizer": ("#D55E00", "xxxx"),
    "activations": ("#E69F00", ""),
    "logits": ("#CC79A7", "\\\\\\\\"),
    "rest": ("0.85", ""),
}
_WHOLE = "0.6"
_INK = "0.15"


def draw_bars(figure: MemoryBars) -> dict[str, bytes]:
    """The figure as PDF, PNG and SVG, as high as its arms need: the same value gives the same bytes."""
    with mpl.rc_context(SETTINGS), sns.axes_style("ticks"):
        canvas = canvas_of(PAGE, _FRAME + _ROW * len(figure.bars))
        axis = canvas.subplots()
        for row, bar in enumerate(figure.bars):
            _row(axis, row, bar)
        names = [shortened_within(bar.name, _NAME_CHARACTERS) for bar in figure.bars]
        axis.set_yticks(range(len(names)), names, fontsize=_SIZE)
        axis.tick_params(axis="y", length=0)
        # The first arm on top, and no empty row at either end.
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set_xlim(0, 1.05 * max((_reach(bar) for bar in figure.bars), default=0.0) or 1.0)
        axis.set_xlabel(figure.label)
        sns.despine(ax=axis)
        handles = _handles(figure)
        if handles:
            canvas.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False, fontsize=_SIZE)
        settle(canvas)
        _make_room(axis, figure)
        return as_files(canvas)


def _make_room(axis: Axes, figure: MemoryBars) -> None:
    """Ends the axis where what stands to the right of every bar has room."""
    plot = axis.get_window_extent().width
    ends = [axis.get_xlim()[1]]
    for bar, text in zip(figure.bars, axis.texts, strict=True):
        # Eight points: what the text is off its bar, and as much behind it.
        beside = text.get_window_extent().width + 8 * DPI / 72
        if beside < plot:
            ends.append(_reach(bar) * plot / (plot - beside))
    axis.set_xlim(0, max(ends))


def _reach(bar: Bar) -> float:
    """Where a bar ends: the parts may add up to more than was measured."""
    return max(bar.peak or 0.0, sum(size for _, size in bar.parts))


def _row(axis: Axes, row: int, bar: Bar) -> None:
    left = 0.0
    for name, size in bar.parts:
        colour, hatch = _PARTS[name]
        axis.barh(
            row, size, _THICK, left, color=colour, hatch=hatch, edgecolor=_INK, linewidth=0.0 if size == 0.0 else 0.3
        )
        left += size
    axis.barh(
        row,
        bar.peak or 0.0,
        _THICK,
        color=_WHOLE if bar.kind == "trained" and not bar.parts else "none",
        edgecolor=_INK,
        linewidth=0.8,
        linestyle=":" if bar.kind == "did not fit" else "-",
        zorder=3,
    )
    said = axis.annotate(
        _said(bar),
        (_reach(bar), row),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=_SIZE,
    )
    # The axis makes room for it, not the layout.
    said.set_in_layout(False)


def _said(bar: Bar) -> str:
    """What stands to the right of a bar."""
    if bar.kind != "did not fit":
        return "" if bar.peak is None else f"{bar.peak:.2f}"
    return "× did not fit" + ("" if bar.limit is None else f" in {bar.limit:.2f} GiB")


def _handles(figure: MemoryBars) -> list[Patch]:
    """The legend: the parts that any bar has, and the kinds of bars beside them."""
    sizes: dict[str, float] = {}
    for bar in figure.bars:
        for name, size in bar.parts:
            sizes[name] = max(sizes.get(name, 0.0), size)
    handles = [
        Patch(facecolor=_PARTS[name][0], hatch=_PARTS[name][1], edgecolor=_INK, linewidth=0.3, label=name)
        for name, size in sizes.items()
        if size > 0.0
    ]
    if handles and any(bar.kind == "trained" and not bar.parts for bar in figure.bars):
        handles.append(Patch(facecolor=_WHOLE, edgecolor=_INK, linewidth=0.8, label="not broken down"))
    if any(bar.kind == "zero-shot" for bar in figure.bars):
        handles.append(Patch(facecolor="none", edgecolor=_INK, linewidth=0.8, label="without training, evaluating"))
    return handles
