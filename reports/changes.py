"""What differs between two studies, arm by arm and metric by metric, and what of it is a regression: values only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from reports.evidence import ArmEvidence, Evidence, peak_bytes
from reports.measured_tables import PHASES, joules_a_thousand, phase_memory, process_peak, tokens_a_second
from reports.public_text import public_text
from reports.scores import Scored
from reports.stats import TOST_CONFIDENCE, compare, single_arm_interval
from reports.tables import GIB
from results.schema import Record
from study.metrics import METRICS, ROUGE_TYPES

SCORES, MEMORY, TIME, ENERGY = "scores", "memory", "time", "energy"
# What may get worse by how much: scores in points, the rest in percent.
TOLERANCES: Mapping[str, float] = {SCORES: 0.5, MEMORY: 2.0, TIME: 10.0, ENERGY: 10.0}
# Loading depends on what a disk has cached, and preparing takes a second: shown, and never judged.
_JUDGED_PHASES = frozenset({"train", "evaluate"})


@dataclass(frozen=True, slots=True)
class Change:
    """One quantity of one arm in A and B; None where a study has none.

    `difference` is B - A, in points for scores and in percent of A for the rest; `low` and `high` the ends of its 90%
    interval, for scores that have one. `tolerance` is in the difference's unit, None where the quantity is not judged.
    `note` says why there is no interval, or what it leaves out.
    """

    arm: str
    quantity: str
    unit: str
    decimals: int
    before: float | None
    after: float | None
    difference: float | None
    low: float | None = None
    high: float | None = None
    tolerance: float | None = None
    is_regression: bool = False
    note: str = ""
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the runs of A and B were made with: model, GPU, driver, a package, data, prompt."""

    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class StudyChanges:
    """Two studies beside each other. `regressions` are sentences, each naming arm and quantity."""

    before: str
    after: str
    environment: tuple[Difference, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    changes: tuple[Change, ...]
    regressions: tuple[str, ...]
    tolerances: Mapping[str, float]
    notes: tuple[str, ...]


def compare_studies(before: Evidence, after: Evidence, tolerances: Mapping[str, float]) -> StudyChanges:
    """Everything that A and B both have. `tolerances` has a number for each ROUGE type and each key of TOLERANCES."""
    arms = [(arm, other) for arm in _arms(before) if (other := after.arm(arm.part.name)) is not None]
    changes = tuple(change for pair in arms for change in _Pair(*pair, before, after, tolerances).changes())
    lost = [said for pair in arms if (said := _lost(*pair)) is not None]
    names_before, names_after = ([arm.part.name for arm in _arms(evidence)] for evidence in (before, after))
    return StudyChanges(
        before=before.study,
        after=after.study,
        environment=_environment(before, after),
        only_before=tuple(name for name in names_before if name not in names_after),
        only_after=tuple(name for name in names_after if name not in names_before),
        changes=changes,
        regressions=(*lost, *(_said(change) for change in changes if change.is_regression)),
        tolerances=tolerances,
        notes=_notes(before, after, arms),
    )


def _arms(evidence: Evidence) -> tuple[ArmEvidence, ...]:
    return (*evidence.arms, *evidence.external)


def _said(change: Change) -> str:
    if change.low is not None and change.high is not None:
        return (
            f"{change.arm}: {change.quantity} is lower by {-(change.difference or 0):.2f} points, 90% interval "
            f"[{change.low:z.2f}, {change.high:z.2f}] wholly below -{change.tolerance:g}"
        )
    return f"{change.arm}: {change.quantity} {change.difference:+.1f}% (tolerance {change.tolerance:g}%)"


def _lost(before: ArmEvidence, after: ArmEvidence) -> str | None:
    """What an arm could do in A and cannot in B."""
    name = before.part.name
    if before.runs and not after.runs and after.test_runs:
        if after.did_not_fit:
            return f"{name}: fitted in memory in A and does not in B"
        counts = ", ".join(f"{count} {status}" for status, count in after.test_statuses.items())
        return f"{name}: has completed test runs in A and none that counts in B ({counts})"
    if before.scored is not None and after.scored is None and after.runs:
        return f"{name}: has scores in A and none in B"
    return None


@dataclass(frozen=True, slots=True)
class _Pair:
    """One arm in both studies."""

    before: ArmEvidence
    after: ArmEvidence
    study_before: Evidence
    study_after: Evidence
    tolerances: Mapping[str, float]

    def changes(self) -> Iterator[Change]:
        """Scores first, then memory by phase, then time and energy; without what neither study has."""
        found = [
            *(self._score(metric) for metric in ROUGE_TYPES),
            *(self._peak(phase) for phase in PHASES),
            self._measured("process memory, highest", "GiB", 3, _gib_of(process_peak), MEMORY),
            *(self._seconds(phase) for phase in (*PHASES, "total")),
            self._measured("training speed", "tokens/s", 0, tokens_a_second, TIME, lower_is_worse=True),
            self._measured("training energy", "J per 1,000 tokens", 2, joules_a_thousand, ENERGY),
        ]
        return (change for change in found if change.before is not None or change.after is not None)

    def _score(self, metric: str) -> Change:
        first, second = self.before.scored, self.after.scored
        interval, note, is_judged = _interval(first, second, metric, trains=self.before.trains, same=self._same_data)
        tolerance = self.tolerances[metric] if is_judged else None
        means = [None if part is None else float(part.scores[metric].mean()) for part in (first, second)]
        return Change(
            arm=self.before.part.name,
            quantity=METRICS[metric].label,
            unit=METRICS[metric].unit,
            decimals=METRICS[metric].decimals,
            before=means[0],
            after=means[1],
            difference=None if means[0] is None or means[1] is None else means[1] - means[0],
            low=None if interval is None else interval[0],
            high=None if interval is None else interval[1],
            tolerance=tolerance,
            is_regression=tolerance is not None and interval is not None and interval[1] < -tolerance,
            note=note,
            run_ids=tuple(run_id for part in (first, second) if part is not None for run_id in part.run_ids),
        )

    @property
    def _same_data(self) -> bool:
        hashes = {
            evidence.comparable[0].data.evaluated_hash if evidence.comparable else evidence.plan.floors_of
            for evidence in (self.study_before, self.study_after)
        }
        return len(hashes) == 1

    def _peak(self, phase: str) -> Change:
        kinds = [evidence.on_gpu for evidence in (self.study_before, self.study_after)]

        def read(record: Record) -> float | None:
            part = phase_memory(record, phase)
            # Of two kinds of memory no difference can be told: of one with a GPU and one without, that of the process.
            value = None if part is None else peak_bytes(part, on_gpu=all(kinds))
            return None if value is None else value / GIB

        kind = "allocated" if all(kinds) else "host RSS"
        return self._measured(f"memory, {phase} ({kind})", "GiB", 3, read, MEMORY)

    def _seconds(self, phase: str) -> Change:
        def read(record: Record) -> float | None:
            value = getattr(record.seconds, phase)
            return None if value is None else float(value)

        return self._measured(f"seconds, {phase}", "s", 1, read, TIME if phase in _JUDGED_PHASES else None)

    def _measured(
        self,
        quantity: str,
        unit: str,
        decimals: int,
        read: Callable[[Record], float | None],
        tolerated_as: str | None,
        *,
        lower_is_worse: bool = False,
    ) -> Change:
        """The medians of a quantity over the fresh runs of each study."""
        values = [
            {record.run_id: value for record in arm.fresh_runs if (value := read(record)) is not None}
            for arm in (self.before, self.after)
        ]
        first, second = (median(found.values()) if found else None for found in values)
        percent = 100 * (second - first) / first if first and second is not None else None
        tolerance = None if tolerated_as is None else self.tolerances[tolerated_as]
        worse = None if percent is None else (-percent if lower_is_worse else percent)
        return Change(
            arm=self.before.part.name,
            quantity=quantity,
            unit=unit,
            decimals=decimals,
            before=first,
            after=second,
            difference=percent,
            tolerance=tolerance,
            is_regression=tolerance is not None and worse is not None and worse > tolerance,
            run_ids=tuple(run_id for found in values for run_id in found),
        )


def _gib_of(read: Callable[[Record], int | None]) -> Callable[[Record], float | None]:
    def value(record: Record) -> float | None:
        found = read(record)
        return None if found is None else found / GIB

    return value


def _interval(
    first: Scored | None, second: Scored | None, metric: str, *, trains: bool, same: bool
) -> tuple[tuple[float, float] | None, str, bool]:
    """The 90% interval of B - A where there is one, what must be said of it, and whether it is judged.

    Trained arms need two seeds in each study. An arm that trains nothing is decoded greedily and has one: there the
    dialogues alone vary, and a difference of the same dialogues is one of the libraries.
    """
    if first is None or second is None:
        return None, "scores in one study only" if first is not second else "", False
    if not same or first.example_ids != second.example_ids:
        return None, "other test dialogues: no interval", False
    before, after = first.scores[metric], second.scores[metric]
    if min(len(before), len(after)) >= 2:
        found = compare(after, before, confidence=TOST_CONFIDENCE)
        return (found.low, found.high), "", True
    if trains or before.shape[1] < 2:
        return None, "one seed: not judged", False
    paired = single_arm_interval((after.mean(axis=0) - before.mean(axis=0))[np.newaxis, :], confidence=TOST_CONFIDENCE)
    return (paired.low, paired.high), "over dialogues alone", True


_ABSENT = object()
# What a comparison is between: of the counted runs, the values that each study has.
_MADE_WITH: tuple[tuple[str, Callable[[Record], object]], ...] = (
    ("model", lambda record: record.model.id),
    ("model revision", lambda record: record.model.revision),
    ("weights", lambda record: record.model.weights),
    ("GPU", lambda record: record.environment.get("gpu")),
    ("driver", lambda record: record.environment.get("driver")),
    ("CUDA", lambda record: _worker(record).get("cuda")),
    ("CPU", lambda record: record.environment.get("cpu")),
    ("cores", lambda record: record.environment.get("cpus")),
    ("python", lambda record: record.environment.get("python")),
    ("memory limit", lambda record: record.memory_limit_bytes),
    ("code", lambda record: record.environment.get("commit")),
    ("test data", lambda record: record.data.evaluated_hash[:12]),
    ("prompt", lambda record: record.prompt_hash),
)


def _environment(before: Evidence, after: Evidence) -> tuple[Difference, ...]:
    found = [(what, _values(before, read), _values(after, read)) for what, read in _MADE_WITH]
    for prefix, part in _SETTINGS:
        names = sorted({name for evidence in (before, after) for run in evidence.comparable for name in part(run)})
        reads = [(name, _member(part, name)) for name in names]
        found += [(prefix + name, _values(before, read), _values(after, read)) for name, read in reads]
    return tuple(Difference(public_text(what), first, second) for what, first, second in found if first != second)


def _values(evidence: Evidence, read: Callable[[Record], object]) -> str:
    found = [value for record in evidence.comparable if (value := read(record)) is not _ABSENT]
    values = sorted({"none" if value is None else str(value) for value in found})
    return public_text(", ".join(values) or "none")


def _packages(record: Record) -> Mapping[str, object]:
    packages = record.environment.get("packages")
    return packages if isinstance(packages, dict) else {}


def _worker(record: Record) -> Mapping[str, object]:
    told = record.environment.get("worker")
    return told if isinstance(told, dict) else {}


def _allocator(record: Record) -> Mapping[str, object]:
    settings = record.environment.get("settings")
    return settings if isinstance(settings, dict) else {}


# Mappings of settings, each with what stands before its keys.
_SETTINGS: tuple[tuple[str, Callable[[Record], Mapping[str, object]]], ...] = (
    ("", _packages),
    ("setting ", _allocator),
    ("training.", lambda record: record.training or {}),
    ("generation.", lambda record: record.generation),
)


def _member(part: Callable[[Record], Mapping[str, object]], name: str) -> Callable[[Record], object]:
    # A run that trains nothing has no settings of training, and says nothing of them.
    return lambda record: part(record).get(name, _ABSENT)


def _notes(before: Evidence, after: Evidence, arms: Sequence[tuple[ArmEvidence, ArmEvidence]]) -> tuple[str, ...]:
    notes = []
    if not arms:
        notes.append("the studies have no arm in common: nothing was compared")
    if before.random_weights or after.random_weights:
        notes.append("random weights: memory and time only, no scores")
    for side, evidence in (("A", before), ("B", after)):
        left = sum(len(item.run_ids) for item in evidence.left_out)
        if left:
            notes.append(f"{side}: {left} runs are left out, as its own report tells")
    if before.on_gpu != after.on_gpu:
        notes.append("one study ran on a GPU and the other did not: memory is the process's resident one")
    for first, second in arms:
        if first.choice is not None and second.choice is not None:
            chosen = [(item.rank, item.alpha, item.learning_rate) for item in (first.choice, second.choice)]
            if chosen[0] != chosen[1]:
                texts = [f"rank {rank}, alpha {alpha}, learning rate {rate:.3g}" for rank, alpha, rate in chosen]
                notes.append(f"{first.part.name}: other hyperparameters were chosen ({texts[0]}; {texts[1]})")
    return tuple(notes)
