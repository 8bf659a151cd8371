"""Every branch of the verdict, and what must never come out of it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reports.stats import Comparison, compare
from reports.verdict import Flag, Judgement, Verdict, combine, judge, withhold

MARGIN = 1.0
DIALOGUES = 101

unhurried = settings(deadline=None)


def comparison(
    low: float, high: float, *, seeds: tuple[int, int] = (5, 5), confidence: float = 0.90, dialogues: int = DIALOGUES
) -> Comparison:
    """A comparison whose 90% interval is [low, high], with all variance in the dialogues."""
    half_width = (high - low) / 2.0
    return Comparison(
        difference=(low + high) / 2.0,
        seeds_candidate=seeds[0],
        seeds_reference=seeds[1],
        dialogues=dialogues,
        item_variance=(half_width / float(stats.t.ppf(0.95, dialogues - 1))) ** 2,
        seed_variance_candidate=0.0,
        seed_variance_reference=0.0,
        residual_candidate=0.0,
        residual_reference=0.0,
        confidence=confidence,
    )


BRANCHES = [
    pytest.param(-0.5, 0.6, Verdict.SUPPORTED, (), id="inside"),
    pytest.param(-0.9, -0.2, Verdict.SUPPORTED, (Flag.REAL_BUT_NEGLIGIBLE,), id="inside-and-below-0"),
    pytest.param(0.2, 0.9, Verdict.SUPPORTED, (Flag.REAL_BUT_NEGLIGIBLE,), id="inside-and-above-0"),
    pytest.param(-0.9, -0.01, Verdict.SUPPORTED, (), id="below-0-at-90-but-not-at-95"),
    pytest.param(-2.0, -1.1, Verdict.REFUTED, (Flag.REFUTED_WORSE,), id="wholly-below"),
    pytest.param(1.1, 2.0, Verdict.REFUTED, (Flag.REFUTED_BETTER,), id="wholly-above"),
    pytest.param(-1.5, -0.5, Verdict.INCONCLUSIVE, (Flag.DETECTABLY_WORSE,), id="across-the-lower-margin"),
    pytest.param(
        0.5, 1.5, Verdict.INCONCLUSIVE, (Flag.DETECTABLY_BETTER, Flag.NON_INFERIOR_ONLY), id="across-the-upper-margin"
    ),
    pytest.param(-0.5, 1.5, Verdict.INCONCLUSIVE, (Flag.NON_INFERIOR_ONLY,), id="not-worse"),
    pytest.param(-1.5, 0.5, Verdict.INCONCLUSIVE, (Flag.NO_INFORMATION,), id="not-better"),
    pytest.param(-1.5, 1.5, Verdict.INCONCLUSIVE, (Flag.NO_INFORMATION,), id="across-both"),
    pytest.param(-1.5, -0.01, Verdict.INCONCLUSIVE, (Flag.NO_INFORMATION,), id="worse-at-90-but-not-at-95"),
]


@pytest.mark.parametrize(("low", "high", "verdict", "flags"), BRANCHES)
def test_each_position_of_the_interval_has_its_verdict_and_flags(
    low: float, high: float, verdict: Verdict, flags: tuple[Flag, ...]
) -> None:
    judgement = judge(comparison(low, high), margin=MARGIN)

    assert judgement.verdict is verdict
    assert judgement.flags == flags
    assert judgement.smallest_margin == pytest.approx(max(abs(low), abs(high)))
    assert judgement.reason.startswith(f"{verdict}: the 90% interval [{low:.2f}, {high:.2f}]")
    assert "1.00" in judgement.reason
    assert "5 and 5 seeds, 101 dialogues" in judgement.reason
    assert "\n" not in judgement.reason


@pytest.mark.parametrize("confidence", [0.50, 0.95, 0.99])
@pytest.mark.parametrize(("low", "high", "verdict", "flags"), BRANCHES)
def test_the_verdict_does_not_depend_on_the_confidence_that_is_printed(
    low: float, high: float, verdict: Verdict, flags: tuple[Flag, ...], confidence: float
) -> None:
    other = judge(comparison(low, high, confidence=confidence), margin=MARGIN)
    assert (other.verdict, other.flags) == (verdict, flags)
    assert other == judge(comparison(low, high), margin=MARGIN)


@pytest.mark.parametrize(
    ("difference", "verdict", "flags"),
    [
        (1.0, Verdict.INCONCLUSIVE, (Flag.DETECTABLY_BETTER, Flag.NON_INFERIOR_ONLY)),
        (-1.0, Verdict.INCONCLUSIVE, (Flag.DETECTABLY_WORSE,)),
        (math.nextafter(1.0, 2.0), Verdict.REFUTED, (Flag.REFUTED_BETTER,)),
        (math.nextafter(-1.0, -2.0), Verdict.REFUTED, (Flag.REFUTED_WORSE,)),
        (math.nextafter(1.0, 0.0), Verdict.SUPPORTED, (Flag.REAL_BUT_NEGLIGIBLE,)),
        (0.0, Verdict.SUPPORTED, ()),
    ],
)
def test_an_interval_that_ends_on_the_margin_neither_supports_nor_refutes(
    difference: float, verdict: Verdict, flags: tuple[Flag, ...]
) -> None:
    # Constant scores: an interval of no width, so that the bound is exactly where it is put.
    judgement = judge(comparison(difference, difference), margin=MARGIN)
    assert (judgement.verdict, judgement.flags) == (verdict, flags)


def test_the_smallest_margin_is_where_support_begins() -> None:
    seen = comparison(-0.94, -0.04)
    smallest = judge(seen, margin=MARGIN).smallest_margin
    assert smallest is not None
    assert judge(seen, margin=smallest).verdict is Verdict.INCONCLUSIVE
    assert judge(seen, margin=smallest * 1.0001).verdict is Verdict.SUPPORTED


def test_the_pilots_figures_give_the_pilots_verdicts() -> None:
    rouge1, rouge2 = comparison(-0.94, -0.04), comparison(-0.92, -0.09)
    assert judge(rouge1, margin=1.0).verdict is Verdict.SUPPORTED
    assert judge(rouge2, margin=1.0).flags == (Flag.REAL_BUT_NEGLIGIBLE,)
    assert judge(rouge1, margin=0.5).verdict is Verdict.INCONCLUSIVE
    assert judge(rouge2, margin=0.5).verdict is Verdict.INCONCLUSIVE
    # Detectably worse in ROUGE-2, but not in ROUGE-1, whose 95% interval holds 0.
    assert judge(rouge2, margin=0.5).flags == (Flag.DETECTABLY_WORSE,)
    assert judge(rouge1, margin=0.5).flags == (Flag.NO_INFORMATION,)


# --- several arms ---


@pytest.mark.parametrize(
    ("adjusted_p", "verdict"),
    [(0.0, "supported"), (0.05, "supported"), (math.nextafter(0.05, 1.0), "inconclusive"), (1.0, "inconclusive")],
)
def test_support_also_needs_the_adjusted_p(adjusted_p: float, verdict: str) -> None:
    judgement = judge(comparison(-0.5, 0.5), margin=MARGIN, adjusted_p=adjusted_p)
    assert judgement.verdict == verdict
    assert (Flag.NOT_AFTER_ADJUSTMENT in judgement.flags) == (verdict == "inconclusive")
    assert "adjusted p = " in judgement.reason


def test_support_lost_to_the_adjustment_still_says_that_the_difference_is_real() -> None:
    judgement = judge(comparison(-0.9, -0.2), margin=MARGIN, adjusted_p=0.2)
    assert judgement.flags == (Flag.DETECTABLY_WORSE, Flag.NOT_AFTER_ADJUSTMENT)


@pytest.mark.parametrize(("low", "high"), [(-1.5, 1.5), (-1.5, -0.5), (0.5, 1.5), (-2.0, -1.1), (1.1, 2.0)])
def test_a_small_adjusted_p_never_makes_a_match(low: float, high: float) -> None:
    seen = comparison(low, high)
    assert judge(seen, margin=MARGIN, adjusted_p=0.0).verdict is judge(seen, margin=MARGIN).verdict


@pytest.mark.parametrize(("low", "high"), [(-2.0, -1.1), (1.1, 2.0)])
def test_a_large_adjusted_p_takes_no_refutation_back(low: float, high: float) -> None:
    assert judge(comparison(low, high), margin=MARGIN, adjusted_p=1.0).verdict is Verdict.REFUTED


# --- no verdict, and what is refused ---


@pytest.mark.parametrize("seeds", [(2, 5), (5, 2), (2, 2)])
@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.1), (-3.0, -2.0), (-2.0, 2.0)])
def test_a_claim_with_two_seeds_gets_no_verdict(seeds: tuple[int, int], low: float, high: float) -> None:
    judgement = judge(comparison(low, high, seeds=seeds), margin=MARGIN, adjusted_p=0.001)
    assert judgement.verdict is Verdict.NO_VERDICT
    assert judgement.flags == ()
    assert f"{seeds[0]} seeds of the candidate and {seeds[1]} of the reference" in judgement.reason
    assert judgement.smallest_margin == pytest.approx(max(abs(low), abs(high)))


def test_a_claim_with_three_seeds_gets_a_verdict() -> None:
    assert judge(comparison(-0.1, 0.1, seeds=(3, 3)), margin=MARGIN).verdict is Verdict.SUPPORTED


def test_a_verdict_withheld_says_why_and_has_no_margin() -> None:
    judgement = withhold("candidate 499 dialogues, reference 500")
    assert judgement.verdict is Verdict.NO_VERDICT
    assert judgement.reason == "no verdict: candidate 499 dialogues, reference 500"
    assert judgement.smallest_margin is None


@pytest.mark.parametrize("margin", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("seeds", [(5, 5), (2, 2)])
def test_a_margin_that_is_none_is_refused(margin: float, seeds: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="margin"):
        judge(comparison(-0.1, 0.1, seeds=seeds), margin=margin)


@pytest.mark.parametrize("adjusted_p", [-0.1, 1.1, math.nan])
def test_an_adjusted_p_that_is_none_is_refused(adjusted_p: float) -> None:
    with pytest.raises(ValueError, match="adjusted_p"):
        judge(comparison(-0.1, 0.1), margin=MARGIN, adjusted_p=adjusted_p)


def test_few_noisy_scores_without_a_significant_difference_are_not_a_match() -> None:
    generator = np.random.default_rng(4)
    arms = generator.normal(35.0, 8.0, (2, 3, 10))
    assert stats.ttest_ind(arms[0].mean(axis=1), arms[1].mean(axis=1)).pvalue > 0.05
    judgement = judge(compare(arms[0], arms[1]), margin=MARGIN)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.flags == (Flag.NO_INFORMATION,)


def test_a_bound_close_to_the_margin_is_not_printed_as_if_on_it() -> None:
    assert "[-0.5000, 0.9996]" in judge(comparison(-0.5, 0.9996), margin=MARGIN).reason
    assert "[-0.5000, 1.0004]" in judge(comparison(-0.5, 1.0004), margin=MARGIN).reason
    assert "[0.000000, 1.000000]" in judge(comparison(0.0, 1.0 + 1e-9), margin=MARGIN).reason


def test_no_minus_is_printed_before_zero() -> None:
    assert "-0.00" not in judge(comparison(-0.001, 0.0005), margin=MARGIN).reason


@pytest.mark.parametrize(
    ("verdict", "flags"),
    [
        (Verdict.SUPPORTED, (Flag.REFUTED_WORSE,)),
        (Verdict.SUPPORTED, (Flag.NO_INFORMATION,)),
        (Verdict.REFUTED, (Flag.NON_INFERIOR_ONLY,)),
        (Verdict.REFUTED, ()),
        (Verdict.INCONCLUSIVE, (Flag.REAL_BUT_NEGLIGIBLE,)),
        (Verdict.INCONCLUSIVE, ()),
        (Verdict.NO_VERDICT, (Flag.NO_INFORMATION,)),
    ],
)
def test_a_judgement_that_contradicts_itself_cannot_be_made(verdict: Verdict, flags: tuple[Flag, ...]) -> None:
    with pytest.raises(ValueError, match=verdict.value):
        Judgement(verdict, "because", flags, 1.0)


# --- several metrics ---

SUPPORTED = judge(comparison(-0.5, 0.6), margin=MARGIN)
NEGLIGIBLE = judge(comparison(-0.9, -0.2), margin=MARGIN)
WORSE = judge(comparison(-2.0, -1.1), margin=MARGIN)
BETTER = judge(comparison(1.1, 2.0), margin=MARGIN)
VAGUE = judge(comparison(-1.5, 1.6), margin=MARGIN)
NOT_WORSE = judge(comparison(-0.5, 1.5), margin=MARGIN)
TOO_FEW = judge(comparison(-0.5, 0.5, seeds=(2, 5)), margin=MARGIN)


@pytest.mark.parametrize(
    ("members", "verdict", "flags"),
    [
        ([SUPPORTED, SUPPORTED], "supported", ()),
        ([SUPPORTED, NEGLIGIBLE], "supported", (Flag.REAL_BUT_NEGLIGIBLE,)),
        ([SUPPORTED, VAGUE], "inconclusive", (Flag.NO_INFORMATION,)),
        ([NEGLIGIBLE, VAGUE], "inconclusive", (Flag.NO_INFORMATION,)),
        ([NOT_WORSE, VAGUE], "inconclusive", (Flag.NON_INFERIOR_ONLY,)),
        ([SUPPORTED, WORSE], "refuted", (Flag.REFUTED_WORSE,)),
        ([BETTER, VAGUE], "refuted", (Flag.REFUTED_BETTER,)),
        ([BETTER, WORSE], "refuted", (Flag.REFUTED_WORSE, Flag.REFUTED_BETTER)),
        ([SUPPORTED, TOO_FEW], "no_verdict", ()),
        ([VAGUE, TOO_FEW], "no_verdict", ()),
        ([WORSE, TOO_FEW], "refuted", (Flag.REFUTED_WORSE,)),
    ],
)
def test_a_claim_on_several_metrics_is_as_good_as_its_weakest(
    members: list[Judgement], verdict: str, flags: tuple[Flag, ...]
) -> None:
    forth = combine({f"metric{i}": member for i, member in enumerate(members)})
    back = combine({f"metric{i}": member for i, member in enumerate(reversed(members))})
    assert forth.verdict == back.verdict == verdict
    assert forth.flags == back.flags == flags


def test_a_combined_judgement_names_every_metric_and_needs_the_largest_margin() -> None:
    combined = combine({"rouge1": SUPPORTED, "rouge2": VAGUE, "rougeLsum": TOO_FEW})
    assert combined.reason == (
        "no verdict over 3 metrics, each of which must be supported: "
        "rouge1 supported, rouge2 inconclusive, rougeLsum no verdict"
    )
    assert combined.smallest_margin == pytest.approx(1.6)
    assert combine({"rouge1": SUPPORTED, "rouge2": withhold("no runs")}).smallest_margin is None


def test_no_metric_at_all_is_not_support() -> None:
    with pytest.raises(ValueError, match="at least one metric"):
        combine({})


@unhurried
@given(st.lists(st.sampled_from([SUPPORTED, NEGLIGIBLE, WORSE, BETTER, VAGUE, TOO_FEW]), min_size=1, max_size=5))
def test_a_combination_is_supported_only_if_every_metric_is(members: list[Judgement]) -> None:
    combined = combine({str(i): member for i, member in enumerate(members)})
    assert (combined.verdict is Verdict.SUPPORTED) == all(m.verdict is Verdict.SUPPORTED for m in members)
    assert (combined.verdict is Verdict.REFUTED) == any(m.verdict is Verdict.REFUTED for m in members)


# --- properties ---

points = st.floats(-5.0, 5.0)
margins = st.floats(0.05, 5.0)


@unhurried
@given(points, points, margins, st.floats(1.0, 10.0))
def test_widening_the_margin_never_takes_support_away(a: float, b: float, margin: float, factor: float) -> None:
    seen = comparison(min(a, b), max(a, b))
    narrow, wide = judge(seen, margin=margin).verdict, judge(seen, margin=margin * factor).verdict
    if narrow is Verdict.SUPPORTED:
        assert wide is Verdict.SUPPORTED
    if wide is Verdict.REFUTED:
        assert narrow is Verdict.REFUTED


@unhurried
@given(points, points, margins)
def test_supported_is_exactly_the_equivalence_test_at_5_percent(a: float, b: float, margin: float) -> None:
    seen = comparison(min(a, b), max(a, b))
    p = seen.p_tost(margin)
    assert (judge(seen, margin=margin).verdict is Verdict.SUPPORTED) == (p < 0.05) or p == pytest.approx(0.05, abs=1e-9)


MIRRORED = {Flag.REFUTED_WORSE: Flag.REFUTED_BETTER, Flag.DETECTABLY_WORSE: Flag.DETECTABLY_BETTER}


@unhurried
@given(points, points, margins)
def test_swapping_the_arms_keeps_the_verdict_and_turns_its_direction(a: float, b: float, margin: float) -> None:
    low, high = min(a, b), max(a, b)
    forth, back = judge(comparison(low, high), margin=margin), judge(comparison(-high, -low), margin=margin)
    assert forth.verdict is back.verdict
    for worse, better in MIRRORED.items():
        assert (worse in forth.flags) == (better in back.flags)
        assert (better in forth.flags) == (worse in back.flags)
