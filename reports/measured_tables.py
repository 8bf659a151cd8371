"""What was measured of each arm, as tables: memory by phase, what the peak consists of, time and energy.

Only fresh test runs count. Bytes are printed as GiB, joules of a run as kJ; what nothing could read is a dash.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import get_args

from reports.evidence import ArmEvidence, Evidence
from reports.public_text import public_text
from reports.remarks import (
    engine_remark,
    paged_remark,
    resumed,
    resumed_remark,
    shared_remark,
    side_by_side_remark,
)
from reports.tables import DID_NOT_FIT, GIB, MISSING, Cell, Column, Table, median_cell, number, unfit_cell
from results.schema import Breakdown, MemoryPart, Phase, Record

PHASES: tuple[Phase, ...] = get_args(Phase)
# The parts of a peak in the order of the record, by what they are called.
PARTS: dict[str, str] = {
    "base_weights": "base weights",
    "quantisation": "quantisation",
    "adapters": "adapters",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "logits": "logits",
    "rest": "rest",
}
# A breakdown that misses the measured peak by more than this share does not explain it.
_AGREES = 0.01
_PEAKS: tuple[tuple[str, Callable[[MemoryPart], int | None]], ...] = (
    ("allocated", lambda part: part.allocated_bytes),
    ("reserved", lambda part: part.reserved_bytes),
    ("process (NVML)", lambda part: part.process_bytes),
    ("device above baseline", lambda part: part.device_bytes),
    ("host RSS", lambda part: part.host_rss_bytes),
)


def phase_memory(record: Record, phase: str | None) -> MemoryPart | None:
    """The peaks of a phase; None where the run had no such phase, or did not get there."""
    parts = {name: part for name, part in record.memory if isinstance(part, MemoryPart)}
    return parts.get(phase or "")


def gib(value: float | None) -> float | None:
    """Bytes as GiB."""
    return None if value is None else value / GIB


# --- memory ---


@dataclass(frozen=True, slots=True)
class _Peaks:
    """Runs of one arm that share a row of the memory table: they completed a phase, or ran out of memory in it."""

    arm: str
    phase: str | None
    outcome: str
    records: tuple[Record, ...]


def memory_table(evidence: Evidence) -> Table:
    """One row an arm and phase: median peaks of every kind of memory, also of runs that ran out of it."""
    columns = (
        Column("arm"),
        Column("phase"),
        Column("outcome"),
        *(Column(header, "GiB", numeric=True) for header, _ in _PEAKS),
        Column("memory limit", "GiB", numeric=True),
        Column("source"),
        Column("runs", numeric=True),
    )
    groups = [group for arm in evidence.arms for group in (*_completed(arm), *_too_large(arm))]
    counted = [record for group in groups for record in group.records]
    caption = (
        "Medians over runs of the peak of each phase. Allocated and reserved memory are the GPU allocator's; process "
        "memory is what the driver counts for the process, CUDA context included; device memory is above what was in "
        "use before the run. A run that did not fit shows what it had reached when memory ran out."
    )
    if not evidence.on_gpu:
        caption = "Medians over runs of the peak of each phase: the resident memory of the process, without a GPU."
    caption += paged_remark(counted) + shared_remark(counted) + resumed_remark(counted) + engine_remark(counted)
    return Table("memory", caption, columns, tuple(map(_memory_row, groups))).without_empty_columns()


def _completed(arm: ArmEvidence) -> Iterator[_Peaks]:
    for phase in PHASES:
        records = tuple(record for record in arm.fresh_runs if phase_memory(record, phase) is not None)
        if records:
            yield _Peaks(arm.part.name, phase, "completed", records)


def _too_large(arm: ArmEvidence) -> Iterator[_Peaks]:
    by_phase: dict[str | None, list[Record]] = {}
    for record in arm.too_large:
        by_phase.setdefault(None if record.error is None else record.error.phase, []).append(record)
    for phase, records in by_phase.items():
        yield _Peaks(arm.part.name, phase, DID_NOT_FIT, tuple(records))


def _memory_row(group: _Peaks) -> tuple[Cell, ...]:
    records = group.records
    ids = tuple(record.run_id for record in records)

    def peak(read: Callable[[MemoryPart], int | None]) -> Cell:
        def value(record: Record) -> float | None:
            part = phase_memory(record, group.phase)
            return None if part is None else gib(read(part))

        return median_cell(records, value, ".3f")

    return (
        Cell(group.arm),
        Cell(group.phase or MISSING),
        Cell(group.outcome, ids),
        *(peak(read) for _, read in _PEAKS),
        _limits(records),
        Cell(_sources(records, group.phase)),
        number(len(records), "d", ids),
    )


def _limits(records: Sequence[Record]) -> Cell:
    """The cards that were played: one limit, or all of several."""
    limits = {record.run_id: record.memory_limit_bytes for record in records if record.memory_limit_bytes is not None}
    texts = [f"{limit / GIB:.3f}" for limit in sorted(set(limits.values()))]
    return Cell(" / ".join(texts) or MISSING, tuple(limits))


def _sources(records: Sequence[Record], phase: str | None) -> str:
    """How the bytes were read; the number of samples, which differs from run to run, is left out."""
    parts = (phase_memory(record, phase) for record in records)
    named = {part.source.partition(",")[0] for part in parts if part is not None and part.source}
    return "; ".join(map(public_text, sorted(named))) or MISSING


# --- breakdown ---


def breakdown_table(evidence: Evidence) -> Table:
    """One row an arm: what its training peak consists of, beside the peak itself."""
    known = {
        arm.part.name: records
        for arm in evidence.arms
        if (records := [record for record in arm.fresh_runs if record.breakdown is not None])
    }
    columns = (
        Column("arm"),
        *(Column(label, "GiB", numeric=True) for label in PARTS.values()),
        Column("total", "GiB", numeric=True),
        Column("measured peak (allocated)", "GiB", numeric=True),
        Column("agreement"),
        Column("runs", numeric=True),
    )
    counted = [record for records in known.values() for record in records]
    caption = (
        "What the peak of allocated memory while training consists of: medians over runs, of the total too, so that "
        "the parts need not add up to it where runs differ. Quantisation is what unpacking the weights needs; rest is "
        "temporaries, library workspaces and the allocator's rounding. Agreement says where total and measured peak of "
        "one run differ by more than 1%."
    )
    rows = tuple(_breakdown_row(arm, records) for arm, records in known.items())
    return Table("breakdown", caption + paged_remark(counted), columns, rows)


def _breakdown_row(arm: str, records: Sequence[Record]) -> tuple[Cell, ...]:
    ids = tuple(record.run_id for record in records)

    def of(read: Callable[[Breakdown], int]) -> Cell:
        return median_cell(records, lambda item: None if item.breakdown is None else gib(read(item.breakdown)), ".3f")

    return (
        Cell(arm),
        *(of(attrgetter(part)) for part in PARTS),
        of(lambda found: found.total),
        median_cell(records, lambda item: gib(train_peak(item)), ".3f"),
        Cell(_agreement(records), ids),
        number(len(records), "d", ids),
    )


def train_peak(record: Record) -> int | None:
    """The peak of allocated memory while training, in bytes; None where it was not read, or training did not end."""
    part = record.memory.train
    return None if part is None or part.until_failure else part.allocated_bytes


def _agreement(records: Sequence[Record]) -> str:
    pairs = [(record.breakdown.total, train_peak(record)) for record in records if record.breakdown is not None]
    shares = [abs(total - peak) / peak for total, peak in pairs if peak]
    apart = [share for share in shares if share > _AGREES]
    if apart:
        return f"up to {100 * max(apart):.1f}% apart in {len(apart)} of {len(shares)} runs"
    return "within 1%" if shares else MISSING


# --- cost ---


def cost_table(evidence: Evidence) -> Table:
    """One row an arm: seconds of each phase, speed, energy, and what a card must hold."""
    columns = (
        Column("arm"),
        *(Column(phase, "s", numeric=True) for phase in PHASES),
        Column("training speed", "real tokens/s", numeric=True),
        Column("training energy", "J per 1,000 tokens", numeric=True),
        Column("energy of a run", "kJ", numeric=True),
        Column("peak memory (process)", "GiB", numeric=True),
        Column("runs", numeric=True),
    )
    counted = [record for arm in evidence.arms for record in arm.fresh_runs]
    caption = "Medians over runs."
    if any(record.tokens.trained is not None for record in counted):
        caption += " Tokens are those trained on, without padding."
    if any(record.energy or record.energy_j is not None for record in counted):
        caption += " Energy is what the whole device drew: while training, by tokens, and in all phases of a run."
    if any(process_peak(record) is not None for record in counted):
        caption += " Process memory is the highest peak of any phase, as the driver counts it."
    rows = tuple(_cost_row(arm) for arm in evidence.arms)
    caption += shared_remark(counted) + side_by_side_remark(counted) + resumed_remark(counted) + engine_remark(counted)
    return Table("cost", caption, columns, rows).without_empty_columns()


def _cost_row(arm: ArmEvidence) -> tuple[Cell, ...]:
    records = arm.fresh_runs
    process = median_cell(records, lambda record: gib(process_peak(record)), ".3f")
    return (
        Cell(arm.part.name),
        *(median_cell(records, _seconds_of(phase), ".1f") for phase in PHASES),
        median_cell(records, tokens_a_second, ",.0f"),
        median_cell(records, joules_a_thousand, ".2f"),
        median_cell(records, lambda record: None if record.energy_j is None else record.energy_j / 1000, ".2f"),
        process if process.text != MISSING else unfit_cell(arm),
        number(len(records) or None, "d", tuple(record.run_id for record in records)),
    )


def _seconds_of(phase: Phase) -> Callable[[Record], float | None]:
    return lambda record: dict(record.seconds).get(phase)


def tokens_a_second(record: Record) -> float | None:
    """Real tokens trained on in a second; None where a run does not tell both."""
    trained, seconds = record.tokens.trained, record.seconds.train
    return trained / seconds if trained is not None and seconds else None


def joules_a_thousand(record: Record) -> float | None:
    """Joules that the device drew while training, for each 1,000 real tokens; None where a run does not tell both."""
    drawn, trained = record.energy.get("train"), record.tokens.trained
    return 1000 * drawn.joules / trained if drawn is not None and trained else None


def process_peak(record: Record) -> int | None:
    """The highest peak of the process in any phase, as the driver counts it, in bytes; None where nothing could, or saw
    a part of the training alone."""
    if resumed(record):
        return None
    parts = (phase_memory(record, phase) for phase in PHASES)
    return max(
        (part.process_bytes for part in parts if part is not None and part.process_bytes is not None), default=None
    )
