"""YAML to plain values, strictly: one safe schema, no duplicate keys, bounded size."""

import math
import re
from dataclasses import dataclass
from typing import Any

import yaml

from study.problems import GridError, Problem, labelled, shown

MAX_CHARACTERS = 200_000
MAX_DEPTH = 12
MAX_NODES = 20_000
_MAX_DIGITS = 20

_CORE = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Composes nodes; recognises null, booleans and numbers only (YAML 1.2's core): `on`, dates, `1:30` stay text.

    Depth and number of nodes are bounded while they are composed, so that no text can exhaust the stack.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.tags: dict[int, str] = {}
        self._depth = 0
        self._count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """One node and what is under it; an explicit tag is remembered by the node's identity."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        line = _line(event)
        self._depth += 1
        self._count += 1
        if self._depth > MAX_DEPTH:
            raise GridError([Problem("", f"line {line} is nested deeper than {MAX_DEPTH} levels")])
        if self._count > MAX_NODES:
            raise GridError([Problem("", f"line {line}: a grid has at most {MAX_NODES} values")])
        tag = getattr(event, "tag", None)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if tag is not None and node is not None:
            self.tags[id(node)] = tag
        return node


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver(f"{_CORE}null", re.compile(r"^(?:~|null|Null|NULL|)$"), [*"~nN", ""])
_Loader.add_implicit_resolver(f"{_CORE}bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(f"{_CORE}int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
# YAML 1.1 reads 1e-4 as text, since it asks for a dot; people write it, so both forms are numbers here.
_Loader.add_implicit_resolver(
    f"{_CORE}float",
    re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"),
    list("-+0123456789."),
)


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML text stands for; where a value could not be used it is None and `problems` says why."""

    value: Any
    problems: tuple[Problem, ...]


def read_yaml(text: str) -> Document:
    """The plain value (dict, list, str, int, float, bool, None) of a YAML text, with every fault inside of it:
    a tag or an alias, a duplicate key, a key that is no text, a number that is not finite, a control character.

    Raises:
        GridError: there is no value at all, for the text is not YAML, too large or too deep.
    """
    if len(text) > MAX_CHARACTERS:
        raise GridError([Problem("", f"{len(text)} characters: a grid has at most {MAX_CHARACTERS}")])
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        raise GridError([Problem("", f"not YAML: {_reason(error, text)}")]) from error
    except (ValueError, OverflowError) as error:
        # PyYAML's scanner takes any eight hexadecimal digits for a character, and any digits for a version of YAML.
        if isinstance(error, GridError):
            raise
        told = f"line {loader.get_mark().line + 1}: a number in an escape or a directive is too large"
        raise GridError([Problem("", f"not YAML: {told}")]) from error
    if node is None:
        return Document(None, ())
    reader = _Reader(loader.tags)
    value = reader.value(node, ())
    problems = (Problem(labelled(place, value), message, quoted) for place, message, quoted in reader.faults)
    return Document(value, tuple(problems))


def parse_yaml(text: str) -> Any:
    """The plain value of a YAML text.

    Raises:
        GridError: it has a fault; every one is listed.
    """
    document = read_yaml(text)
    if document.problems:
        raise GridError(document.problems)
    return document.value


def _reason(error: yaml.YAMLError, text: str) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"line {line}: the character {shown(text[error.position])} is not allowed"
    mark = getattr(error, "problem_mark", None)
    reason = str(getattr(error, "problem", None) or "it cannot be read")[:200]
    return f"line {mark.line + 1}, column {mark.column + 1}: {reason}" if mark else reason


def _line(item: yaml.Event | yaml.Node) -> int:
    """The number of the line that an event or a node starts on, from 1."""
    return 0 if item.start_mark is None else item.start_mark.line + 1


class _Reader:
    """Walks the composed nodes once, so that every fault is found and an alias cannot multiply the work."""

    def __init__(self, tags: dict[int, str]) -> None:
        self.faults: list[tuple[tuple[str | int, ...], str, str | None]] = []
        self._tags = tags
        self._seen: set[int] = set()

    def value(self, node: yaml.Node, place: tuple[str | int, ...]) -> Any:
        if not self._usable(node, place):
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, index)) for index, item in enumerate(node.value)]
        return self._scalar(str(node.value), node.tag.removeprefix(_CORE), place)

    def _usable(self, node: yaml.Node, place: tuple[str | int, ...]) -> bool:
        if id(node) in self._seen:
            self.faults.append((place, "YAML aliases (*name) are not allowed: write it out", None))
            return False
        self._seen.add(id(node))
        if id(node) in self._tags:
            self.faults.append((place, "YAML tags are not allowed: leave it out", shown(self._tags[id(node)])))
            return False
        return True

    def _mapping(self, node: yaml.MappingNode, place: tuple[str | int, ...]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.append((place, f"a key must be text (line {line})", None))
                continue
            key = str(key_node.value)
            where = (*place, key)
            if not self._usable(key_node, where):
                continue
            if key in result:
                self.faults.append((where, f"duplicate key (again on line {line})", None))
                continue
            if self._is_text(key, where):
                result[key] = self.value(value_node, where)
        return result

    def _scalar(self, text: str, kind: str, place: tuple[str | int, ...]) -> Any:
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind in ("int", "float"):
            return self._number(text, kind, place)
        return text if self._is_text(text, place) else None

    def _number(self, text: str, kind: str, place: tuple[str | int, ...]) -> int | float | None:
        if kind == "int" and len(text) <= _MAX_DIGITS:
            return int(text)
        number = float(text) if kind == "float" else math.inf
        if math.isfinite(number):
            return number
        why = "too large for a number" if kind == "float" else f"more than {_MAX_DIGITS} digits"
        self.faults.append((place, why, shown(text)))
        return None

    def _is_text(self, text: str, place: tuple[str | int, ...]) -> bool:
        odd = next((sign for sign in text if _is_control(sign)), None)
        if odd is not None:
            self.faults.append((place, f"the character {odd!r} is not allowed", shown(text)))
        return odd is None


def _is_control(sign: str) -> bool:
    """C0 and C1 controls but for tab and line feed, and lone surrogates, which no file can hold."""
    code = ord(sign)
    return (code < 0x20 and sign not in "\t\n") or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000
