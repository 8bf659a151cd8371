"""Forecasts against measured memory, as values: `reports.drawing_forecast` draws them."""

from collections.abc import Sequence
from dataclasses import dataclass

from reports.evidence import Evidence, is_fresh
from reports.measured_tables import train_peak
from reports.tables import GIB
from results.schema import Record
from study.problems import one_line

# The share of a forecast around the line of equality that counts as close.
BAND = 0.10
# Arms that colours and markers, and a legend below the figure, can tell apart.
MOST_ARMS = 14


@dataclass(frozen=True, slots=True)
class ForecastPoint:
    """One run: its forecast peak of allocated memory while training and the measured one, in GiB; None where the run
    ran out of memory. `fresh`: whether it had a process of its own."""

    arm: str
    forecast: float
    measured: float | None
    fresh: bool
    run_id: str


@dataclass(frozen=True, slots=True)
class ForecastFigure:
    """The numbers of the figure; `arms` are all that train, in the plan's order.

    More arms than a reader can tell apart are told by family: their names before the axes, of which there are fewer.
    """

    arms: tuple[str, ...]
    points: tuple[ForecastPoint, ...]
    caption: str

    def group(self, arm: str) -> str:
        """What an arm is drawn as: itself, or its family."""
        return arm if len(self.arms) <= MOST_ARMS else arm.partition("@")[0]

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs behind it."""
        return tuple(point.run_id for point in self.points)


def forecast_figure(evidence: Evidence) -> ForecastFigure | None:
    """Every run that had a forecast and came to a peak, or to the end of the memory; None where there is none."""
    records = [record for run in evidence.plan.runs if (record := evidence.last.get(run.run_id)) is not None]
    points = tuple(point for record in records if (point := _point(record)) is not None)
    if not points:
        return None
    return ForecastFigure(trained_arms(evidence), points, _caption(points))


def trained_arms(evidence: Evidence) -> tuple[str, ...]:
    """The names of the arms that train, as figures write them, in the plan's order: each figure colours them alike."""
    return tuple(one_line(arm.part.name) for arm in evidence.arms if arm.trains)


def _point(record: Record) -> ForecastPoint | None:
    forecast, measured = record.forecast.train_allocated_bytes, train_peak(record)
    unfit = record.status == "out_of_memory"
    if forecast is None or (measured is None and not unfit):
        return None
    return ForecastPoint(
        arm=one_line(record.arm),
        forecast=forecast / GIB,
        measured=None if measured is None or unfit else measured / GIB,
        fresh=is_fresh(record),
        run_id=record.run_id,
    )


def _caption(points: Sequence[ForecastPoint]) -> str:
    pairs = [(point.forecast, point.measured) for point in points if point.measured is not None]
    close = sum(abs(forecast - measured) <= BAND * forecast for forecast, measured in pairs)
    caption = (
        "Peak of allocated GPU memory while training, GiB: measured against forecast, one point a run. On the line "
        f"they are equal; in the band, the measured peak lies within {BAND:.0%} of the forecast"
    )
    caption += f" ({close} of {len(pairs)} runs)." if pairs else "."
    if not all(point.fresh for point in points):
        caption += " Hollow points are trials, which share a process with others."
    unfit = len(points) - len(pairs)
    if unfit:
        caption += (
            f" Crosses on the upper edge are the {unfit} run{'' if unfit == 1 else 's'} that ran out of memory, at the "
            "forecast."
        )
    return caption
