"""Expansion: the arms of a grid, times their axes."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from study.arms import DEFAULT_COMPUTE, Arm, Dtype, Method, Precision
from study.faults import problems_of, unknown_key
from study.problems import Problem, choices, shown
from study.schema import ArmFields, ArmSection, TrainingSection

MAX_ARMS = 512
T = TypeVar("T")
_AXES = tuple(ArmFields.model_fields)
# What only a trained arm has.
_OF_TRAINING = ("targets", "dropout", "checkpointing", "rank", "alpha", "learning_rate")


@dataclass(frozen=True, slots=True)
class Expansion:
    """Every sound arm of a grid in the grid's order, and the faults found on the way.

    `sections` maps an arm's family to the section that it comes from.
    """

    arms: tuple[Arm, ...]
    problems: tuple[Problem, ...]
    sections: Mapping[str, "ArmSource"]

    def path(self, arm: Arm, key: str) -> str:
        """Where the grid states `key` of an arm: `arms[1] (qlora).axes.targets`."""
        return self.sections[arm.family].path(key)


@dataclass(frozen=True, slots=True)
class ArmSource:
    """A section of `arms` and its place in the list."""

    section: ArmSection
    index: int

    @property
    def root(self) -> str:
        """The path of the section itself."""
        return f"arms[{self.index}] ({self.section.name})"

    @property
    def groups(self) -> tuple[tuple[str, Mapping[str, list[Any]]], ...]:
        """The crossed axes and every paired group, each with its path."""
        paired = ((f"{self.root}.paired[{number}]", group) for number, group in enumerate(self.section.paired))
        return ((f"{self.root}.axes", self.section.axes), *paired)

    def path(self, key: str) -> str:
        """Where the section states `key`: among its axes, or as a value of its own."""
        return next((f"{where}.{key}" for where, group in self.groups if key in group), f"{self.root}.{key}")


def expand(sections: Sequence[ArmSection | None], training: TrainingSection | None) -> Expansion:
    """Every arm: crossed axes multiply, the lists of one `paired` group advance together.

    Each axis value is part of the arm's name: `qlora@targets=attention,double_quant=false`. A section that is None has
    a fault that is told elsewhere; so has a training section that is None, whose defaults then stand in.
    """
    arms: list[Arm] = []
    problems: list[Problem] = []
    sources: dict[str, ArmSource] = {}
    for index, section in enumerate(sections):
        if section is None:
            continue
        source = ArmSource(section, index)
        sources.setdefault(section.name, source)
        members, faults = _members(source, training)
        arms += members
        problems += faults
    if len(arms) > MAX_ARMS:
        problems.append(Problem.of("arms", len(arms), f"at most {MAX_ARMS} arms after the axes are multiplied"))
    elif training is not None:
        problems += _twins(arms, sources)
    return Expansion(tuple(arms), tuple(dict.fromkeys(problems)), sources)


def _members(source: ArmSource, training: TrainingSection | None) -> tuple[list[Arm], list[Problem]]:
    problems = list(_axis_problems(source))
    if problems:
        return [], problems
    count = math.prod(len(factor) for factor in _factors(source.section))
    if count > MAX_ARMS:
        return [], [Problem.of(source.root, count, f"at most {MAX_ARMS} arms after the axes are multiplied")]
    arms: list[Arm] = []
    for parts in itertools.product(*_factors(source.section)):
        values = {key: value for part in parts for key, value in part.items()}
        made = _member(source, values, training or TrainingSection())
        if isinstance(made, Arm):
            arms.append(made)
        else:
            problems += made
    return ([] if problems else arms), problems


def _factors(section: ArmSection) -> list[list[dict[str, Any]]]:
    crossed = [[{key: value} for value in values] for key, values in section.axes.items()]
    paired = [
        [dict(zip(group, values, strict=True)) for values in zip(*group.values(), strict=True)]
        for group in section.paired
    ]
    return crossed + paired


def _axis_problems(source: ArmSource) -> Iterator[Problem]:
    seen: set[str] = set()
    for where, group in source.groups:
        for key, values in group.items():
            path = f"{where}.{key}"
            if key not in _AXES:
                yield unknown_key(path, key, _AXES)
                continue
            if key in seen:
                yield Problem(path, "this arm has the axis twice")
            elif key in source.section.model_fields_set:
                yield Problem(path, f"{source.root}.{key} states it too: leave one of them out")
            elif len({axis_text(value) for value in values}) < len(values):
                yield Problem.of(path, values, "holds a value twice")
            seen.add(key)
            for number, value in enumerate(values):
                yield from _value_problems(path, key, number, value)
    for number, group in enumerate(source.section.paired):
        if len({len(values) for values in group.values()}) > 1:
            counts = ", ".join(f"{shown(key)} has {len(values)}" for key, values in group.items())
            yield Problem(f"{source.root}.paired[{number}]", f"paired axes need equal lengths: {counts}")


def _value_problems(path: str, key: str, number: int, value: object) -> Iterator[Problem]:
    """The faults that the same value would have in an arm, at the place of the axis value."""
    if value is None:
        yield Problem.of(f"{path}[{number}]", None, "is no value of an axis: write what is meant")
        return
    data = {key: value}
    try:
        ArmFields.model_validate_json(json.dumps(data))
    except ValidationError as error:
        for problem in problems_of(error, ArmFields, data):
            yield Problem(f"{path}[{number}]{problem.path.removeprefix(key)}", problem.message, problem.value)


def axis_text(value: object) -> str:
    """An axis value as it stands in an arm's name: `false`, `q_proj+v_proj`, `8`."""
    if isinstance(value, bool):
        return str(value).lower()
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _member(source: ArmSource, values: Mapping[str, Any], training: TrainingSection) -> Arm | list[Problem]:
    section = source.section
    stated = section.model_dump(mode="json", include=section.model_fields_set & set(_AXES))
    entry = ArmFields.model_validate_json(json.dumps(stated | dict(values)))
    problems = list(_contradictions(entry, source))
    if entry.precision is None:
        problems.append(Problem(f"{source.root}.precision", "missing: an arm needs it, here or as an axis"))
    if problems or entry.precision is None:
        return problems
    axes = tuple((key, axis_text(value)) for key, value in values.items())
    suffix = ",".join(f"{key}={value}" for key, value in axes)
    trains = entry.method is not Method.NONE
    return Arm(
        name=f"{section.name}@{suffix}" if suffix else section.name,
        family=section.name,
        axes=axes,
        precision=entry.precision,
        method=entry.method,
        compute_dtype=entry.compute_dtype or DEFAULT_COMPUTE[entry.precision],
        double_quant=entry.double_quant is not False if entry.precision.is_4bit else None,
        targets=_targets(entry) if trains else (),
        dropout=_first(entry.dropout, training.dropout) if trains else 0.0,
        checkpointing=trains and _first(entry.checkpointing, training.checkpointing),
        rank=entry.rank,
        alpha=entry.alpha,
        learning_rate=entry.learning_rate,
    )


def _first(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value


def _targets(entry: ArmFields) -> tuple[str, ...]:
    if entry.targets is None:
        return ("all-linear",)
    return (entry.targets,) if isinstance(entry.targets, str) else tuple(entry.targets)


def _contradictions(entry: ArmFields, source: ArmSource) -> Iterator[Problem]:
    precision = entry.precision
    if precision is not None and entry.double_quant is not None and not precision.is_4bit:
        message = f"needs a 4-bit precision, not {precision!s}: {choices(('nf4', 'fp4'))}"
        yield Problem.of(source.path("double_quant"), entry.double_quant, message)
    if precision is not None and entry.compute_dtype is not None:
        default = DEFAULT_COMPUTE[precision]
        if not precision.is_quantised and entry.compute_dtype is not default:
            message = f"differs from the unquantised precision {precision!s}: leave it out"
            yield Problem.of(source.path("compute_dtype"), entry.compute_dtype, message)
        if precision is Precision.INT8 and entry.compute_dtype is Dtype.FP32:
            yield Problem.of(source.path("compute_dtype"), entry.compute_dtype, "for int8: choose from bf16, fp16")
    if isinstance(entry.targets, list) and len(set(entry.targets)) < len(entry.targets):
        yield Problem.of(source.path("targets"), entry.targets, "holds a module twice")
    if entry.method is Method.NONE:
        stated = {key: getattr(entry, key) for key in _OF_TRAINING} | {"repeats": source.section.repeats}
        for key, value in stated.items():
            if value is not None:
                yield Problem.of(source.path(key), value, "on a zero-shot arm (method none), which trains nothing")


def _twins(arms: Sequence[Arm], sources: Mapping[str, ArmSource]) -> Iterator[Problem]:
    """Arms that are the same under two names. Equal names are told where the file is read."""
    first: dict[str, Arm] = {}
    for arm in arms:
        twin = first.setdefault(repr(sorted(arm.content().items())), arm)
        if twin.name != arm.name:
            path = sources[arm.family].root
            yield Problem(path, f"{shown(arm.name)} is the same arm as {shown(twin.name)} under another name")
