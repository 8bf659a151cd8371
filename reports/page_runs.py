"""All runs of a study as the page shows them: a table, the points of its plot, and the record of each run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.evidence import Evidence, peak_bytes
from reports.public_text import public_text
from reports.tables import GIB, MISSING
from results.external import ExternalRun
from results.schema import MemoryPart, PlannedRun, Record
from study.metrics import METRICS
from study.problems import one_line

_SCORES = ("rouge1", "rouge2", "rougeL", "validation_loss")
_MEMORY = ("allocated", "reserved", "process", "device", "host_rss")
_LONGEST_TEXT = 2000
# A longer list (the loss of each step) is told by its length and its ends.
_LONGEST_LIST = 24
_PHASES = ("load", "prepare", "train", "evaluate")


@dataclass(frozen=True, slots=True)
class RunValue:
    """One column of one run: what is printed, and the number that it sorts and is plotted by (None: there is none)."""

    text: str
    number: float | None = None


@dataclass(frozen=True, slots=True)
class RunColumn:
    """A column of the run table. `axis`: whether the plot offers it; `log`: whether its scale is logarithmic."""

    key: str
    title: str
    numeric: bool = False
    axis: bool = False
    log: bool = False


@dataclass(frozen=True, slots=True)
class RecordPart:
    """A part of a record for reading: rows of texts under `head` (empty: names and values)."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run, recorded or only planned, or a system from elsewhere. `values` by the key of their column; `kind` is
    the stage that it is filtered by; `parts` the record for reading."""

    run_id: str
    arm: str
    kind: str
    split: str
    status: str
    values: Mapping[str, RunValue]
    parts: tuple[RecordPart, ...]


@dataclass(frozen=True, slots=True)
class Runs:
    """Every planned run in the plan's order, then systems from elsewhere; columns that are empty in all rows are left
    out."""

    columns: tuple[RunColumn, ...]
    rows: tuple[RunRow, ...]


def all_runs(evidence: Evidence) -> Runs:
    """The run table of a study."""
    rows = (
        *(_row(evidence, run) for run in evidence.plan.runs),
        *(_elsewhere(run) for arm in evidence.external for run in arm.external),
    )
    columns = tuple(
        column for column in _columns(evidence) if any(row.values[column.key].text not in ("", MISSING) for row in rows)
    )
    return Runs(columns, rows)


def _columns(evidence: Evidence) -> Iterator[RunColumn]:
    kind = "GPU allocated" if evidence.on_gpu else "host RSS"
    yield RunColumn("status", "status")
    yield RunColumn("stage", "stage")
    yield RunColumn("arm", "arm")
    yield RunColumn("seed", "seed", numeric=True)
    yield RunColumn("repeat", "repeat", numeric=True)
    yield RunColumn("trial", "trial", numeric=True)
    yield RunColumn("rank", "rank", numeric=True, axis=True, log=True)
    yield RunColumn("alpha", "alpha", numeric=True)
    yield RunColumn("learning_rate", "learning rate", numeric=True, axis=True, log=True)
    for key in _SCORES:
        yield RunColumn(key, f"{METRICS[key].label}, {METRICS[key].unit}", numeric=True, axis=True)
    yield RunColumn("memory", f"peak memory ({kind}), GiB", numeric=True, axis=True)
    yield RunColumn("train_seconds", "training, s", numeric=True, axis=True)
    yield RunColumn("seconds", "whole run, s", numeric=True, axis=True)
    yield RunColumn("energy", "energy of the run, kJ", numeric=True, axis=True)
    yield RunColumn("why", "why it did not complete")


def _row(evidence: Evidence, run: PlannedRun) -> RunRow:
    record = evidence.last.get(run.run_id)
    status = "not run" if record is None else record.status.replace("_", " ")
    stage = run.stage + (f", {run.purpose.replace('_', '-')}" if run.purpose else f", {run.split}")
    values = {
        "status": RunValue(status),
        "stage": RunValue(stage),
        "arm": RunValue(one_line(run.arm)),
        "seed": _number(run.seed, "d"),
        # A study that repeats nothing has no column for it.
        "repeat": _number(run.repeat, "d") if any(each.repeat for each in evidence.plan.runs) else RunValue(MISSING),
        "trial": _number(run.trial, "d"),
        **_measured(record, on_gpu=evidence.on_gpu),
    }
    parts = () if record is None else record_parts(record)
    return RunRow(run.run_id, one_line(run.arm), run.stage, run.split, status, values, parts)


def _elsewhere(run: ExternalRun) -> RunRow:
    """One seed of a system that this project did not train: it has scores and nothing else."""
    values = {
        "status": RunValue("from elsewhere"),
        "stage": RunValue("external, test"),
        "arm": RunValue(one_line(run.arm)),
        "seed": _number(run.seed, "d"),
        "repeat": RunValue(MISSING),
        "trial": RunValue(MISSING),
        **_measured(None, on_gpu=False),
        **_scores(run.quality),
    }
    about = {"run_id": run.run_id, "name": run.name, "label": run.label, "seed": run.seed, "test data": run.test_hash}
    parts = (_pairs("System from elsewhere", about), _pairs("Scores", _named(run.quality)))
    return RunRow(run.run_id, one_line(run.arm), "external", "test", "from elsewhere", values, parts)


def _measured(record: Record | None, *, on_gpu: bool) -> dict[str, RunValue]:
    """What only a record tells; dashes without one."""
    scores = _scores({} if record is None or record.quality is None else record.quality)
    if record is None:
        names = ("rank", "alpha", "learning_rate", "memory", "train_seconds", "seconds", "energy")
        return scores | dict.fromkeys(names, RunValue(MISSING)) | {"why": RunValue("")}
    energy = None if record.energy_j is None else record.energy_j / 1000
    return scores | {
        "rank": _number(record.adapter.rank, "d"),
        "alpha": _number(record.adapter.alpha, "d"),
        "learning_rate": _number(record.learning_rate, ".3g"),
        "memory": _number(_peak_gib(record, on_gpu=on_gpu), ".3f"),
        "train_seconds": _number(record.seconds.train, ".1f"),
        "seconds": _number(record.seconds.total, ".1f"),
        "energy": _number(energy, ".2f"),
        "why": RunValue(_why(record)),
    }


def _scores(quality: Mapping[str, float]) -> dict[str, RunValue]:
    return {key: _number(quality.get(key), f".{METRICS[key].decimals}f") for key in _SCORES}


def _number(value: float | None, form: str) -> RunValue:
    return RunValue(MISSING) if value is None else RunValue(format(value, form), float(value))


def _peak_gib(record: Record, *, on_gpu: bool) -> float | None:
    """The peak of the phase that decides whether a run fits; of a run that ended in it nothing is known but a part."""
    part = record.memory.evaluate if record.training is None else record.memory.train
    if part is None or part.until_failure:
        return None
    peak = peak_bytes(part, on_gpu=on_gpu)
    return None if peak is None else peak / GIB


def _why(record: Record) -> str:
    if record.error is None:
        return ""
    where = f"in {record.error.phase}: " if record.error.phase else ""
    return one_line(f"{where}{public_text(record.error.message)}")


# --- one record for reading ---


def record_parts(record: Record) -> tuple[RecordPart, ...]:
    """The whole record, part by part, as public text."""
    whole = record.model_dump(mode="json")
    spec = {key: whole[key] for key in ("run_id", "arm", "stage", "purpose", "split", "seed", "trial", "repeat")}
    spec |= {key: whole[key] for key in ("learning_rate", "prompt_hash", "protocol", "study", "schema_version")}
    outcome = {key: whole[key] for key in ("status", "error", "started_at", "memory_limit_bytes")}
    energy = {"whole run": {"joules": record.energy_j, "seconds": record.energy_window_s}, **whole["energy"]}
    breakdown = {f"{key}_bytes": value for key, value in (whole["breakdown"] or {}).items()}
    parts = (
        _pairs("Run", spec),
        _pairs("Outcome", outcome),
        _pairs("Scores", _named(record.quality or {})),
        _memory_part(record),
        _pairs("Breakdown of the training peak", breakdown),
        _pairs("Forecast", whole["forecast"]),
        _pairs("Seconds", whole["seconds"]),
        _pairs("Energy", energy),
        _pairs("Tokens", whole["tokens"]),
        _pairs("Parameters", whole["parameters"]),
        _pairs("Model", whole["model"]),
        _pairs("Precision", whole["precision"]),
        _pairs("Adapter", whole["adapter"]),
        _pairs("Training", whole["training"]),
        _pairs("Generation", whole["generation"]),
        _pairs("Data", whole["data"]),
        _pairs("Checks", whole["checks"]),
        _pairs("GPU", whole["gpu"]),
        _pairs("Environment", whole["environment"]),
    )
    return tuple(part for part in parts if part.rows)


def _pairs(title: str, value: Mapping[str, Any] | None) -> RecordPart:
    """Names and values; what is null is left out: nothing was read there."""
    rows = tuple((_label(path), text) for path, text in _flat("", value or {}))
    return RecordPart(title, (), rows)


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if value is None or value in ({}, []):
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), item)
    else:
        yield path, _shown(path, value)


def _shown(path: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        shown = value if len(value) <= _LONGEST_LIST else [*value[:4], "…", *value[-4:]]
        text = ", ".join(_shown("", item) for item in shown)
        return f"{len(value)} values: {text}" if len(value) > _LONGEST_LIST else text
    # The members of a breakdown are bytes without saying so in their names.
    if isinstance(value, int) and (path.endswith("_bytes") or path.startswith("breakdown.")):
        return _bytes(value)
    if isinstance(value, int) and abs(value) >= 100_000 and not path.endswith("seed"):
        return f"{value:,d}"
    if isinstance(value, float):
        return f"{value:.10g}"
    return public_text(str(value), _LONGEST_TEXT)


def _bytes(value: int) -> str:
    return f"{value / GIB:.3f} GiB ({value:,d} bytes)"


def _label(path: str) -> str:
    return public_text(path.removesuffix("_bytes").replace("_", " ").replace(".", " · "))


def _named(quality: Mapping[str, float]) -> dict[str, float]:
    """Scores under the names of their metrics."""
    labels = {key: f"{METRICS[key].label}, {METRICS[key].unit}" if key in METRICS else key for key in quality}
    return {labels[key]: value for key, value in quality.items()}


def _memory_part(record: Record) -> RecordPart:
    """Peaks phase by phase; columns that nothing was read for are left out."""
    phases = {name: part for name in _PHASES if (part := getattr(record.memory, name)) is not None}
    kinds = [kind for kind in _MEMORY if any(_peak(part, kind) is not None for part in phases.values())]
    rows = tuple(_memory_row(name, part, kinds) for name, part in phases.items())
    head = ("phase", *(f"{kind.replace('host_rss', 'host RSS')}, GiB" for kind in kinds), "read by")
    return RecordPart("Memory by phase", head, rows)


def _memory_row(phase: str, part: MemoryPart, kinds: Sequence[str]) -> tuple[str, ...]:
    peaks = (_peak(part, kind) for kind in kinds)
    return (
        phase + (" (until it failed)" if part.until_failure else ""),
        *(MISSING if peak is None else f"{peak / GIB:.3f}" for peak in peaks),
        public_text(part.source or MISSING),
    )


def _peak(part: MemoryPart, kind: str) -> int | None:
    value: int | None = getattr(part, f"{kind}_bytes")
    return value


# --- for the page's script ---


def runs_data(runs: Runs) -> dict[str, Any]:
    """What the page's script needs of the runs. Parts that several records have alike (environment, training) are
    held once: a record is a list of numbers of `parts`."""
    parts: dict[RecordPart, int] = {}
    axes = [column for column in runs.columns if column.axis]
    arms = list(dict.fromkeys(row.arm for row in runs.rows))
    rows = []
    for row in runs.rows:
        rows.append(
            {
                "id": row.run_id,
                "arm": arms.index(row.arm),
                "status": row.status,
                "kind": row.kind,
                "split": row.split,
                "label": _run_label(row),
                "values": {
                    axis.key: row.values[axis.key].number for axis in axes if row.values[axis.key].number is not None
                },
                "texts": {axis.key: row.values[axis.key].text for axis in axes},
                "record": [parts.setdefault(part, len(parts)) for part in row.parts],
            }
        )
    return {
        "axes": [{"key": axis.key, "title": axis.title, "log": axis.log} for axis in axes],
        "arms": arms,
        "runs": rows,
        "parts": [{"title": part.title, "head": part.head, "rows": part.rows} for part in parts],
    }


def _run_label(row: RunRow) -> str:
    """A run in words: its arm, stage, seed and hyperparameters."""
    named = ("seed", "repeat", "trial", "rank", "alpha", "learning_rate")
    known = [f"{name.replace('_', ' ')} {row.values[name].text}" for name in named if row.values[name].text != MISSING]
    return ", ".join((f"{row.arm}: {row.values['stage'].text}", *known))
