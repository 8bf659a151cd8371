"""The interval of one arm's mean: the error bars of tables and figures."""

import math

import numpy as np
import pytest
from scipy import stats

from reports.stats import single_arm_interval
from tests.unit.reports.score_arrays import CANDIDATE, REFERENCE, FloatArray


def test_an_arms_interval_over_identical_seeds_is_the_t_interval_over_dialogues() -> None:
    row = CANDIDATE[0]
    oracle = stats.ttest_1samp(row, 0.0).confidence_interval(0.95)
    interval = single_arm_interval(np.tile(row, (5, 1)), confidence=0.95)
    assert (interval.low, interval.high) == pytest.approx((oracle.low, oracle.high), abs=1e-9)
    assert not interval.dialogues_only


def test_an_arms_interval_over_identical_dialogues_is_the_t_interval_over_seeds() -> None:
    seeds = np.array([40.0, 42.0, 43.5])
    oracle = stats.ttest_1samp(seeds, 0.0).confidence_interval(0.90)
    interval = single_arm_interval(np.tile(seeds[:, np.newaxis], (1, 6)), confidence=0.90)
    assert (interval.low, interval.high) == pytest.approx((oracle.low, oracle.high), abs=1e-9)


def test_an_arms_interval_holds_both_sources_less_the_residual_counted_twice() -> None:
    interval = single_arm_interval(REFERENCE, confidence=0.90)
    item, seed, residual = np.var(REFERENCE.mean(axis=0), ddof=1) / 4, (67 / 48) / 3, 29 / 36
    assert interval.mean == pytest.approx(REFERENCE.mean())
    assert interval.variance == pytest.approx(item + seed - residual / 12)
    assert interval.dof == pytest.approx((item + seed) ** 2 / (item**2 / 3 + seed**2 / 2))


def test_an_arms_interval_is_never_narrower_than_its_dialogues_make_it() -> None:
    # Its seeds agree better than the residual lets expect: 1/9 < (32/9) / 12.
    interval = single_arm_interval(CANDIDATE, confidence=0.90)
    assert interval.variance == pytest.approx(np.var(CANDIDATE.mean(axis=0), ddof=1) / 4)


def test_an_arms_interval_of_one_seed_is_of_dialogues_only_and_says_so() -> None:
    oracle = stats.ttest_1samp(CANDIDATE[0], 0.0).confidence_interval(0.90)
    interval = single_arm_interval(CANDIDATE[:1], confidence=0.90)
    assert (interval.low, interval.high) == pytest.approx((oracle.low, oracle.high), abs=1e-9)
    assert interval.dialogues_only
    assert interval.seeds == 1


def test_an_arms_interval_covers_over_new_seeds_and_new_dialogues() -> None:
    generator = np.random.default_rng(77)
    covered = 0
    for _ in range(400):
        scores = 35.0 + generator.normal(0, 6, 40) + generator.normal(0, 1, (4, 1)) + generator.normal(0, 5, (4, 40))
        interval = single_arm_interval(scores, confidence=0.95)
        covered += interval.low < 35.0 < interval.high
    assert 0.92 <= covered / 400 <= 0.98


def test_an_arms_interval_of_constant_scores_has_no_width() -> None:
    interval = single_arm_interval(np.full((3, 5), 0.1), confidence=0.95)
    assert interval.low == interval.mean == interval.high
    assert (interval.variance, interval.dof) == (0.0, 2)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.ones((0, 4)), "0 seeds"),
        (np.ones((3, 1)), "1 dialogues"),
        (np.ones(3), "shape"),
        ([[1.0, math.nan]], "not finite"),
    ],
)
def test_an_arms_interval_is_refused_where_there_is_nothing_to_estimate(scores: FloatArray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        single_arm_interval(scores, confidence=0.95)
