"""A study from start to end: baselines, trials, freeze, confirmation."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.adapters.sources import Loaded
from harness.adapters.tuning import EVALUATOR, ArmTuner, Seen, importances
from harness.conductor import Conductor
from harness.floors import floors
from harness.freezing import Candidate, Trials, arm_parts, choose, freeze, margin_rule, pruning_part, ranked
from harness.progress import parted
from harness.resuming import sweep
from harness.scores import Rouge
from harness.specs import Specs
from harness.view import View
from results.layout import StudyFolder
from results.schema import ALWAYS_AGAIN, Choice, Frozen, Importances, Plan, PlannedRun, Record
from results.store import Damage, read_frozen, read_plan, read_records, write_atomically, write_frozen, write_plan
from study.arms import Arm
from study.examples import Example
from study.grid import Grid
from study.metrics import METRICS
from study.runs import RunSpec, Stage
from study.space import Hyperparameters


@dataclass(frozen=True, slots=True)
class Options:
    """How a study is run: which arms (all when empty), and whether failed runs are tried again."""

    only: tuple[str, ...] = ()
    retry_failed: bool = False

    def wants(self, arm: Arm) -> bool:
        """Whether runs of this arm are made now."""
        return not self.only or arm.name in self.only or arm.family in self.only


@dataclass(frozen=True, slots=True)
class Finish:
    """How a study stands: runs made now, runs found done, and what is not done, each with why. `findings` are runs that
    are over and have no scores: they did not fit, or diverged, and would again; `holes` of them are no trials."""

    made: int
    found: int
    undone: tuple[str, ...]
    findings: tuple[str, ...] = ()
    holes: int = 0

    @property
    def exit_code(self) -> int:
        """0 when the whole planned matrix has its scores, else 1: a script must not take a matrix with holes for a
        whole one, also where no start will ever fill them. A trial that diverged or did not fit is no hole: it tells
        the sampler what trials are for."""
        return 1 if self.undone or self.holes else 0


@dataclass(slots=True)
class Study:
    """One study on its way. Every stage asks the store first, and runs what is missing."""

    grid: Grid
    folder: StudyFolder
    loaded: Loaded
    conductor: Conductor
    view: View
    options: Options
    specs: Specs = field(init=False)
    last: dict[str, Record] = field(init=False)
    planned: list[RunSpec] = field(default_factory=list)
    made: int = 0
    found: int = 0
    damaged: tuple[Damage, ...] = ()

    def __post_init__(self) -> None:
        self.specs = Specs.of(self.grid, self.loaded.splits)
        records = read_records(self.folder)
        self.last, self.damaged = dict(records.last), records.damaged

    def run(self) -> Finish:
        """Runs every stage; what it raises leaves everything recorded so far in place."""
        for damage in self.damaged:
            # What it said is lost: without this line nobody would know why a run is made again.
            self.view.note(f"{self.folder.records.name}, line {damage.line} is left out: {damage.reason}")
        self.save_inputs()
        sweep(self.folder, self.last)
        self.conductor.expect(self._to_come())
        if self.grid.tune.trials or any(not arm.trains for arm in self.grid.arms):
            self._stage("baseline, validation split", self.specs.baselines("validation"), self._first_trial())
        if self.conductor.seats > 1:
            # Blocks wait for nothing: together they keep every seat busy, each with one arm's base as far as it goes.
            self._stage("tune", [spec for arm in self.grid.trained_arms for spec in self.specs.block(arm)])
        trials = {arm.name: self._tune(arm) for arm in self.grid.trained_arms}
        frozen = self._frozen(trials)
        if frozen is not None:
            self.write_plan()
            baselines, confirms = self.specs.baselines("test"), self.specs.confirms(frozen)
            if self.conductor.seats > 1:
                # Together, and what trains first: the runs that end last are short, and no seat waits long for them.
                self._stage("confirm, baseline on the test split", [*confirms, *baselines])
            else:
                self._stage("baseline, test split", baselines)
                self._stage("confirm", list(confirms))
        self.write_plan()
        return self._finish(frozen)

    def save_inputs(self) -> None:
        """Writes the examples that the runs will read, once."""
        for split, part in self.specs.splits.items():
            path = self.folder.examples(split, part.hash)
            if not path.exists():
                write_atomically(path, examples_text(self.loaded.splits[split]).encode())
        self.write_plan()

    def write_plan(self) -> None:
        """Writes the planned matrix as far as it is known: reports hold the records against it."""
        write_plan(self.folder, self._plan())

    def _plan(self) -> Plan:
        # Floors follow from the test split alone; they are scored once and kept with the plan.
        known = read_plan(self.folder)
        test = self.loaded.splits["test"]
        kept = known.floors if known is not None and known.floors_of == self.specs.splits["test"].hash else None
        frozen = read_frozen(self.folder)
        runs = {spec.run_id: spec for spec in (*self._before_freeze(), *self._after_freeze(frozen), *self.planned)}
        return Plan(
            study=self.grid.study,
            protocol=self.grid.protocol,
            arms=arm_parts(self.grid),
            runs=tuple(planned_run(spec) for spec in runs.values()),
            expected_confirm=self.specs.confirm_count(),
            floors=floors(test, Rouge()) if kept is None else kept,
            floors_of=self.specs.splits["test"].hash,
            data_description=self.loaded.description,
            data_notes=self.loaded.notes,
            margins={claim.name: margin_rule(claim) for claim in self.grid.claims},
            pruning=pruning_part(self.grid),
            share_graphs=self.grid.tune.share_graphs,
            unpacked_base=self.grid.tune.unpacked_base,
        )

    def _before_freeze(self) -> list[RunSpec]:
        blocks = [spec for arm in self.grid.trained_arms for spec in self.specs.block(arm)]
        return [*self.specs.baselines("validation"), *blocks]

    def _after_freeze(self, frozen: Frozen | None) -> list[RunSpec]:
        return [*self.specs.baselines("test"), *(self.specs.confirms(frozen) if frozen else ())]

    def _first_trial(self, after: Arm | None = None) -> RunSpec | None:
        """The first trial that is missing of the arms behind one, or of all arms."""
        arms = self.grid.trained_arms
        behind = arms if after is None else arms[arms.index(after) + 1 :]
        trials = [spec for arm in behind if self.options.wants(arm) for spec in self.specs.block(arm)]
        return next(iter(parted(trials, self.last, retry_failed=self.options.retry_failed).to_do), None)

    def _stage(self, name: str, specs: Sequence[RunSpec], then: RunSpec | None = None) -> None:
        """Runs what is missing of a stage. `then` is the run that comes after it, where that is known by now."""
        wanted = [spec for spec in specs if self.options.wants(spec.arm)]
        self.planned += specs
        split = parted(wanted, self.last, retry_failed=self.options.retry_failed)
        self.found += len(split.done)
        if wanted:
            self.view.stage(name, len(wanted), len(wanted) - len(split.to_do))
        self.conductor.recall(specs, self.last)
        self.conductor.run_all(split.to_do, self._keep, then)

    def _keep(self, record: Record) -> None:
        self.last[record.run_id] = record
        self.made += 1

    def _to_come(self) -> tuple[RunSpec, ...]:
        """Trainings that are missing, as far as they can be told now; before the freeze every rank may be confirmed."""
        frozen = read_frozen(self.folder)
        blocks = [spec for arm in self.grid.trained_arms for spec in self.specs.block(arm)]
        confirms = self.specs.confirms(frozen) if frozen else self.specs.possible_confirms()
        wanted = [spec for spec in (*blocks, *confirms) if self.options.wants(spec.arm)]
        return parted(wanted, self.last, retry_failed=self.options.retry_failed).to_do

    def _tune(self, arm: Arm) -> "_Trials":
        """The block, then the sampler's own trials, then the best sets again on more seeds."""
        block, tune, then = self.specs.block(arm), self.grid.tune, self._first_trial(after=arm)
        if self.conductor.seats == 1:
            self._stage(f"tune {arm.name}", block, None if tune.tpe_trials or tune.reselect else then)
        trials = [(spec.hyperparameters, spec) for spec in block if spec.hyperparameters is not None]
        # What the sampler proposes and what is repeated follow from how the trials before end, so they must end first.
        if not self._unended(trials):
            trials += self._sampled(arm, trials, None if tune.reselect else then)
        return _Trials(arm, trials, () if self._unended(trials) else self._reselected(arm, trials, then))

    def _unended(self, trials: Sequence[tuple[Hyperparameters, RunSpec]]) -> list[str]:
        last = ((spec, self.last.get(spec.run_id)) for _, spec in trials)
        return [spec.label() for spec, record in last if record is None or record.status in ALWAYS_AGAIN]

    def _waiting(self, found: "_Trials") -> list[str]:
        """What of an arm's trials, and of their repetition on further seeds, is still to come."""
        again = (
            f"{found.arm.name} on further seeds"
            for item in found.reselected
            if not item.records or any(record.status in ALWAYS_AGAIN for record in item.records)
        )
        return [*self._unended(found.trials), *again]

    def _sampled(
        self, arm: Arm, block: Sequence[tuple[Hyperparameters, RunSpec]], then: RunSpec | None
    ) -> list[tuple[Hyperparameters, RunSpec]]:
        metric = METRICS[self.grid.tune.select_by]
        found: list[tuple[Hyperparameters, RunSpec]] = []
        numbers = range(len(block), len(block) + self.grid.tune.tpe_trials)
        for number in numbers:
            seen = [Seen(chosen, self._value(spec)) for chosen, spec in (*block, *found)]
            tuner = ArmTuner(
                self.grid.space_of(arm), (), seen, maximise=metric.better == "higher", seed=self.grid.tune.sobol_seed
            )
            _, proposed = tuner.propose()
            spec = self.specs.trial(arm, number, proposed)
            self._stage(f"tune {arm.name}, trial {number}", [spec], then if number == numbers[-1] else None)
            found.append((proposed, spec))
            record = self.last.get(spec.run_id)
            if record is None or record.status in ALWAYS_AGAIN:
                # What is proposed next follows from how this one ends, so it must end first.
                break
        return found

    def _value(self, spec: RunSpec) -> float | None:
        record = self.last.get(spec.run_id)
        return None if record is None or record.quality is None else record.quality[self.grid.tune.select_by]

    def _reselected(
        self, arm: Arm, trials: Sequence[tuple[Hyperparameters, RunSpec]], then: RunSpec | None
    ) -> list[Candidate]:
        tune = self.grid.tune
        best = ranked([self._candidate(chosen, [spec]) for chosen, spec in trials], tune.select_by)[: tune.reselect]
        numbers = {chosen: spec.trial for chosen, spec in trials}
        again: list[Candidate] = []
        for candidate in best:
            chosen = candidate.hyperparameters
            specs = [self.specs.trial(arm, numbers[chosen] or 0, chosen, seed) for seed in tune.reselect_seeds]
            self._stage(f"reselect {arm.name}, trial {numbers[chosen]}", specs, then if candidate is best[-1] else None)
            first = [spec for other, spec in trials if other == chosen][:1]
            again.append(self._candidate(chosen, [*first, *specs]))
        return again

    def _candidate(self, hyperparameters: Hyperparameters, specs: Sequence[RunSpec]) -> Candidate:
        records = [self.last[spec.run_id] for spec in specs if spec.run_id in self.last]
        return Candidate(hyperparameters, tuple(records) if len(records) == len(specs) else ())

    def _frozen(self, trials: Mapping[str, "_Trials"]) -> Frozen | None:
        """The freeze, made when every trial of every arm is over; None before that."""
        earlier = read_frozen(self.folder)
        waiting = [label for found in trials.values() for label in self._waiting(found)]
        if waiting and earlier is None:
            self.view.note(f"not frozen yet: {len(waiting)} trials are still to come ({waiting[0]}, …)")
            return None
        # An arm that joins a frozen study is chosen for when its own trials are over.
        known = {choice.arm for choice in earlier.choices} if earlier is not None else set()
        ended = [found for found in trials.values() if found.arm.name in known or not self._waiting(found)]
        choices = [choice for found in ended if (choice := self._choice(found)) is not None]
        before = [*self._before_freeze(), *(spec for found in trials.values() for _, spec in found.trials)]
        baselines = self.specs.baselines("validation")
        seen = Trials(
            choices=choices,
            scores={choice.arm: self._scores_of(choice) for choice in choices},
            baselines={spec.arm.name: self.last[spec.run_id] for spec in baselines if spec.run_id in self.last},
            run_ids=frozenset(spec.run_id for spec in before),
            hashes=self.specs.hashes(),
            importances=[self._importances(found) for found in ended],
        )
        frozen = freeze(self.grid, seen, earlier)
        if frozen != earlier:
            write_frozen(self.folder, frozen)
        told = earlier.choices if earlier is not None else ()
        for choice in (choice for choice in frozen.choices if choice not in told):
            self.view.note(
                f"frozen {choice.arm}: rank {choice.rank}, alpha {choice.alpha}, "
                f"learning rate {choice.learning_rate:g} ({choice.reason})"
            )
        return frozen

    def _choice(self, found: "_Trials") -> Choice | None:
        candidates = [self._candidate(chosen, [spec]) for chosen, spec in found.trials]
        return choose(self.grid, found.arm.name, [item for item in candidates if item.records], found.reselected)

    def _importances(self, found: "_Trials") -> Importances:
        seen = [Seen(chosen, self._value(spec)) for chosen, spec in found.trials]
        maximise = METRICS[self.grid.tune.select_by].better == "higher"
        told = importances(self.grid.space_of(found.arm), seen, maximise=maximise)
        return Importances(
            arm=found.arm.name,
            evaluator=EVALUATOR,
            trials=sum(trial.value is not None for trial in seen),
            shares={} if isinstance(told, str) else told,
            reason=told if isinstance(told, str) else None,
        )

    def _scores_of(self, choice: Choice) -> Mapping[str, float]:
        record = self.last.get(choice.run_id or "")
        return {} if record is None or record.quality is None else record.quality

    def _finish(self, frozen: Frozen | None) -> Finish:
        undone: list[str] = []
        findings: list[str] = []
        holes = 0
        runs = {spec.run_id: spec for spec in (*self._before_freeze(), *self._after_freeze(frozen), *self.planned)}
        for spec in runs.values():
            record = self.last.get(spec.run_id)
            if record is None:
                undone.append(f"{spec.stage} {spec.label()}: not run")
            elif record.status not in ("completed", "pruned"):
                why = f" ({record.error.message})" if record.error else ""
                (findings if record.is_final else undone).append(f"{spec.stage} {spec.label()}: {record.status}{why}")
                holes += record.is_final and spec.stage is not Stage.TUNE
        if frozen is None:
            undone.append(f"{self.specs.confirm_count()} runs that follow the freeze: not run")
        return Finish(self.made, self.found, tuple(undone), tuple(findings), holes)


@dataclass(frozen=True, slots=True)
class _Trials:
    """The trials of one arm in their order, and its best sets with the runs on further seeds."""

    arm: Arm
    trials: Sequence[tuple[Hyperparameters, RunSpec]]
    reselected: Sequence[Candidate]


def planned_run(spec: RunSpec) -> PlannedRun:
    """A run as the plan lists it."""
    return PlannedRun(
        run_id=spec.run_id,
        stage=spec.stage.value,
        purpose=None if spec.purpose is None else spec.purpose.value,
        arm=spec.arm.name,
        split="test" if spec.evaluated.split == "test" else "validation",
        seed=spec.seed,
        trial=spec.trial,
        repeat=spec.repeat,
    )


def examples_text(examples: Iterable[Example]) -> str:
    """Examples as JSON lines: what workers read, and reports show beside the predictions."""
    rows = ({"id": item.id, "dialogue": item.dialogue, "references": list(item.references)} for item in examples)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
