"""A table as CSV, Markdown and LaTeX. Text in it comes from outside: each form escapes what its readers act on."""

import csv
import io

from reports.latex import latex, latex_number
from reports.tables import MISSING, Cell, Column, Table
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
        table.caption,
    ]
    return "\n".join(lines) + "\n"


def _markdown_row(texts: list[str]) -> str:
    return "| " + " | ".join(one_line(text).translate(_MARKDOWN) for text in texts) + " |"


def as_latex(table: Table) -> str:
    """The table for a paper: booktabs, every text escaped."""
    align = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{align}}}",
        "\\toprule",
        " & ".join(latex(column.title) for column in table.columns) + " \\\\",
        "\\midrule",
        *(
            " & ".join(_latex_cell(cell, column) for cell, column in zip(row, table.columns, strict=True)) + " \\\\"
            for row in table.rows
        ),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell, column: Column) -> str:
    return latex_number(cell.text) if column.numeric else latex(cell.text)
