"""Tables as values, and their three renderings. Every cell carries the runs behind it."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from reports.claiming import ClaimResult
from reports.evidence import ArmEvidence, Evidence
from reports.latex import latex
from reports.stats import single_arm_interval
from study.metrics import METRICS, ROUGE_TYPES

GIB = 1024**3
MISSING = "—"


@dataclass(frozen=True, slots=True)
class Cell:
    """What is printed, and the ids of the runs that it was computed from."""

    text: str
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its header with the unit, and whether it holds numbers."""

    header: str
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table: every row has one cell a column."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.name}: a row has another number of cells than there are columns")


def main_table(evidence: Evidence) -> Table:
    """One row an arm, zero-shot arms and floors included: memory, time, scores with 95% intervals, what was chosen."""
    on_gpu = any(memory.on_gpu for arm in evidence.arms if (memory := arm.memory()) is not None)
    memory_header = "peak memory, GiB (GPU allocated)" if on_gpu else "peak memory, GiB (host RSS)"
    columns = (
        Column("arm"),
        Column("precision"),
        Column("method"),
        Column("trainable", numeric=True),
        Column("of all, %", numeric=True),
        Column(memory_header, numeric=True),
        Column("training, s", numeric=True),
        *(Column(METRICS[kind].label, numeric=True) for kind in ROUGE_TYPES),
        Column("seeds", numeric=True),
        Column("rank", numeric=True),
        Column("alpha", numeric=True),
        Column("learning rate", numeric=True),
        Column("test runs"),
    )
    rows = [_arm_row(evidence, arm) for arm in evidence.arms]
    rows += [_floor_row(name, scores, len(columns)) for name, scores in evidence.plan.floors.items()]
    caption = (
        "Scores are F measures in points on the test split, mean over references, with half the width of the 95% "
        "interval over seeds and dialogues. Memory is the peak while training (while evaluating for zero-shot arms), "
        "the median over runs. Floors are systems that learn nothing."
    )
    return Table("main", caption, columns, tuple(rows))


def _arm_row(evidence: Evidence, arm: ArmEvidence) -> tuple[Cell, ...]:
    run_ids = tuple(record.run_id for record in arm.runs)
    parameters = next((record.parameters for record in arm.runs if record.parameters is not None), None)
    memory, seconds = arm.memory(), arm.train_seconds()
    choice = arm.choice
    precision = arm.part.precision + ("+dq" if arm.part.double_quant else "")
    return (
        Cell(arm.part.name),
        Cell(precision),
        Cell("zero-shot" if not arm.trains else arm.part.method),
        Cell(MISSING if parameters is None else f"{parameters.trainable:,}", run_ids),
        Cell(MISSING if parameters is None else f"{100 * parameters.trainable / parameters.total:.3f}", run_ids),
        Cell(_memory_text(arm) if memory is None else f"{memory.median_bytes / GIB:.3f}", run_ids),
        Cell(MISSING if seconds is None else f"{seconds:.1f}", run_ids),
        *(_score(arm, kind) for kind in ROUGE_TYPES),
        Cell(MISSING if arm.scored is None else str(len(arm.scored.seeds)), run_ids),
        Cell(MISSING if choice is None else str(choice.rank)),
        Cell(MISSING if choice is None else str(choice.alpha)),
        Cell(MISSING if choice is None else f"{choice.learning_rate:.3g}"),
        Cell(_statuses(evidence, arm)),
    )


def _memory_text(arm: ArmEvidence) -> str:
    return "did not fit" if arm.did_not_fit else MISSING


def _score(arm: ArmEvidence, kind: str) -> Cell:
    if arm.scored is None:
        return Cell(MISSING)
    interval = single_arm_interval(arm.scored.scores[kind], confidence=0.95)
    decimals = METRICS[kind].decimals
    half = (interval.high - interval.low) / 2
    return Cell(f"{interval.mean:.{decimals}f} ± {half:.{decimals}f}", arm.scored.run_ids)


def _statuses(evidence: Evidence, arm: ArmEvidence) -> str:
    planned = [run for run in evidence.plan.runs if run.arm == arm.part.name and run.split == "test"]
    counts: dict[str, int] = {}
    for run in planned:
        record = evidence.last.get(run.run_id)
        status = "not run" if record is None else record.status
        counts[status] = counts.get(status, 0) + 1
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or MISSING


def _floor_row(name: str, scores: dict[str, float], width: int) -> tuple[Cell, ...]:
    numbers = [Cell(f"{scores[kind]:.{METRICS[kind].decimals}f}") for kind in ROUGE_TYPES]
    row = [Cell(name), Cell(MISSING), Cell("floor"), *[Cell(MISSING)] * 4, *numbers]
    return tuple([*row, *[Cell(MISSING)] * (width - len(row))])


def trials_table(evidence: Evidence) -> Table:
    """Every trial of every arm, also those that gave nothing."""
    select_by = "rougeL" if evidence.frozen is None else evidence.frozen.select_by
    metric = METRICS[select_by]
    columns = (
        Column("arm"),
        Column("trial", numeric=True),
        Column("seed", numeric=True),
        Column("rank", numeric=True),
        Column("alpha", numeric=True),
        Column("learning rate", numeric=True),
        Column(f"validation {metric.label}", numeric=True),
        Column("validation loss", numeric=True),
        Column("status"),
        Column("chosen"),
    )
    rows = []
    for run in (run for run in evidence.plan.runs if run.stage == "tune"):
        record = evidence.last.get(run.run_id)
        quality = None if record is None else record.quality
        arm = evidence.arm(run.arm)
        chosen = arm is not None and arm.choice is not None and arm.choice.run_id == run.run_id
        ids = (run.run_id,)
        loss = METRICS["validation_loss"]
        rows.append(
            (
                Cell(run.arm),
                Cell(str(run.trial)),
                Cell(str(run.seed)),
                Cell(MISSING if record is None else str(record.adapter.rank), ids),
                Cell(MISSING if record is None else str(record.adapter.alpha), ids),
                Cell(MISSING if record is None or record.learning_rate is None else f"{record.learning_rate:.3g}", ids),
                Cell(MISSING if quality is None else f"{quality[select_by]:.{metric.decimals}f}", ids),
                Cell(MISSING if quality is None else f"{quality['validation_loss']:.{loss.decimals}f}", ids),
                Cell("not run" if record is None else record.status, ids),
                Cell("yes" if chosen else ""),
            )
        )
    return Table("trials", "Every hyperparameter set tried, on the validation split.", columns, tuple(rows))


def verdict_table(results: Sequence[ClaimResult]) -> Table:
    """Every claim, metric by metric: difference, intervals, margin and verdict."""
    columns = (
        Column("claim"),
        Column("metric"),
        Column("difference, points", numeric=True),
        Column("90% interval", numeric=True),
        Column("95% interval", numeric=True),
        Column("margin", numeric=True),
        Column("TOST p", numeric=True),
        Column("Holm p", numeric=True),
        Column("verdict"),
    )
    rows = []
    for result in results:
        for item in result.metrics:
            comparison, ids = item.comparison, result.run_ids
            decimals = METRICS[item.metric].decimals
            intervals = [
                MISSING
                if comparison is None
                else "[{:+.{d}f}, {:+.{d}f}]".format(*comparison.interval(level), d=decimals)
                for level in (0.90, 0.95)
            ]
            rows.append(
                (
                    Cell(result.claim.name),
                    Cell(METRICS[item.metric].label),
                    Cell(MISSING if comparison is None else f"{comparison.difference:+.{decimals}f}", ids),
                    *(Cell(text, ids) for text in intervals),
                    Cell(f"{result.claim.margin:g}"),
                    Cell(MISSING if item.p_tost is None else f"{item.p_tost:.3f}", ids),
                    Cell(MISSING if item.adjusted_p is None else f"{item.adjusted_p:.3f}", ids),
                    Cell(str(item.judgement.verdict).replace("_", " "), ids),
                )
            )
    return Table("verdicts", "Candidate minus reference, tuned against tuned.", columns, tuple(rows))


def as_csv(table: Table) -> str:
    """The table as CSV. A cell that a spreadsheet would take for a formula is marked as text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.header for column in table.columns])
    for row in table.rows:
        writer.writerow(["" if cell.text == MISSING else _inert(cell.text) for cell in row])
    return text.getvalue()


def _inert(text: str) -> str:
    # A signed number is no formula; anything else that starts like one is.
    if text.startswith(("=", "@", "\t", "\r")) or (text.startswith(("+", "-")) and not _is_number(text)):
        return "'" + text
    return text


def _is_number(text: str) -> bool:
    try:
        float(text.replace("−", "-"))
    except ValueError:
        return False
    return True


def as_markdown(table: Table) -> str:
    """The table as GitHub Markdown, with its caption below."""

    def cell(text: str) -> str:
        for sign in ("\\", "|", "<", ">", "`", "*", "_", "[", "]", "#"):
            text = text.replace(sign, f"\\{sign}")
        return " ".join(text.split()) or " "

    lines = [
        "| " + " | ".join(cell(column.header) for column in table.columns) + " |",
        "|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|",
        *("| " + " | ".join(cell(item.text) for item in row) + " |" for row in table.rows),
        "",
        table.caption,
    ]
    return "\n".join(lines) + "\n"


def as_latex(table: Table) -> str:
    """The table for a paper: booktabs, every text escaped."""
    align = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{align}}}",
        "\\toprule",
        " & ".join(latex(column.header) for column in table.columns) + " \\\\",
        "\\midrule",
        *(" & ".join(latex(cell.text) for cell in row) + " \\\\" for row in table.rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"
