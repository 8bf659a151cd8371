"""Claims on evidence: a comparison a metric, Holm over the arms, one verdict. What cannot be computed fails closed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reports.evidence import ArmEvidence, Evidence, Hyperparameters
from reports.scores import Scored, Unscored
from reports.stats import (
    TOST_CONFIDENCE,
    BootstrapInterval,
    Comparison,
    Retention,
    compare,
    crossed_bootstrap,
    holm,
    require_margin,
    retention,
)
from reports.verdict import Judgement, Verdict, combine, judge, withhold
from results.schema import FrozenClaim
from study.claims import EXTERNAL_PREFIX
from study.metrics import CLAIMABLE, METRICS
from study.power import EnoughSeeds, SeedsNeeded, seeds_needed, tost_power
from study.problems import choices

# How the freeze marks a claim that the grid did not make at the first freeze.
_LATE = " (added after the freeze)"
# Of the bootstrap that cross-checks each interval: enough for two decimals, and the same draws at every report.
_RESAMPLES = 2000
_BOOTSTRAP_SEED = 20240611


@dataclass(frozen=True, slots=True)
class MetricResult:
    """One metric of a claim; all but its judgement is None where there is nothing to compare.

    `bootstrap` is the cross-check of the 90% interval, `power` the probability that this design supports a true
    difference of 0, and `needed` what it takes for 80% of that, both with the variances that were found.
    """

    metric: str
    comparison: Comparison | None
    judgement: Judgement
    p_tost: float | None
    adjusted_p: float | None
    bootstrap: BootstrapInterval | None = None
    power: float | None = None
    needed: SeedsNeeded | None = None


@dataclass(frozen=True, slots=True)
class ArmCount:
    """The seeds of one arm of a claim: how many were planned and scored, and what became of the others."""

    planned: int
    scored: int
    missing: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimResult:
    """One claim: its verdict over all its metrics, each metric, and what more it would need.

    `claim` is None before the freeze, when only its name is known. `seeds` is by arm. `drop_in` (secondary) holds each
    metric's comparison at the reference's hyperparameters, or why there is none; `retention` the share of the
    reference's gain that is kept; `needs` says in plain words what an inconclusive verdict would take; `notes` what a
    reader must know beside.
    """

    name: str
    claim: FrozenClaim | None
    judgement: Judgement
    metrics: tuple[MetricResult, ...] = ()
    seeds: Mapping[str, ArmCount]
    drop_in: Mapping[str, Comparison | str]
    retention: Mapping[str, Retention]
    exploratory: bool = False
    needs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    drop_in_run_ids: tuple[str, ...] = ()


def judge_claims(evidence: Evidence) -> tuple[ClaimResult, ...]:
    """Every claim of the study, in the grid's order."""
    if evidence.frozen is None:
        withheld = withhold("the study is not frozen yet, and nothing is judged before that")
        return tuple(
            ClaimResult(name=name, claim=None, judgement=withheld, seeds={}, drop_in={}, retention={})
            for name in evidence.plan.margins
        )
    claims = evidence.frozen.claims
    compared = [_compared(evidence, claim) for claim in claims]
    adjusted = _adjusted(claims, compared)
    return tuple(_result(evidence, claim, found, p) for claim, found, p in zip(claims, compared, adjusted, strict=True))


def _compared(evidence: Evidence, claim: FrozenClaim) -> dict[str, Comparison | str]:
    """The comparison of each metric, or why there is none."""
    obstacle = _obstacle(evidence, claim)
    candidate, reference = evidence.arm(claim.candidate), evidence.arm(claim.reference)
    if obstacle is not None or candidate is None or reference is None:
        return {metric: obstacle or "an arm is missing" for metric in claim.metrics}
    return {metric: _compare(candidate.test, reference.test, metric) for metric in claim.metrics}


def _obstacle(evidence: Evidence, claim: FrozenClaim) -> str | None:
    """Why a claim cannot be judged at all."""
    protocols = {evidence.plan.protocol, evidence.frozen.protocol if evidence.frozen is not None else "paper"}
    if "seed" in protocols:
        return "this study re-runs an old protocol, which is labelled and never judged"
    unknown = [metric for metric in claim.metrics if metric not in CLAIMABLE]
    if unknown:
        return f"no claim can be about {', '.join(map(repr, unknown))}"
    try:
        require_margin(claim.margin)
    except ValueError as error:
        return str(error)
    for name in (claim.candidate, claim.reference):
        arm = evidence.arm(name)
        if arm is None:
            return _absent(evidence, name)
        if isinstance(arm.test, Unscored):
            return f"{name} {_why(evidence, arm, arm.test)}"
    return None


def _absent(evidence: Evidence, name: str) -> str:
    if not name.startswith(EXTERNAL_PREFIX):
        return f"{name} is no arm of the grid any more"
    added = choices(arm.part.name for arm in evidence.external) if evidence.external else "there is none"
    return f"{name} is no system whose predictions were added (python -m results add-predictions): {added}"


def _why(evidence: Evidence, arm: ArmEvidence, test: Unscored) -> str:
    """Why an arm has no scores, what its planned test runs came to, and why any of them were left out."""
    if arm.external:
        return test.reason
    counts = ", ".join(f"{count} {status}" for status, count in arm.test_statuses.items())
    mine = {run.run_id for run in arm.test_runs}
    left_out = [item.reason for item in evidence.left_out if mine & set(item.run_ids)]
    return "; ".join([f"{test.reason} ({counts or 'none planned'})", *left_out])


def _compare(candidate: Scored | Unscored, reference: Scored | Unscored, metric: str) -> Comparison | str:
    if isinstance(candidate, Unscored):
        return f"the candidate {candidate.reason}"
    if isinstance(reference, Unscored):
        return f"the reference {reference.reason}"
    if candidate.example_ids != reference.example_ids:
        counts = f"{len(candidate.example_ids)} and {len(reference.example_ids)}"
        return f"the arms were scored on different dialogues ({counts})"
    try:
        return compare(candidate.scores[metric], reference.scores[metric])
    except ValueError as error:
        return str(error)


def _adjusted(claims: Sequence[FrozenClaim], compared: Sequence[Mapping[str, Comparison | str]]) -> list[float | None]:
    """Holm's adjustment where several claims share a reference arm: each enters with its largest p over metrics."""
    adjusted: list[float | None] = [None] * len(claims)
    for reference in dict.fromkeys(claim.reference for claim in claims):
        family = [index for index, claim in enumerate(claims) if claim.reference == reference]
        if len(family) > 1:
            p_values = [_largest_p(compared[index].values(), claims[index].margin) for index in family]
            for index, p_value in zip(family, holm(p_values), strict=True):
                adjusted[index] = p_value
    return adjusted


def _largest_p(found: Iterable[Comparison | str], margin: float) -> float:
    # What could not be tested stays in the family with p = 1: an arm that failed must not make it easier for others.
    return max((1.0 if isinstance(item, str) else item.p_tost(margin) for item in found), default=1.0)


def _result(
    evidence: Evidence, claim: FrozenClaim, compared: Mapping[str, Comparison | str], adjusted: float | None
) -> ClaimResult:
    metrics = tuple(_metric(evidence, claim, metric, found, adjusted) for metric, found in compared.items())
    arms = [arm for name in (claim.candidate, claim.reference) if (arm := evidence.arm(name)) is not None]
    total = _total(metrics)
    return ClaimResult(
        name=claim.name,
        claim=claim,
        judgement=total,
        metrics=metrics,
        seeds={arm.part.name: _count(arm) for arm in arms},
        drop_in=_drop_in(evidence, claim),
        retention=_retention(evidence, claim),
        exploratory=claim.margin_rule.endswith(_LATE),
        needs=_needs(metrics, claim.margin) if total.verdict is Verdict.INCONCLUSIVE else (),
        notes=(*_notes(evidence, claim, arms), *_cross_checks(metrics, claim.margin)),
        run_ids=tuple(run_id for arm in arms if arm.scored is not None for run_id in arm.scored.run_ids),
        drop_in_run_ids=_drop_in_runs(evidence, claim),
    )


def _metric(
    evidence: Evidence, claim: FrozenClaim, metric: str, found: Comparison | str, adjusted: float | None
) -> MetricResult:
    if isinstance(found, str):
        return MetricResult(metric, None, withhold(found), None, None)
    parts, margin = found.components, claim.margin
    sigmas = {
        "sigma_seed": parts.sigma_seed,
        "sigma_residual": parts.sigma_residual,
        "sigma_item": parts.sigma_item,
    }
    return MetricResult(
        metric,
        found,
        judge(found, margin=margin, adjusted_p=adjusted),
        found.p_tost(margin),
        adjusted,
        bootstrap=_bootstrap(evidence, claim, metric),
        power=tost_power(
            found.seeds_candidate, found.dialogues, margin, seeds_reference=found.seeds_reference, **sigmas
        ),
        needed=seeds_needed(**sigmas, dialogues=found.dialogues, margin=margin),
    )


def _bootstrap(evidence: Evidence, claim: FrozenClaim, metric: str) -> BootstrapInterval | None:
    arms = [evidence.arm(claim.candidate), evidence.arm(claim.reference)]
    scored = [arm.scored.scores[metric] for arm in arms if arm is not None and arm.scored is not None]
    if len(scored) < len(arms):
        return None
    return crossed_bootstrap(*scored, resamples=_RESAMPLES, seed=_BOOTSTRAP_SEED, confidence=TOST_CONFIDENCE)


def _cross_checks(metrics: Sequence[MetricResult], margin: float) -> list[str]:
    """What a reader must know where the bootstrap's interval and the one that is judged lie differently."""
    notes = []
    for item in metrics:
        if item.comparison is None or item.bootstrap is None or item.judgement.verdict is Verdict.NO_VERDICT:
            continue
        low, high = item.bootstrap.low, item.bootstrap.high
        if _where(low, high, margin) != _where(*item.comparison.interval(TOST_CONFIDENCE), margin):
            notes.append(
                f"{_label(item.metric)}: the bootstrap, a cross-check that does not decide, has the 90% interval "
                f"[{low:z.2f}, {high:z.2f}], which lies {_where(low, high, margin)} the margin"
            )
    return notes


def _where(low: float, high: float, margin: float) -> str:
    if -margin < low and high < margin:
        return "inside"
    return "beyond" if high < -margin or low > margin else "across"


def _total(metrics: Sequence[MetricResult]) -> Judgement:
    """The claim's judgement: that of its only metric, or all of them combined."""
    if not metrics:
        return withhold("the claim names no metric")
    reasons = {item.judgement.reason for item in metrics}
    # One obstacle for all metrics is said once.
    if len(metrics) == 1 or (len(reasons) == 1 and metrics[0].judgement.verdict is Verdict.NO_VERDICT):
        return metrics[0].judgement
    return combine({_label(item.metric): item.judgement for item in metrics})


def _label(metric: str) -> str:
    return METRICS[metric].label if metric in METRICS else metric


def _count(arm: ArmEvidence) -> ArmCount:
    # A system from elsewhere has the seeds that were added, and no plan.
    planned = len({run.seed for run in arm.test_runs}) or len(arm.external)
    return ArmCount(planned, 0 if arm.scored is None else len(arm.scored.seeds), arm.missing_seeds)


def _drop_in(evidence: Evidence, claim: FrozenClaim) -> dict[str, Comparison | str]:
    pair = _drop_in_pair(evidence, claim)
    return {} if pair is None else {metric: _compare(*pair, metric) for metric in claim.metrics}


def _drop_in_runs(evidence: Evidence, claim: FrozenClaim) -> tuple[str, ...]:
    """The runs of the drop-in comparison, the candidate's first; none where it has no scores."""
    pair = _drop_in_pair(evidence, claim) or ()
    scored = [part.run_ids for part in pair if isinstance(part, Scored)]
    return (*scored[0], *scored[1]) if len(scored) == 2 else ()


def _drop_in_pair(evidence: Evidence, claim: FrozenClaim) -> tuple[Scored | Unscored, Scored | Unscored] | None:
    """The candidate's scores at the reference's hyperparameters, and the reference's; None where nobody asked."""
    candidate, reference = evidence.arm(claim.candidate), evidence.arm(claim.reference)
    if not claim.drop_in or _obstacle(evidence, claim) is not None or candidate is None or reference is None:
        return None
    if reference.choice is None:
        return None
    chosen = Hyperparameters(reference.choice.rank, reference.choice.alpha, reference.choice.learning_rate)
    missing = Unscored("has no completed drop-in run at the reference's hyperparameters")
    return candidate.drop_in.get(chosen, missing), reference.test


def _retention(evidence: Evidence, claim: FrozenClaim) -> dict[str, Retention]:
    """Share of the reference's gain over its zero-shot model that the candidate keeps, with a Fieller interval."""
    reference = evidence.arm(claim.reference)
    if _obstacle(evidence, claim) is not None or reference is None:
        return {}
    arms = [evidence.arm(claim.candidate), reference, evidence.arm(reference.part.zero_shot)]
    scored = [arm.scored for arm in arms if arm is not None and arm.scored is not None]
    if len(scored) < len(arms) or len({part.example_ids for part in scored}) > 1:
        return {}
    found = {}
    for metric in claim.metrics:
        candidate, against, zero_shot = (part.scores[metric] for part in scored)
        try:
            found[metric] = retention(candidate, against, zero_shot.mean(axis=0))
        except ValueError:
            # Fewer than two seeds or dialogues: the claim's own verdict says so.
            continue
    return found


def _needs(metrics: Sequence[MetricResult], margin: float) -> tuple[str, ...]:
    needs = []
    for item in metrics:
        if item.comparison is None or item.judgement.verdict is not Verdict.INCONCLUSIVE:
            continue
        dialogues = item.comparison.dialogues
        if isinstance(item.needed, EnoughSeeds):
            needs.append(
                f"{_label(item.metric)}: about {item.needed.advised} seeds an arm on {dialogues} dialogues would show "
                f"a true match at a margin of {margin:g} (power {100 * item.needed.power:.0f}%)"
            )
        elif item.needed is not None:
            needs.append(
                f"{_label(item.metric)}: no number of seeds is enough on {dialogues} dialogues at a margin of "
                f"{margin:g}; it takes at least {item.needed.dialogues} dialogues"
            )
    return tuple(needs)


def _notes(evidence: Evidence, claim: FrozenClaim, arms: Sequence[ArmEvidence]) -> tuple[str, ...]:
    notes = []
    now = evidence.plan.margins.get(claim.name)
    if now is None:
        notes.append("the grid no longer makes this claim")
    elif now != claim.margin_rule.removesuffix(_LATE):
        notes.append(f"the grid's margin was changed after the freeze (now {now}); the frozen one is judged")
    if claim.margin_rule.endswith(_LATE):
        notes.append("the claim was added after the freeze: exploratory")
    if claim.confidence != TOST_CONFIDENCE:
        notes.append(
            f"the grid asks for a confidence of {claim.confidence:g}; the verdict is always the 90% interval's, which "
            "is two one-sided tests at 5%"
        )
    for arm in arms:
        if arm.choice is not None and arm.choice.edges:
            edges = ", ".join(arm.choice.edges)
            notes.append(f"{arm.part.name}: the chosen hyperparameters lie at the edge of the space ({edges})")
        if arm.scored is not None and arm.missing_seeds:
            missing = ", ".join(f"{seed} ({_unscored(status)})" for seed, status in arm.missing_seeds.items())
            notes.append(f"{arm.part.name}: planned seeds without a score: {missing}")
    return tuple(notes)


def _unscored(status: str) -> str:
    return "completed, but left out" if status == "completed" else status
