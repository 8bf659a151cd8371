"""What all drawings share: type, colours, markers, legends and how a drawing becomes files."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Transform

from study.problems import shortened_within

# A colour and a marker.
Style = tuple[str, str]
FORMATS = ("pdf", "png", "svg")
DPI = 300
# Widths of one column of a paper and of both, in inches.
COLUMN, PAGE = 3.5, 7.0
# Inches in a legend: what stands before a name and behind it, and a row.
_HANDLE, _LEGEND_ROW = 0.5, 0.15
LEGEND_SIZE = 6.5
NAME_CHARACTERS = 60
# Where a name may be broken.
_PARTING = " -,;:@_/"

# Okabe and Ito's colours, told apart by colour-blind readers; markers tell arms apart in grey too. Yellow is left out:
# it is too light for a thin line on white. Seven colours and eight markers: 56 arms before a pair comes again.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<")
GREY = "0.35"
INK = "0.15"
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
    "hatch.linewidth": 0.4,
}
# No build time and no version of the tools in any file.
_METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


def canvas_of(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, which lays itself out."""
    canvas = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(canvas)
    return canvas


def as_files(canvas: Figure) -> dict[str, bytes]:
    """A figure drawn under `SETTINGS`, in every format: the same drawing gives the same bytes."""
    settle(canvas)
    return {kind: _bytes(canvas, kind) for kind in FORMATS}


def settle(canvas: Figure) -> None:
    """Lays a figure out for good, once for all its formats."""
    if canvas.get_layout_engine() is not None:
        canvas.draw_without_rendering()
        canvas.set_layout_engine("none")


def _bytes(canvas: Figure, kind: str) -> bytes:
    out = io.BytesIO()
    canvas.savefig(out, format=kind, dpi=DPI, metadata=_METADATA[kind])
    return out.getvalue()


def looks(arms: Sequence[str]) -> dict[str, Style]:
    """Colour and marker of every arm that trains, by name; the same in every figure that gets the same arms."""
    return {name: (COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]) for index, name in enumerate(arms)}


def legend_below(canvas: Figure, handles: Sequence[Artist]) -> None:
    """A legend below the panels, in as many columns as are wide enough, on paper added for it."""
    if not handles:
        return
    width, height = canvas.get_size_inches()
    columns = _columns([_inches(canvas, str(handle.get_label())) + _HANDLE for handle in handles], width)
    rows = -(-len(handles) // columns)
    canvas.set_size_inches(width, height + rows * _LEGEND_ROW)
    canvas.legend(
        handles=by_rows(handles, columns),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=LEGEND_SIZE,
    )


def _columns(widths: Sequence[float], room: float) -> int:
    """The fewest columns that give the fewest rows, filled row by row, of entries that are so many inches wide."""
    for columns in range(len(widths), 1, -1):
        rows = -(-len(widths) // columns)
        fewest = -(-len(widths) // rows)
        if sum(max(widths[start::fewest]) for start in range(fewest)) <= room:
            return fewest
    return 1


def _inches(canvas: Figure, text: str) -> float:
    """How wide a text of the legend's size is."""
    return float(Text(0, 0, text, fontsize=LEGEND_SIZE, figure=canvas).get_window_extent().width) / canvas.dpi


def by_rows(handles: Sequence[Artist], columns: int) -> list[Artist]:
    """The handles in the order that makes a legend read line by line: matplotlib fills it column by column."""
    return [handles[index] for start in range(columns) for index in range(start, len(handles), columns)]


def short(name: str, limit: int = NAME_CHARACTERS) -> str:
    """A name, cut in its middle where it is longer than a figure has room for."""
    return shortened_within(name, limit)


def wrapped(name: str, width: int) -> str:
    """A name in one or two lines of at most `width` signs, broken behind a sign that parts it, near its middle; the
    second line is cut in its own middle where the name is still longer."""
    if len(name) <= width:
        return name
    ends = [index + 1 for index, sign in enumerate(name[:width]) if sign in _PARTING and index >= width // 3]
    end = min(ends, key=lambda place: max(place, len(name) - place), default=width)
    return f"{name[:end].rstrip()}\n{shortened_within(name[end:].lstrip(), width)}"


def pixels(transform: Transform, x: float, y: float) -> tuple[float, float]:
    """Where a point is on the canvas, in pixels."""
    across, up = transform.transform((x, y))
    return float(across), float(up)


def spaced(low: float, high: float, share: float) -> tuple[float, float]:
    """A range with a share of its length added at both ends; one of no length gets some."""
    room = share * (high - low) or abs(low) * share or share
    return low - room, high + room


def say_nothing(axis: Axes, text: str) -> None:
    """What stands in a panel that has nothing to show."""
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=GREY, fontsize=7)


def taken(chosen: Mapping[str, Style], name: str) -> Style:
    """The look of an arm; grey where it is none that trains."""
    return chosen.get(name, (GREY, "o"))
