"""`verdict.json`: the verdicts with every number and every run behind them. Scores in points, retention as shares."""

import json
from collections.abc import Sequence
from typing import Any

from reports.claiming import ClaimResult, MetricResult
from reports.evidence import Evidence
from reports.public_text import public_text
from reports.stats import BootstrapInterval, Comparison, Retention
from reports.verdict import Verdict
from results.schema import Record
from study.power import EnoughSeeds, SeedsNeeded


def verdict_json(evidence: Evidence, results: Sequence[ClaimResult]) -> bytes:
    """The file's content."""
    content = {
        "study": evidence.study,
        "protocol": evidence.plan.protocol,
        "verdict": _overall(results),
        "claims": [claim_json(result) for result in results],
        "model": evidence.model,
        "data": evidence.description,
        "floors": evidence.plan.floors,
        "environment": list(evidence.machines),
        "not_completed": [_failure(record) for record in evidence.not_completed],
        "not_run": [
            {"run_id": run.run_id, "arm": run.arm, "stage": run.stage, "seed": run.seed} for run in evidence.not_run
        ],
        "left_out": [{"reason": public_text(item.reason), "run_ids": list(item.run_ids)} for item in evidence.left_out],
        "damaged": list(evidence.damaged),
    }
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _overall(results: Sequence[ClaimResult]) -> str | None:
    """The verdict that all claims share. Null where they differ: none of them speaks for the others."""
    verdicts = {str(result.judgement.verdict) for result in results} or {str(Verdict.NO_VERDICT)}
    return verdicts.pop() if len(verdicts) == 1 else None


def _failure(record: Record) -> dict[str, Any]:
    error = record.error
    return {
        "run_id": record.run_id,
        "arm": record.arm,
        "stage": record.stage,
        "seed": record.seed,
        "trial": record.trial,
        "status": record.status,
        "phase": None if error is None else error.phase,
        "why": None if error is None else public_text(error.message),
    }


def claim_json(result: ClaimResult) -> dict[str, Any]:
    """One claim; what is not known is null. `seeds` are those scored, of those planned, by arm."""
    claim, judgement = result.claim, result.judgement
    dialogues = {item.comparison.dialogues for item in result.metrics if item.comparison is not None}
    return {
        "name": result.name,
        "candidate": None if claim is None else claim.candidate,
        "reference": None if claim is None else claim.reference,
        "verdict": str(judgement.verdict),
        "reason": public_text(judgement.reason, 1000),
        "flags": [str(flag) for flag in judgement.flags],
        "exploratory": result.exploratory,
        "margin": None if claim is None else claim.margin,
        "margin_rule": None if claim is None else claim.margin_rule,
        "smallest_margin": _rounded(judgement.smallest_margin),
        "dialogues": dialogues.pop() if len(dialogues) == 1 else None,
        "seeds": {
            arm: {
                "planned": count.planned,
                "scored": count.scored,
                "missing": {str(seed): status for seed, status in count.missing.items()},
            }
            for arm, count in result.seeds.items()
        },
        "metrics": {item.metric: _metric_json(item) for item in result.metrics},
        "drop_in": {
            metric: {"reason": found} if isinstance(found, str) else _comparison_json(found)
            for metric, found in result.drop_in.items()
        },
        "retention": {metric: _retention_json(kept) for metric, kept in result.retention.items()},
        "needs": list(result.needs),
        "notes": list(result.notes),
        "run_ids": list(result.run_ids),
    }


def _metric_json(item: MetricResult) -> dict[str, Any]:
    return {
        "verdict": str(item.judgement.verdict),
        "reason": public_text(item.judgement.reason, 1000),
        "flags": [str(flag) for flag in item.judgement.flags],
        "smallest_margin": _rounded(item.judgement.smallest_margin),
        "p_tost": _rounded(item.p_tost),
        "adjusted_p": _rounded(item.adjusted_p),
        **({} if item.comparison is None else _comparison_json(item.comparison)),
        "bootstrap": None if item.bootstrap is None else _bootstrap_json(item.bootstrap),
        "power": _rounded(item.power),
        "needed": None if item.needed is None else _needed_json(item.needed),
    }


def _bootstrap_json(found: BootstrapInterval) -> dict[str, Any]:
    """The cross-check, with what it takes to draw it again."""
    return {
        "confidence": found.confidence,
        "low": _rounded(found.low),
        "high": _rounded(found.high),
        "standard_error": _rounded(found.standard_error),
        "resamples": found.resamples,
        "seed": found.seed,
    }


def _needed_json(needed: SeedsNeeded) -> dict[str, Any]:
    """What 80% power takes: so many seeds an arm, or more dialogues, without which no number of seeds is enough."""
    if isinstance(needed, EnoughSeeds):
        return {"seeds": needed.advised, "power": _rounded(needed.power), "dialogues": None}
    return {"seeds": None, "power": None, "dialogues": needed.dialogues}


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
        "components": {
            "sigma_seed": _rounded(components.sigma_seed),
            "sigma_residual": _rounded(components.sigma_residual),
            "sigma_item": _rounded(components.sigma_item),
        },
    }


def _retention_json(kept: Retention) -> dict[str, Any]:
    return {
        "ratio": _rounded(kept.ratio),
        "low95": _rounded(kept.low),
        "high95": _rounded(kept.high),
        "candidate_gain": _rounded(kept.candidate_gain),
        "reference_gain": _rounded(kept.reference_gain),
    }


def _rounded(value: float | None) -> float | None:
    """Eight decimals: more than any reader needs, fewer than platforms disagree on."""
    return None if value is None else round(float(value), 8)
