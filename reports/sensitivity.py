"""How far a claim hangs on which hyperparameters were chosen: each arm's best configurations against each other.

Validation records only: no score of the test split is looked at here.
"""

from dataclasses import dataclass

from reports.evidence import ArmEvidence, Evidence
from results.schema import FrozenClaim, Record

TOP = 3


@dataclass(frozen=True, slots=True)
class Configuration:
    """One hyperparameter set of an arm, `rank_in_arm` 1 being the chosen one; the runs that scored it, by metric."""

    rank_in_arm: int
    rank: int | None
    alpha: int | None
    learning_rate: float | None
    scores: dict[str, float]
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Candidate minus reference on the validation split, in points, for one configuration of each."""

    candidate: Configuration
    reference: Configuration
    difference: float

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs behind the difference."""
        return (*self.candidate.run_ids, *self.reference.run_ids)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """One metric of a claim over all pairs of the arms' best configurations, candidate's rank first."""

    claim: str
    metric: str
    pairs: tuple[Pair, ...]

    @property
    def spread(self) -> float:
        """The largest minus the smallest difference, in points."""
        found = [pair.difference for pair in self.pairs]
        return max(found) - min(found)


def sensitivities(evidence: Evidence) -> tuple[Sensitivity, ...]:
    """Every metric of every claim whose two arms each have a scored configuration; none before the freeze."""
    if evidence.frozen is None:
        return ()
    found = [
        _sensitivity(evidence, claim, metric)
        for claim in evidence.frozen.claims
        for metric in dict.fromkeys(claim.metrics)
    ]
    return tuple(item for item in found if item is not None)


def _sensitivity(evidence: Evidence, claim: FrozenClaim, metric: str) -> Sensitivity | None:
    candidate, reference = evidence.arm(claim.candidate), evidence.arm(claim.reference)
    if candidate is None or reference is None:
        return None
    pairs = tuple(
        Pair(one, other, one.scores[metric] - other.scores[metric])
        for one in best_configurations(evidence, candidate)
        for other in best_configurations(evidence, reference)
        if metric in one.scores and metric in other.scores
    )
    return Sensitivity(claim.name, metric, pairs) if pairs else None


def best_configurations(evidence: Evidence, arm: ArmEvidence) -> tuple[Configuration, ...]:
    """The arm's best three, the chosen one first, the others as the freeze ranked them by their first run.

    A set that was run again on more seeds has the mean over all its completed runs. One whose runs were left out of
    the evidence is passed over, and the next takes no other's rank.
    """
    choice = arm.choice
    if choice is None:
        return ()
    usable = {record.run_id: record for record in evidence.validation if record.arm == arm.part.name}
    order = dict.fromkeys([*([] if choice.run_id is None else [choice.run_id]), *choice.ranking])
    found = []
    for number, run_id in enumerate(list(order)[:TOP], start=1):
        record = usable.get(run_id)
        if record is not None and record.quality is not None:
            found.append(_configuration(number, record, [item for item in usable.values() if _same_set(item, record)]))
    return tuple(found)


def _same_set(one: Record, other: Record) -> bool:
    return _set_of(one) == _set_of(other)


def _set_of(record: Record) -> tuple[int | None, int | None, float | None, int | None]:
    # The trial's number too: two trials of one set would be one run, so it only tells repetitions on other seeds.
    return record.adapter.rank, record.adapter.alpha, record.learning_rate, record.trial


def _configuration(number: int, record: Record, runs: list[Record]) -> Configuration:
    qualities = [run.quality for run in runs if run.quality is not None]
    keys = sorted(set.intersection(*(set(quality) for quality in qualities)))
    return Configuration(
        rank_in_arm=number,
        rank=record.adapter.rank,
        alpha=record.adapter.alpha,
        learning_rate=record.learning_rate,
        scores={key: sum(quality[key] for quality in qualities) / len(qualities) for key in keys},
        run_ids=tuple(run.run_id for run in runs),
    )
