"""The difference of two arms with its interval, and the equivalence test on it (docs: README, "The claim check").

Scores are arrays (seeds, dialogues), in points: training seeds are nested in their arm, dialogues are crossed with
arms and seeds. Higher is better; negate a metric of which less is better before it comes here. The other intervals
(bootstrap, error bars, retention) have modules of their own and are offered here too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from reports.arm_interval import ArmInterval, single_arm_interval
from reports.bootstrap import BootstrapInterval, crossed_bootstrap
from reports.decomposition import (
    as_scores,
    require_confidence,
    require_same_dialogues,
    residual_mean_square,
    satterthwaite,
    variance_of_mean,
)
from reports.retention import Retention, retention
from study.power import Components

__all__ = [
    "TOST_CONFIDENCE",
    "ArmInterval",
    "BootstrapInterval",
    "Comparison",
    "Components",
    "Retention",
    "compare",
    "crossed_bootstrap",
    "holm",
    "require_margin",
    "retention",
    "single_arm_interval",
]

# Two one-sided tests at 5% a side are one 90% interval (Schuirmann 1987).
TOST_CONFIDENCE = 0.90


def require_margin(margin: float) -> None:
    """Refuses a margin that no interval could be judged by.

    Raises:
        ValueError: `margin` is not a finite number of points above 0.
    """
    if not (math.isfinite(margin) and margin > 0.0):
        raise ValueError(f"margin {margin} must be finite and above 0 points")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The difference candidate - reference of mean scores, in points, and how sure it is; variances in points².

    What is given: `item_variance` v_I = s²(d_i)/n, with d_i the difference of seed means on dialogue i;
    `seed_variance_*` v_a = s²(seed means)/S_a; `residual_*` ê_a, the seed x dialogue mean square within an arm.

    What follows, and so cannot contradict it:
        variance  V = max(v_I + v_Q + v_L - ê_Q/(S_Q n) - ê_L/(S_L n), v_I, v_Q + v_L). v_I, v_Q and v_L each hold the
                  residual once, the true variance does once an arm: it is taken off, but never below either source.
        dof       Satterthwaite's, of v_I, v_Q and v_L.
        low, high difference ∓ t_dof √V at `confidence`.

    Where no score varies at all (V = 0), the interval has zero width and `dof` is the smallest of n-1, S_Q-1, S_L-1.
    """

    difference: float
    seeds_candidate: int
    seeds_reference: int
    dialogues: int
    item_variance: float
    seed_variance_candidate: float
    seed_variance_reference: float
    residual_candidate: float
    residual_reference: float
    confidence: float = TOST_CONFIDENCE
    variance: float = field(init=False)
    dof: float = field(init=False)
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        require_confidence(self.confidence)
        if not math.isfinite(self.difference):
            raise ValueError(f"difference {self.difference} must be finite: the scores are too large")
        for name in (
            "item_variance",
            "seed_variance_candidate",
            "seed_variance_reference",
            "residual_candidate",
            "residual_reference",
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"{name} {value} must be finite and at least 0 points²")
        seeds = self.seed_variance_candidate + self.seed_variance_reference
        counted_twice = (
            self.residual_candidate / self.seeds_candidate + self.residual_reference / self.seeds_reference
        ) / self.dialogues
        variance = max(self.item_variance + seeds - counted_twice, self.item_variance, seeds)
        dof = satterthwaite(
            (self.item_variance, self.dialogues - 1),
            (self.seed_variance_candidate, self.seeds_candidate - 1),
            (self.seed_variance_reference, self.seeds_reference - 1),
        )
        # A frozen dataclass sets its derived fields this way (docs.python.org, dataclasses, "Frozen instances").
        object.__setattr__(self, "variance", variance)
        object.__setattr__(self, "dof", dof)
        low, high = self.interval(self.confidence)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def interval(self, confidence: float) -> tuple[float, float]:
        """(low, high) of the difference at `confidence` (0.90, 0.95, …), in points.

        Raises:
            ValueError: `confidence` outside (0, 1).
        """
        require_confidence(confidence)
        half_width = float(stats.t.ppf(0.5 + confidence / 2.0, self.dof)) * math.sqrt(self.variance)
        return self.difference - half_width, self.difference + half_width

    def p_tost(self, margin: float) -> float:
        """p of H0 |δ| >= margin: the larger of the two one-sided p values; `margin` in points.

        Below 0.05 exactly where the 90% interval lies inside ±margin. With no variance it is 0 for a difference
        inside the margin and 1 for one on or beyond it.

        Raises:
            ValueError: `margin` is not finite and above 0.
        """
        require_margin(margin)
        distance = margin - abs(self.difference)
        if self.variance == 0.0:
            return 0.0 if distance > 0.0 else 1.0
        return float(stats.t.sf(distance / math.sqrt(self.variance), self.dof))

    @property
    def smallest_margin(self) -> float:
        """Δ_min = max(|L|, |U|) of the 90% interval, in points: every margin above it would be supported.

        The 90% interval is the equivalence test's, so this does not depend on `confidence`.
        """
        low, high = self.interval(TOST_CONFIDENCE)
        return max(abs(low), abs(high))

    @property
    def components(self) -> Components:
        """Standard deviations of the sources of variance, in points: what a plan for more seeds or dialogues needs.

        Estimators by the method of moments, each arm weighted by its S_a - 1 degrees of freedom:
            sigma_residual² = pooled ê
            sigma_seed²     = max(pooled s²(seed means) - pooled ê / n, 0)
            sigma_item²     = max(s²(d_i) - ê_Q/S_Q - ê_L/S_L, 0)
        Arms are pooled before the cut at 0: a cut in each arm would push sigma_seed up.
        """
        dof_candidate, dof_reference = self.seeds_candidate - 1, self.seeds_reference - 1
        dof = dof_candidate + dof_reference
        residual = (dof_candidate * self.residual_candidate + dof_reference * self.residual_reference) / dof
        seed_means = (
            dof_candidate * self.seed_variance_candidate * self.seeds_candidate
            + dof_reference * self.seed_variance_reference * self.seeds_reference
        ) / dof
        item = (
            self.item_variance * self.dialogues
            - self.residual_candidate / self.seeds_candidate
            - self.residual_reference / self.seeds_reference
        )
        return Components(
            sigma_seed=math.sqrt(max(seed_means - residual / self.dialogues, 0.0)),
            sigma_residual=math.sqrt(residual),
            sigma_item=math.sqrt(max(item, 0.0)),
        )


def compare(candidate: ArrayLike, reference: ArrayLike, *, confidence: float = TOST_CONFIDENCE) -> Comparison:
    """candidate - reference, with an interval for new seeds and new dialogues alike.

    `candidate` and `reference`: float arrays (seeds, dialogues), in points, higher is better; column i is the same
    dialogue in both; the numbers of seeds may differ. Each dialogue is one item, its mean over its references.

    Raises:
        ValueError: an arm with fewer than 2 seeds or 2 dialogues, unequal numbers of dialogues, scores that are not
            two-dimensional or not finite, or a `confidence` outside (0, 1).
    """
    require_confidence(confidence)
    candidate_scores = as_scores("candidate", candidate)
    reference_scores = as_scores("reference", reference)
    require_same_dialogues(candidate=candidate_scores, reference=reference_scores)
    # Measured from one run of the same dialogues, equal scores give a difference of exactly 0 and not a rounded mean's
    # dust, which an interval of almost no width would call a real difference.
    origin = reference_scores[0]
    per_dialogue = (candidate_scores - origin).mean(axis=0) - (reference_scores - origin).mean(axis=0)
    return Comparison(
        difference=float(per_dialogue.mean()),
        seeds_candidate=candidate_scores.shape[0],
        seeds_reference=reference_scores.shape[0],
        dialogues=per_dialogue.size,
        item_variance=variance_of_mean(per_dialogue),
        seed_variance_candidate=variance_of_mean(candidate_scores.mean(axis=1)),
        seed_variance_reference=variance_of_mean(reference_scores.mean(axis=1)),
        residual_candidate=residual_mean_square(candidate_scores),
        residual_reference=residual_mean_square(reference_scores),
        confidence=confidence,
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p values (1979), in the order given: the largest over j <= k of (m - j + 1) p_(j), at most 1.

    The family is every candidate arm of the study. One that could not be compared belongs in it with p = 1: an arm
    that failed must not make it easier for the others. An arm judged on several metrics enters with its largest p.

    Raises:
        ValueError: a p value outside [0, 1] or not a number.
    """
    for p in p_values:
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"p value {p} must lie between 0 and 1")
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    multiplier = np.arange(given.size, 0, -1)
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(np.maximum.accumulate(multiplier * given[order]), 1.0)
    return tuple(float(p) for p in adjusted)
