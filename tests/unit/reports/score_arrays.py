"""Score arrays for tests: the fixture of science.md, and studies drawn from known components."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Rows are seeds, columns dialogues (science.md, section 1).
CANDIDATE = np.array([[50.0, 40, 30, 44], [52, 44, 30, 42], [49, 41, 33, 45]])
REFERENCE = np.array([[49.0, 41, 31, 45], [50, 41, 29, 44], [53, 42, 32, 46]])


def study(
    generator: np.random.Generator, seeds: tuple[int, int], dialogues: int, sigmas: tuple[float, float, float]
) -> tuple[FloatArray, FloatArray]:
    """Two arms without a true difference; `sigmas` are those of seed, residual and item, in points."""
    sigma_seed, sigma_residual, sigma_item = sigmas
    difficulty = generator.normal(35.0, 15.0, dialogues)
    arms = [
        difficulty
        + generator.normal(0.0, sigma_seed, (count, 1))
        + generator.normal(0.0, sigma_residual, (count, dialogues))
        for count in seeds
    ]
    return arms[0] + generator.normal(0.0, sigma_item, dialogues), arms[1]
