"""The crossed interval: its fixture, its coverage, its limits, and the older tests it equals in simpler designs."""

import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_ind, ttost_paired

from reports.stats import Comparison, compare, holm
from tests.unit.reports.score_arrays import CANDIDATE, REFERENCE, FloatArray, study

# The two cores are shared: a deadline would fail for reasons of its own.
unhurried = settings(deadline=None)


def arrays(seeds: int, dialogues: int) -> st.SearchStrategy[FloatArray]:
    # Hundredths of a point: ties and constants come up often, and sums stay exact enough to compare.
    score = st.integers(0, 10_000).map(lambda hundredths: hundredths / 100.0)
    row = st.lists(score, min_size=dialogues, max_size=dialogues)
    return st.lists(row, min_size=seeds, max_size=seeds).map(lambda rows: np.array(rows, dtype=np.float64))


@st.composite
def two_arms(draw: st.DrawFn) -> tuple[FloatArray, FloatArray]:
    dialogues = draw(st.integers(2, 6))
    return draw(arrays(draw(st.integers(2, 4)), dialogues)), draw(arrays(draw(st.integers(2, 4)), dialogues))


# --- the fixture ---


def test_the_fixture_gives_the_computed_difference_variance_and_intervals() -> None:
    comparison = compare(CANDIDATE, REFERENCE)

    assert comparison.difference == pytest.approx(-0.25, abs=1e-6)
    assert comparison.variance == pytest.approx(0.5763889, abs=1e-6)
    assert comparison.dof == pytest.approx(4.370288, abs=1e-6)
    assert (comparison.low, comparison.high) == pytest.approx((-1.829895, 1.329895), abs=1e-6)
    assert comparison.interval(0.90) == (comparison.low, comparison.high)
    assert comparison.interval(0.95) == pytest.approx((-2.289283, 1.789283), abs=1e-6)
    assert comparison.p_tost(1.5) == pytest.approx(0.0844732, abs=1e-6)
    assert comparison.smallest_margin == pytest.approx(1.829895, abs=1e-6)


def test_the_fixture_gives_the_variance_components_of_a_calculation_by_hand() -> None:
    comparison = compare(CANDIDATE, REFERENCE)

    # Seed means 41, 42, 42 and 41.5, 41, 43.25; d_i = -1/3, 1/3, 1/3, -4/3.
    assert comparison.item_variance == pytest.approx(67 / 432, abs=1e-12)
    assert comparison.seed_variance_candidate == pytest.approx(1 / 9, abs=1e-12)
    assert comparison.seed_variance_reference == pytest.approx((67 / 48) / 3, abs=1e-12)
    assert comparison.residual_candidate == pytest.approx(32 / 9, abs=1e-12)
    assert comparison.residual_reference == pytest.approx(29 / 36, abs=1e-12)
    assert (comparison.seeds_candidate, comparison.seeds_reference, comparison.dialogues) == (3, 3, 4)
    components = comparison.components
    assert components.sigma_residual == pytest.approx(math.sqrt(157 / 72), abs=1e-12)
    assert components.sigma_seed == pytest.approx(math.sqrt((1 / 3 + 67 / 48) / 2 - 157 / 288), abs=1e-12)
    assert components.sigma_item == 0.0, "s²(d_i) = 0.62 is below ê_Q/3 + ê_L/3 = 1.45: cut at 0"


def test_another_confidence_widens_the_printed_interval_and_leaves_the_margin_alone() -> None:
    at_90, at_95 = compare(CANDIDATE, REFERENCE), compare(CANDIDATE, REFERENCE, confidence=0.95)

    assert (at_95.low, at_95.high) == at_90.interval(0.95)
    assert at_95.smallest_margin == at_90.smallest_margin
    assert at_95.smallest_margin < max(abs(at_95.low), abs(at_95.high))


def test_a_comparison_cannot_be_changed_and_follows_what_it_is_made_from() -> None:
    comparison = compare(CANDIDATE, REFERENCE)

    with pytest.raises(FrozenInstanceError):
        comparison.low = 0.0  # type: ignore[misc]
    wider = replace(comparison, item_variance=4.0)
    assert wider.variance > comparison.variance
    assert wider.high - wider.low > comparison.high - comparison.low


@pytest.mark.parametrize(
    ("item", "seed_candidate", "seed_reference", "residual", "expected"),
    [
        pytest.param(1.0, 1.0, 1.0, 1.2, 3.0 - 2 * 1.2 / (3 * 2), id="the-sum-less-the-residual"),
        pytest.param(5.0, 0.1, 0.1, 80.0, 5.0, id="never-below-the-dialogues"),
        pytest.param(0.1, 2.0, 3.0, 80.0, 5.0, id="never-below-the-seeds"),
    ],
)
def test_the_variance_takes_the_residual_off_but_never_goes_below_a_source(
    item: float, seed_candidate: float, seed_reference: float, residual: float, expected: float
) -> None:
    comparison = Comparison(
        difference=0.0,
        seeds_candidate=3,
        seeds_reference=3,
        dialogues=2,
        item_variance=item,
        seed_variance_candidate=seed_candidate,
        seed_variance_reference=seed_reference,
        residual_candidate=residual,
        residual_reference=residual,
    )
    assert comparison.variance == pytest.approx(expected, abs=1e-12)


# --- coverage: the reason for all this ---


def test_the_crossed_interval_covers_and_the_naive_one_does_not() -> None:
    generator = np.random.default_rng(20240611)
    studies, margin = 400, 4.0
    covered = naive_covered = falsely_supported = 0
    for _ in range(studies):
        candidate, reference = study(generator, (5, 5), 200, (1.0, 5.3, 5.0))
        low, high = compare(candidate, reference).interval(0.95)
        covered += low < 0.0 < high
        naive = stats.ttest_rel(candidate[0], reference[0]).confidence_interval(0.95)
        naive_covered += naive.low < 0.0 < naive.high
        falsely_supported += compare(candidate + margin, reference).p_tost(margin) < 0.05

    assert 0.92 <= covered / studies <= 0.98
    assert naive_covered / studies < 0.70
    # The margin is wide enough for the test to have power inside it: at its edge it errs in about 5%, not in 0%.
    assert 0.01 <= falsely_supported / studies <= 0.08


def test_the_components_are_recovered_from_a_large_study() -> None:
    generator = np.random.default_rng(3)
    estimates = [compare(*study(generator, (12, 8), 400, (1.5, 5.3, 5.0))).components for _ in range(40)]

    assert np.mean([e.sigma_seed**2 for e in estimates]) == pytest.approx(1.5**2, rel=0.1)
    assert np.mean([e.sigma_residual**2 for e in estimates]) == pytest.approx(5.3**2, rel=0.02)
    assert np.mean([e.sigma_item**2 for e in estimates]) == pytest.approx(5.0**2, rel=0.05)


# --- oracles: designs in which the crossed interval is an older test ---


@pytest.mark.parametrize("seeds", [(3, 3), (2, 5)])
def test_without_any_seed_effect_it_is_the_paired_test_over_dialogues(seeds: tuple[int, int]) -> None:
    generator = np.random.default_rng(1)
    of_candidate = generator.normal(40.0, 10.0, 30)
    of_reference = of_candidate + generator.normal(0.4, 2.0, 30)
    comparison = compare(np.tile(of_candidate, (seeds[0], 1)), np.tile(of_reference, (seeds[1], 1)))

    assert comparison.dof == pytest.approx(29)
    interval = stats.ttest_rel(of_candidate, of_reference).confidence_interval(0.95)
    assert comparison.interval(0.95) == pytest.approx((interval.low, interval.high), abs=1e-10)
    for margin in (0.5, 1.0, 2.0):
        oracle = ttost_paired(of_candidate, of_reference, -margin, margin)[0]
        assert comparison.p_tost(margin) == pytest.approx(oracle, rel=1e-8)


@pytest.mark.parametrize("seeds", [(4, 4), (3, 7)])
def test_without_any_dialogue_effect_it_is_welchs_test_over_seeds(seeds: tuple[int, int]) -> None:
    generator = np.random.default_rng(2)
    difficulty = generator.normal(40.0, 10.0, 25)
    of_candidate, of_reference = generator.normal(0.0, 1.0, seeds[0]), generator.normal(0.3, 2.0, seeds[1])
    comparison = compare(difficulty + of_candidate[:, np.newaxis], difficulty + of_reference[:, np.newaxis])

    welch = stats.ttest_ind(of_candidate, of_reference, equal_var=False)
    assert comparison.dof == pytest.approx(welch.df, rel=1e-8)
    interval = welch.confidence_interval(0.90)
    assert (comparison.low, comparison.high) == pytest.approx((interval.low, interval.high), abs=1e-10)
    for margin in (0.5, 1.0, 3.0):
        oracle = ttost_ind(of_candidate, of_reference, -margin, margin, usevar="unequal")[0]
        assert comparison.p_tost(margin) == pytest.approx(oracle, rel=1e-8)


@unhurried
@given(st.lists(st.floats(0.0, 1.0), max_size=8))
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    oracle = multipletests(p_values, method="holm")[1] if p_values else []
    assert holm(p_values) == pytest.approx(tuple(oracle), abs=1e-12)


def test_holm_keeps_the_order_given_and_ties_together() -> None:
    assert holm([0.04, 0.01, 0.01, 1.0]) == pytest.approx((0.08, 0.04, 0.04, 1.0))
    assert holm([]) == ()


@pytest.mark.parametrize("p", [-0.01, 1.01, math.nan])
def test_holm_refuses_what_is_no_p_value(p: float) -> None:
    with pytest.raises(ValueError, match="p value"):
        holm([0.5, p])


# --- ties, constants, and scores that are refused ---


@pytest.mark.parametrize("level", [40.0, 0.1, 1 / 3])
def test_constant_scores_give_an_interval_of_no_width(level: float) -> None:
    candidate, reference = np.full((3, 7), level + 1.0), np.full((4, 7), level)
    comparison = compare(candidate, reference)

    assert comparison.variance == 0.0
    assert comparison.low == comparison.difference == comparison.high == pytest.approx(1.0)
    assert comparison.dof == 2, "the smallest of 6, 2 and 3"
    assert comparison.p_tost(1.5) == 0.0
    assert comparison.p_tost(0.5) == 1.0
    components = comparison.components
    assert (components.sigma_seed, components.sigma_residual, components.sigma_item) == (0.0, 0.0, 0.0)


def test_a_constant_difference_on_the_margin_is_not_inside_it() -> None:
    comparison = compare(np.full((3, 4), 41.0), np.full((3, 4), 40.0))
    assert comparison.p_tost(1.0) == 1.0
    assert comparison.p_tost(math.nextafter(1.0, 2.0)) == 0.0


def test_arms_with_equal_scores_differ_by_exactly_nothing_whatever_their_seeds() -> None:
    row = np.random.default_rng(5).uniform(0.0, 100.0, 50)
    comparison = compare(np.tile(row, (3, 1)), np.tile(row, (7, 1)))
    assert (comparison.difference, comparison.variance) == (0.0, 0.0)
    assert comparison.interval(0.95) == (0.0, 0.0)


def test_tied_scores_are_ordinary_scores() -> None:
    comparison = compare([[1, 1, 2], [1, 2, 2]], [[1, 1, 1], [1, 1, 1]])
    assert comparison.difference == pytest.approx(0.5)
    assert comparison.residual_reference == 0.0
    assert 0.0 < comparison.p_tost(2.0) < 0.5


@pytest.mark.parametrize(
    ("candidate", "reference", "message"),
    [
        (np.ones((1, 4)), np.ones((3, 4)), "candidate has 1 seeds and 4 dialogues"),
        (np.ones((3, 4)), np.ones((1, 4)), "reference has 1 seeds and 4 dialogues"),
        (np.ones((3, 1)), np.ones((3, 1)), "candidate has 3 seeds and 1 dialogues"),
        (np.ones((0, 4)), np.ones((3, 4)), "candidate has 0 seeds"),
        (np.ones((3, 4)), np.ones((3, 5)), "unequal numbers of dialogues: candidate 4, reference 5"),
        (np.ones(4), np.ones((3, 4)), r"candidate scores have shape \(4,\)"),
        (np.ones((3, 4)), np.ones((3, 4, 2)), r"reference scores have shape \(3, 4, 2\)"),
        (np.ones((3, 4)), [[1, 2, 3, 4], [1, 2, 3]], "reference scores must be an array of numbers"),
        ([["a", "b"], ["c", "d"]], np.ones((3, 2)), "candidate scores must be an array of numbers"),
        ([[1, None], [2, 3]], np.ones((3, 2)), "1 of the 4 candidate scores are not finite"),
        ([[1, math.nan], [2, 3]], np.ones((3, 2)), "1 of the 4 candidate scores are not finite"),
        (np.ones((3, 2)), [[1, math.inf], [-math.inf, 3]], "2 of the 4 reference scores are not finite"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused_with_the_counts(
    candidate: FloatArray, reference: FloatArray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        compare(candidate, reference)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, -0.9, math.nan])
def test_a_confidence_that_is_no_share_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        compare(CANDIDATE, REFERENCE, confidence=confidence)
    with pytest.raises(ValueError, match="confidence"):
        compare(CANDIDATE, REFERENCE).interval(confidence)


@pytest.mark.parametrize("margin", [0.0, -1.0, math.inf, math.nan])
def test_p_tost_refuses_a_margin_that_is_none(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        compare(CANDIDATE, REFERENCE).p_tost(margin)


@pytest.mark.parametrize("field", ["difference", "item_variance", "seed_variance_candidate", "residual_reference"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_comparison_of_unusable_numbers_cannot_be_made(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        replace(compare(CANDIDATE, REFERENCE), **{field: value})  # type: ignore[arg-type]


# --- properties ---


@unhurried
@given(two_arms())
def test_swapping_the_arms_negates_the_interval(arms: tuple[FloatArray, FloatArray]) -> None:
    forth, back = compare(*arms), compare(*reversed(arms))
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
    assert forth.dof == pytest.approx(back.dof, rel=1e-6)
    assert forth.smallest_margin == pytest.approx(back.smallest_margin, abs=1e-9)


@unhurried
@given(two_arms(), st.integers(-50, 50))
def test_adding_a_constant_to_both_arms_changes_nothing(arms: tuple[FloatArray, FloatArray], constant: int) -> None:
    candidate, reference = arms
    before, after = compare(candidate, reference), compare(candidate + constant, reference + constant)
    assert (after.low, after.high) == pytest.approx((before.low, before.high), abs=1e-9)


@unhurried
@given(two_arms(), st.integers(-50, 50))
def test_adding_a_constant_to_the_candidate_shifts_the_interval(
    arms: tuple[FloatArray, FloatArray], constant: int
) -> None:
    candidate, reference = arms
    before, after = compare(candidate, reference), compare(candidate + constant, reference)
    assert (after.low, after.high) == pytest.approx((before.low + constant, before.high + constant), abs=1e-9)


@unhurried
@given(two_arms())
def test_the_numbers_are_finite_and_the_degrees_of_freedom_within_their_bounds(
    arms: tuple[FloatArray, FloatArray],
) -> None:
    comparison = compare(*arms)
    parts = (comparison.dialogues - 1, comparison.seeds_candidate - 1, comparison.seeds_reference - 1)
    assert min(parts) * (1 - 1e-9) <= comparison.dof <= sum(parts) * (1 + 1e-9)
    assert math.isfinite(comparison.low)
    assert comparison.low <= comparison.difference <= comparison.high


@unhurried
@given(two_arms(), st.floats(0.01, 20.0))
def test_p_tost_is_below_5_percent_exactly_where_the_90_interval_is_inside(
    arms: tuple[FloatArray, FloatArray], margin: float
) -> None:
    comparison = compare(*arms)
    inside = -margin < comparison.low and comparison.high < margin
    p = comparison.p_tost(margin)
    assert (p < 0.05) == inside or p == pytest.approx(0.05, abs=1e-9)
