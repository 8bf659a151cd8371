"""The power of a planned design against simulation, and the numbers of seeds and dialogues asked for."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.stats import compare
from study.power import MINIMUM_SEEDS, PILOT, Components, EnoughSeeds, TooFewDialogues, seeds_needed, tost_power

unhurried = settings(deadline=None)


def power(seeds: int, dialogues: int, margin: float, components: Components, *, true_difference: float = 0.0) -> float:
    return tost_power(
        seeds,
        dialogues,
        margin,
        sigma_seed=components.sigma_seed,
        sigma_residual=components.sigma_residual,
        sigma_item=components.sigma_item,
        true_difference=true_difference,
    )


def needed(components: Components, dialogues: int, margin: float) -> EnoughSeeds | TooFewDialogues:
    return seeds_needed(components.sigma_seed, components.sigma_residual, components.sigma_item, dialogues, margin)


@pytest.mark.parametrize(
    ("seeds", "dialogues", "margin", "sigma_seed", "true_difference"),
    [
        pytest.param(3, 60, 4.0, 1.0, 0.0, id="few-seeds"),
        pytest.param(3, 200, 3.0, 1.5, 0.0, id="seeds-limit"),
        pytest.param(5, 150, 1.6, 0.2, 0.0, id="dialogues-limit"),
        pytest.param(5, 60, 3.0, 1.0, -1.0, id="a-true-difference"),
        pytest.param(5, 60, 3.0, 1.0, 3.0, id="on-the-margin"),
    ],
)
def test_the_power_agrees_with_simulated_studies(
    seeds: int, dialogues: int, margin: float, sigma_seed: float, true_difference: float
) -> None:
    generator = np.random.default_rng(2024)
    studies = 1200
    supported = 0
    for _ in range(studies):
        candidate, reference = (
            generator.normal(0.0, sigma_seed, (seeds, 1)) + generator.normal(0.0, 5.3, (seeds, dialogues))
            for _ in range(2)
        )
        of_items = true_difference + generator.normal(0.0, 5.0, dialogues)
        supported += compare(candidate + of_items, reference).p_tost(margin) < 0.05

    planned = power(seeds, dialogues, margin, Components(sigma_seed, 5.3, 5.0), true_difference=true_difference)
    assert planned == pytest.approx(supported / studies, abs=0.04)


@pytest.mark.parametrize("seeds", [(3, 6), (6, 3), (10, 3)])
def test_the_power_of_unequal_seeds_agrees_with_simulated_studies(seeds: tuple[int, int]) -> None:
    generator = np.random.default_rng(2025)
    studies = 1200
    supported = 0
    for _ in range(studies):
        candidate, reference = (
            generator.normal(0.0, 1.0, (count, 1)) + generator.normal(0.0, 5.3, (count, 100)) for count in seeds
        )
        supported += compare(candidate + generator.normal(0.0, 5.0, 100), reference).p_tost(2.5) < 0.05

    assert unequal(*seeds, margin=2.5) == pytest.approx(supported / studies, abs=0.04)


def unequal(candidate: int, reference: int | None, *, margin: float) -> float:
    return tost_power(
        candidate, 100, margin, seeds_reference=reference, sigma_seed=1.0, sigma_residual=5.3, sigma_item=5.0
    )


def test_equal_seeds_may_be_told_once_or_twice() -> None:
    assert unequal(5, 5, margin=2.0) == unequal(5, None, margin=2.0)
    with pytest.raises(ValueError, match="seeds 1"):
        unequal(5, 1, margin=2.0)


def test_the_power_is_the_normal_one_where_seeds_and_dialogues_abound() -> None:
    # With V known, 2 Φ(Δ/SE - 1.645) - 1; at Δ = 2.93 SE that is the 80% behind the formula.
    error = math.sqrt(5.0**2 / 1e6 + 2 * 1.0**2 / 1e5)
    assert power(10**5, 10**6, 2.93 * error, Components(1.0, 0.0, 5.0)) == pytest.approx(0.801, abs=0.002)


def test_the_power_at_the_margin_is_at_most_the_tests_level() -> None:
    assert power(5, 500, 1.0, PILOT, true_difference=1.0) == pytest.approx(0.05, abs=0.005)
    assert power(5, 500, 1.0, PILOT, true_difference=1.5) < 0.01


def test_the_power_of_the_default_design_at_the_pilots_components() -> None:
    assert power(5, 500, 1.0, PILOT) > 0.85
    assert power(5, 500, 0.5, PILOT) < 0.10, "the pilot was inconclusive at half a point"


@pytest.mark.parametrize(("true_difference", "expected"), [(0.0, 1.0), (0.99, 1.0), (1.0, 0.0), (-2.0, 0.0)])
def test_without_any_variance_the_power_is_certain(true_difference: float, expected: float) -> None:
    assert power(3, 2, 1.0, Components(0.0, 0.0, 0.0), true_difference=true_difference) == expected


sigmas = st.builds(Components, st.floats(0.0, 3.0), st.floats(0.0, 10.0), st.floats(0.0, 10.0))


@unhurried
@given(sigmas, st.integers(2, 12), st.integers(2, 600), st.floats(0.2, 5.0), st.floats(-3.0, 3.0))
def test_the_power_is_a_probability_and_grows_with_the_margin(
    components: Components, seeds: int, dialogues: int, margin: float, true_difference: float
) -> None:
    narrow = power(seeds, dialogues, margin, components, true_difference=true_difference)
    wide = power(seeds, dialogues, margin * 1.5, components, true_difference=true_difference)
    mirrored = power(seeds, dialogues, margin, components, true_difference=-true_difference)
    assert 0.0 <= narrow <= wide <= 1.0
    assert mirrored == pytest.approx(narrow, abs=1e-12)


def test_more_seeds_or_more_dialogues_bring_more_power() -> None:
    components = Components(sigma_seed=1.0, sigma_residual=5.3, sigma_item=5.0)
    by_seeds = [power(seeds, 300, 1.5, components) for seeds in (3, 5, 8, 12)]
    by_dialogues = [power(5, dialogues, 1.5, components) for dialogues in (50, 100, 300, 1500)]
    assert by_seeds == sorted(by_seeds)
    assert by_dialogues == sorted(by_dialogues)


# --- seeds and dialogues needed ---


def test_the_seeds_needed_are_those_of_the_formula() -> None:
    # 2 (1 + 28.09/500) / ((1/2.93)² - 25/500) = 2.11236 / 0.0664841 = 31.77
    components = Components(1.0, 5.3, 5.0)
    answer = needed(components, 500, 1.0)
    assert isinstance(answer, EnoughSeeds)
    assert (answer.seeds, answer.advised) == (32, 33)
    assert answer.power == power(33, 500, 1.0, components) > 0.80 > power(32, 500, 1.0, components)


def test_the_pilot_needs_the_fewest_seeds_at_one_point_and_more_dialogues_at_half_a_point() -> None:
    # 2 (0.04 + 28.09/500) / 0.0664841 = 2.9; and 25 (2.93/0.5)² = 858.5.
    answer = needed(PILOT, 500, 1.0)
    assert isinstance(answer, EnoughSeeds)
    assert (answer.seeds, answer.advised) == (3, 4)
    assert needed(PILOT, 500, 0.5) == TooFewDialogues(dialogues=859)


def test_the_seeds_needed_are_never_fewer_than_a_verdict_needs() -> None:
    assert needed(Components(0.0, 0.0, 0.0), 2, 1.0) == EnoughSeeds(
        seeds=MINIMUM_SEEDS, advised=MINIMUM_SEEDS, power=1.0
    )


def test_seeds_can_suffice_only_above_the_bound_of_dialogues() -> None:
    components = Components(1.0, 5.0, 100 / 2.93)
    bound = round((components.sigma_item * 2.93) ** 2)
    assert bound == 10_000
    assert isinstance(needed(components, bound - 1, 1.0), TooFewDialogues)
    assert isinstance(needed(components, bound + 1, 1.0), EnoughSeeds)


@unhurried
@given(st.floats(3.0, 10.0), st.integers(2, 70), st.floats(0.2, 1.0))
def test_the_dialogues_asked_for_are_the_fewest_for_which_seeds_can_suffice(
    sigma_item: float, dialogues: int, margin: float
) -> None:
    components = Components(sigma_seed=0.5, sigma_residual=5.3, sigma_item=sigma_item)
    answer = needed(components, dialogues, margin)
    assert isinstance(answer, TooFewDialogues), "at most 70 dialogues, where at least (3 · 2.93)² = 77 are needed"
    assert answer.dialogues > dialogues
    assert isinstance(needed(components, answer.dialogues, margin), EnoughSeeds)
    assert isinstance(needed(components, answer.dialogues - 1, margin), TooFewDialogues)


@pytest.mark.parametrize("tiny", [5e-324, 7.8e-162, 1e-101])
def test_a_deviation_too_small_for_its_square_is_none(tiny: float) -> None:
    for sigmas_of in ((tiny, 0.0, 0.0), (0.0, tiny, 0.0), (0.0, 0.0, tiny), (tiny, tiny, tiny)):
        seed, residual, item = sigmas_of
        for apart, expected in ((0.0, 1.0), (2.0, 0.0)):
            power = tost_power(
                3, 50, 1.0, sigma_seed=seed, sigma_residual=residual, sigma_item=item, true_difference=apart
            )
            assert power == expected


@unhurried
@given(sigmas, st.integers(0, 1000), st.floats(0.5, 5.0))
def test_the_seeds_advised_reach_the_power_planned_or_come_close(
    components: Components, spare_dialogues: int, margin: float
) -> None:
    dialogues = 50 + spare_dialogues + math.ceil((components.sigma_item * 2.93 / margin) ** 2)
    answer = needed(components, dialogues, margin)
    assert isinstance(answer, EnoughSeeds)
    assert 3 <= answer.seeds <= answer.advised <= answer.seeds + 2
    assert answer.power >= 0.78


def test_with_a_handful_of_dialogues_the_seeds_advised_say_that_they_fall_short() -> None:
    answer = needed(Components(0.0, 1.0, 0.0), 3, 1.0)
    assert isinstance(answer, EnoughSeeds)
    assert answer.advised == answer.seeds + 2
    assert answer.power < 0.78


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("field", ["sigma_seed", "sigma_residual", "sigma_item"])
def test_a_deviation_that_is_none_is_refused_by_name(field: str, bad: float) -> None:
    values = {"sigma_seed": 1.0, "sigma_residual": 1.0, "sigma_item": 1.0} | {field: bad}
    with pytest.raises(ValueError, match=field):
        needed(Components(**values), 100, 1.0)
    with pytest.raises(ValueError, match=field):
        power(5, 100, 1.0, Components(**values))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"seeds": 1}, "seeds 1"),
        ({"dialogues": 1}, "dialogues 1"),
        ({"margin": 0.0}, "margin"),
        ({"margin": math.nan}, "margin"),
        ({"alpha": 0.5}, "alpha"),
        ({"alpha": 0.0}, "alpha"),
        ({"true_difference": math.nan}, "true_difference"),
    ],
)
def test_a_design_that_is_none_is_refused(fault: dict[str, Any], message: str) -> None:
    design: dict[str, Any] = {"seeds": 5, "dialogues": 100, "margin": 1.0}
    with pytest.raises(ValueError, match=message):
        tost_power(**(design | fault), sigma_seed=0.2, sigma_residual=5.3, sigma_item=5.0)


def test_seeds_needed_refuses_a_margin_or_dialogues_that_are_none() -> None:
    with pytest.raises(ValueError, match="margin"):
        needed(PILOT, 500, -1.0)
    with pytest.raises(ValueError, match="dialogues 1"):
        needed(PILOT, 1, 1.0)
