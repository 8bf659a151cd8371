"""Small panels of one kind, one an arm, on common axes."""

from collections.abc import Sequence

import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.drawing_style import COLUMN, PAGE, as_files, canvas_of, legend_below, settle, wrapped

# Inches: a panel with its title, and what ticks and the common labels take.
_HEIGHT, _FRAME = 1.45, 0.45
_ALONE = 2.4
_TITLE_SIZE = 7.0
# Letters of a title that fit above a panel, by the number of columns.
_LETTERS = {1: 50, 2: 54, 3: 34, 4: 25}
_BROKEN = 8


def facets(names: Sequence[str], x_label: str) -> tuple[Figure, list[Axes]]:
    """A canvas with one panel a name, in the order given, on common axes."""
    columns = _columns(names)
    rows = -(-len(names) // columns)
    height = _ALONE if len(names) == 1 else _FRAME + _HEIGHT * rows
    canvas = canvas_of(COLUMN if len(names) == 1 else PAGE, height)
    panels = canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    axes: list[Axes] = list(panels.flat)
    for axis, name in zip(axes, names, strict=False):
        axis.set_title(wrapped(name, _LETTERS[columns]), fontsize=_TITLE_SIZE)
        sns.despine(ax=axis)
    for empty in range(len(names), len(axes)):
        axes[empty].set_axis_off()
        # The panel above it is the last of its column: its rates stand below it.
        axes[empty - columns].tick_params(labelbottom=True)
        axes[empty - columns].set_xlabel(x_label)
    for axis in axes[-columns:]:
        axis.set_xlabel(x_label)
    return canvas, axes[: len(names)]


def _columns(names: Sequence[str]) -> int:
    """At most four panels beside each other, or three, where that leaves more room for names."""
    most = len(names) if len(names) <= 4 else 3 if len(names) in (5, 6, 9) else 4
    longest = max(map(len, names))
    # A few letters go where a name is broken.
    whole = longest <= 2 * _LETTERS[most] - _BROKEN
    return most if whole or most < 4 else 3


def finished(canvas: Figure, axes: Sequence[Axes], y_label: str, handles: Sequence[Artist]) -> dict[str, bytes]:
    """The files of a canvas whose panels are drawn: with a legend below, and one label for all vertical axes."""
    label = canvas.supylabel(y_label, fontsize=8)
    legend_below(canvas, handles)
    settle(canvas)
    # In the middle of the panels, not of the paper, of which the legend takes the lower end.
    boxes = [axis.get_position() for axis in axes]
    label.set_y((max(box.y1 for box in boxes) + min(box.y0 for box in boxes)) / 2)
    return as_files(canvas)
