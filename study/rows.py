"""From the rows of a data file to examples: which fields are read, and which rows are one dialogue."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from study.examples import Example

_NUMBERED = re.compile(r"^summary(\d{1,9})$", re.ASCII)
_ID_FIELDS = ("id", "fname")


class RowError(ValueError):
    """A row that is no example; one line that names the file and the row."""


def examples_of(
    rows: Iterable[Mapping[str, Any]], dialogue_field: str, fields: Sequence[str] | None, where: str
) -> Iterator[Example]:
    """One example a row, in its order; `fields` are the reference columns, None means those that each row has.

    Raises:
        RowError: a row without dialogue or without summary; `where` is how it names the file.
    """
    for number, row in enumerate(rows):
        dialogue = row.get(dialogue_field)
        if not isinstance(dialogue, str) or not dialogue.strip():
            raise RowError(f"{where}: row {number} has no text in {dialogue_field!r} (it has {sorted(row)})")
        columns = fields or summary_fields(row)
        references = [row[column].strip() for column in columns if isinstance(row.get(column), str)]
        references = [reference for reference in references if reference]
        if not references:
            raise RowError(f"{where}: row {number} has no summary (fields {sorted(row)}): set summary_fields")
        yield Example(_identity(row, number), _unix(dialogue), tuple(_unix(reference) for reference in references))


def summary_fields(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The reference columns of a row: `summary`, or `summary1`, `summary2`, … in their order."""
    if isinstance(row.get("summary"), str):
        return ("summary",)
    numbered = [(int(match[1]), key) for key in row if (match := _NUMBERED.match(key))]
    return tuple(key for _, key in sorted(numbered))


def _identity(row: Mapping[str, Any], number: int) -> str:
    found = [row[field] for field in _ID_FIELDS if isinstance(row.get(field), str | int)]
    return str(found[0]) if found else f"row-{number}"


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def merged(examples: Sequence[Example]) -> list[Example]:
    """Examples of equal dialogue as one, with all their references.

    The Hub's DialogSum lists each of its 500 test dialogues three times, once a reference; counted as rows they would
    make the standard error 1.4 times too small.
    """
    by_dialogue: dict[str, list[Example]] = {}
    for example in examples:
        by_dialogue.setdefault(example.dialogue, []).append(example)
    return [
        Example(group[0].id, dialogue, tuple(reference for item in group for reference in item.references))
        for dialogue, group in by_dialogue.items()
    ]


def text_lines(text: str) -> list[str]:
    """One prediction a line; an empty line is an empty prediction, a last line break ends the last one."""
    # Split at line feeds alone: str.splitlines would also break at characters that a prediction may hold.
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines
