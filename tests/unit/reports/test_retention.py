"""The share of the reference's gain that is kept, with Fieller's interval."""

import math

import numpy as np
import pytest
from scipy import stats

from reports.stats import retention
from tests.unit.reports.score_arrays import FloatArray

ZERO_SHOT = np.array([20.0, 24, 12, 19, 26, 17])
TRAINED = np.array([41.0, 45, 30, 44, 44, 38])


def test_without_seed_effects_fiellers_bounds_are_where_the_paired_test_turns() -> None:
    candidate = TRAINED - np.array([1.0, 2.0, -1.0, 0.5, 3.0, 0.0])
    kept = retention(np.tile(candidate, (3, 1)), np.tile(TRAINED, (4, 1)), ZERO_SHOT, confidence=0.90)

    assert kept.ratio == pytest.approx((candidate - ZERO_SHOT).mean() / (TRAINED - ZERO_SHOT).mean())
    assert kept.ratio is not None
    assert kept.low is not None
    assert kept.high is not None
    assert kept.low < kept.ratio < kept.high
    for bound in (kept.low, kept.high):
        oracle = stats.ttest_1samp(candidate - bound * TRAINED - (1 - bound) * ZERO_SHOT, 0.0)
        assert oracle.pvalue == pytest.approx(0.10, rel=1e-6)


def test_an_arm_retains_all_of_its_own_gain() -> None:
    arm = np.tile(TRAINED, (3, 1))
    kept = retention(arm, arm, ZERO_SHOT)
    assert (kept.ratio, kept.low, kept.high) == pytest.approx((1.0, 1.0, 1.0))


def test_retention_widens_with_the_noise_of_seeds() -> None:
    noise = np.array([[-2.0], [0.0], [2.0]])
    steady = retention(np.tile(TRAINED, (3, 1)), TRAINED + noise / 4, ZERO_SHOT)
    noisy = retention(np.tile(TRAINED, (3, 1)), TRAINED + noise, ZERO_SHOT)
    assert steady.interval is not None
    assert noisy.interval is not None
    assert noisy.interval.high - noisy.interval.low > 2 * (steady.interval.high - steady.interval.low)


def test_fiellers_interval_covers_the_true_ratio() -> None:
    generator = np.random.default_rng(12)
    covered = 0
    for _ in range(300):
        zero_shot = generator.normal(20.0, 5.0, 60)
        candidate, reference = (
            zero_shot
            + gain
            + generator.normal(0, 4, 60)
            + generator.normal(0, 1, (5, 1))
            + generator.normal(0, 5, (5, 60))
            for gain in (9.0, 10.0)
        )
        kept = retention(candidate, reference, zero_shot, confidence=0.95)
        assert kept.interval is not None
        covered += kept.interval.low < 0.9 < kept.interval.high
    assert 0.92 <= covered / 300 <= 0.985


def test_retention_has_no_interval_where_the_gain_cannot_be_told_from_nothing() -> None:
    barely = ZERO_SHOT + np.array([3.0, -3.0, 2.0, -1.5, 0.5, -0.5])
    kept = retention(np.tile(TRAINED, (3, 1)), np.tile(barely, (3, 1)), ZERO_SHOT)
    assert kept.ratio is not None
    assert kept.interval is None
    assert (kept.low, kept.high) == (None, None)


def test_retention_has_no_ratio_where_the_reference_gained_exactly_nothing() -> None:
    zero_shot = ZERO_SHOT + 0.1
    kept = retention(np.tile(TRAINED, (3, 1)), np.tile(zero_shot, (3, 1)), zero_shot)
    assert kept.reference_gain == 0.0
    assert kept.candidate_gain > 0.0
    assert (kept.ratio, kept.low, kept.high) == (None, None, None)


@pytest.mark.parametrize(
    ("zero_shot", "message"),
    [
        (np.ones(5), "unequal numbers of dialogues: candidate 6, reference 6, zero_shot 5"),
        (np.ones((1, 6)), "shape"),
        (np.array([1.0, 2, 3, 4, 5, math.nan]), "1 of the 6 zero_shot scores are not finite"),
    ],
)
def test_retention_refuses_a_zero_shot_of_other_dialogues(zero_shot: FloatArray, message: str) -> None:
    arm = np.tile(TRAINED, (3, 1))
    with pytest.raises(ValueError, match=message):
        retention(arm, arm, zero_shot)
