"""Where labels go in a plot: beside their markers and on top of nothing. Geometry only, in pixels."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, in pixels, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float) -> "Box":
        """The rectangle of that size with its centre at (x, y)."""
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    def overlap(self, other: "Box") -> float:
        """The area that both cover, in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    def is_inside(self, other: "Box") -> bool:
        """Whether all of it lies in `other`."""
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.bottom <= self.bottom
            and self.top <= other.top
        )


@dataclass(frozen=True, slots=True)
class Label:
    """A text of a size, in pixels, that belongs to the point (x, y)."""

    x: float
    y: float
    width: float
    height: float


# Right of the marker reads best, then left, then the corners, then above and below.
_ANGLES = (0, 180, 35, -35, 145, -145, 90, -90)


def place(labels: Sequence[Label], obstacles: Sequence[Box], frame: Box, reach: float) -> list[Box] | None:
    """A place for every label inside `frame`, free of obstacles and of each other; None where one has none.

    Labels are placed one by one, those with the most crowded surroundings first, each at the nearest free place of
    distances `reach`, 2 `reach`, … 5 `reach`. Same input, same places.
    """
    order = sorted(range(len(labels)), key=lambda index: (-_crowd(labels, index, reach), index))
    taken = list(obstacles)
    found: dict[int, Box] = {}
    for index in order:
        free = (
            box
            for box in _candidates(labels[index], reach)
            if box.is_inside(frame) and not any(box.overlap(other) for other in taken)
        )
        box = next(free, None)
        if box is None:
            return None
        found[index] = box
        taken.append(box)
    return [found[index] for index in range(len(labels))]


def _crowd(labels: Sequence[Label], index: int, reach: float) -> int:
    here = labels[index]
    return sum(math.hypot(here.x - label.x, here.y - label.y) < 8 * reach for label in labels)


def _candidates(label: Label, reach: float) -> Iterable[Box]:
    for step in range(1, 6):
        for angle in _ANGLES:
            across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            # The text's nearest edge, not its centre, keeps the distance: upright directions centre it.
            x = label.x + across * step * reach + _toward(across) * label.width / 2
            y = label.y + up * step * reach + _toward(up) * label.height / 2
            yield Box.around(x, y, label.width, label.height)


def _toward(part: float) -> float:
    return 0.0 if abs(part) < 0.01 else math.copysign(1.0, part)
