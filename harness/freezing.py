"""The freeze: from the trials of every arm to the choices that the test split will judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from results.schema import ArmPart, Choice, Frozen, FrozenClaim, Importances, ModelPart, PruningPart, Record
from study.claims import Claim, FixedMargin
from study.grid import Grid
from study.metrics import METRICS
from study.space import Hyperparameters


@dataclass(frozen=True, slots=True)
class Candidate:
    """One hyperparameter set of an arm with the records of its runs (several where it was re-run on more seeds)."""

    hyperparameters: Hyperparameters
    records: tuple[Record, ...]

    def mean(self, metric: str) -> float | None:
        """The mean over the set's runs; None unless each of them is completed and scored."""
        values = [None if record.quality is None else record.quality[metric] for record in self.records]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None


def ranked(candidates: Sequence[Candidate], select_by: str) -> list[Candidate]:
    """Scored candidates, best first by `select_by`, ties by validation loss, then by the order of the block."""
    sign = -METRICS[select_by].sign
    scored = [candidate for candidate in candidates if candidate.mean(select_by) is not None]
    return sorted(scored, key=lambda item: (sign * (item.mean(select_by) or 0.0), item.mean("validation_loss") or 0.0))


def choose(grid: Grid, arm_name: str, trials: Sequence[Candidate], reselected: Sequence[Candidate]) -> Choice | None:
    """The choice for one arm on validation alone; None where no trial of it gave anything to choose.

    Args:
        trials: every set of the arm, in the order of its trials.
        reselected: the best of them with the runs on further seeds, where the study asked for that.
    """
    arm = grid.arm(arm_name)
    completed = [trial for trial in trials if all(record.status == "completed" for record in trial.records)]
    counts = (len(trials), len(completed))
    if grid.space_of(arm).is_point:
        return _choice(
            grid, arm_name, Candidate(grid.block(arm)[0], ()), [], counts, "the grid leaves nothing to choose"
        )
    order = ranked(trials, grid.tune.select_by)
    if order:
        final = ranked(reselected, grid.tune.select_by) or order
        label = METRICS[grid.tune.select_by].label
        seeds = max(len(item.records) for item in final)
        return _choice(grid, arm_name, final[0], order, counts, f"best validation {label} over {seeds} seed(s)")
    if completed:
        reason = "random weights give no score to choose by: the first set of the block"
        return _choice(grid, arm_name, completed[0], [], counts, reason)
    return None


def _choice(
    grid: Grid, arm: str, winner: Candidate, order: Sequence[Candidate], counts: tuple[int, int], reason: str
) -> Choice:
    chosen = winner.hyperparameters
    return Choice(
        arm=arm,
        rank=chosen.rank,
        alpha=chosen.alpha,
        learning_rate=chosen.learning_rate,
        run_id=winner.records[0].run_id if winner.records else None,
        score=winner.mean(grid.tune.select_by),
        trials=counts[0],
        completed_trials=counts[1],
        edges=grid.space_of(grid.arm(arm)).edges(chosen),
        ranking=tuple(item.records[0].run_id for item in order),
        reason=reason,
    )


def arm_parts(grid: Grid) -> tuple[ArmPart, ...]:
    """How every arm of a grid is described in reports."""
    zero_shots = {arm.name: grid.zero_shot_of(arm) for arm in grid.arms}
    return tuple(
        ArmPart(
            name=arm.name,
            family=arm.family,
            precision=arm.precision,
            method=arm.method,
            double_quant=arm.double_quant,
            targets=arm.targets,
            zero_shot=None if (found := zero_shots[arm.name]) is None or not arm.trains else found.name,
        )
        for arm in grid.arms
    )


def pruning_part(grid: Grid) -> PruningPart | None:
    """By which rule trials are pruned, if they are."""
    rule = grid.tune.pruning
    return None if rule is None else PruningPart(at=rule.at, startup=rule.startup, keep=rule.keep)


def margin_rule(claim: Claim) -> str:
    """A claim's margin as the grid states it."""
    if isinstance(claim.margin, FixedMargin):
        return f"fixed: {claim.margin.points:g} points"
    return f"retain {claim.margin.share:g} of the reference's gain over zero-shot on validation, within 0.5 to 1.0"


@dataclass(frozen=True, slots=True)
class Trials:
    """What the freeze looks at: a choice for each arm with its validation scores, the validation record of each
    zero-shot arm, the ids of all runs before the freeze, the digests of the data, and what each hyperparameter
    mattered to each arm."""

    choices: Sequence[Choice]
    scores: Mapping[str, Mapping[str, float]]
    baselines: Mapping[str, Record]
    run_ids: frozenset[str]
    hashes: dict[str, str]
    importances: Sequence[Importances] = ()


def freeze(grid: Grid, trials: Trials, earlier: Frozen | None) -> Frozen:
    """The frozen study. What an earlier freeze fixed stays as it was; arms and claims new in the grid are added."""
    prompt_hash = f"{grid.prompts.training.hash}-{grid.prompts.evaluation.hash}"
    if earlier is not None and (earlier.data != trials.hashes or earlier.prompt_hash != prompt_hash):
        # Other data or another prompt make another study under the same name: nothing of the old freeze holds.
        earlier = None
    # A choice made among runs that the grid no longer asks for (other training settings, say) does not hold either.
    known = (*trials.run_ids, None)
    kept = {choice.arm: choice for choice in earlier.choices if choice.run_id in known} if earlier else {}
    # They belong to a choice, and stay as long as it does: another version of a library may give another last digit.
    kept_importances = {item.arm: item for item in earlier.importances if item.arm in kept} if earlier else {}
    kept_claims = {claim.name: claim for claim in earlier.claims} if earlier else {}
    late = " (added after the freeze)" if earlier is not None else ""
    claims = [kept_claims.get(claim.name) or _frozen_claim(grid, claim, trials, late) for claim in grid.claims]
    return Frozen(
        study=grid.study,
        protocol=grid.protocol,
        model=ModelPart(id=grid.model.id, revision=grid.model.revision, weights=grid.model.weights),
        select_by=grid.tune.select_by,
        arms=arm_parts(grid),
        choices=tuple(kept.get(choice.arm, choice) for choice in trials.choices),
        claims=tuple(claims),
        seeds=grid.seeds,
        data=trials.hashes,
        prompt_hash=prompt_hash,
        frozen_at=datetime.now(UTC).isoformat(timespec="seconds") if earlier is None else earlier.frozen_at,
        importances=tuple(kept_importances.get(item.arm, item) for item in trials.importances),
        # A trial that was pruned stays so, also where the grid no longer asks for it.
        pruning=pruning_part(grid) if earlier is None or earlier.pruning is None else earlier.pruning,
    )


def _frozen_claim(grid: Grid, claim: Claim, trials: Trials, late: str) -> FrozenClaim:
    return FrozenClaim(
        name=claim.name,
        candidate=claim.candidate,
        reference=claim.reference,
        metrics=claim.metrics,
        margin=_points(grid, claim, trials),
        margin_rule=margin_rule(claim) + late,
        confidence=claim.confidence,
        drop_in=claim.drop_in,
    )


def _points(grid: Grid, claim: Claim, trials: Trials) -> float:
    if isinstance(claim.margin, FixedMargin):
        return claim.margin.points
    metric = claim.metrics[0]
    zero_shot = grid.zero_shot_of(grid.arm(claim.reference))
    baseline = None if zero_shot is None else trials.baselines.get(zero_shot.name)
    reference = trials.scores.get(claim.reference, {}).get(metric)
    if baseline is None or baseline.quality is None or reference is None:
        # Without both scores the rule cannot be computed: the strictest margin that it can give.
        return claim.margin.points(0.0, 0.0)
    return claim.margin.points(reference, baseline.quality[metric])
