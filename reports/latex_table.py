"""A table for a paper: booktabs and siunitx, every text escaped, and never wider than a page's text."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from reports.latex import latex, latex_number
from reports.tables import MISSING, Cell, Column, Table
from study.problems import one_line

# What a line of \footnotesize holds in a page's text (17 cm): letters, a column's gap counted as three.
_LINE_LETTERS = 122
_GAP = 3
# Headers are broken at words into lines of so many letters, texts in cells at more.
_HEADER_LETTERS = 12
_TEXT_LETTERS = 30
_DECIMAL = re.compile(r"([+-]?)(\d[\d,]*)(?:\.(\d+))?", re.ASCII)
_EXPONENT = re.compile(r"[+-]?\d+(?:\.\d+)?e[+-]?\d+", re.ASCII)

# The pieces of a text, each with the space or the sign that ends it: a line may end after any of them.
_BREAKS = re.compile(r"[^\s@,=/]*(?:[\s@,=/]+|$)")


@dataclass(frozen=True, slots=True)
class _Set:
    """A column as it is set: its siunitx or array specification, header and cells, and its width in letters."""

    spec: str
    header: str
    cells: tuple[str, ...]
    width: int


def as_latex(table: Table) -> str:
    """One tabular, or several under each other where the columns need more than a line; each of them then begins with
    the columns that name a row."""
    columns = [_set(column, [row[place] for row in table.rows]) for place, column in enumerate(table.columns)]
    blocks = _blocks(columns, _naming(table))
    body = "\n\\par\\medskip\n".join(_tabular(block, len(table.rows)) for block in blocks)
    return f"% needs \\usepackage{{booktabs,siunitx}}; at most a page's text wide in \\footnotesize\n{body}\n"


def _naming(table: Table) -> int:
    """How many first columns name a row: those before the first number, of which one at least and two at most."""
    texts = next((place for place, column in enumerate(table.columns) if column.numeric), len(table.columns))
    repeated = len({row[0].text for row in table.rows}) < len(table.rows)
    return max(min(texts, 2 if repeated else 1), 1)


def _blocks(columns: Sequence[_Set], naming: int) -> list[list[_Set]]:
    """The columns in as few blocks as fit a line, and of widths as even as they can be."""
    widest = _filled(columns, naming, _LINE_LETTERS)
    narrower = (_filled(columns, naming, letters) for letters in range(1, _LINE_LETTERS))
    return next((blocks for blocks in narrower if len(blocks) <= len(widest)), widest)


def _filled(columns: Sequence[_Set], naming: int, letters: int) -> list[list[_Set]]:
    """Blocks filled one after the other up to `letters`; a column that is too wide even alone has its own."""
    head, rest = list(columns[:naming]), columns[naming:]
    blocks = [list(head)]
    for column in rest:
        fits = sum(item.width + _GAP for item in (*blocks[-1], column)) <= letters
        if not fits and len(blocks[-1]) > naming:
            blocks.append(list(head))
        blocks[-1].append(column)
    return blocks


def _tabular(columns: Sequence[_Set], rows: int) -> str:
    lines = [
        f"\\begin{{tabular}}{{{''.join(column.spec for column in columns)}}}",
        "\\toprule",
        " & ".join(column.header for column in columns) + " \\\\",
        "\\midrule",
        *(" & ".join(column.cells[place] for column in columns) + " \\\\" for place in range(rows)),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines)


def _set(column: Column, cells: Sequence[Cell]) -> _Set:
    """A column of numbers aligned at the decimal point; one that holds other things is set as they are."""
    texts = [cell.text for cell in cells]
    header = textwrap.wrap(one_line(column.title), _HEADER_LETTERS, break_long_words=False) or [""]
    widest = max(map(len, header))
    if not column.numeric:
        parts = [_wrapped(text) for text in texts]
        widths = [len(line) for lines in parts for line in lines]
        return _Set("l", _stack(header, "l"), tuple(_stack(lines, "l") for lines in parts), max([widest, *widths]))
    width = max([widest, *map(len, texts)])
    form = _table_format(texts)
    if form is not None:
        numbers = tuple(_plain(text) for text in texts)
        plus = ",retain-explicit-plus" if form.startswith("+") else ""
        return _Set(f"S[table-format={form}{plus}]", f"{{{_stack(header, 'r')}}}", numbers, width)
    return _Set("r", _stack(header, "r"), tuple(map(_number, texts)), width)


def _wrapped(text: str) -> list[str]:
    """A text in lines that a table can hold. A long name is broken after the signs between its parts, too."""
    lines = [""]
    for part in _BREAKS.findall(one_line(text)):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > _TEXT_LETTERS:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]


def _stack(lines: Sequence[str], side: str) -> str:
    """Lines under each other in one cell: a tabular of its own, since \\shortstack sets letters of other heights."""
    if len(lines) == 1:
        return latex(lines[0])
    return f"\\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}" + "\\\\".join(map(latex, lines)) + "\\end{tabular}"


def _table_format(texts: Sequence[str]) -> str | None:
    """siunitx's table-format for a column of decimal numbers; None where it holds anything else, or no number."""
    matches = [_DECIMAL.fullmatch(text) for text in texts if text not in ("", MISSING)]
    found = [match for match in matches if match is not None]
    if not found or len(found) < len(matches):
        return None
    sign = "+" if any(match[1] for match in found) else ""
    whole = max(len(match[2].replace(",", "")) for match in found)
    decimals = max(len(match[3] or "") for match in found)
    return f"{sign}{whole}" + (f".{decimals}" if decimals else "")


def _plain(text: str) -> str:
    """A number for a column of siunitx, which groups digits itself; what is missing is set as text."""
    return text.replace(",", "") if text not in ("", MISSING) else f"{{{latex(text)}}}"


def _number(text: str) -> str:
    """A printed number that is not a plain decimal: mean and half width, an interval, a power of ten, or a word."""
    if " ± " in text:
        mean, _, half_width = text.partition(" ± ")
        if _DECIMAL.fullmatch(mean) and _DECIMAL.fullmatch(half_width):
            return f"${_math(mean)} \\pm {_math(half_width)}$"
    if _EXPONENT.fullmatch(text):
        return f"\\num{{{text}}}"
    return latex_number(text)


def _math(number: str) -> str:
    return number.replace(",", "{,}")
