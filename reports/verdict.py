"""From a comparison to a verdict: does the candidate match the reference within the margin?

The rules, with [L, U] the 90% interval of candidate - reference and Δ the margin (docs: README, "The claim check"):

    supported     -Δ < L and U < Δ, and the adjusted p <= 0.05 where several arms are tested
    refuted       U < -Δ (worse) or L > Δ (better)
    inconclusive  everything else, with what can still be said in the flags
    no_verdict    fewer than 3 seeds in an arm, or nothing that may be compared

Every rule asks for evidence; none concludes from its absence. In particular no p value of a test for a *difference* is
taken here, so that "p > 0.05, so they match" cannot come out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from reports.stats import TOST_CONFIDENCE, Comparison, require_margin
from study.power import MINIMUM_SEEDS

# A difference is called detectable when the interval of this confidence excludes 0.
DETECTION_CONFIDENCE = 0.95
ALPHA = 0.05


class Verdict(StrEnum):
    """What the evidence says of the claim."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"
    NO_VERDICT = "no_verdict"


class Flag(StrEnum):
    """What else holds beside the verdict."""

    REFUTED_WORSE = "refuted_worse"
    REFUTED_BETTER = "refuted_better"
    REAL_BUT_NEGLIGIBLE = "real_but_negligible"
    DETECTABLY_WORSE = "detectably_worse"
    DETECTABLY_BETTER = "detectably_better"
    NON_INFERIOR_ONLY = "non_inferior_only"
    NOT_AFTER_ADJUSTMENT = "not_after_adjustment"
    NO_INFORMATION = "no_information"


_FLAGS_OF: dict[Verdict, frozenset[Flag]] = {
    Verdict.SUPPORTED: frozenset({Flag.REAL_BUT_NEGLIGIBLE}),
    Verdict.REFUTED: frozenset({Flag.REFUTED_WORSE, Flag.REFUTED_BETTER}),
    Verdict.INCONCLUSIVE: frozenset(
        {
            Flag.DETECTABLY_WORSE,
            Flag.DETECTABLY_BETTER,
            Flag.NON_INFERIOR_ONLY,
            Flag.NOT_AFTER_ADJUSTMENT,
            Flag.NO_INFORMATION,
        }
    ),
    Verdict.NO_VERDICT: frozenset(),
}
# These two verdicts always say which way or how far: refuted in a direction, inconclusive to what extent.
_FLAG_REQUIRED = frozenset({Verdict.REFUTED, Verdict.INCONCLUSIVE})

_SAID: dict[Flag, str] = {
    Flag.REAL_BUT_NEGLIGIBLE: "the difference is real (the 95% interval excludes 0) but negligible",
    Flag.DETECTABLY_WORSE: "the candidate is detectably worse (the 95% interval lies below 0)",
    Flag.DETECTABLY_BETTER: "the candidate is detectably better (the 95% interval lies above 0)",
    Flag.NON_INFERIOR_ONLY: "it is shown not to be worse by the margin, but not that it matches",
    Flag.NO_INFORMATION: "it shows neither a match nor a difference",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, the sentence that gives it with its numbers, its flags, and Δ_min in points.

    Every margin above `smallest_margin` would be supported by the interval; it is None where there is no interval.

    Raises:
        ValueError: flags that contradict the verdict.
    """

    verdict: Verdict
    reason: str
    flags: tuple[Flag, ...]
    smallest_margin: float | None

    def __post_init__(self) -> None:
        strange = [flag for flag in self.flags if flag not in _FLAGS_OF[self.verdict]]
        if strange:
            allowed = ", ".join(sorted(_FLAGS_OF[self.verdict])) or "none"
            raise ValueError(f"flags {', '.join(strange)} contradict the verdict {self.verdict}: choose from {allowed}")
        if self.verdict in _FLAG_REQUIRED and not self.flags:
            raise ValueError(
                f"the verdict {self.verdict} needs a flag from {', '.join(sorted(_FLAGS_OF[self.verdict]))}"
            )


def withhold(why: str) -> Judgement:
    """No verdict, because there is no comparison to judge (`compare` refused the scores, a run is missing): `why`."""
    return Judgement(Verdict.NO_VERDICT, f"no verdict: {why}", (), None)


def judge(comparison: Comparison, *, margin: float, adjusted_p: float | None = None) -> Judgement:
    """Whether the candidate matches the reference within ±margin points, on one metric.

    The interval judged is always the 90% one, which is the equivalence test at 5% a side, and detection is always at
    95%, whatever confidence the comparison was made to print: a verdict must not depend on what a table shows. So a
    comparison made at 80% cannot make a claim pass, nor one at 95% make the same scores fail.

    `adjusted_p`: the TOST p value after Holm's adjustment over several candidate arms (`reports.stats.holm`); None
    where the claim stands alone. It can only take support away.

    Raises:
        ValueError: a margin that is not finite and above 0, or an adjusted p outside [0, 1].
    """
    require_margin(margin)
    if adjusted_p is not None and not 0.0 <= adjusted_p <= 1.0:
        raise ValueError(f"adjusted_p {adjusted_p} must lie between 0 and 1")
    if min(comparison.seeds_candidate, comparison.seeds_reference) < MINIMUM_SEEDS:
        reason = (
            f"no verdict: {comparison.seeds_candidate} seeds of the candidate and {comparison.seeds_reference} of the "
            f"reference on {comparison.dialogues} dialogues, and each arm needs at least {MINIMUM_SEEDS} seeds"
        )
        return Judgement(Verdict.NO_VERDICT, reason, (), comparison.smallest_margin)

    low, high = comparison.interval(TOST_CONFIDENCE)
    inside = -margin < low and high < margin
    if high < -margin:
        verdict, flags = Verdict.REFUTED, [Flag.REFUTED_WORSE]
    elif low > margin:
        verdict, flags = Verdict.REFUTED, [Flag.REFUTED_BETTER]
    elif inside and (adjusted_p is None or adjusted_p <= ALPHA):
        verdict, flags = Verdict.SUPPORTED, _support_flags(comparison)
    else:
        verdict, flags = Verdict.INCONCLUSIVE, _inconclusive_flags(comparison, margin)
    reason = _sentence(comparison, verdict, flags, margin, adjusted_p)
    return Judgement(verdict, reason, tuple(flags), comparison.smallest_margin)


def combine(judgements: Mapping[str, Judgement]) -> Judgement:
    """The judgement of a claim on several metrics, each under its name: intersection-union (Berger 1982).

    refuted       if any metric is, in either direction: the claim is "matches on every metric", and one failure
                  settles it, whatever is unknown of the others;
    no_verdict    else, if any metric has none: what was not tested cannot have passed;
    inconclusive  else, if any metric is;
    supported     only if each is. Each test stays at 5%: no adjustment over metrics is due.

    The flags are those of the metrics that decide. `smallest_margin` is the largest of the metrics', which is the one
    margin that would support them all; None where a metric has none.

    Raises:
        ValueError: no judgement at all; nothing is not support.
    """
    if not judgements:
        raise ValueError("combine needs the judgement of at least one metric, got none")
    present = {judgement.verdict for judgement in judgements.values()}
    precedence = (Verdict.REFUTED, Verdict.NO_VERDICT, Verdict.INCONCLUSIVE, Verdict.SUPPORTED)
    verdict = next(candidate for candidate in precedence if candidate in present)

    deciding = [judgement for judgement in judgements.values() if judgement.verdict is verdict]
    raised = {flag for judgement in deciding for flag in judgement.flags}
    # One metric that says something outweighs another that says nothing.
    if len(raised) > 1:
        raised.discard(Flag.NO_INFORMATION)
    margins = [judgement.smallest_margin for judgement in judgements.values()]
    known = [margin for margin in margins if margin is not None]
    listed = ", ".join(f"{name} {_words(judgement.verdict)}" for name, judgement in judgements.items())
    return Judgement(
        verdict,
        f"{_words(verdict)} over {len(judgements)} metrics, each of which must be supported: {listed}",
        tuple(flag for flag in Flag if flag in raised),
        max(known) if len(known) == len(margins) else None,
    )


def _support_flags(comparison: Comparison) -> list[Flag]:
    low, high = comparison.interval(DETECTION_CONFIDENCE)
    return [Flag.REAL_BUT_NEGLIGIBLE] if low > 0.0 or high < 0.0 else []


def _inconclusive_flags(comparison: Comparison, margin: float) -> list[Flag]:
    """What an undecided comparison still shows; `no_information` where it is nothing of the rest."""
    low, high = comparison.interval(TOST_CONFIDENCE)
    wide_low, wide_high = comparison.interval(DETECTION_CONFIDENCE)
    shown = {
        Flag.DETECTABLY_WORSE: wide_high < 0.0,
        Flag.DETECTABLY_BETTER: wide_low > 0.0,
        Flag.NON_INFERIOR_ONLY: low > -margin and high >= margin,
        Flag.NOT_AFTER_ADJUSTMENT: -margin < low and high < margin,
    }
    return [flag for flag, holds in shown.items() if holds] or [Flag.NO_INFORMATION]


def _sentence(
    comparison: Comparison, verdict: Verdict, flags: list[Flag], margin: float, adjusted_p: float | None
) -> str:
    low, high = comparison.interval(TOST_CONFIDENCE)
    decimals = _decimals(low, high, margin)

    def points(value: float) -> str:
        return f"{value:z.{decimals}f}"

    if Flag.REFUTED_WORSE in flags:
        where = f"lies below -{points(margin)}: worse by more than the margin"
    elif Flag.REFUTED_BETTER in flags:
        where = f"lies above {points(margin)}: better by more than the margin, so not a match"
    elif Flag.NOT_AFTER_ADJUSTMENT in flags:
        where = f"lies inside ±{points(margin)}, but not after the adjustment for several arms"
    elif verdict is Verdict.SUPPORTED:
        where = f"lies inside ±{points(margin)}"
    else:
        where = f"does not lie inside ±{points(margin)}, nor beyond it"
    tests = f"TOST p = {comparison.p_tost(margin):.2g}"
    if adjusted_p is not None:
        tests += f", adjusted p = {adjusted_p:.2g}"
    said = "".join(f"; {_SAID[flag]}" for flag in flags if flag in _SAID)
    return (
        f"{verdict}: the 90% interval [{points(low)}, {points(high)}] of the difference "
        f"{points(comparison.difference)} points {where} ({tests}; {comparison.seeds_candidate} and "
        f"{comparison.seeds_reference} seeds, {comparison.dialogues} dialogues; "
        f"smallest margin {points(comparison.smallest_margin)}){said}"
    )


def _decimals(low: float, high: float, margin: float) -> int:
    """The fewest decimals, 2 to 6, at which a bound that is not on the margin does not print as if it were."""
    pairs = [(low, -margin), (low, margin), (high, -margin), (high, margin)]
    for decimals in range(2, 6):
        if all(bound == edge or round(bound, decimals) != round(edge, decimals) for bound, edge in pairs):
            return decimals
    return 6


def _words(verdict: Verdict) -> str:
    return verdict.replace("_", " ")
