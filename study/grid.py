"""The grid: a whole study as one checked value."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from study.arms import Arm, Dtype
from study.bytesize import memory_bytes
from study.claiming import Contestants, resolve_claims
from study.claims import Claim
from study.datasets import DataSpec
from study.matrix import Expansion, expand
from study.models import KNOWN_SHAPES, ModelSpec
from study.overrides import apply_overrides
from study.problems import GridError, Problem, choices, labelled, shown
from study.prompts import Prompts
from study.reading import (
    read_data,
    read_generation,
    read_model,
    read_prompts,
    read_space,
    read_training,
    read_tune,
)
from study.schema import GridFile, check
from study.settings import Generation, Protocol, Training
from study.space import Hyperparameters, Space, Tune, sobol_block
from study.yaml_text import read_yaml

__all__ = ["Grid", "Prompts", "Protocol", "Tune", "load_grid"]

# Arms, trials, seeds and repeats multiply; what is planned is a list of every run.
MAX_RUNS = 100_000


@dataclass(frozen=True, slots=True)
class Grid:
    """A study, fully checked. `device` is where it must run; `timeout_s` bounds one run;
    `repeats` is how often each confirm run is made (for the noise of memory and time), `repeats_of` that of the arms of
    a family which differ; `memory_limit_bytes` is the size of the card to be played, if any; `save_adapters`
    says which adapters of confirm runs are kept."""

    study: str
    protocol: Protocol
    model: ModelSpec
    data: DataSpec
    prompts: Prompts
    arms: tuple[Arm, ...]
    space: Space | None
    tune: Tune
    seeds: tuple[int, ...]
    training: Training
    generation: Generation
    claims: tuple[Claim, ...]
    device: Literal["auto", "gpu", "cpu"]
    timeout_s: float | None
    repeats: int
    repeats_of: Mapping[str, int]
    memory_limit_bytes: int | None
    save_adapters: Literal["none", "first-seed", "all"]

    @property
    def trained_arms(self) -> tuple[Arm, ...]:
        """The arms that are trained, in the grid's order."""
        return tuple(arm for arm in self.arms if arm.trains)

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def repeats_for(self, arm: Arm) -> int:
        """How often each confirm run of an arm is made."""
        return self.repeats_of.get(arm.family, self.repeats)

    def zero_shot_of(self, arm: Arm) -> Arm | None:
        """The zero-shot arm on the same base as `arm`, or None where the grid has none."""
        return next((other for other in self.arms if not other.trains and other.base == arm.base), None)

    def space_of(self, arm: Arm) -> Space:
        """The search space of an arm: the grid's, with what the arm fixes."""
        if self.space is None:
            raise ValueError("a grid without trained arms has no space")
        return self.space.narrowed(arm.rank, arm.alpha, arm.learning_rate)

    def block(self, arm: Arm) -> tuple[Hyperparameters, ...]:
        """The shared block of hyperparameter sets as `arm` sees it (one set where there is nothing to choose).

        Points that come to one set in a space of few values are one trial: a repetition would be the same run.
        """
        space = self.space_of(arm)
        points = sobol_block(self.tune.trials, self.tune.sobol_seed) or ((0.0, 0.0, 0.0),)
        return tuple(dict.fromkeys(space.at(point) for point in points))


def load_grid(text: str, overrides: Iterable[str] = ()) -> Grid:
    """The grid that a YAML text, with `--set` overrides, stands for.

    Raises:
        GridError: with every fault that was found, each with its path, value and choices.
    """
    document = read_yaml(text)
    try:
        data = apply_overrides(document.value, overrides)
    except GridError as error:
        raise GridError([*document.problems, *error.problems]) from None
    if not isinstance(data, dict):
        wanted = f"a grid is a mapping of keys: {choices(GridFile.model_fields)}"
        raise GridError([*document.problems, Problem.of("", data, wanted) if text.strip() else Problem("", wanted)])
    grid, problems = _grid(data)
    # A value that YAML could not give is missing in `data`; the schema's word about that would be a second message.
    told = [problem.path for problem in document.problems]
    fresh = [problem for problem in problems if not any(problem.is_under(path) for path in told)]
    faults = [*document.problems, *fresh]
    if faults or grid is None:
        raise GridError(sorted(dict.fromkeys(faults), key=_position))
    return grid


def _position(problem: Problem) -> int:
    """The place of a problem's top-level key in the file's order; what belongs to no key stands first."""
    keys = list(GridFile.model_fields)
    key = problem.path.partition(".")[0].partition("[")[0]
    return keys.index(key) if key in keys else -1


def _grid(data: dict[str, Any]) -> tuple[Grid | None, list[Problem]]:
    """The grid (None where a section is not sound) and every fault: each section is read as far as it is sound."""
    checked = check(data)
    parts = checked.parts
    problems = [*checked.problems, *_names_twice(data)]
    expansion = expand(parts.arms, parts.training)
    claims, claim_problems = resolve_claims(parts.claims, Contestants(expansion.arms, _unread(data, expansion.arms)))
    problems += (*expansion.problems, *claim_problems)
    protocol = parts.protocol
    model = None if parts.model is None else read_model(parts.model, problems)
    source = None if parts.data is None else read_data(parts.data, problems)
    prompts = None if parts.prompt is None else read_prompts(parts.prompt, protocol, problems)
    space = None if parts.space is None else read_space(parts.space, problems)
    tune = None if parts.tune is None else read_tune(parts.tune, problems)
    training = None if parts.training is None else read_training(parts.training, protocol, problems)
    generation = None if parts.generation is None else read_generation(parts.generation, protocol, problems)
    problems += _seed_problems(parts.seeds, tune, expansion)
    problems += _space_problems(space, tune, expansion, stated=data.get("space") is not None)
    problems += _target_problems(model, expansion)
    problems += _scaling_problems(training, expansion)
    if problems or not (
        model and source and prompts and tune and training and generation and isinstance(parts, GridFile)
    ):
        return None, problems
    minutes = parts.training.timeout_minutes
    grid = Grid(
        study=parts.study,
        protocol=parts.protocol,
        model=model,
        data=source,
        prompts=prompts,
        arms=expansion.arms,
        space=space,
        tune=tune,
        seeds=parts.seeds,
        training=training,
        generation=generation,
        claims=claims,
        device=parts.training.device,
        timeout_s=None if minutes is None else 60.0 * minutes,
        repeats=parts.training.repeats,
        repeats_of={section.name: section.repeats for section in parts.arms if section.repeats is not None},
        memory_limit_bytes=None if parts.training.memory_limit is None else memory_bytes(parts.training.memory_limit),
        save_adapters=parts.training.save_adapters,
    )
    return grid, [*problems, *_size_problems(grid)]


def _size_problems(grid: Grid) -> Iterator[Problem]:
    trials = grid.tune.trials + grid.tune.tpe_trials
    runs = sum(trials + len(grid.seeds) * grid.repeats_for(arm) if arm.trains else 1 for arm in grid.arms)
    if runs > MAX_RUNS:
        yield Problem("", f"{runs} runs (arms times trials, seeds and repeats): a study has at most {MAX_RUNS}")


def _named(data: Mapping[str, Any]) -> list[str | None]:
    """The name of every arm as the file states it, whether or not the arm is sound; None where there is none."""
    arms = data.get("arms")
    if not isinstance(arms, list) or not arms:
        return [None]
    names = [arm.get("name") if isinstance(arm, dict) else None for arm in arms]
    return [name if isinstance(name, str) else None for name in names]


def _names_twice(data: Mapping[str, Any]) -> Iterator[Problem]:
    names = _named(data)
    for index, name in enumerate(names):
        if name is not None and name in names[:index]:
            yield Problem.of(labelled(("arms", index, "name"), data), name, "is the name of another arm")


def _unread(data: Mapping[str, Any], arms: Sequence[Arm]) -> set[str | None]:
    """Names of arms that no claim can be held against: those with faults, and those that two arms have."""
    stated = Counter(_named(data))
    sound = {arm.family for arm in arms}
    return {name for name, count in stated.items() if count > 1 or name not in sound}


def _seed_problems(seeds: Sequence[int], tune: Tune | None, expansion: Expansion) -> Iterator[Problem]:
    twice = [seed for seed, count in Counter(seeds).items() if count > 1]
    if twice:
        yield Problem.of("seeds", twice, "each seed stands there once")
    if tune is not None and any(arm.trains for arm in expansion.arms):
        stale = sorted({tune.seed, *tune.reselect_seeds} & set(seeds))
        if stale:
            message = "tuning has these seeds too (tune.seed, tune.reselect_seeds): confirm needs fresh ones"
            yield Problem.of("seeds", stale, message)


def _space_problems(space: Space | None, tune: Tune | None, expansion: Expansion, *, stated: bool) -> Iterator[Problem]:
    trained = [arm for arm in expansion.arms if arm.trains]
    if trained and not stated:
        yield Problem("space", "missing: trained arms need rank, alpha and learning_rate")
    if space is None or tune is None or tune.trials:
        return
    for arm in trained:
        if not space.narrowed(arm.rank, arm.alpha, arm.learning_rate).is_point:
            message = f"{shown(arm.name)} has hyperparameters to choose: give trials or single values"
            yield Problem.of("tune.trials", tune.trials, message)
            return


def _scaling_problems(training: Training | None, expansion: Expansion) -> Iterator[Problem]:
    """Gradients in fp16 cannot be scaled back (torch's GradScaler): fp16 arms need adapters in fp32."""
    if training is None or training.adapter_dtype == "fp32":
        return
    for arm in expansion.arms:
        if arm.trains and arm.compute_dtype is Dtype.FP16:
            message = f"{shown(arm.name)} computes in fp16, whose gradients cannot be scaled: {choices(('fp32',))}"
            yield Problem.of("training.adapter_dtype", training.adapter_dtype, message)
            return


def _target_problems(model: ModelSpec | None, expansion: Expansion) -> Iterator[Problem]:
    shape = None if model is None else KNOWN_SHAPES.get(model.id)
    if shape is None:
        return
    for arm in expansion.arms:
        try:
            shape.targeted(arm.targets)
        except ValueError as error:
            yield Problem(expansion.path(arm, "targets"), str(error))
