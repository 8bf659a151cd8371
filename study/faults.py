"""Pydantic's errors in the project's words: the path, the value and the choices of every fault."""

import difflib
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from study.problems import Problem, choices, labelled, shown

Place = tuple[str | int, ...]

# What a value should have been, by pydantic's names for the errors that say so.
_FORMS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
}
_BOUNDS = {
    "greater_than": ("gt", "must be above"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be below"),
    "less_than_equal": ("le", "must be at most"),
}
_LENGTHS = {
    "too_short": ("min_length", "needs at least", "value"),
    "too_long": ("max_length", "holds at most", "value"),
    "string_too_short": ("min_length", "needs at least", "character"),
    "string_too_long": ("max_length", "holds at most", "character"),
}


def problems_of(error: ValidationError, model: type[BaseModel], data: object) -> list[Problem]:
    """Every fault of `error` as a Problem, in the file's order, one for each place.

    A value that fits none of several allowed forms gives pydantic errors for each form: where one form got further
    than the others, its errors alone are told.
    """
    by_place: dict[Place, list[Any]] = {}
    for item in error.errors(include_url=False):
        # Pydantic counts sound members only: with a faulty one in it, a list would be called too short as well.
        if item["type"] != "too_short" or len(item["input"]) < item["ctx"]["min_length"]:
            by_place.setdefault(place_of(item, data), []).append(item)
    return [
        _problem(place, items, model, data)
        for place, items in by_place.items()
        if any(item["type"] not in _FORMS for item in items) or not _goes_on(place, by_place)
    ]


def _goes_on(place: Place, places: Iterable[Place]) -> bool:
    return any(len(other) > len(place) and other[: len(place)] == place for other in places)


def place_of(item: Any, data: object) -> Place:
    """Where one of pydantic's errors stands in `data`: its location without the names of union members in it."""
    place: list[str | int] = []
    here: Any = data
    for part in item["loc"]:
        inside = part in here if isinstance(here, dict) else isinstance(here, list) and part in range(len(here))
        if inside:
            place.append(part)
            here = here[part]
    return (*place, item["loc"][-1]) if item["type"] == "missing" else tuple(place)


def _problem(place: Place, items: Sequence[Any], model: type[BaseModel], data: object) -> Problem:
    path = labelled(place, data)
    first = items[0]
    if first["type"] == "extra_forbidden":
        return unknown_key(path, str(place[-1]), fields_at(model, place[:-1]))
    if first["type"] == "missing":
        return Problem(path, "missing: this key is required")
    messages = [_message(item) for item in items if item["type"] not in _FORMS]
    if not messages:
        messages = ["must be " + " or ".join(dict.fromkeys(_FORMS[item["type"]] for item in items))]
    return Problem.of(path, first["input"], " or ".join(dict.fromkeys(messages)))


def _message(item: Any) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind in ("literal_error", "enum"):
        return "choose from " + str(context["expected"]).replace("'", "").replace(" or ", ", ")
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{words} {_number(context[key])}"
    if kind in _LENGTHS:
        key, words, noun = _LENGTHS[kind]
        return f"{words} {context[key]} {noun}{'' if context[key] == 1 else 's'}"
    return str(item["msg"])


def _number(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def unknown_key(path: str, key: str, known: Sequence[str]) -> Problem:
    """The fault of a key that nothing knows, with the one that may have been meant."""
    close = difflib.get_close_matches(key, known, n=1) if len(key) < 100 else []
    return Problem(
        path, "unknown key" + (f" (did you mean {shown(close[0])}?)" if close else "") + f": {choices(known)}"
    )


def fields_at(model: type[BaseModel], place: Place) -> tuple[str, ...]:
    """The keys that the schema allows at `place`."""
    candidates: list[type[BaseModel]] = [model]
    for part in place:
        if isinstance(part, int):
            continue
        following: list[type[BaseModel]] = []
        for candidate in candidates:
            field = candidate.model_fields.get(part)
            if field is not None:
                following += _models_in(field.annotation)
        candidates = following or candidates
    return tuple(dict.fromkeys(name for candidate in candidates for name in candidate.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    arguments = typing.get_args(annotation)
    if not arguments:
        return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
    return [found for argument in arguments for found in _models_in(argument)]
