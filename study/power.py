"""How many seeds and dialogues an equivalence claim needs, and how likely a planned design is to support a true one.

The model behind the formulas: two arms, `seeds` training seeds nested in each, the same `dialogues` scored in both,

    score = arm mean + dialogue + (arm x dialogue) + seed + residual,

so that the difference of the two arms' means has the variance

    V = sigma_item² / n + 2 sigma_seed² / S + 2 sigma_residual² / (S n).

All scores, deviations and margins are in points (0-100).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

# Fewer seeds than this in an arm get no verdict, whatever the interval says.
MINIMUM_SEEDS = 3

# z(0.95) + z(0.90): two one-sided tests at 5% support a true difference of 0 with 80% power once margin / SE is this.
POWER_FACTOR = 2.93
PLANNED_POWER = 0.80

# The formula is a normal approximation; the t distribution's wider tails cost up to this many seeds more.
EXTRA_SEEDS = 2

# Points squared. Below it the parts of a variance and their ratios would vanish in floating point, and the power has
# long been that of no deviation at all.
_NO_VARIANCE = 1e-200
_POINTS = 4096
# Steps of an even three-dimensional lattice: powers of 1/g, g the root of g⁴ = g + 1 (Roberts 2018, "R3 sequence").
_STEPS = 1.2207440846057596 ** -np.arange(1.0, 4.0)


@dataclass(frozen=True, slots=True)
class Components:
    """Standard deviations of the score model above, in points.

    `sigma_seed`: between the mean scores of an arm's training seeds. `sigma_residual`: seed x dialogue within an arm.
    `sigma_item`: between dialogues, of the true *difference* of the two arms (not of the dialogues' difficulty, which
    both arms share and which cancels).
    """

    sigma_seed: float
    sigma_residual: float
    sigma_item: float


# The pilot on real weights: SmolLM2-135M-Instruct, NF4 with double quantisation against bf16, r=16, learning rate 1e-3,
# 400 DialogSum training dialogues x 3 epochs, 6 seeds an arm, 500 test dialogues x 3 references, mean F. Ranges seen
# over ROUGE-1, -2 and -L: sigma_seed 0-0.2 (the upper end, to be on the safe side), sigma_residual 5.0-5.6,
# sigma_item 4.8-5.2 (the middles). A plan's first guess; a study's own components replace it once it has any.
PILOT = Components(sigma_seed=0.2, sigma_residual=5.3, sigma_item=5.0)


@dataclass(frozen=True, slots=True)
class EnoughSeeds:
    """So many seeds an arm suffice: `seeds` by the formula, `advised` once the t distribution is allowed for.

    `power` is that of the advised design, a probability: 0.8 or close to it, but less with a handful of dialogues.
    """

    seeds: int
    advised: int
    power: float


@dataclass(frozen=True, slots=True)
class TooFewDialogues:
    """No number of seeds suffices: the dialogues alone make the interval too wide. `dialogues` is the fewest needed."""

    dialogues: int


SeedsNeeded = EnoughSeeds | TooFewDialogues


def seeds_needed(
    sigma_seed: float, sigma_residual: float, sigma_item: float, dialogues: int, margin: float
) -> SeedsNeeded:
    """Seeds an arm for 80% power to support a true difference of 0 within ±margin points, at 5% a side.

    S >= 2 (sigma_seed² + sigma_residual²/n) / ((margin/2.93)² - sigma_item²/n), and never below the 3 that a verdict
    needs. It is a normal approximation: `advised` adds none, 1 or 2 seeds, the first with 80% by `tost_power`. Where
    n <= sigma_item² (2.93/margin)², no number of seeds suffices.

    Raises:
        ValueError: a negative or non-finite deviation, fewer than 2 dialogues, or a margin that is not above 0.
    """
    _check_components(sigma_seed, sigma_residual, sigma_item)
    _check_design(dialogues, margin)
    # Feasibility is decided on this one number, so that the dialogues asked for are feasible despite rounding.
    dialogues_bound = (sigma_item * POWER_FACTOR / margin) ** 2
    if dialogues <= dialogues_bound:
        return TooFewDialogues(dialogues=math.floor(dialogues_bound) + 1)
    wanted_variance = (margin / POWER_FACTOR) ** 2 * (1.0 - dialogues_bound / dialogues)
    bound = 2.0 * (sigma_seed**2 + sigma_residual**2 / dialogues) / wanted_variance
    seeds = max(math.ceil(bound), MINIMUM_SEEDS)

    def power(count: int) -> float:
        return tost_power(
            count,
            dialogues,
            margin,
            sigma_seed=sigma_seed,
            sigma_residual=sigma_residual,
            sigma_item=sigma_item,
        )

    advised = seeds
    while power(advised) < PLANNED_POWER and advised < seeds + EXTRA_SEEDS:
        advised += 1
    return EnoughSeeds(seeds=seeds, advised=advised, power=power(advised))


def tost_power(  # noqa: PLR0913 - a design and its three components, by name
    seeds: int,
    dialogues: int,
    margin: float,
    *,
    sigma_seed: float,
    sigma_residual: float,
    sigma_item: float,
    seeds_reference: int | None = None,
    true_difference: float = 0.0,
    alpha: float = 0.05,
) -> float:
    """The probability that the 1 - 2 alpha interval of `reports.stats.compare` lies inside ±margin points.

    `seeds` is the number an arm, equal in both unless `seeds_reference` says otherwise. The difference is normal with
    the variance V above. Its interval follows from three independent mean squares (dialogues, either arm's seeds),
    each its expectation times a chi-square over its degrees of freedom: the probability is integrated over a lattice
    of their quantiles, with V and Satterthwaite's degrees of freedom as `compare` would estimate them at each point.
    Putting the expected values in instead is up to 0.08 too hopeful at 3 seeds; this is within 0.01 of simulation
    from 3 seeds up. Same arguments, same result: nothing is drawn at random.

    Raises:
        ValueError: fewer than 2 seeds or dialogues, a negative or non-finite deviation, a margin that is not above 0,
            a non-finite true difference, or an alpha outside (0, 0.5).
    """
    _check_components(sigma_seed, sigma_residual, sigma_item)
    _check_design(dialogues, margin)
    counts = (seeds, seeds if seeds_reference is None else seeds_reference)
    if min(counts) < 2:
        raise ValueError(f"seeds {min(counts)}: an arm needs at least 2 for an interval")
    if not math.isfinite(true_difference):
        raise ValueError(f"true_difference {true_difference} must be finite")
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha {alpha} must lie between 0 and 0.5")

    # Each mean square's expectation; the residual stands in the dialogues' and once more in either arm's.
    residual = sum(sigma_residual**2 / (count * dialogues) for count in counts)
    item = sigma_item**2 / dialogues + residual
    of_arms = [(sigma_seed**2 + sigma_residual**2 / dialogues) / count for count in counts]
    variance = item + sum(of_arms) - residual
    if variance < _NO_VARIANCE:
        return 1.0 if abs(true_difference) < margin else 0.0

    dofs = np.array([dialogues - 1, *(count - 1 for count in counts)], dtype=np.float64)
    upper_tails = (0.5 + np.arange(1, _POINTS + 1)[:, np.newaxis] * _STEPS) % 1.0
    items, *of_seeds = (np.array([item, *of_arms]) * special.chdtri(dofs, upper_tails) / dofs).T
    total = items + of_seeds[0] + of_seeds[1]
    estimated = np.maximum(total - residual, np.maximum(items, total - items))
    shares = np.array([items, *of_seeds]) / total
    dof = 1.0 / (shares**2 / dofs[:, np.newaxis]).sum(axis=0)
    half_width = special.stdtrit(dof, 1.0 - alpha) * np.sqrt(estimated)
    error = math.sqrt(variance)
    below = special.ndtr((margin - half_width - true_difference) / error)
    above = special.ndtr((half_width - margin - true_difference) / error)
    return float(np.mean(np.maximum(below - above, 0.0)))


def _check_components(sigma_seed: float, sigma_residual: float, sigma_item: float) -> None:
    named = {"sigma_seed": sigma_seed, "sigma_residual": sigma_residual, "sigma_item": sigma_item}
    for name, sigma in named.items():
        if not (math.isfinite(sigma) and sigma >= 0.0):
            raise ValueError(f"{name} {sigma} must be finite and at least 0 points")


def _check_design(dialogues: int, margin: float) -> None:
    if dialogues < 2:
        raise ValueError(f"dialogues {dialogues}: a study needs at least 2 for an interval")
    if not (math.isfinite(margin) and margin > 0.0):
        raise ValueError(f"margin {margin} must be finite and above 0 points")
