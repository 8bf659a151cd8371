"""`numbers.tex`: a macro for every number of the tables, so that a paper's text cannot drift from its records."""

from collections.abc import Iterator

from reports.latex import Macros
from reports.tables import MISSING, Cell, Column, Table


def numbers_tex(main: Table, verdicts: Table) -> str:
    """One macro a number, each exactly as its table prints it.

    `\\LoraBfOneSixROUGEOne` is the score of arm `lora-bf16`, with `…HalfWidth` beside it; `…Low` and `…High` are an
    interval's ends. A row's name is its first cell (arm), or its first two (claim and metric).
    """
    macros = Macros()
    for table, names in ((main, 1), (verdicts, 2)):
        for row in table.rows:
            row_name = tuple(cell.text for cell in row[:names])
            for column, cell in zip(table.columns[names:], row[names:], strict=True):
                for value, ending in _numbers(column, cell):
                    macros.define(value, *row_name, column.header, *ending)
    for row in verdicts.rows:
        macros.define(row[-1].text, row[0].text, row[1].text, verdicts.columns[-1].header)
    return "% written by python -m reports: every number as the tables print it\n" + macros.text()


def _numbers(column: Column, cell: Cell) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The numbers in a cell, each with what is added to its name."""
    text = cell.text
    if not column.numeric or text == MISSING:
        return
    if " ± " in text:
        mean, _, half_width = text.partition(" ± ")
        yield mean, ()
        yield half_width, ("half-width",)
    elif text.startswith("["):
        low, _, high = text.strip("[]").partition(", ")
        yield low, ("low",)
        yield high, ("high",)
    else:
        yield text, ()
