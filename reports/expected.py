"""Expected validation performance: what the best of n trials of an arm scores on average (Dodge et al. 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reports.evidence import ArmEvidence, Evidence
from results.schema import ALWAYS_AGAIN, PlannedRun, Record
from study.metrics import METRICS


@dataclass(frozen=True, slots=True)
class ExpectedPoint:
    """What `trials` trials are expected to give: the best score, and their seconds of training (None: unknown)."""

    trials: int
    score: float
    seconds: float | None


@dataclass(frozen=True, slots=True)
class ExpectedCurve:
    """The curve of one arm over the trials of the shared block, in the unit of `metric`.

    `points` are for 1 to N trials, and empty where there is no curve: `reason` then says why. `run_ids` are the trials
    behind it, of which `counted_as_worst` gave no score.
    """

    arm: str
    metric: str
    points: tuple[ExpectedPoint, ...]
    counted_as_worst: int
    run_ids: tuple[str, ...]
    reason: str | None = None


def expected_best(values: Sequence[float]) -> tuple[float, ...]:
    """The expected maximum of n draws, with replacement, from `values`, for n = 1 to their number N.

    V(n) = Σ v_(i) [(i/N)^n - ((i-1)/N)^n] over the values in ascending order (Dodge et al. 2019, "Show Your Work",
    equation 7).

    Raises:
        ValueError: no value at all, or one that is not finite.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if ordered.size == 0 or not np.isfinite(ordered).all():
        raise ValueError(f"the expected best of {ordered.size} values needs at least one, and all of them finite")
    shares = np.arange(ordered.size + 1) / ordered.size
    draws = np.arange(1, ordered.size + 1)[:, np.newaxis]
    return tuple(float(value) for value in np.diff(shares**draws, axis=1) @ ordered)


def expected_curves(evidence: Evidence) -> tuple[ExpectedCurve, ...]:
    """The curve of every trained arm, in the plan's order; none at all for random weights or before the freeze.

    A trial of the block that ended without a score (out of memory, diverged, failed, timed out) used up its share of
    the budget: it counts as the worst score that any arm's trial of the block came to, the same in every arm. A block
    with a pruned trial, one still to come or one that was left out has no curve: what such a trial would have scored
    is unknown. Seconds are n times the mean of the block's trials that completed and tell theirs.
    """
    if evidence.frozen is None or evidence.random_weights:
        return ()
    metric = evidence.frozen.select_by
    arms = [arm for arm in evidence.arms if arm.trains]
    blocks = {arm.part.name: shared_block(arm) for arm in arms}
    usable = {record.run_id: record for record in evidence.validation}
    scores = [
        record.quality[metric]
        for block in blocks.values()
        for run in block
        if (record := usable.get(run.run_id)) is not None and record.quality is not None
    ]
    worst = None
    if scores:
        worst = min(scores) if METRICS[metric].better == "higher" else max(scores)
    return tuple(_curve(arm, metric, blocks[arm.part.name], usable, worst) for arm in arms)


def shared_block(arm: ArmEvidence) -> tuple[PlannedRun, ...]:
    """The trials of the block that all arms share, in their order: what the sampler proposed later is none of it.

    No record says which trial the sampler proposed. The plan does, by its order: `harness.flow` lists the blocks before
    the runs that follow the freeze, and what was proposed on the way after them. A trial that was run again on more
    seeds counts by its first run.
    """
    block: dict[int, PlannedRun] = {}
    for run in arm.planned:
        if run.stage == "confirm":
            return tuple(block.values())
        if run.stage == "tune" and run.trial is not None:
            block.setdefault(run.trial, run)
    # Without any run that follows the freeze, the order says nothing.
    return ()


def _curve(
    arm: ArmEvidence,
    metric: str,
    block: Sequence[PlannedRun],
    usable: dict[str, Record],
    worst: float | None,
) -> ExpectedCurve:
    name, ids = arm.part.name, tuple(run.run_id for run in block)
    reason = _obstacle(arm, block, usable, worst)
    if reason is not None or worst is None:
        return ExpectedCurve(name, metric, (), 0, ids, reason)
    found = {run_id: usable[run_id].quality for run_id in ids if run_id in usable}
    values = [quality[metric] for quality in found.values() if quality is not None]
    failed = len(ids) - len(values)
    sign = METRICS[metric].sign
    best = expected_best([sign * value for value in (*values, *[worst] * failed)])
    seconds = [used for run_id in found if (used := usable[run_id].seconds.train) is not None]
    mean = sum(seconds) / len(seconds) if seconds else None
    points = tuple(
        ExpectedPoint(number, sign * value, None if mean is None else number * mean)
        for number, value in enumerate(best, start=1)
    )
    return ExpectedCurve(name, metric, points, failed, ids)


def _obstacle(
    arm: ArmEvidence, block: Sequence[PlannedRun], usable: dict[str, Record], worst: float | None
) -> str | None:
    """Why an arm has no curve."""
    if not block:
        return "no trials of a shared block"
    statuses = [arm.recorded[run.run_id].status if run.run_id in arm.recorded else "not_run" for run in block]
    waiting = sum(status == "not_run" or status in ALWAYS_AGAIN for status in statuses)
    left_out = sum(
        status == "completed" and run.run_id not in usable for status, run in zip(statuses, block, strict=True)
    )
    if pruned := statuses.count("pruned"):
        return f"{pruned} of {len(block)} trials of the block were pruned"
    if waiting:
        return f"{waiting} of {len(block)} trials of the block are still to come"
    if left_out:
        return f"{left_out} of {len(block)} trials of the block are not comparable with the rest"
    return "no trial of any arm's block has a score" if worst is None else None
