"""The interval of one arm's mean score: the error bars of tables and figures. It tests nothing."""

import math
from dataclasses import dataclass

from numpy.typing import ArrayLike
from scipy import stats

from reports.decomposition import (
    as_scores,
    require_confidence,
    residual_mean_square,
    satterthwaite,
    variance_of_mean,
)


@dataclass(frozen=True, slots=True)
class ArmInterval:
    """An arm's mean score with its interval, in points; `variance` is the mean's, in points².

    `dialogues_only` flags an arm of one seed: its interval says nothing about another training seed.
    """

    mean: float
    variance: float
    dof: float
    low: float
    high: float
    confidence: float
    seeds: int
    dialogues: int

    @property
    def dialogues_only(self) -> bool:
        """True where there is one seed, so that only the dialogues' variance is in the interval."""
        return self.seeds == 1


def single_arm_interval(scores: ArrayLike, *, confidence: float) -> ArmInterval:
    """The interval of an arm's mean, for new seeds and new dialogues alike.

    `scores`: float array (seeds, dialogues), in points. With v_item = s²(dialogue means)/n, v_seed = s²(seed means)/S:
    v = max(v_item + v_seed - ê/(S n), v_item, v_seed), Satterthwaite's degrees of freedom. One seed (a zero-shot model,
    an external system) leaves v = v_item with n - 1, and `dialogues_only` says so. Two such intervals share their
    dialogues: whether they overlap says nothing about the difference, which is `compare`'s.

    Raises:
        ValueError: no seed, fewer than 2 dialogues, scores that are not two-dimensional or not finite, or a
            `confidence` outside (0, 1).
    """
    require_confidence(confidence)
    array = as_scores("arm", scores, fewest_seeds=1)
    seeds, dialogues = array.shape
    mean = float(array.mean())
    item = variance_of_mean(array.mean(axis=0))
    if seeds == 1:
        variance, dof = item, float(dialogues - 1)
    else:
        seed = variance_of_mean(array.mean(axis=1))
        variance = max(item + seed - residual_mean_square(array) / array.size, item, seed)
        dof = satterthwaite((item, dialogues - 1), (seed, seeds - 1))
    half_width = float(stats.t.ppf(0.5 + confidence / 2.0, dof)) * math.sqrt(variance)
    return ArmInterval(
        mean=mean,
        variance=variance,
        dof=dof,
        low=mean - half_width,
        high=mean + half_width,
        confidence=confidence,
        seeds=seeds,
        dialogues=dialogues,
    )
