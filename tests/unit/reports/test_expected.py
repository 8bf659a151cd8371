"""Expected validation performance: the formula, and which trials it may count."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.evidence import gather
from reports.expected import ExpectedCurve, expected_best, expected_curves
from results.schema import Status
from results.store import RecordStore, read_frozen, read_records, write_frozen
from tests.unit.reports.records import LORA, QLORA, ZERO_SHOT, Arm
from tests.unit.reports.trial_scores import add_trial, trial_id, write_tuned

FOUR: tuple[Status, ...] = ("completed",) * 4
ARMS = (ZERO_SHOT, Arm("lora", trial_statuses=FOUR), Arm("qlora", trial_statuses=FOUR))
SCORES = {"lora": [20.0, 10.0, 80.0, 40.0], "qlora": [10.0, 20.0, 40.0, 80.0]}


def curves(results: Path, scores: Any = None, **changes: Any) -> dict[str, ExpectedCurve]:
    folder = write_tuned(results, SCORES if scores is None else scores, **({"arms": ARMS} | changes))
    return {curve.arm: curve for curve in expected_curves(gather(folder))}


def values(curve: ExpectedCurve) -> list[float]:
    return [point.score for point in curve.points]


# --- the formula ---


def test_the_fixture_gives_the_computed_values() -> None:
    assert expected_best([0.1, 0.2, 0.4, 0.8]) == pytest.approx((0.375, 0.51875, 0.60469, 0.66055), abs=1e-5)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=4))
def test_it_is_the_mean_of_the_best_over_every_draw_with_replacement(scores: list[float]) -> None:
    for count, value in enumerate(expected_best(scores), start=1):
        draws = itertools.product(scores, repeat=count)
        assert value == pytest.approx(np.mean([max(draw) for draw in draws]), abs=1e-9)


def test_equal_scores_are_expected_at_any_number_of_trials() -> None:
    assert expected_best([7.0, 7.0, 7.0]) == pytest.approx((7.0, 7.0, 7.0))
    assert expected_best([7.0]) == (7.0,)


@pytest.mark.parametrize("scores", [[], [1.0, float("nan")], [float("-inf")]])
def test_no_value_or_one_that_is_not_finite_is_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="expected best"):
        expected_best(scores)


# --- which trials count ---


def test_a_curve_is_that_of_the_arms_trials_whatever_their_order(tmp_path: Path) -> None:
    found = curves(tmp_path)
    assert values(found["lora"]) == pytest.approx([37.5, 51.875, 60.469, 66.055], abs=1e-3)
    assert values(found["qlora"]) == pytest.approx(values(found["lora"]))
    assert found["lora"].metric == "rougeL"
    assert found["lora"].run_ids == tuple(trial_id("lora", trial) for trial in range(4))
    assert "zero-shot" not in found


def test_the_seconds_are_the_mean_of_the_trials_times_their_number(tmp_path: Path) -> None:
    # 100, 200, 300 and 400 s.
    assert [point.seconds for point in curves(tmp_path)["lora"].points] == [250.0, 500.0, 750.0, 1000.0]
    assert [point.trials for point in curves(tmp_path)["lora"].points] == [1, 2, 3, 4]


@pytest.mark.parametrize("status", ["out_of_memory", "diverged", "failed", "timeout"])
def test_a_trial_that_failed_counts_as_the_worst_score_of_any_arm(tmp_path: Path, status: Any) -> None:
    failing = Arm("qlora", trial_statuses=("completed", "completed", "completed", status))
    scores = {"lora": [20.0, 5.0, 80.0, 40.0], "qlora": [10.0, 20.0, 40.0, None]}
    curve = curves(tmp_path, scores, arms=(*ARMS[:2], failing))["qlora"]
    assert values(curve) == pytest.approx(expected_best([10.0, 20.0, 40.0, 5.0]))
    assert curve.counted_as_worst == 1
    assert curve.run_ids == tuple(trial_id("qlora", trial) for trial in range(4))
    # A trial that failed used an unknown time: the mean is over those that completed.
    assert curve.points[0].seconds == pytest.approx(200.0)


def test_an_arm_all_of_whose_trials_failed_is_at_the_worst_score_of_the_others(tmp_path: Path) -> None:
    failing = Arm("qlora", trial_statuses=("out_of_memory",) * 4)
    curve = curves(tmp_path, {"lora": SCORES["lora"]}, arms=(*ARMS[:2], failing))["qlora"]
    assert values(curve) == [10.0] * 4
    assert curve.points[0].seconds is None


@pytest.mark.parametrize(
    ("statuses", "why"),
    [
        (("completed", "pruned", "completed", "completed"), "1 of 4 trials of the block were pruned"),
        (("completed", "killed", "interrupted", "completed"), "2 of 4 trials of the block are still to come"),
        ((), "no trials of a shared block"),
    ],
)
def test_an_arm_whose_trials_do_not_tell_has_no_curve_and_says_why(tmp_path: Path, statuses: Any, why: str) -> None:
    arms = (*ARMS[:2], Arm("qlora", trial_statuses=statuses))
    found = curves(tmp_path, {"lora": SCORES["lora"]}, arms=arms)
    assert (found["qlora"].points, found["qlora"].reason) == ((), why)
    assert found["lora"].points


def test_a_trial_on_another_gpu_leaves_its_arm_without_a_curve(tmp_path: Path) -> None:
    folder = write_tuned(tmp_path, SCORES, arms=ARMS)
    record = read_records(folder).last[trial_id("qlora", 2)]
    RecordStore(folder).append(record.model_copy(update={"environment": record.environment | {"gpu": "Other GPU"}}))
    evidence = gather(folder)
    found = {curve.arm: curve for curve in expected_curves(evidence)}
    assert found["qlora"].reason == "1 of 4 trials of the block are not comparable with the rest"
    assert found["lora"].points
    assert [item.run_ids for item in evidence.left_out] == [(trial_id("qlora", 2),)]


def test_what_the_sampler_proposed_and_repetitions_on_other_seeds_are_not_counted(tmp_path: Path) -> None:
    folder = write_tuned(tmp_path, SCORES, arms=ARMS)
    later = [add_trial(folder, "lora", 4, 99.0), add_trial(folder, "lora", 2, 1.0, seed=7)]
    curve = expected_curves(gather(folder))[0]
    assert values(curve) == pytest.approx([37.5, 51.875, 60.469, 66.055], abs=1e-3)
    assert not set(later) & set(curve.run_ids)


def test_where_less_is_better_the_best_is_the_lowest_and_the_worst_the_highest(tmp_path: Path) -> None:
    failing = Arm("qlora", trial_statuses=("completed", "completed", "completed", "diverged"))
    folder = write_tuned(
        tmp_path, {"lora": SCORES["lora"], "qlora": [10.0, 20.0, 40.0, None]}, arms=(*ARMS[:2], failing)
    )
    frozen = read_frozen(folder)
    assert frozen is not None
    write_frozen(folder, frozen.model_copy(update={"select_by": "validation_loss"}))
    lora, qlora = expected_curves(gather(folder))
    # The loss is 100 less the score.
    assert values(lora) == pytest.approx([100 - value for value in expected_best(SCORES["lora"])])
    assert values(qlora) == pytest.approx([100 - value for value in expected_best([10.0, 20.0, 40.0, 10.0])])


def test_there_is_no_curve_before_the_freeze_or_for_random_weights(tmp_path: Path) -> None:
    assert curves(tmp_path / "a", {}, frozen=False) == {}
    assert curves(tmp_path / "b", {}, weights="random", arms=(ZERO_SHOT, LORA, QLORA)) == {}
