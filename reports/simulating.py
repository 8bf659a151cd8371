"""Simulated studies whose truth is known, many at once: what `python -m reports calibrate` judges the intervals by."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from study.power import Components

FloatArray = NDArray[np.float64]
Shape = Literal["normal", "skewed", "heavy-tailed"]

# Each has mean 0 and standard deviation 1. The exponential has a skewness of 2; Student's t with 4 degrees of freedom
# has a standard deviation of √2 and a kurtosis that is not finite.
_DRAWS: dict[Shape, Callable[[np.random.Generator, tuple[int, ...]], FloatArray]] = {
    "normal": lambda generator, size: generator.standard_normal(size),
    "skewed": lambda generator, size: generator.standard_exponential(size) - 1.0,
    "heavy-tailed": lambda generator, size: generator.standard_t(4, size) / math.sqrt(2.0),
}


@dataclass(frozen=True, slots=True)
class Design:
    """Studies of one kind, without a true difference: seeds of either arm, dialogues, deviations in points.

    `shape` is the distribution of what varies from dialogue to dialogue (the difference of the arms and the residual),
    `seed_shape` that of the seeds' effects.
    """

    seeds: tuple[int, int]
    dialogues: int
    sigmas: Components
    shape: Shape = "normal"
    seed_shape: Shape = "normal"

    @property
    def standard_error(self) -> float:
        """The true standard deviation of the difference of the arms' means, in points."""
        sigmas, n = self.sigmas, self.dialogues
        of_seeds = sum((sigmas.sigma_seed**2 + sigmas.sigma_residual**2 / n) / count for count in self.seeds)
        return math.sqrt(sigmas.sigma_item**2 / n + of_seeds)

    def draw(self, generator: np.random.Generator, studies: int) -> tuple[FloatArray, FloatArray]:
        """Candidate and reference of `studies` studies, float arrays (studies, seeds, dialogues), in points.

        What makes a dialogue hard for both arms cancels out of every statistic of a difference, and is left out.
        """
        candidate, reference = (self._arm(generator, studies, count) for count in self.seeds)
        item = _DRAWS[self.shape](generator, (studies, 1, self.dialogues))
        return candidate + self.sigmas.sigma_item * item, reference

    def _arm(self, generator: np.random.Generator, studies: int, seeds: int) -> FloatArray:
        effects = _DRAWS[self.seed_shape](generator, (studies, seeds, 1))
        residual = _DRAWS[self.shape](generator, (studies, seeds, self.dialogues))
        return self.sigmas.sigma_seed * effects + self.sigmas.sigma_residual * residual


@dataclass(frozen=True, slots=True)
class Intervals:
    """The difference of each of many studies, float arrays (studies,): in points, points² and degrees of freedom."""

    difference: FloatArray
    variance: FloatArray
    dof: FloatArray

    def half_width(self, confidence: float) -> FloatArray:
        """Half the width of each interval at `confidence`, in points."""
        width: FloatArray = stats.t.ppf(0.5 + confidence / 2.0, self.dof) * np.sqrt(self.variance)
        return width


def crossed(candidate: FloatArray, reference: FloatArray) -> Intervals:
    """`reports.stats.compare` of many studies at once; arrays (studies, seeds, dialogues), in points.

    The same formulas over one more axis. For simulated scores only: it refuses nothing, and scores that do not vary
    have no degrees of freedom here.
    """
    dialogues = candidate.shape[2]
    origin = reference[:, :1]
    per_dialogue = (candidate - origin).mean(axis=1) - (reference - origin).mean(axis=1)
    item = per_dialogue.var(axis=1, ddof=1) / dialogues
    of_arms = [arm.mean(axis=2).var(axis=1, ddof=1) / arm.shape[1] for arm in (candidate, reference)]
    counted_twice = sum(_residual(arm) / (arm.shape[1] * dialogues) for arm in (candidate, reference))
    seeds = of_arms[0] + of_arms[1]
    total = item + seeds
    variance = np.maximum(total - counted_twice, np.maximum(item, seeds))
    parts = ((item, dialogues), (of_arms[0], candidate.shape[1]), (of_arms[1], reference.shape[1]))
    dof = 1.0 / sum((part / total) ** 2 / (count - 1) for part, count in parts)
    return Intervals(per_dialogue.mean(axis=1), variance, dof)


def _residual(arm: FloatArray) -> FloatArray:
    rest = arm - arm.mean(axis=2, keepdims=True)
    rest -= rest.mean(axis=1, keepdims=True)
    square: FloatArray = np.einsum("abc,abc->a", rest, rest) / ((arm.shape[1] - 1) * (arm.shape[2] - 1))
    return square


def naive(candidate: FloatArray, reference: FloatArray) -> Intervals:
    """What the crossed interval replaces: the paired t test over the dialogues of one seed an arm."""
    of_one_seed = candidate[:, 0] - reference[:, 0]
    dialogues = of_one_seed.shape[1]
    variance = of_one_seed.var(axis=1, ddof=1) / dialogues
    return Intervals(of_one_seed.mean(axis=1), variance, np.full(variance.shape, dialogues - 1.0))
