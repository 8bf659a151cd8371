"""What an arm's scores vary with: its training seeds, the dialogues, and what is left of both together.

Scores are float arrays (seeds, dialogues), in points. The statistics here are the building blocks that every interval
shares, so that a comparison, an error bar and a retention cannot disagree on what a variance is.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

# Below two of a kind there is no variance to estimate.
FEWEST = 2


def as_scores(name: str, scores: ArrayLike, *, fewest_seeds: int = FEWEST) -> FloatArray:
    """`scores` as a float array (seeds, dialogues); `name` is the arm's word in the errors.

    Raises:
        ValueError: no number, not two-dimensional, fewer than `fewest_seeds` seeds or 2 dialogues, or a value that is
            not finite.
    """
    try:
        array = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} scores must be an array of numbers (seeds x dialogues): {error}") from error
    if array.ndim != 2:
        raise ValueError(f"{name} scores have shape {array.shape}: expected two dimensions, seeds x dialogues")
    seeds, dialogues = array.shape
    if seeds < fewest_seeds or dialogues < FEWEST:
        raise ValueError(
            f"{name} has {seeds} seeds and {dialogues} dialogues: "
            f"at least {fewest_seeds} and {FEWEST} are needed for an interval"
        )
    missing = int(np.count_nonzero(~np.isfinite(array)))
    if missing:
        raise ValueError(f"{missing} of the {array.size} {name} scores are not finite")
    return array


def require_same_dialogues(**arms: FloatArray) -> None:
    """Refuses arms that were not scored on the same number of dialogues (the last axis).

    Raises:
        ValueError: with every arm's count.
    """
    counts = {name: array.shape[-1] for name, array in arms.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"the arms have unequal numbers of dialogues: {listed}")


def require_confidence(confidence: float) -> None:
    """Refuses a confidence that is not a share, such as 95 for 0.95.

    Raises:
        ValueError: `confidence` does not lie strictly between 0 and 1.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence {confidence} must lie between 0 and 1, as in 0.90")


def variance_of_mean(values: FloatArray) -> float:
    """s²(values) / len(values), in points²; `values` is one-dimensional with at least 2 entries."""
    # Measured from the first value, equal values give exactly 0 and not the dust of a rounded mean.
    return float(np.var(values - values[0], ddof=1)) / values.size


def residual_mean_square(scores: FloatArray) -> float:
    """ê = Σ (y - ȳ_seed - ȳ_dialogue + ȳ)² / ((S-1)(n-1)), in points², of scores (seeds, dialogues)."""
    shifted = scores - scores[0, 0]
    rest = shifted - shifted.mean(axis=1, keepdims=True) - shifted.mean(axis=0, keepdims=True) + shifted.mean()
    seeds, dialogues = scores.shape
    return float(np.sum(rest**2) / ((seeds - 1) * (dialogues - 1)))


def satterthwaite(*parts: tuple[float, float]) -> float:
    """Degrees of freedom of a sum of independent variances, (Σ v)² / Σ v²/f, of (v, f) pairs (Satterthwaite 1946).

    Where every variance is 0 the ratio is undefined; the smallest f, which the ratio never falls below, stands for it.
    """
    total = math.fsum(variance for variance, _ in parts)
    if total == 0.0:
        return min(dof for _, dof in parts)
    # Shares, not squares of the variances themselves, which could underflow.
    return 1.0 / math.fsum((variance / total) ** 2 / dof for variance, dof in parts)
