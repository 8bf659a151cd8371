"""What is wrong with an input, as values: every fault is collected before anything is refused."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_SHOWN_CHARACTERS = 60
_SHOWN_CHOICES = 40


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of an input: where it stands, the value as it is quoted (None: nothing to quote), and what is wrong."""

    path: str
    message: str
    value: str | None = None

    @classmethod
    def of(cls, path: str, value: object, message: str) -> "Problem":
        """A fault of `value`, which is quoted."""
        return cls(path, message, shown(value))

    def __str__(self) -> str:
        subject = " ".join(part for part in (self.path, self.value) if part)
        return one_line(f"{subject}: {self.message}" if subject else self.message)

    def is_under(self, path: str) -> bool:
        """Whether the fault stands at `path` or inside of it."""
        return self.path == path or self.path.startswith((f"{path}.", f"{path}["))


class GridError(ValueError):
    """An input that cannot be used; `problems` lists every fault that was found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def choices(values: Iterable[object]) -> str:
    """The clause that ends a message about a wrong value: `choose from a, b, c`."""
    texts = [str(value) for value in values]
    more = f" and {len(texts) - _SHOWN_CHOICES} more" if len(texts) > _SHOWN_CHOICES else ""
    return "choose from " + ", ".join(texts[:_SHOWN_CHOICES]) + more


def shown(value: object, limit: int = _SHOWN_CHARACTERS) -> str:
    """A value as it is quoted in a message: as a grid would write it, cut to `limit` characters."""
    return shortened(_written(value), limit)


def _written(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_written(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_written(item)}" for key, item in value.items()) + "}"
    return repr(str(value)) if isinstance(value, str) else repr(value)


def one_line(text: str) -> str:
    """`text` without line breaks, terminal escapes and other signs that print nothing: they are written out."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def shortened(text: str, limit: int = _SHOWN_CHARACTERS) -> str:
    """`text`, cut to `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shortened_within(text: str, limit: int) -> str:
    """`text`, cut in its middle to `limit` characters: names that differ at their end stay apart."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return text[: limit - 1 - tail] + "…" + text[-tail:]


def labelled(place: Sequence[str | int], data: object) -> str:
    """A place in `data` as a path, with the name of a list's member beside its number: `arms[1] (qlora).precision`."""
    text = ""
    here: Any = data
    for part in place:
        here = _member(here, part)
        if isinstance(part, int):
            name = here.get("name") if isinstance(here, dict) else None
            text += f"[{part}]" + (f" ({shortened(name)})" if isinstance(name, str) else "")
        else:
            text += ("." if text else "") + shortened(part)
    return one_line(text)


def _member(here: Any, part: str | int) -> Any:
    if isinstance(here, dict):
        return here.get(part)
    return here[part] if isinstance(here, list) and isinstance(part, int) and part < len(here) else None
