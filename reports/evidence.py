"""Evidence: which records count, which were left out and why, and the scores behind every figure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

from results.layout import StudyFolder
from results.schema import ArmPart, Choice, Frozen, Plan, Prediction, Record
from results.store import ResultsError, read_frozen, read_plan, read_predictions, read_records
from study.metrics import METRICS, ROUGE_TYPES

FloatArray = npt.NDArray[np.float64]


class NoStudy(RuntimeError):
    """There is nothing to report on; says which studies there are."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Records that no figure uses: why, and which runs."""

    reason: str
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """The test scores of one arm: `scores[metric]` is (seeds, dialogues), in points, mean over references."""

    run_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    example_ids: tuple[str, ...]
    scores: dict[str, FloatArray]


@dataclass(frozen=True, slots=True)
class ArmEvidence:
    """Everything seen of one arm. `runs` are its completed test runs, `all_runs` every last record of it."""

    part: ArmPart
    choice: Choice | None
    runs: tuple[Record, ...]
    all_runs: tuple[Record, ...]
    scored: Scored | None
    drop_in: Scored | None

    @property
    def trains(self) -> bool:
        """False for a zero-shot arm."""
        return self.part.method != "none"

    def memory(self) -> "Memory | None":
        """Peak memory of the phase that decides whether the arm fits: training, or evaluation without training."""
        phases = [record.memory.train if self.trains else record.memory.evaluate for record in self.runs]
        peaks = [phase for phase in phases if phase is not None]
        for kind in ("allocated_bytes", "host_rss_bytes"):
            values = [value for phase in peaks if (value := getattr(phase, kind)) is not None]
            if values and len(values) == len(phases):
                return Memory(kind == "allocated_bytes", median(values), min(values), max(values))
        return None

    def train_seconds(self) -> float | None:
        """Median seconds of training; None where nothing was trained."""
        values = [record.seconds.train for record in self.runs if record.seconds.train is not None]
        return median(values) if values else None

    @property
    def did_not_fit(self) -> bool:
        """Whether any run of the arm ran out of memory."""
        return any(record.status == "out_of_memory" for record in self.all_runs)


@dataclass(frozen=True, slots=True)
class Memory:
    """A peak in bytes: the GPU allocator's, or this process's resident memory where there is no GPU."""

    on_gpu: bool
    median_bytes: float
    low_bytes: float
    high_bytes: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """One study as its records tell it."""

    study: str
    plan: Plan
    frozen: Frozen | None
    arms: tuple[ArmEvidence, ...]
    last: dict[str, Record]
    left_out: tuple[LeftOut, ...]
    damaged: tuple[str, ...]

    def arm(self, name: str) -> ArmEvidence | None:
        """The arm of that name."""
        return next((arm for arm in self.arms if arm.part.name == name), None)

    @property
    def not_completed(self) -> tuple[Record, ...]:
        """Every run whose last record is not a completed one: findings, not gaps."""
        return tuple(record for record in self.last.values() if record.status != "completed")

    @property
    def environment(self) -> tuple[str, ...]:
        """Where the counted runs ran, in words."""
        counted = [record for arm in self.arms for record in arm.runs]
        return tuple(dict.fromkeys(_machine(record) for record in counted))


def gather(folder: StudyFolder) -> Evidence:
    """The evidence of one study.

    Raises:
        NoStudy: the folder holds no plan.
        ResultsError: a file is there but cannot be used.
    """
    plan = read_plan(folder)
    if plan is None:
        raise NoStudy(f"{folder.root.name!r} has no plan.json: run its grid first")
    frozen = read_frozen(folder)
    records = read_records(folder)
    planned = {run.run_id for run in plan.runs}
    last = {run_id: record for run_id, record in records.last.items() if run_id in planned}
    stale = [run_id for run_id in records.last if run_id not in planned]
    left_out = [LeftOut("the grid no longer asks for them", tuple(stale))] if stale else []
    completed = [record for record in last.values() if record.status == "completed" and record.split == "test"]
    comparable, others = _comparable(completed)
    left_out += others
    choices = {} if frozen is None else {choice.arm: choice for choice in frozen.choices}
    reader = _Reader(folder)
    arms = tuple(_arm(part, choices.get(part.name), comparable, last, reader) for part in plan.arms)
    return Evidence(
        study=plan.study,
        plan=plan,
        frozen=frozen,
        arms=arms,
        last=last,
        left_out=tuple([*left_out, *reader.left_out]),
        damaged=tuple(f"line {damage.line}: {damage.reason}" for damage in records.damaged),
    )


def _arm(
    part: ArmPart, choice: Choice | None, comparable: Sequence[Record], last: dict[str, Record], reader: "_Reader"
) -> ArmEvidence:
    mine = [record for record in comparable if record.arm == part.name]
    purpose = None if part.method == "none" else "tuned"
    runs = sorted((record for record in mine if record.purpose == purpose), key=lambda item: (item.seed, item.repeat))
    drop_in = sorted((record for record in mine if record.purpose == "drop_in"), key=lambda item: item.seed)
    return ArmEvidence(
        part=part,
        choice=choice,
        runs=tuple(runs),
        all_runs=tuple(record for record in last.values() if record.arm == part.name),
        scored=reader.scored(runs),
        drop_in=reader.scored(drop_in),
    )


def _comparable(records: Sequence[Record]) -> tuple[list[Record], list[LeftOut]]:
    """The largest group of records that may stand beside each other, and the rest with what differs."""
    keys = {record.run_id: comparability(record) for record in records}
    if not keys:
        return [], []
    # The largest group; of equal ones that of the latest record.
    counts = Counter(keys.values())
    latest = {key: index for index, key in enumerate(keys.values())}
    chosen = max(counts, key=lambda key: (counts[key], latest[key]))
    others: dict[str, list[str]] = {}
    for run_id, key in keys.items():
        differing = [
            f"{name} {theirs}" for (name, theirs), (_, ours) in zip(key, chosen, strict=True) if theirs != ours
        ]
        if differing:
            others.setdefault("not comparable with the rest: " + ", ".join(differing), []).append(run_id)
    left_out = [LeftOut(reason, tuple(run_ids)) for reason, run_ids in others.items()]
    return [record for record in records if keys[record.run_id] == chosen], left_out


def comparability(record: Record) -> tuple[tuple[str, str], ...]:
    """What must agree between two records before they are compared, name by name."""
    environment = record.environment
    packages = environment.get("packages") or {}
    driver = str(environment.get("driver") or "none").split(".")[0]
    gpu = environment.get("gpu")
    return (
        ("device", str(gpu or environment.get("cpu"))),
        ("driver", driver),
        *((name, str(packages.get(name))) for name in ("torch", "transformers", "peft", "bitsandbytes", "rouge_score")),
        ("test data", record.data.evaluated_hash[:12]),
        ("prompt", record.prompt_hash),
    )


def _machine(record: Record) -> str:
    environment = record.environment
    packages = environment.get("packages") or {}
    versions = ", ".join(
        f"{name} {packages[name]}" for name in ("torch", "transformers", "peft", "bitsandbytes") if packages.get(name)
    )
    if environment.get("gpu"):
        return f"{environment['gpu']}, driver {environment.get('driver')}; {versions}"
    return f"{environment.get('cpu') or 'CPU'}, {environment.get('cpus')} cores, no GPU; {versions}"


class _Reader:
    """Reads predictions into score matrices, and notes the runs whose predictions cannot be used."""

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._faults: dict[str, list[str]] = {}

    @property
    def left_out(self) -> list[LeftOut]:
        """Runs whose predictions could not be used."""
        return [LeftOut(reason, tuple(run_ids)) for reason, run_ids in self._faults.items()]

    def scored(self, runs: Iterable[Record]) -> Scored | None:
        """The score matrices of runs, one row a seed (the first of its repeats); None where nothing is scored."""
        rows: list[tuple[Record, tuple[Prediction, ...]]] = []
        for record in runs:
            if record.quality is None or record.repeat != 0:
                continue
            try:
                predictions = read_predictions(self._folder, record.run_id)
            except ResultsError:
                self._fault("their predictions are missing or damaged", record)
                continue
            if rows and [item.example_id for item in predictions] != [item.example_id for item in rows[0][1]]:
                self._fault("their predictions are on other dialogues", record)
            elif any(item.scores is None for item in predictions):
                self._fault("their predictions have no scores", record)
            else:
                rows.append((record, predictions))
        if not rows:
            return None
        return Scored(
            run_ids=tuple(record.run_id for record, _ in rows),
            seeds=tuple(record.seed for record, _ in rows),
            example_ids=tuple(item.example_id for item in rows[0][1]),
            scores={kind: np.array([_row(predictions, kind) for _, predictions in rows]) for kind in ROUGE_TYPES},
        )

    def _fault(self, reason: str, record: Record) -> None:
        self._faults.setdefault(reason, []).append(record.run_id)


def _row(predictions: Sequence[Prediction], kind: str) -> list[float]:
    """F of every dialogue, mean over its references (the primary rule), in points."""
    return [
        sum(triple[2] for triple in item.scores[kind]) / len(item.scores[kind])
        for item in predictions
        if item.scores is not None
    ]


def label(metric: str) -> str:
    """A metric's printed name."""
    return METRICS[metric].label
