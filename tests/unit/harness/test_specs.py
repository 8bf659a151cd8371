"""From a grid to runs: repeats, limits, and how many runs follow the freeze."""

from collections import Counter

import pytest

from harness.specs import Specs
from results.schema import Choice, Frozen, ModelPart
from study.dialogues import generate
from study.grid import load_grid
from study.runs import Purpose, RunSpec
from tests.unit.results.records import frozen
from tests.unit.study.small_grid import SMALL

EXAMPLES = generate(0, {"train": 8, "validation": 4, "test": 4}, turns=(4, 5))
CLAIM = 'claims.0={candidate: "qlora@double_quant=true", reference: lora, drop_in: true}'


def specs_of(*overrides: str) -> Specs:
    return Specs.of(load_grid(SMALL, overrides), EXAMPLES)


def freeze(specs: Specs) -> Frozen:
    """A freeze in which every trained arm has a rank of its own."""
    choices = [
        Choice(
            arm=arm.name,
            rank=4 + number,
            alpha=8,
            learning_rate=1e-3,
            run_id=None,
            score=None,
            trials=0,
            completed_trials=0,
            edges=(),
            ranking=(),
            reason="",
        ).model_dump()
        for number, arm in enumerate(specs.grid.trained_arms)
    ]
    return frozen(choices=choices, model=ModelPart(id="a/b", revision=None, weights="random").model_dump())


def confirms(specs: Specs) -> list[RunSpec]:
    return list(specs.confirms(freeze(specs)))


def ids(*overrides: str) -> set[str]:
    specs = specs_of(*overrides)
    runs = [*confirms(specs), *specs.baselines("test"), *specs.baselines("validation")]
    runs += [run for arm in specs.grid.trained_arms for run in specs.block(arm)]
    found = [run.run_id for run in runs]
    assert len(set(found)) == len(found)
    return set(found)


@pytest.mark.parametrize(
    ("overrides", "each"),
    [
        ((), (1, 1, 1)),
        (("training.repeats=2",), (2, 2, 2)),
        (("arms.lora.repeats=4",), (4, 1, 1)),
        (("arms.qlora.repeats=3",), (1, 3, 3)),
        (("training.repeats=2", "arms.qlora.repeats=1", "arms.lora.repeats=5"), (5, 1, 1)),
    ],
)
@pytest.mark.parametrize("claim", [(), (CLAIM,)])
def test_repeats_of_every_arm_are_counted_as_they_are_made(
    overrides: tuple[str, ...], each: tuple[int, int, int], claim: tuple[str, ...]
) -> None:
    specs = specs_of(*overrides, *claim)
    runs = confirms(specs)
    tuned = Counter(run.arm.name for run in runs if run.purpose is Purpose.TUNED)
    names = ("lora", "qlora@double_quant=true", "qlora@double_quant=false")
    assert tuned == {name: 3 * count for name, count in zip(names, each, strict=True)}
    # A drop-in run is as much its candidate's as a tuned one.
    drop_ins = [run for run in runs if run.purpose is Purpose.DROP_IN]
    assert len(drop_ins) == (3 * each[1] if claim else 0)
    assert specs.confirm_count() == len(runs) + len(specs.baselines("test"))


def test_a_run_and_its_repeats_differ_in_their_number_alone() -> None:
    runs = [run for run in confirms(specs_of("arms.lora.repeats=3")) if run.arm.name == "lora"]
    assert [(run.seed, run.repeat) for run in runs] == [(seed, n) for seed in (11, 12, 13) for n in range(3)]


def test_more_repeats_of_an_arm_add_runs_and_change_none() -> None:
    once, more = ids(), ids("arms.lora.repeats=3")
    assert once < more
    assert len(more) == len(once) + 3 * 2


def blocks(specs: Specs) -> list[RunSpec]:
    """The trials of every arm."""
    return [run for arm in specs.grid.trained_arms for run in specs.block(arm)]


def test_a_memory_limit_makes_every_run_on_the_test_split_another_one_and_leaves_the_choices() -> None:
    plain, limited = ids(), ids("training.memory_limit=8GiB")
    assert len(plain) == len(limited)
    free, bound = specs_of(), specs_of("training.memory_limit=8GiB")
    assert plain & limited == {run.run_id for run in (*free.baselines("validation"), *blocks(free))} & plain
    assert [run.run_id for run in blocks(free)] == [run.run_id for run in blocks(bound)]
    assert ids("training.memory_limit=8192MiB") == limited
    specs = specs_of("training.memory_limit=8GiB")
    assert {run.memory_limit_bytes for run in (*confirms(specs), *specs.baselines("test"))} == {8 * 1024**3}


def test_before_the_freeze_every_rank_may_be_confirmed_on_every_seed() -> None:
    specs = specs_of()
    possible = list(specs.possible_confirms())
    seen = Counter((spec.arm.name, spec.hyperparameters.rank, spec.seed) for spec in possible if spec.hyperparameters)
    assert set(seen) == {
        (arm.name, rank, seed) for arm in specs.grid.trained_arms for rank in (4, 8) for seed in (11, 12, 13)
    }
    assert {spec.evaluated.split for spec in possible} == {"test"}
