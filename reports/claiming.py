"""Claims on evidence: a comparison a metric, Holm over the arms, one verdict. What cannot be computed fails closed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.evidence import ArmEvidence, Evidence, Scored, label
from reports.stats import Comparison, compare, holm, retention
from reports.verdict import Judgement, Verdict, combine, judge, withhold
from results.schema import FrozenClaim
from study.power import EnoughSeeds, seeds_needed

_LATE = " (added after the freeze)"


@dataclass(frozen=True, slots=True)
class MetricResult:
    """One metric of a claim: `comparison` is None where there is nothing to compare."""

    metric: str
    comparison: Comparison | None
    judgement: Judgement
    p_tost: float | None
    adjusted_p: float | None


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """One claim: its verdict over all its metrics, each metric, and what more it would need.

    `drop_in` holds the comparisons at the reference's hyperparameters (secondary); `needs` says in plain words what an
    inconclusive verdict would take; `notes` what a reader must know beside.
    """

    claim: FrozenClaim
    judgement: Judgement
    metrics: tuple[MetricResult, ...]
    drop_in: tuple[tuple[str, Comparison], ...]
    retention: tuple[tuple[str, float, float | None, float | None], ...]
    needs: tuple[str, ...]
    notes: tuple[str, ...]
    run_ids: tuple[str, ...]


def judge_claims(evidence: Evidence) -> tuple[ClaimResult, ...]:
    """Every claim of the study, in the grid's order."""
    frozen = evidence.frozen
    if frozen is None:
        return ()
    compared = {
        claim.name: {metric: _compared(evidence, claim, metric) for metric in claim.metrics} for claim in frozen.claims
    }
    adjusted = _adjusted(frozen.claims, compared)
    return tuple(_result(evidence, claim, compared[claim.name], adjusted.get(claim.name)) for claim in frozen.claims)


def _compared(evidence: Evidence, claim: FrozenClaim, metric: str) -> Comparison | str:
    """The comparison of one metric, or why there is none."""
    if evidence.plan.protocol == "seed":
        return "this study re-runs an old protocol, which is labelled and never judged"
    if evidence.plan.arms and evidence.frozen is not None and evidence.frozen.model.weights == "random":
        return "random weights have no scores"
    candidate, reference = evidence.arm(claim.candidate), evidence.arm(claim.reference)
    for name, arm in ((claim.candidate, candidate), (claim.reference, reference)):
        if arm is None or arm.scored is None:
            return f"{name} has no completed test run{_why(arm)}"
    if candidate is None or reference is None:
        return "an arm of the claim is not in the plan"
    return _compare(candidate.scored, reference.scored, metric)


def _why(arm: ArmEvidence | None) -> str:
    statuses = sorted({record.status for record in arm.all_runs if record.status != "completed"}) if arm else []
    return f" ({', '.join(statuses)})" if statuses else ""


def _compare(candidate: Scored | None, reference: Scored | None, metric: str) -> Comparison | str:
    if candidate is None or reference is None:
        return "there are no scores to compare"
    if candidate.example_ids != reference.example_ids:
        return f"{len(candidate.example_ids)} and {len(reference.example_ids)} dialogues that are not the same"
    try:
        return compare(candidate.scores[metric], reference.scores[metric])
    except ValueError as error:
        return str(error)


def _adjusted(
    claims: Sequence[FrozenClaim], compared: Mapping[str, Mapping[str, Comparison | str]]
) -> dict[str, float]:
    """Holm's adjustment where several claims share a reference arm: each enters with its largest p over metrics."""
    result: dict[str, float] = {}
    for reference in {claim.reference for claim in claims}:
        family = [claim for claim in claims if claim.reference == reference]
        if len(family) > 1:
            largest = [max(_p(item, claim.margin) for item in compared[claim.name].values()) for claim in family]
            result |= dict(zip((claim.name for claim in family), holm(largest), strict=True))
    return result


def _p(comparison: Comparison | str, margin: float) -> float:
    return 1.0 if isinstance(comparison, str) else comparison.p_tost(margin)


def _result(
    evidence: Evidence, claim: FrozenClaim, compared: Mapping[str, Comparison | str], adjusted: float | None
) -> ClaimResult:
    metrics = []
    for metric, found in compared.items():
        if isinstance(found, str):
            metrics.append(MetricResult(metric, None, withhold(found), None, None))
        else:
            judgement = judge(found, margin=claim.margin, adjusted_p=adjusted)
            metrics.append(MetricResult(metric, found, judgement, found.p_tost(claim.margin), adjusted))
    total = combine({label(item.metric): item.judgement for item in metrics})
    scored = [arm.scored for name in (claim.candidate, claim.reference) if (arm := evidence.arm(name)) and arm.scored]
    return ClaimResult(
        claim=claim,
        judgement=total,
        metrics=tuple(metrics),
        drop_in=_drop_in(evidence, claim),
        retention=_retention(evidence, claim),
        needs=_needs(metrics, claim.margin) if total.verdict is Verdict.INCONCLUSIVE else (),
        notes=_notes(evidence, claim),
        run_ids=tuple(run_id for item in scored for run_id in item.run_ids),
    )


def _drop_in(evidence: Evidence, claim: FrozenClaim) -> tuple[tuple[str, Comparison], ...]:
    candidate, reference = evidence.arm(claim.candidate), evidence.arm(claim.reference)
    if not claim.drop_in or candidate is None or reference is None or candidate.drop_in is None:
        return ()
    found = [(metric, _compare(candidate.drop_in, reference.scored, metric)) for metric in claim.metrics]
    return tuple((metric, item) for metric, item in found if isinstance(item, Comparison))


def _retention(evidence: Evidence, claim: FrozenClaim) -> tuple[tuple[str, float, float | None, float | None], ...]:
    """Share of the reference's gain over its zero-shot model that the candidate keeps, with a Fieller interval."""
    candidate, reference = evidence.arm(claim.candidate), evidence.arm(claim.reference)
    zero_shot = (
        None if reference is None or reference.part.zero_shot is None else evidence.arm(reference.part.zero_shot)
    )
    if candidate is None or reference is None or zero_shot is None:
        return ()
    parts = (candidate.scored, reference.scored, zero_shot.scored)
    if any(part is None for part in parts) or len({part.example_ids for part in parts if part}) != 1:
        return ()
    rows = []
    for metric in claim.metrics:
        arrays = [part.scores[metric] for part in parts if part is not None]
        try:
            kept = retention(arrays[0], arrays[1], arrays[2].mean(axis=0))
        except ValueError:
            continue
        if kept.ratio is not None:
            rows.append((metric, kept.ratio, kept.low, kept.high))
    return tuple(rows)


def _needs(metrics: Sequence[MetricResult], margin: float) -> tuple[str, ...]:
    needs = []
    for item in metrics:
        if item.comparison is None or item.judgement.verdict is not Verdict.INCONCLUSIVE:
            continue
        components = item.comparison.components
        needed = seeds_needed(
            components.sigma_seed, components.sigma_residual, components.sigma_item, item.comparison.dialogues, margin
        )
        if isinstance(needed, EnoughSeeds):
            needs.append(
                f"{label(item.metric)}: about {needed.advised} seeds an arm on {item.comparison.dialogues} dialogues "
                f"would show a true match at a margin of {margin:g} (power {100 * needed.power:.0f}%)"
            )
        else:
            needs.append(
                f"{label(item.metric)}: no number of seeds is enough on {item.comparison.dialogues} dialogues at a "
                f"margin of {margin:g}; it needs more than {needed.dialogues} dialogues"
            )
    return tuple(needs)


def _notes(evidence: Evidence, claim: FrozenClaim) -> tuple[str, ...]:
    notes = []
    rule = claim.margin_rule.removesuffix(_LATE)
    now = evidence.plan.margins.get(claim.name)
    if now is None:
        notes.append("the grid no longer makes this claim")
    elif now != rule:
        notes.append(f"the grid's margin was changed after the freeze (now {now}); the frozen one is judged")
    if claim.margin_rule.endswith(_LATE):
        notes.append("the claim was added after the freeze: exploratory")
    for name in (claim.candidate, claim.reference):
        arm = evidence.arm(name)
        if arm is not None and arm.choice is not None and arm.choice.edges:
            notes.append(f"{name}: the winner lies at the edge of the space ({', '.join(arm.choice.edges)})")
        if arm is not None and arm.scored is not None:
            planned = {run.seed for run in evidence.plan.runs if run.arm == name and run.purpose == "tuned"}
            missing = sorted(planned - set(arm.scored.seeds))
            if missing:
                notes.append(f"{name}: seeds {', '.join(map(str, missing))} have no score")
    return tuple(notes)


def claim_json(result: ClaimResult) -> dict[str, Any]:
    """One claim as it stands in verdict.json; scores in points."""
    claim = result.claim
    return {
        "name": claim.name,
        "candidate": claim.candidate,
        "reference": claim.reference,
        "verdict": str(result.judgement.verdict),
        "reason": result.judgement.reason,
        "flags": [str(flag) for flag in result.judgement.flags],
        "margin": claim.margin,
        "margin_rule": claim.margin_rule,
        "smallest_margin": _rounded(result.judgement.smallest_margin),
        "metrics": {item.metric: _metric_json(item) for item in result.metrics},
        "drop_in": {metric: _comparison_json(comparison) for metric, comparison in result.drop_in},
        "retention": {
            metric: {"ratio": _rounded(ratio), "low95": _rounded(low), "high95": _rounded(high)}
            for metric, ratio, low, high in result.retention
        },
        "needs": list(result.needs),
        "notes": list(result.notes),
        "run_ids": list(result.run_ids),
    }


def _metric_json(item: MetricResult) -> dict[str, Any]:
    return {
        "verdict": str(item.judgement.verdict),
        "reason": item.judgement.reason,
        "flags": [str(flag) for flag in item.judgement.flags],
        "smallest_margin": _rounded(item.judgement.smallest_margin),
        "p_tost": _rounded(item.p_tost),
        "adjusted_p": _rounded(item.adjusted_p),
        **({} if item.comparison is None else _comparison_json(item.comparison)),
    }


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    low90, high90 = comparison.interval(0.90)
    low95, high95 = comparison.interval(0.95)
    components = comparison.components
    return {
        "difference": _rounded(comparison.difference),
        "low90": _rounded(low90),
        "high90": _rounded(high90),
        "low95": _rounded(low95),
        "high95": _rounded(high95),
        "variance": _rounded(comparison.variance),
        "dof": _rounded(comparison.dof),
        "seeds_candidate": comparison.seeds_candidate,
        "seeds_reference": comparison.seeds_reference,
        "dialogues": comparison.dialogues,
        "sigma_seed": _rounded(components.sigma_seed),
        "sigma_residual": _rounded(components.sigma_residual),
        "sigma_item": _rounded(components.sigma_item),
    }


def _rounded(value: float | None) -> float | None:
    """Eight decimals: more than any reader needs, fewer than platforms disagree on."""
    return None if value is None else round(float(value), 8)
