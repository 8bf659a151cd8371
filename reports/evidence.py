"""Evidence: which records count, which were left out and why, and what is known of each arm."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from reports.comparability import LeftOut, largest_group, machine
from reports.elsewhere import scored, systems
from reports.public_text import public_text
from reports.scores import Scored, ScoreReader, Unscored
from results.external import ExternalRun, read_externals
from results.layout import StudyFolder
from results.schema import ArmPart, Choice, Frozen, MemoryPart, ModelPart, Plan, PlannedRun, Record
from results.store import read_frozen, read_plan, read_records


class NoStudy(RuntimeError):
    """There is nothing to report on; says which studies there are."""


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What a run was trained with, to tell drop-in runs for one reference from those for another."""

    rank: int | None
    alpha: int | None
    learning_rate: float | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Peaks in bytes over the runs that have one: the GPU allocator's, or the process's resident memory without GPU."""

    on_gpu: bool
    median_bytes: float
    low_bytes: float
    high_bytes: float
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ArmEvidence:
    """Everything seen of one arm.

    `runs` are its completed and comparable test runs (tuned, or zero-shot); `planned` every planned run and `recorded`
    the last record of each, by run id. `test` and `drop_in` are the score matrices of the test split. A system from
    elsewhere has neither runs nor memory: it has `external`, what it wrote, a member a seed.
    """

    part: ArmPart
    choice: Choice | None
    runs: tuple[Record, ...]
    planned: tuple[PlannedRun, ...]
    recorded: Mapping[str, Record]
    memory: Memory | None
    test: Scored | Unscored
    drop_in: Mapping[Hyperparameters, Scored | Unscored]
    external: tuple[ExternalRun, ...] = ()

    @property
    def label(self) -> str | None:
        """What was said of a system from elsewhere when it was added; None where nothing was."""
        return next((public_text(run.label) for run in self.external if run.label is not None), None)

    @property
    def trains(self) -> bool:
        """False for a zero-shot arm."""
        return self.part.method != "none"

    @property
    def scored(self) -> Scored | None:
        """The test scores, where there are any."""
        return self.test if isinstance(self.test, Scored) else None

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs that figures of this arm come from."""
        return tuple(record.run_id for record in self.runs)

    @property
    def fresh_runs(self) -> tuple[Record, ...]:
        """The runs whose memory, time and energy may be quoted."""
        return tuple(record for record in self.runs if is_fresh(record))

    @property
    def train_seconds(self) -> float | None:
        """Median seconds of training over the runs; None where nothing was trained."""
        values = [record.seconds.train for record in self.runs if record.seconds.train is not None]
        return median(values) if values else None

    @property
    def test_runs(self) -> tuple[PlannedRun, ...]:
        """The planned test runs that its scores come from: tuned, or zero-shot."""
        return tuple(run for run in self.planned if _decides(run, self.part))

    @property
    def test_statuses(self) -> dict[str, int]:
        """How many of the planned test runs have which status, sorted by name; `not_run` where there is no record."""
        counts = Counter(self._status(run) for run in self.test_runs)
        return dict(sorted(counts.items()))

    @property
    def missing_seeds(self) -> dict[int, str]:
        """The planned seeds without a score, and the status of their runs."""
        scored = () if self.scored is None else self.scored.seeds
        return {run.seed: self._status(run) for run in self.test_runs if run.seed not in scored}

    @property
    def did_not_fit(self) -> bool:
        """Whether memory is why the arm has no result: no test run completed and one ran out of memory, or, before the
        freeze, no run of any kind did. One trial that was too large is not that."""
        records = list(self.recorded.values())
        tests = [self.recorded[run.run_id] for run in self.test_runs if run.run_id in self.recorded]
        return _all_too_large(tests) if tests else _all_too_large(records)

    @property
    def too_large(self) -> tuple[Record, ...]:
        """The test runs that ran out of memory; before there is any test run, all runs that did, where none fitted."""
        tests = {run.run_id for run in self.test_runs} & set(self.recorded)
        among = tests or (set(self.recorded) if self.did_not_fit else set())
        return tuple(
            record for run_id, record in self.recorded.items() if run_id in among and record.status == "out_of_memory"
        )

    def _status(self, run: PlannedRun) -> str:
        record = self.recorded.get(run.run_id)
        return "not_run" if record is None else record.status


def is_fresh(record: Record) -> bool:
    """Whether the run had a process of its own: one that earlier runs have warmed gives no figure for a paper."""
    return record.checks.get("warm_worker") is not True


def _decides(run: PlannedRun | Record, part: ArmPart) -> bool:
    return run.split == "test" and run.purpose == (None if part.method == "none" else "tuned")


def _all_too_large(records: Sequence[Record]) -> bool:
    statuses = {record.status for record in records}
    return "out_of_memory" in statuses and "completed" not in statuses


@dataclass(frozen=True, slots=True)
class Evidence:
    """One study as its records tell it. `study` is the name of its folder; `notes` and `damaged` are public text;
    `comparable` are all completed test runs that may stand beside each other, those of drop-in arms included."""

    study: str
    plan: Plan
    frozen: Frozen | None
    arms: tuple[ArmEvidence, ...]
    last: Mapping[str, Record]
    comparable: tuple[Record, ...]
    left_out: tuple[LeftOut, ...]
    damaged: tuple[str, ...]
    # The completed validation runs that may stand beside each other.
    validation: tuple[Record, ...] = ()
    # Systems that this project did not train, named `external/NAME`: they have scores and nothing else.
    external: tuple[ArmEvidence, ...] = ()

    def arm(self, name: str | None) -> ArmEvidence | None:
        """The arm of that name, or the system from elsewhere."""
        return next((arm for arm in (*self.arms, *self.external) if arm.part.name == name), None)

    @property
    def description(self) -> str:
        """The data, in words."""
        return public_text(self.plan.data_description)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found in the data before any run."""
        return tuple(public_text(note) for note in self.plan.data_notes)

    @property
    def model(self) -> str | None:
        """The model and its revision; None before any run."""
        model = self._model
        if model is None:
            return None
        return public_text(model.id + (f" at {model.revision}" if model.revision else ""))

    @property
    def random_weights(self) -> bool:
        """Whether the model was never trained: there is memory and time, and never a score."""
        return self._model is not None and self._model.weights == "random"

    @property
    def _model(self) -> ModelPart | None:
        first = next(iter(self.last.values()), None) if self.frozen is None else self.frozen
        return None if first is None else first.model

    @property
    def on_gpu(self) -> bool:
        """Whether memory figures are the GPU allocator's; they are the process's resident memory otherwise."""
        known = [arm.memory.on_gpu for arm in self.arms if arm.memory is not None]
        # Where nothing fitted there is no figure, but it still was a GPU that was too small.
        return any(known) if known else any(record.environment.get("gpu") for record in self.last.values())

    @property
    def not_completed(self) -> tuple[Record, ...]:
        """Every run whose last record is not a completed one: findings, not gaps."""
        return tuple(record for record in self.last.values() if record.status != "completed")

    @property
    def not_run(self) -> tuple[PlannedRun, ...]:
        """Planned runs that have no record."""
        return tuple(run for run in self.plan.runs if run.run_id not in self.last)

    @property
    def machines(self) -> tuple[str, ...]:
        """Where the counted runs ran, in words."""
        return tuple(dict.fromkeys(public_text(machine(record)) for arm in self.arms for record in arm.runs))


def gather(folder: StudyFolder) -> Evidence:
    """The evidence of one study: of each run the last record, of the test runs the completed ones that compare.

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
    stale = tuple(run_id for run_id in records.last if run_id not in planned)
    left_out = [LeftOut("the grid no longer asks for them", stale)] if stale else []
    tests = [record for record in last.values() if record.status == "completed" and record.split == "test"]
    comparable, others = largest_group(tests)
    tried = [record for record in last.values() if record.status == "completed" and record.split == "validation"]
    validation, others_tried = largest_group(tried)
    other_trials = [LeftOut(f"validation runs {item.reason}", item.run_ids) for item in others_tried]
    reader = ScoreReader(folder)
    gatherer = _Gatherer(plan, frozen, comparable, last, reader)
    arms = tuple(gatherer.arm(part) for part in plan.arms)
    externals = read_externals(folder)
    external, strangers = _external(externals.runs, comparable[0].data.evaluated_hash if comparable else plan.floors_of)
    return Evidence(
        study=folder.root.name,
        plan=plan,
        frozen=frozen,
        arms=arms,
        last=last,
        comparable=tuple(comparable),
        left_out=(*left_out, *others, *other_trials, *reader.left_out, *strangers),
        damaged=(
            *(public_text(f"line {damage.line}: {damage.reason}") for damage in records.damaged),
            *map(public_text, externals.faults),
        ),
        validation=tuple(validation),
        external=external,
    )


def _external(runs: Sequence[ExternalRun], test_hash: str) -> tuple[tuple[ArmEvidence, ...], list[LeftOut]]:
    """What is known of each system from elsewhere, and those that were scored on other dialogues than the runs."""
    found: list[ArmEvidence] = []
    strangers: list[str] = []
    for name, seeds in systems(runs):
        test, others = scored(seeds, test_hash)
        strangers += others
        part = ArmPart(
            name=name, family=name, precision="", method="external", double_quant=None, targets=(), zero_shot=None
        )
        found.append(ArmEvidence(part, None, (), (), {}, None, test, {}, seeds))
    reason = "systems from elsewhere whose predictions are of other dialogues than the runs"
    return tuple(found), [LeftOut(reason, tuple(strangers))] if strangers else []


@dataclass(frozen=True, slots=True)
class _Gatherer:
    plan: Plan
    frozen: Frozen | None
    comparable: Sequence[Record]
    last: Mapping[str, Record]
    reader: ScoreReader

    def arm(self, part: ArmPart) -> ArmEvidence:
        mine = [record for record in self.comparable if record.arm == part.name]
        runs = sorted((item for item in mine if _decides(item, part)), key=lambda item: (item.seed, item.repeat))
        choices = () if self.frozen is None else self.frozen.choices
        return ArmEvidence(
            part=part,
            choice=next((choice for choice in choices if choice.arm == part.name), None),
            runs=tuple(runs),
            planned=tuple(run for run in self.plan.runs if run.arm == part.name),
            recorded={run_id: record for run_id, record in self.last.items() if record.arm == part.name},
            memory=_memory([record for record in runs if is_fresh(record)], part, on_gpu=self._on_gpu),
            test=self.reader.read(runs),
            drop_in=self._drop_ins([record for record in mine if record.purpose == "drop_in"]),
        )

    @property
    def _on_gpu(self) -> bool:
        """One kind of memory for the whole study: figures of two kinds cannot stand in one column."""
        phases = (phase for record in self.comparable for phase in (record.memory.train, record.memory.evaluate))
        return any(phase is not None and phase.allocated_bytes is not None for phase in phases)

    def _drop_ins(self, records: Sequence[Record]) -> dict[Hyperparameters, Scored | Unscored]:
        groups: dict[Hyperparameters, list[Record]] = {}
        for record in records:
            key = Hyperparameters(record.adapter.rank, record.adapter.alpha, record.learning_rate)
            groups.setdefault(key, []).append(record)
        return {key: self.reader.read(group) for key, group in groups.items()}


def _memory(runs: Sequence[Record], part: ArmPart, *, on_gpu: bool) -> Memory | None:
    """Peak memory of the phase that decides whether the arm fits: training, or evaluation without training."""
    peaks: dict[str, int] = {}
    for record in runs:
        phase = record.memory.evaluate if part.method == "none" else record.memory.train
        value = None if phase is None else peak_bytes(phase, on_gpu=on_gpu)
        if value is not None:
            peaks[record.run_id] = value
    if not peaks:
        return None
    return Memory(on_gpu, median(peaks.values()), min(peaks.values()), max(peaks.values()), tuple(peaks))


def peak_bytes(phase: MemoryPart, *, on_gpu: bool) -> int | None:
    """The peak of a phase, in bytes, of the one kind that a study's figures are of."""
    return phase.allocated_bytes if on_gpu else phase.host_rss_bytes
