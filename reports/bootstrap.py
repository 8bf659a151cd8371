"""A cross-check of the crossed interval that assumes no distribution."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from reports.decomposition import FloatArray, as_scores, require_confidence, require_same_dialogues

# Bounds the working memory at about 8 MB per 1,000 dialogues; part of the result, as it orders the random draws.
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class BootstrapInterval:
    """A percentile interval of the difference candidate - reference, in points, and the draws' standard deviation."""

    low: float
    high: float
    standard_error: float
    confidence: float
    resamples: int
    seed: int


def crossed_bootstrap(
    candidate: ArrayLike, reference: ArrayLike, *, resamples: int, seed: int, confidence: float
) -> BootstrapInterval:
    """The interval of the difference when dialogues and seeds are drawn anew, with replacement.

    A resample draws one set of dialogues for both arms, and the seeds of each arm independently (the pigeonhole
    bootstrap, Owen 2007). `candidate`, `reference`: float arrays (seeds, dialogues), in points. A cross-check, never
    the verdict: it counts the seed x dialogue residual up to three times (too wide), and with few seeds it shrinks
    their variance by (S - 1)/S (too narrow).

    Raises:
        ValueError: as `reports.stats.compare`, or fewer than 2 resamples.
    """
    require_confidence(confidence)
    if resamples < 2:
        raise ValueError(f"resamples {resamples} must be at least 2")
    candidate_scores = as_scores("candidate", candidate)
    reference_scores = as_scores("reference", reference)
    require_same_dialogues(candidate=candidate_scores, reference=reference_scores)

    generator = np.random.default_rng(seed)
    draws = np.concatenate(
        [
            _differences(generator, candidate_scores, reference_scores, min(_CHUNK, resamples - start))
            for start in range(0, resamples, _CHUNK)
        ]
    )
    low, high = np.quantile(draws, [0.5 - confidence / 2.0, 0.5 + confidence / 2.0])
    return BootstrapInterval(
        low=float(low),
        high=float(high),
        standard_error=float(draws.std(ddof=1)),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def _differences(
    generator: np.random.Generator, candidate: FloatArray, reference: FloatArray, count: int
) -> FloatArray:
    """`count` resampled differences, in points."""
    of_dialogues = _weights(generator, candidate.shape[1], count)
    per_dialogue = (
        _weights(generator, candidate.shape[0], count) @ candidate
        - _weights(generator, reference.shape[0], count) @ reference
    )
    differences: FloatArray = np.sum(of_dialogues * per_dialogue, axis=1)
    return differences


def _weights(generator: np.random.Generator, size: int, count: int) -> FloatArray:
    """(count, size): the share of a resample that each of `size` members makes up; rows sum to 1."""
    return generator.multinomial(size, np.full(size, 1.0 / size), size=count) / size
