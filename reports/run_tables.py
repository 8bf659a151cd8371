"""Runs side by side, as tables: each with what was forecast of it, and repeats of one run with each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from reports.evidence import Evidence, is_fresh
from reports.measured_tables import gib, train_peak
from reports.remarks import shared_remark
from reports.tables import DID_NOT_FIT, MISSING, Cell, Column, Table, number
from results.schema import Record

# Percent within which a forecast is counted as close.
_CLOSE = (5, 10)
_STAGES = {"drop_in": "confirm, drop-in"}


# --- forecast ---


@dataclass(frozen=True, slots=True)
class _Pair:
    """A forecast and what was measured, in one unit; None where there is none."""

    forecast: float | None
    measured: float | None

    @property
    def both(self) -> tuple[float, float] | None:
        """Both, where there are both to compare."""
        if self.forecast is None or not self.measured:
            return None
        return self.forecast, self.measured

    @property
    def percent(self) -> float | None:
        """Forecast minus measured, in percent of the measured."""
        return None if self.both is None else 100 * (self.both[0] - self.both[1]) / self.both[1]

    def is_within(self, percent: int) -> bool:
        """Whether the forecast lies within so many percent. Without a division, so that 5% of bytes is exactly 5%."""
        return self.both is not None and 100 * abs(self.both[0] - self.both[1]) <= percent * self.both[1]


def forecast_table(evidence: Evidence) -> Table:
    """One row a run that has a forecast of its memory and came to a peak, or to the end of the memory."""
    records = [record for run in evidence.plan.runs if (record := evidence.last.get(run.run_id)) and _is_told(record)]
    columns = (
        Column("arm"),
        Column("stage"),
        Column("seed", numeric=True),
        Column("trial", numeric=True),
        Column("repeat", numeric=True),
        Column("rank", numeric=True),
        Column("memory forecast", "GiB", numeric=True),
        Column("memory measured", "GiB", numeric=True),
        Column("memory difference", "%", numeric=True),
        Column("training forecast", "s", numeric=True),
        Column("training measured", "s", numeric=True),
        Column("training difference", "%", numeric=True),
    )
    rows = tuple(map(_forecast_row, records))
    return Table("forecast", _forecast_caption(records), columns, rows).without_empty_columns()


def _is_told(record: Record) -> bool:
    part = record.memory.train
    seen = part is not None and part.allocated_bytes is not None
    return record.forecast.train_allocated_bytes is not None and (seen or record.status == "out_of_memory")


def _memory(record: Record) -> _Pair:
    return _Pair(record.forecast.train_allocated_bytes, train_peak(record))


def _seconds(record: Record) -> _Pair:
    # What a run that failed while training took says nothing of what training takes.
    ended = record.memory.train is not None and not record.memory.train.until_failure
    return _Pair(record.forecast.train_seconds, record.seconds.train if ended else None)


def _forecast_row(record: Record) -> tuple[Cell, ...]:
    memory, seconds, ids = _memory(record), _seconds(record), (record.run_id,)
    unfinished = DID_NOT_FIT if record.status == "out_of_memory" else record.status
    measured = Cell(unfinished, ids) if memory.measured is None else number(gib(memory.measured), ".3f", ids)
    return (
        Cell(record.arm),
        Cell(_STAGES.get(record.purpose or "", record.stage)),
        number(record.seed, "d"),
        number(record.trial, "d"),
        number(record.repeat, "d"),
        number(record.adapter.rank, "d"),
        number(gib(memory.forecast), ".3f", ids),
        measured,
        number(memory.percent, "+z.2f", ids),
        number(seconds.forecast, ".1f", ids),
        number(seconds.measured, ".1f", ids),
        number(seconds.percent, "+z.2f", ids),
    )


def _forecast_caption(records: Sequence[Record]) -> str:
    said = [
        "Peak of allocated memory while training, and seconds of training; differences are forecast minus measured."
    ]
    said.append(_accuracy("Memory", [_memory(record) for record in records]) or "Memory: no run has a measured peak.")
    said += [sentence] if (sentence := _accuracy("Training time", [_seconds(record) for record in records])) else []
    unfit = sum(record.status == "out_of_memory" and train_peak(record) is None for record in records)
    if unfit:
        said.append(f"{unfit} {_runs(unfit)} did not fit in memory and cannot be counted.")
    warm = sum(not is_fresh(record) for record in records)
    if warm:
        said.append(
            f"{warm} {_runs(warm)} shared a process with others, as trials do: allocated peaks agree with those of a "
            "fresh one within 1%, times need not."
        )
    return " ".join(said) + shared_remark(records)


def forecast_errors(evidence: Evidence) -> dict[str, tuple[float, tuple[str, ...]]]:
    """The median absolute difference of forecast and measured, in percent, and the runs that have both: of `Memory` and
    of `Training` (seconds). What no run has is not there."""
    records = [record for run in evidence.plan.runs if (record := evidence.last.get(run.run_id)) and _is_told(record)]
    found = {}
    for what, pair_of in (("Memory", _memory), ("Training", _seconds)):
        percents = {
            record.run_id: abs(percent) for record in records if (percent := pair_of(record).percent) is not None
        }
        if percents:
            found[what] = (median(percents.values()), tuple(percents))
    return found


def _accuracy(what: str, pairs: Sequence[_Pair]) -> str | None:
    """How many forecasts lie close, of those that can be held against a measurement; None where none can."""
    percents = [abs(pair.percent) for pair in pairs if pair.percent is not None]
    if not percents:
        return None
    near, far = (sum(pair.is_within(limit) for pair in pairs) for limit in _CLOSE)
    count = len(percents)
    return (
        f"{what}: {near} of {count} forecasts lie within {_CLOSE[0]}% of what was measured and {far} of {count} within "
        f"{_CLOSE[1]}%; the median absolute difference is {median(percents):.2f}%."
    )


def _runs(count: int) -> str:
    return "run" if count == 1 else "runs"


# --- repeats ---


def repeats_table(evidence: Evidence) -> Table:
    """One row a run that was repeated: how far its repeats lie apart. No rows where nothing was."""
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in evidence.comparable:
        if is_fresh(record):
            groups.setdefault(_all_but_repeat(record), []).append(record)
    order = {arm.part.name: index for index, arm in enumerate(evidence.arms)}
    repeated = sorted(
        (group for group in groups.values() if len(group) > 1),
        key=lambda group: (order.get(group[0].arm, len(order)), group[0].purpose or "", group[0].seed),
    )
    columns = (
        Column("arm"),
        Column("purpose"),
        Column("seed", numeric=True),
        Column("rank", numeric=True),
        Column("alpha", numeric=True),
        Column("learning rate", numeric=True),
        Column("runs", numeric=True),
        Column("lowest peak (allocated)", "GiB", numeric=True),
        Column("highest peak (allocated)", "GiB", numeric=True),
        Column("spread of the peak", "%", numeric=True),
        Column("shortest training", "s", numeric=True),
        Column("longest training", "s", numeric=True),
    )
    caption = (
        "Completed runs that differ in nothing but their number: peak of allocated memory while training and seconds "
        "of training. The spread is the highest minus the lowest peak, in percent of the lowest."
    ) + shared_remark(record for group in repeated for record in group)
    return Table("repeats", caption, columns, tuple(map(_repeats_row, repeated))).without_empty_columns()


def _all_but_repeat(record: Record) -> tuple[object, ...]:
    adapter = record.adapter
    return (record.arm, record.stage, record.purpose, record.seed, adapter.rank, adapter.alpha, record.learning_rate)


def _repeats_row(group: Sequence[Record]) -> tuple[Cell, ...]:
    first, ids = group[0], tuple(record.run_id for record in group)
    peaks, seconds = _known(group, train_peak), _known(group, lambda record: record.seconds.train)
    low, high = min(peaks.values(), default=None), max(peaks.values(), default=None)
    spread = 100 * (high - low) / low if low and high is not None else None
    return (
        Cell(first.arm),
        Cell((first.purpose or MISSING).replace("_", "-")),
        number(first.seed, "d"),
        number(first.adapter.rank, "d"),
        number(first.adapter.alpha, "d"),
        number(first.learning_rate, ".3g"),
        number(len(group), "d", ids),
        number(gib(low), ".3f", tuple(peaks)),
        number(gib(high), ".3f", tuple(peaks)),
        number(spread, ".2f", tuple(peaks)),
        number(min(seconds.values(), default=None), ".1f", tuple(seconds)),
        number(max(seconds.values(), default=None), ".1f", tuple(seconds)),
    )


def _known(group: Sequence[Record], value: Callable[[Record], float | None]) -> dict[str, float]:
    return {record.run_id: seen for record in group if (seen := value(record)) is not None}
