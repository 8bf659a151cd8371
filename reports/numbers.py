"""`numbers.tex`: a macro for every number of the tables, so that a paper's text cannot drift from its records."""

from collections.abc import Iterator, Sequence

from reports.latex import Macros
from reports.tables import MISSING, Cell, Column, Table

# The first cells of a row that name it, in each table that is not one row a run.
_NAMED_BY = {"main": 1, "verdicts": 2, "memory": 3, "breakdown": 1, "cost": 1}


def numbers_tex(main: Table, verdicts: Table, measured: Sequence[Table] = ()) -> str:
    """One macro a number, each exactly as its table prints it.

    `\\LoraBfOneSixROUGEOne` is the score of arm `lora-bf16`, with `…HalfWidth` beside it; `…Low` and `…High` are an
    interval's ends. A row's name is its first cell (arm), or its first two (claim and metric). Macros of `measured`
    begin with the table's name: `\\MemoryLoraTrainCompletedAllocated`. Tables of single runs have none.
    """
    macros = Macros()
    for table in (main, verdicts, *(table for table in measured if table.name in _NAMED_BY)):
        names, prefix = _NAMED_BY[table.name], (table.name,) if table in measured else ()
        for row in table.rows:
            row_name = (*prefix, *(cell.text for cell in row[:names]))
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
