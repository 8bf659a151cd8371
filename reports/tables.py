"""Tables as values: every cell carries the runs behind it. `reports.rendering` prints them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from reports.claiming import ClaimResult, MetricResult
from reports.decomposition import FEWEST
from reports.evidence import ArmEvidence, Evidence
from reports.stats import single_arm_interval
from results.schema import PlannedRun, Record
from study.metrics import METRICS, ROUGE_TYPES

GIB = 1024**3
MISSING = "—"
DID_NOT_FIT = "did not fit"
NO_SCORES = "random weights: memory and time only, no scores"


@dataclass(frozen=True, slots=True)
class Cell:
    """What is printed, and the ids of the runs that it was computed from."""

    text: str
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its header, the unit of its numbers, and whether it holds numbers (aligned right)."""

    header: str
    unit: str | None = None
    numeric: bool = False

    @property
    def title(self) -> str:
        """The header with its unit."""
        return self.header if self.unit is None else f"{self.header}, {self.unit}"


@dataclass(frozen=True, slots=True)
class Table:
    """A table: every row has one cell a column.

    Raises:
        ValueError: a row that has not.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.name}: a row has another number of cells than there are columns")

    def without_empty_columns(self) -> "Table":
        """The table without columns that hold nothing in any row: what a study cannot measure has no place in it."""
        kept = [
            index
            for index in range(len(self.columns))
            if any(row[index].text not in ("", MISSING) for row in self.rows)
        ]
        rows = tuple(tuple(row[index] for index in kept) for row in self.rows)
        return Table(self.name, self.caption, tuple(self.columns[index] for index in kept), rows)


def number(value: float | None, form: str, run_ids: tuple[str, ...] = ()) -> Cell:
    """A number in `form` (a format specification); a dash where there is none."""
    return Cell(MISSING) if value is None else Cell(format(value, form), run_ids)


def median_cell(records: Sequence[Record], value: Callable[[Record], float | None], form: str) -> Cell:
    """The median over the records that have a value, with their ids; a dash where none has."""
    found = {record.run_id: seen for record in records if (seen := value(record)) is not None}
    return number(median(found.values()) if found else None, form, tuple(found))


def main_table(evidence: Evidence) -> Table:
    """One row an arm in the plan's order, then systems from elsewhere and floors: memory, time, scores with 95%
    intervals, what was chosen.

    A study of random weights has no scores: neither columns for them nor floors.
    """
    metrics = () if evidence.random_weights else ROUGE_TYPES
    kind = "GPU allocated" if evidence.on_gpu else "host RSS"
    columns = (
        Column("arm"),
        Column("precision"),
        Column("method"),
        Column("trainable parameters", numeric=True),
        Column("trainable", "% of all", numeric=True),
        Column(f"peak memory ({kind})", "GiB", numeric=True),
        Column("training", "s", numeric=True),
        *(Column(METRICS[key].label, METRICS[key].unit, numeric=True) for key in metrics),
        *([Column("seeds", numeric=True)] if metrics else []),
        Column("rank", numeric=True),
        Column("alpha", numeric=True),
        Column("learning rate", numeric=True),
        Column("test runs"),
    )
    rows = [_arm_row(arm, metrics) for arm in evidence.arms]
    if metrics:
        rows += [_external_row(arm, metrics, len(columns)) for arm in evidence.external]
        rows += [_floor_row(name, scores, len(columns)) for name, scores in evidence.plan.floors.items()]
    return Table("main", _main_caption(evidence), columns, tuple(rows))


def _main_caption(evidence: Evidence) -> str:
    memory = (
        "Memory is the peak while training (while evaluating for zero-shot arms); memory and training time are medians "
        "over seeds."
    )
    if evidence.random_weights:
        return f"{NO_SCORES.capitalize()}. {memory}"
    return (
        "Scores are F measures on the test split, mean over references, ± half the width of the 95% interval over "
        f"seeds and dialogues (over dialogues alone where there is one seed). {memory} Floors learn nothing from the "
        "training data." + (" Systems from elsewhere were scored here, not run." if evidence.external else "")
    )


def _arm_row(arm: ArmEvidence, metrics: Sequence[str]) -> tuple[Cell, ...]:
    ids, choice, memory = arm.run_ids, arm.choice, arm.memory
    seeds, scored_ids = (None, ()) if arm.scored is None else (len(arm.scored.seeds), arm.scored.run_ids)
    parameters = next((record.parameters for record in arm.runs if record.parameters is not None), None)
    share = None if parameters is None else 100 * parameters.trainable / parameters.total
    return (
        Cell(arm.part.name),
        Cell(arm.part.precision + (" + double quantisation" if arm.part.double_quant else "")),
        Cell(arm.part.method if arm.trains else "zero-shot"),
        number(None if parameters is None or not arm.trains else parameters.trainable, ",d", ids),
        number(share if arm.trains else None, ".3f", ids),
        unfit_cell(arm) if memory is None else number(memory.median_bytes / GIB, ".3f", memory.run_ids),
        number(arm.train_seconds if arm.trains else None, ".1f", ids),
        *(score_cell(arm, key) for key in metrics),
        *([number(seeds, "d", scored_ids)] if metrics else []),
        number(None if choice is None else choice.rank, "d"),
        number(None if choice is None else choice.alpha, "d"),
        number(None if choice is None else choice.learning_rate, ".3g"),
        Cell(", ".join(f"{count} {status}" for status, count in arm.test_statuses.items()) or MISSING),
    )


def unfit_cell(arm: ArmEvidence) -> Cell:
    """What stands in the place of an arm's memory where there is none: "did not fit", or a dash."""
    too_large = tuple(run_id for run_id, record in arm.recorded.items() if record.status == "out_of_memory")
    return Cell(DID_NOT_FIT, too_large) if arm.did_not_fit else Cell(MISSING)


def score_cell(arm: ArmEvidence, metric: str) -> Cell:
    """An arm's mean score on the test split with half the width of its 95% interval."""
    if arm.scored is None:
        return Cell(MISSING)
    decimals = METRICS[metric].decimals
    if len(arm.scored.example_ids) < FEWEST:
        # One dialogue has a score, and no interval.
        return number(float(arm.scored.scores[metric].mean()), f".{decimals}f", arm.scored.run_ids)
    interval = single_arm_interval(arm.scored.scores[metric], confidence=0.95)
    half_width = (interval.high - interval.low) / 2
    return Cell(f"{interval.mean:.{decimals}f} ± {half_width:.{decimals}f}", arm.scored.run_ids)


def _external_row(arm: ArmEvidence, metrics: Sequence[str], width: int) -> tuple[Cell, ...]:
    """Scores, and no memory: nobody here saw it run."""
    scored = arm.scored
    row = [Cell(arm.part.name), Cell(MISSING), Cell(arm.label or "from elsewhere"), *[Cell(MISSING)] * 4]
    row += [score_cell(arm, key) for key in metrics]
    row += [Cell(MISSING) if scored is None else number(len(scored.seeds), "d", scored.run_ids)]
    return (*row, *[Cell(MISSING)] * (width - len(row)))


def _floor_row(name: str, scores: dict[str, float], width: int) -> tuple[Cell, ...]:
    numbers = [number(scores.get(key), f".{METRICS[key].decimals}f") for key in ROUGE_TYPES]
    row = [Cell(name), Cell(MISSING), Cell("floor"), *[Cell(MISSING)] * 4, *numbers]
    return (*row, *[Cell(MISSING)] * (width - len(row)))


def trials_table(evidence: Evidence) -> Table:
    """Every trial of every arm, also those that gave nothing."""
    select_by = METRICS["rougeL" if evidence.frozen is None else evidence.frozen.select_by]
    scores = () if evidence.random_weights else tuple(dict.fromkeys((select_by, METRICS["validation_loss"])))
    columns = (
        Column("arm"),
        Column("trial", numeric=True),
        Column("seed", numeric=True),
        Column("rank", numeric=True),
        Column("alpha", numeric=True),
        Column("learning rate", numeric=True),
        *(Column(item.label, item.unit, numeric=True) for item in scores),
        Column("status"),
        Column("chosen"),
    )
    keys = [item.key for item in scores]
    rows = tuple(_trial_row(evidence, run, keys) for run in evidence.plan.runs if run.stage == "tune")
    caption = "Every hyperparameter set tried" + (
        f"; {NO_SCORES}." if evidence.random_weights else ", scored on the validation split."
    )
    return Table("trials", caption, columns, rows)


def _trial_row(evidence: Evidence, run: PlannedRun, metrics: Sequence[str]) -> tuple[Cell, ...]:
    record, arm, ids = evidence.last.get(run.run_id), evidence.arm(run.arm), (run.run_id,)
    quality = {} if record is None or record.quality is None else record.quality
    chosen = arm is not None and arm.choice is not None and arm.choice.run_id == run.run_id
    return (
        Cell(run.arm),
        number(run.trial, "d"),
        number(run.seed, "d"),
        number(None if record is None else record.adapter.rank, "d", ids),
        number(None if record is None else record.adapter.alpha, "d", ids),
        number(None if record is None else record.learning_rate, ".3g", ids),
        *(number(quality.get(key), f".{METRICS[key].decimals}f", ids) for key in metrics),
        Cell("not_run" if record is None else record.status, () if record is None else ids),
        Cell("chosen" if chosen else ""),
    )


def verdict_table(results: Sequence[ClaimResult]) -> Table:
    """Every claim, metric by metric: difference, intervals, margin and verdict."""
    columns = (
        Column("claim"),
        Column("metric"),
        Column("difference", "points", numeric=True),
        Column("90% interval", "points", numeric=True),
        Column("95% interval", "points", numeric=True),
        Column("margin", "points", numeric=True),
        Column("smallest margin", "points", numeric=True),
        Column("TOST p", numeric=True),
        Column("Holm p", numeric=True),
        Column("verdict"),
    )
    rows = tuple(_verdict_row(result, item) for result in results for item in result.metrics)
    caption = (
        "Candidate minus reference, each at its own tuned hyperparameters. A claim is supported where the 90% interval "
        "of every metric lies inside the margin."
    )
    return Table("verdicts", caption, columns, rows)


def _verdict_row(result: ClaimResult, item: MetricResult) -> tuple[Cell, ...]:
    comparison, ids = item.comparison, result.run_ids
    metric = METRICS.get(item.metric)
    decimals = 2 if metric is None else metric.decimals
    signed = f"+z.{decimals}f"

    def interval(confidence: float) -> Cell:
        if comparison is None:
            return Cell(MISSING)
        low, high = comparison.interval(confidence)
        return Cell(f"[{low:{signed}}, {high:{signed}}]", ids)

    return (
        Cell(result.name),
        Cell(item.metric if metric is None else metric.label),
        number(None if comparison is None else comparison.difference, signed, ids),
        interval(0.90),
        interval(0.95),
        number(None if result.claim is None else result.claim.margin, "g"),
        number(item.judgement.smallest_margin, f".{decimals}f", ids),
        _p_value(item.p_tost, ids),
        _p_value(item.adjusted_p, ids),
        Cell(str(item.judgement.verdict).replace("_", " "), ids),
    )


def _p_value(value: float | None, run_ids: tuple[str, ...]) -> Cell:
    """No p is 0: a small one is below what is printed."""
    return Cell("<0.001", run_ids) if value is not None and value < 0.001 else number(value, ".3f", run_ids)
