"""Direct labels of a plot's panel: measured, placed so that none covers anything, then drawn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from reports.placement import Box, Label, place

# Type and distances in points (1/72 inch).
_NAME_SIZE = 6.5
_FLOOR_SIZE = 6.0
_MARKER = 8.0
_REACH = 5.0
_GREY = "0.35"


@dataclass(frozen=True, slots=True)
class Anchor:
    """A text and the place that it belongs to, in pixels."""

    text: str
    x: float
    y: float


class PanelLabels:
    """The labels of one panel. `fit` says whether every one found a place; only then may they be drawn."""

    def __init__(self, axis: Axes, anchors: Sequence[Anchor], bars: Sequence[Box], floors: Sequence[Anchor]) -> None:
        """Places them in the panel's present layout, which must not change any more.

        `anchors` are what is labelled, `bars` what else must stay free, `floors` lines across the panel by their
        height (the x of a floor says nothing).
        """
        self._axis = axis
        self._anchors = anchors
        extent = axis.get_window_extent()
        self._frame = Box(extent.x0, extent.y0, extent.x1, extent.y1)
        marker = _MARKER * self._pixels_a_point
        markers = [Box.around(anchor.x, anchor.y, marker, marker) for anchor in anchors]
        lines = [Box(extent.x0, floor.y - 1, extent.x1, floor.y + 1) for floor in floors]
        self._floors = self._place_floors(floors, [*markers, *bars], lines)
        obstacles = [*markers, *bars, *lines, *(box for _, box in self._floors)]
        labels = [Label(item.x, item.y, *self._size(item.text, _NAME_SIZE)) for item in anchors]
        self._places = place(labels, obstacles, self._frame, _REACH * self._pixels_a_point)

    @property
    def fit(self) -> bool:
        """Whether there is room for every label."""
        return self._places is not None

    def draw(self, *, names: bool) -> None:
        """Draws the floors' labels and, with `names`, the others, each far one with a hair line to its marker."""
        for text, box in self._floors:
            self._write(text, box, _FLOOR_SIZE, _GREY)
        for anchor, box in zip(self._anchors, self._places or (), strict=True) if names else ():
            self._write(anchor.text, box, _NAME_SIZE, "black")
            self._lead(anchor, box)

    @property
    def _pixels_a_point(self) -> float:
        return self._root.dpi / 72

    @property
    def _root(self) -> Figure:
        figure = self._axis.get_figure(root=True)
        if figure is None:
            raise ValueError("an axis without a figure has no pixels")
        return figure

    def _size(self, text: str, size: float) -> tuple[float, float]:
        """Width and height of a text, in pixels, with a little air."""
        artist = Text(0, 0, text, fontsize=size, figure=self._root)
        extent = artist.get_window_extent()
        return float(extent.width) * 1.02 + 2, float(extent.height) + 2

    def _place_floors(
        self, floors: Sequence[Anchor], obstacles: Sequence[Box], lines: Sequence[Box]
    ) -> list[tuple[str, Box]]:
        """A place for the name of each floor on its line; the least covered one where none is free."""
        placed: list[tuple[str, Box]] = []
        for floor in sorted(floors, key=lambda item: item.y):
            size = self._size(floor.text, _FLOOR_SIZE)
            taken = [*obstacles, *lines, *(box for _, box in placed)]
            best = min(self._on_line(floor.y, *size), key=lambda box: sum(box.overlap(other) for other in taken))
            placed.append((floor.text, best))
        return placed

    def _on_line(self, y: float, width: float, height: float) -> Iterator[Box]:
        gap = 2.0
        left_end, right_end = self._frame.left + 3 * gap, self._frame.right - 3 * gap
        for bottom in (y + gap, y - height - gap):
            for share in (1.0, 0.0, 0.5, 0.75, 0.25):
                left = left_end + share * (right_end - left_end - width)
                yield Box(left, bottom, left + width, bottom + height)

    def _write(self, text: str, box: Box, size: float, colour: str) -> None:
        x, y = self._axis.transAxes.inverted().transform(((box.left + box.right) / 2, (box.bottom + box.top) / 2))
        self._axis.text(
            float(x), float(y), text, transform=self._axis.transAxes, ha="center", va="center", size=size, color=colour
        )

    def _lead(self, anchor: Anchor, box: Box) -> None:
        nearest = (min(max(anchor.x, box.left), box.right), min(max(anchor.y, box.bottom), box.top))
        away = ((nearest[0] - anchor.x) ** 2 + (nearest[1] - anchor.y) ** 2) ** 0.5
        if away > 2 * _REACH * self._pixels_a_point:
            ends = self._axis.transAxes.inverted().transform([(anchor.x, anchor.y), nearest])
            self._axis.plot(
                ends[:, 0], ends[:, 1], transform=self._axis.transAxes, color="0.5", linewidth=0.4, zorder=1
            )
