"""A table as CSV and Markdown. Text in it comes from outside: each form escapes what its readers act on."""

import csv
import io

from reports.tables import MISSING, Table
from study.problems import one_line

# How a spreadsheet recognises a formula (OWASP, "CSV Injection"), the full-width forms of these signs included.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_MARKDOWN = {ord(sign): f"\\{sign}" for sign in "\\|<>`*_[]#~!&$"}


def as_csv(table: Table) -> str:
    """The table as CSV: what is missing is empty, and a cell that a spreadsheet would run is marked as text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_inert(column.title) for column in table.columns])
    for row in table.rows:
        writer.writerow(["" if cell.text == MISSING else _inert(cell.text) for cell in row])
    return text.getvalue()


def _inert(text: str) -> str:
    shown = one_line(text)
    return "'" + shown if text.startswith(_FORMULA) and not _is_number(text) else shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_markdown(table: Table) -> str:
    """The table as GitHub Markdown, with its caption below."""
    lines = [
        _markdown_row([column.title for column in table.columns]),
        "|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|",
        *(_markdown_row([cell.text for cell in row]) for row in table.rows),
        "",
        markdown_text(table.caption),
    ]
    return "\n".join(lines) + "\n"


def _markdown_row(texts: list[str]) -> str:
    return "| " + " | ".join(markdown_text(text) for text in texts) + " |"


def markdown_text(text: str) -> str:
    """Text from outside on one line, with every sign that Markdown would act on written out."""
    return one_line(text).translate(_MARKDOWN)
