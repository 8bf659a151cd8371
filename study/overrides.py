"""`--set key=value`: changes to a grid before it is checked."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from study.problems import GridError, Problem, choices, shortened, shown
from study.yaml_text import MAX_DEPTH, parse_yaml


def apply_overrides(data: object, overrides: Iterable[str]) -> Any:
    """`data` with every `key=value` applied, in order.

    A key is a dotted path (`training.steps`, `arms.qlora.precision`, `seeds.0`); a member of a list is named by its
    `name` or its number. A value is YAML (`[1, 2]`, `{low: 1e-5, high: 1e-3}`). What the path leads to need not exist:
    whether the key is known is for the schema to say.

    Raises:
        GridError: a setting without `=`, a value that is no YAML, or a path through something that has no keys.
    """
    result = copy.deepcopy(data)
    problems: list[Problem] = []
    for override in overrides:
        key, separator, text = override.partition("=")
        path = key.strip().split(".")
        # Half a character, as a command line may hold, is the name of nothing and could not be looked at further.
        if not separator or not all(path) or len(path) > MAX_DEPTH or not key.strip().isprintable():
            problems.append(Problem.of("--set", override, "write key=value, such as training.steps=100"))
            continue
        try:
            _assign(result, path, parse_yaml(text))
        except GridError as error:
            problems += [
                Problem(
                    " ".join(("--set", shortened(key.strip()), problem.path)).strip(), problem.message, problem.value
                )
                for problem in error.problems
            ]
    if problems:
        raise GridError(problems)
    return result


def _assign(data: Any, path: Sequence[str], value: object) -> None:
    here = data
    for index, part in enumerate(path[:-1]):
        key = _key(here, part, path[:index])
        if isinstance(here, dict) and here.get(part) is None:
            here[key] = {}
        here = here[key]
    here[_key(here, path[-1], path[:-1])] = value


def _key(here: Any, part: str, above: Sequence[str]) -> str | int:
    """The key or index that `part` means in the container found at the path `above`."""
    if isinstance(here, dict):
        return part
    where = ".".join(above) or "the grid"
    if not isinstance(here, list):
        raise GridError([Problem("", f"{where} holds {shown(here)}, which has no keys")])
    names = [item.get("name") if isinstance(item, dict) else None for item in here]
    if part in names:
        return names.index(part)
    if part.isascii() and part.isdigit() and len(part) < 10 and int(part) < len(here):
        return int(part)
    known = [index if name is None else name for index, name in enumerate(names)]
    raise GridError([Problem("", f"{where} has no member {shown(part)}: {choices(known) if known else 'it is empty'}")])
