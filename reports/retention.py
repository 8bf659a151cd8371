"""The share of the reference's gain over zero-shot that the candidate keeps."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from reports.decomposition import (
    FEWEST,
    FloatArray,
    as_scores,
    require_confidence,
    require_same_dialogues,
    residual_mean_square,
    satterthwaite,
    variance_of_mean,
)


@dataclass(frozen=True, slots=True)
class RetentionInterval:
    """Fieller's interval of the ratio, as shares (1.0 is the whole gain)."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Retention:
    """rho = (candidate - zero-shot) / (reference - zero-shot), a share; the gains in points.

    `ratio` is None where the reference gained exactly nothing. `interval` (and `low`, `high`) is None where its gain
    cannot be told from 0 at `confidence`: Fieller's set is then unbounded, and no share can be quoted. A reference
    clearly *below* its zero-shot has a bounded interval too, but the share of a loss: look at `reference_gain`.
    """

    ratio: float | None
    interval: RetentionInterval | None
    confidence: float
    candidate_gain: float
    reference_gain: float

    @property
    def low(self) -> float | None:
        """The interval's lower end, a share, or None where there is no interval."""
        return None if self.interval is None else self.interval.low

    @property
    def high(self) -> float | None:
        """The interval's upper end, a share, or None where there is no interval."""
        return None if self.interval is None else self.interval.high


def retention(candidate: ArrayLike, reference: ArrayLike, zero_shot: ArrayLike, confidence: float = 0.95) -> Retention:
    """The candidate's gain over zero-shot as a share of the reference's, with Fieller's interval (1954).

    `candidate`, `reference`: float arrays (seeds, dialogues), in points; `zero_shot`: float array (dialogues,), in
    points, of the *reference* arm's untrained model, decoded greedily and so without seeds. The two gains share
    dialogues and zero-shot scores: their covariance is that over dialogues, their variances are the crossed ones of
    `reports.stats.Comparison`, and the degrees of freedom are Satterthwaite's of candidate - rho reference - (1 - rho)
    zero-shot at the estimated rho.

    Raises:
        ValueError: as `reports.stats.compare`; `zero_shot` is not one-dimensional, finite and of the arms' dialogues.
    """
    require_confidence(confidence)
    candidate_scores = as_scores("candidate", candidate)
    reference_scores = as_scores("reference", reference)
    baseline = _as_baseline(zero_shot)
    require_same_dialogues(candidate=candidate_scores, reference=reference_scores, zero_shot=baseline)

    # Subtracted before the mean, an arm that equals its zero-shot gains exactly 0 and not a rounded mean's dust.
    candidate_gains = (candidate_scores - baseline).mean(axis=0)
    reference_gains = (reference_scores - baseline).mean(axis=0)
    candidate_gain, reference_gain = float(candidate_gains.mean()), float(reference_gains.mean())
    if reference_gain == 0.0:
        return Retention(None, None, confidence, candidate_gain, reference_gain)
    ratio = candidate_gain / reference_gain

    dof = satterthwaite(
        (variance_of_mean(candidate_gains - ratio * reference_gains), candidate_gains.size - 1),
        (variance_of_mean(candidate_scores.mean(axis=1)), candidate_scores.shape[0] - 1),
        (ratio**2 * variance_of_mean(reference_scores.mean(axis=1)), reference_scores.shape[0] - 1),
    )
    t_squared = float(stats.t.ppf(0.5 + confidence / 2.0, dof)) ** 2
    var_candidate = _gain_variance(candidate_scores, candidate_gains)
    var_reference = _gain_variance(reference_scores, reference_gains)
    covariance = float(np.cov(candidate_gains, reference_gains)[0, 1]) / candidate_gains.size
    interval = _fieller(ratio, reference_gain, t_squared, (var_candidate, var_reference, covariance))
    return Retention(ratio, interval, confidence, candidate_gain, reference_gain)


def _fieller(
    ratio: float, denominator: float, t_squared: float, moments: tuple[float, float, float]
) -> RetentionInterval | None:
    """All rho with (numerator - rho denominator)² <= t² var(numerator - rho denominator); None where unbounded."""
    var_numerator, var_denominator, covariance = moments
    square = denominator**2 - t_squared * var_denominator
    if square <= 0.0:
        return None
    # Written around the estimate, the quadratic's constant term cannot be negative: its roots are real by construction.
    spread = max(var_numerator - 2.0 * ratio * covariance + ratio**2 * var_denominator, 0.0)
    slope = t_squared * (ratio * var_denominator - covariance)
    root = math.sqrt(slope**2 + square * t_squared * spread)
    return RetentionInterval(low=ratio + (slope - root) / square, high=ratio + (slope + root) / square)


def _gain_variance(scores: FloatArray, gains: FloatArray) -> float:
    """The variance of one arm's mean gain, in points², with seeds and dialogues both random."""
    item = variance_of_mean(gains)
    seed = variance_of_mean(scores.mean(axis=1))
    return max(item + seed - residual_mean_square(scores) / scores.size, item, seed)


def _as_baseline(zero_shot: ArrayLike) -> FloatArray:
    array = np.asarray(zero_shot, dtype=np.float64)
    if array.ndim != 1 or array.size < FEWEST:
        raise ValueError(f"zero_shot scores have shape {array.shape}: expected one dimension of at least 2 dialogues")
    missing = int(np.count_nonzero(~np.isfinite(array)))
    if missing:
        raise ValueError(f"{missing} of the {array.size} zero_shot scores are not finite")
    return array
