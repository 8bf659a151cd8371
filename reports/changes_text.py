"""Two studies beside each other, for a terminal and as Markdown."""

from collections.abc import Sequence

from reports.changes import ENERGY, MEMORY, TIME, Change, StudyChanges
from reports.rendering import as_markdown, markdown_text
from reports.tables import MISSING, Cell, Column, Table
from study.metrics import ROUGE_TYPES
from study.problems import one_line


def environment_table(changes: StudyChanges) -> Table:
    """What the studies were made with, where it differs."""
    rows = tuple((Cell(item.what), Cell(item.before), Cell(item.after)) for item in changes.environment)
    return Table(
        "environment", "What differs in how the runs were made.", (Column("made with"), Column("A"), Column("B")), rows
    )


def changes_table(changes: StudyChanges) -> Table:
    """One row a quantity of an arm."""
    columns = (
        Column("arm"),
        Column("quantity"),
        Column("A", numeric=True),
        Column("B", numeric=True),
        Column("unit"),
        Column("B - A", numeric=True),
        Column("90% interval", numeric=True),
        Column("tolerance", numeric=True),
        Column("result"),
    )
    return Table("changes", _caption(changes), columns, tuple(map(_row, changes.changes)))


def _row(change: Change) -> tuple[Cell, ...]:
    ids = change.run_ids
    is_score = change.unit == "points"

    def value(number: float | None) -> Cell:
        return Cell(MISSING) if number is None else Cell(f"{number:,.{change.decimals}f}", ids)

    interval = MISSING if change.low is None or change.high is None else f"[{change.low:+z.2f}, {change.high:+z.2f}]"
    moved = MISSING if change.difference is None else f"{change.difference:+z.2f}" + ("" if is_score else "%")
    allowed = MISSING if change.tolerance is None else f"{change.tolerance:g}" + ("" if is_score else "%")
    return (
        Cell(change.arm),
        Cell(change.quantity),
        value(change.before),
        value(change.after),
        Cell(change.unit),
        Cell(moved, ids),
        Cell(interval, ids),
        Cell(allowed),
        Cell(_result(change), ids),
    )


def _result(change: Change) -> str:
    if change.is_regression:
        return "REGRESSION" + (f" ({change.note})" if change.note else "")
    if change.difference is None:
        return change.note or "in one study only"
    if change.tolerance is None:
        return change.note or "not judged"
    return "ok" + (f" ({change.note})" if change.note else "")


def _caption(changes: StudyChanges) -> str:
    scores = {changes.tolerances[key] for key in ROUGE_TYPES}
    points = f"{scores.pop():g} points" if len(scores) == 1 else "their tolerance"
    return (
        f"Scores: a regression is a 90% interval of B - A (new seeds and new dialogues alike) wholly below -{points}. "
        f"Medians over fresh runs: memory may grow by {changes.tolerances[MEMORY]:g}%, seconds of training and "
        f"evaluation (and tokens a second, downwards) by {changes.tolerances[TIME]:g}%, energy by "
        f"{changes.tolerances[ENERGY]:g}%. Loading, preparing and the total are not judged."
    )


def _heads(changes: StudyChanges) -> list[str]:
    """The sentences before the table, but for the environment."""
    lines = [f"only in A: {', '.join(changes.only_before)}"] if changes.only_before else []
    lines += [f"only in B: {', '.join(changes.only_after)}"] if changes.only_after else []
    return [*lines, *(f"note: {note}" for note in changes.notes)]


def _ends(changes: StudyChanges) -> list[str]:
    if not changes.regressions:
        return ["no regression" if changes.changes else "no regression, for nothing could be compared"]
    count = len(changes.regressions)
    return [f"{count} regression{'' if count == 1 else 's'}:", *(f"  {said}" for said in changes.regressions)]


def as_terminal(changes: StudyChanges) -> str:
    """The comparison as text, with columns under each other; none of it holds a terminal escape."""
    lines = [f"A: {changes.before}", f"B: {changes.after}", ""]
    if changes.environment:
        lines += ["what differs in how the runs were made:", *_aligned(environment_table(changes)), ""]
    else:
        lines += ["the runs were made with the same model, machine, software, data and prompt", ""]
    lines += [*_heads(changes)]
    lines += ["", *_aligned(changes_table(changes)), "", _caption(changes), ""] if changes.changes else []
    return "".join(f"{one_line(line)}\n" for line in [*lines, *_ends(changes)])


def _aligned(table: Table) -> list[str]:
    rows = [[column.title for column in table.columns], *([cell.text for cell in row] for row in table.rows)]
    shown = [[one_line(text) for text in row] for row in rows]
    widths = [max(len(row[place]) for row in shown) for place in range(len(table.columns))]
    return [_line(row, widths, table.columns) for row in shown]


def _line(row: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> str:
    cells = zip(row, widths, columns, strict=True)
    return "  ".join(
        text.rjust(width) if column.numeric else text.ljust(width) for text, width, column in cells
    ).rstrip()


def as_markdown_page(changes: StudyChanges) -> str:
    """The comparison as a Markdown file."""
    parts = [f"# {markdown_text(changes.before)} (A) and {markdown_text(changes.after)} (B)\n"]
    parts.append("\n".join(f"- {markdown_text(line.strip())}" for line in _ends(changes)) + "\n")
    if changes.environment:
        parts.append(as_markdown(environment_table(changes)))
    if heads := _heads(changes):
        parts.append("\n".join(f"- {markdown_text(line)}" for line in heads) + "\n")
    if changes.changes:
        parts.append(as_markdown(changes_table(changes)))
    return "\n".join(parts)
