"""What a plan counts: every training that it leads to, and no time where a size is not known."""

import pytest

from harness.forecast import Pace
from harness.planning import make_plan
from harness.prospects import Workload, _seconds
from harness.specs import Specs
from harness.start import _workload
from study.grid import Grid, load_grid
from tests.unit.study.small_grid import SMALL

DROP_IN = "claims=[{candidate: qlora, reference: lora, metrics: [rouge1], drop_in: true}]"
PACE = Pace(100.0, 2.0, 10.0, 0.5, None, None, 1, "cpu", True)


def work(*overrides: str) -> tuple[Grid, Workload]:
    grid = load_grid(SMALL, overrides)
    return grid, _workload(grid, make_plan(grid, Specs(grid, {}).confirm_count(), None), None)


def test_drop_in_runs_repeats_and_trials_on_further_seeds_are_trainings_too() -> None:
    _, plain = work()
    assert plain.runs["zero-shot"] == (0, 0)
    assert plain.runs["lora"] == (4, 3)
    _, more = work("tune.reselect=2", "tune.reselect_seeds=[1, 2]", "arms.lora.repeats=2", DROP_IN)
    assert more.runs["lora"] == (4 + 2 * 2, 3 * 2)
    assert more.runs["qlora@double_quant=true"] == (4 + 2 * 2, 3 * 2)


def test_trainings_are_as_many_as_the_plan_s_own_count() -> None:
    grid, counted = work(DROP_IN)
    confirmed = sum(confirm for _, confirm in counted.runs.values())
    zero_shots = sum(not arm.trains for arm in grid.arms)
    assert confirmed + zero_shots == Specs(grid, {}).confirm_count()


@pytest.mark.parametrize("unknown", ["validation", "test"])
def test_where_a_size_is_not_known_no_time_is_told(unknown: str) -> None:
    sizes: dict[str, int | None] = {"train": 8, "validation": 4, "test": 6}
    known = Workload({}, sizes)
    # Trials share a start of 10 seconds; a training takes 2 seconds and 1,000 tokens at 100 a second.
    assert _seconds(known, (2, 1), PACE, 1_000) == pytest.approx(2 * (12 + 2) + 10 + (10 + 12 + 3))
    assert _seconds(Workload({}, sizes | {unknown: None}), (2, 1), PACE, 1_000) is None
    assert _seconds(known, (2, 1), PACE, None) is None
