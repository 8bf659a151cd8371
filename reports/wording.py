"""A study's verdicts and scores in plain words: what a terminal and the top of the page say."""

from collections.abc import Sequence

from reports.claiming import ClaimResult
from reports.evidence import ArmEvidence, Evidence
from reports.public_text import public_text
from reports.stats import TOST_CONFIDENCE, Retention
from reports.tables import DID_NOT_FIT, GIB, MISSING, NO_SCORES, score_cell
from study.metrics import METRICS
from study.problems import one_line

# The primary metric and the two that papers quote beside it.
_QUOTED = ("rouge1", "rouge2", "rougeL")
_LONGEST_SENTENCE = 1000


def claim_sentence(result: ClaimResult) -> str:
    """What is claimed, and the verdict: `qlora matches lora within ±1 points: inconclusive.`"""
    verdict = str(result.judgement.verdict).replace("_", " ")
    if result.claim is None:
        return f"{result.name}: {verdict}."
    claim = result.claim
    late = " (exploratory)" if result.exploratory else ""
    return f"{claim.candidate} matches {claim.reference} within ±{claim.margin:g} points{late}: {verdict}."


def metric_sentences(result: ClaimResult) -> list[str]:
    """Why: one sentence a metric with its interval, or one for all where they share it."""
    reasons = {item.judgement.reason for item in result.metrics}
    if len(reasons) <= 1:
        return [_reason(result.judgement.reason)]
    return [f"{_label(item.metric)}: {_reason(item.judgement.reason)}" for item in result.metrics]


def secondary_sentences(result: ClaimResult) -> list[str]:
    """What stands beside the verdict and does not decide it: the share of the gain kept, and the drop-in comparison."""
    if result.claim is None:
        return []
    reference = result.claim.reference
    kept = [f"{_label(metric)}: {_kept(share, reference)}" for metric, share in result.retention.items()]
    drop_in = []
    for metric, found in result.drop_in.items():
        if isinstance(found, str):
            said = public_text(found)
        else:
            low, high = found.interval(TOST_CONFIDENCE)
            said = f"difference {found.difference:z.2f} points, 90% interval [{low:z.2f}, {high:z.2f}]"
        drop_in.append(f"{_label(metric)} at the hyperparameters of {reference} (secondary): {said}")
    return [*kept, *drop_in]


def _kept(share: Retention, reference: str) -> str:
    if share.ratio is None or share.reference_gain <= 0.0:
        return f"{reference} gains nothing over its zero-shot model, so there is no gain to keep"
    said = f"keeps {100 * share.ratio:.1f}% of the gain of {reference} over its zero-shot model"
    if share.interval is None:
        return f"{said} (no interval: that gain cannot be told from 0)"
    return f"{said} (95% interval {100 * share.interval.low:.1f}% to {100 * share.interval.high:.1f}%)"


def _label(metric: str) -> str:
    return METRICS[metric].label if metric in METRICS else metric


def _reason(reason: str) -> str:
    return public_text(reason, _LONGEST_SENTENCE)


def summary(evidence: Evidence, results: Sequence[ClaimResult]) -> tuple[str, ...]:
    """The lines that a terminal prints; none holds a terminal escape."""
    lines: list[str] = []
    for result in results:
        lines.append(claim_sentence(result))
        lines += [f"  {sentence}" for sentence in metric_sentences(result)]
        lines += [f"  {sentence}" for sentence in secondary_sentences(result)]
        lines += [f"  what it would need: {need}" for need in result.needs]
        lines += [f"  note: {note}" for note in result.notes]
    if not results:
        lines.append("no verdict: this study makes no claim")
    if evidence.random_weights:
        lines.append(NO_SCORES)
        lines += [f"  {arm.part.name}: {_memory_and_time(arm)}" for arm in evidence.arms]
    else:
        lines += [f"  {arm.part.name}: {_scores(arm)}" for arm in (*evidence.arms, *evidence.external)]
        lines += _floors(evidence)
    lines += [f"  left out: {len(item.run_ids)} runs: {public_text(item.reason)}" for item in evidence.left_out]
    return tuple(one_line(line) for line in lines)


def _floors(evidence: Evidence) -> list[str]:
    lines = []
    for name, scores in evidence.plan.floors.items():
        quoted = [f"{METRICS[key].label} {scores[key]:.{METRICS[key].decimals}f}" for key in _QUOTED if key in scores]
        lines.append(f"  floor, {name}: {', '.join(quoted)}")
    return lines


def _memory_and_time(arm: ArmEvidence) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in arm.test_statuses.items()) or "no test run planned yet"
    if arm.memory is None:
        return f"{DID_NOT_FIT if arm.did_not_fit else MISSING} ({counts})"
    peak = f"peak memory {arm.memory.median_bytes / GIB:.3f} GiB"
    training = f", training {arm.train_seconds:.1f} s" if arm.trains and arm.train_seconds is not None else ""
    return f"{peak}{training} ({counts})"


def _scores(arm: ArmEvidence) -> str:
    if arm.scored is None:
        counts = ", ".join(f"{count} {status}" for status, count in arm.test_statuses.items())
        return f"{MISSING} no scores ({counts or 'no test run planned yet'})"
    quoted = ", ".join(f"{METRICS[key].label} {score_cell(arm, key).text}" for key in _QUOTED)
    count = len(arm.scored.seeds)
    return f"{quoted} ({count} seed{'' if count == 1 else 's'})"
