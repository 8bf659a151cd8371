"""The crossed bootstrap: what it draws together, what apart, and that it agrees with the crossed interval."""

import math

import numpy as np
import pytest

from reports.stats import compare, crossed_bootstrap
from tests.unit.reports.score_arrays import CANDIDATE, REFERENCE, study


def test_the_bootstrap_agrees_with_the_crossed_interval_on_many_seeds() -> None:
    candidate, reference = study(np.random.default_rng(8), (20, 25), 150, (1.0, 2.0, 5.0))
    comparison = compare(candidate, reference, confidence=0.90)
    bootstrap = crossed_bootstrap(candidate, reference, resamples=4000, seed=11, confidence=0.90)

    assert bootstrap.standard_error == pytest.approx(math.sqrt(comparison.variance), rel=0.1)
    assert bootstrap.low == pytest.approx(comparison.low, abs=0.15)
    assert bootstrap.high == pytest.approx(comparison.high, abs=0.15)


def test_the_bootstrap_follows_its_seed() -> None:
    first, again, other = (
        crossed_bootstrap(CANDIDATE, REFERENCE, resamples=700, seed=seed, confidence=0.9) for seed in (1, 1, 2)
    )
    assert first == again
    assert (first.low, first.high, first.standard_error) != (other.low, other.high, other.standard_error)


def test_the_bootstrap_draws_the_same_dialogues_for_both_arms() -> None:
    # Hard and easy dialogues 100 points apart: drawn apart, they would make the difference vary by tens of points.
    row = np.array([0.0, 100.0] * 10)
    interval = crossed_bootstrap(
        np.tile(row + 1.0, (3, 1)), np.tile(row, (3, 1)), resamples=200, seed=0, confidence=0.9
    )
    assert (interval.low, interval.high) == pytest.approx((1.0, 1.0), abs=1e-9)


def test_the_bootstrap_draws_the_seeds_of_each_arm_apart() -> None:
    # The same seed effects in both arms cancel if seeds are paired; apart, the SD is that of two independent means.
    effects = np.arange(10.0)[:, np.newaxis]
    interval = crossed_bootstrap(
        np.tile(effects, (1, 4)), np.tile(effects, (1, 4)), resamples=4000, seed=0, confidence=0.9
    )
    assert interval.standard_error == pytest.approx(math.sqrt(2 * np.var(effects) / 10), rel=0.05)


def test_the_bootstrap_refuses_what_a_comparison_refuses() -> None:
    with pytest.raises(ValueError, match="unequal"):
        crossed_bootstrap(np.ones((3, 4)), np.ones((3, 5)), resamples=10, seed=0, confidence=0.9)
    with pytest.raises(ValueError, match="1 seeds"):
        crossed_bootstrap(np.ones((1, 4)), np.ones((3, 4)), resamples=10, seed=0, confidence=0.9)
    with pytest.raises(ValueError, match="resamples 1"):
        crossed_bootstrap(np.ones((3, 4)), np.ones((3, 4)), resamples=1, seed=0, confidence=0.9)
    with pytest.raises(ValueError, match="confidence"):
        crossed_bootstrap(np.ones((3, 4)), np.ones((3, 4)), resamples=10, seed=0, confidence=90)
