"""The conductor: runs one specification after another in worker processes and writes a record of each.

It never imports torch and never opens a CUDA context: a worker may die in any way and still leaves a record.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.forecast import Rates
from harness.foreseeing import Foreseer
from harness.gpu import GpuReader
from harness.messages import (
    Answers,
    Device,
    Event,
    Facts,
    Finished,
    Hello,
    Job,
    ModelReady,
    ModelRequest,
    Phase,
    PhaseEnded,
    PhaseStarted,
    PrecisionsTried,
    Progress,
    Raised,
    Rehearsal,
)
from harness.outcomes import Completed, Outcome, Stopped
from harness.runlog import RunLog
from harness.scores import Rouge
from harness.signals import Interrupted
from harness.view import View
from harness.watching import GpuWatch, Outset, of_worker, outsets, played
from harness.workers import Silent, Template, Worker, WorkerDied
from results.layout import StudyFolder
from results.schema import Record
from results.store import RecordStore, write_predictions
from study.examples import Example
from study.grid import Grid
from study.runs import Purpose, RunSpec, Stage


class ModelUnavailable(RuntimeError):
    """The model cannot be had; one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a study runs: the device, and a reader of GPUs where there are any."""

    device: Device
    gpus: GpuReader | None
    environment: Mapping[str, Any]


class Conductor:
    """Runs specifications for one study. Holds at most one worker at a time."""

    def __init__(
        self,
        grid: Grid,
        folder: StudyFolder,
        machine: Machine,
        examples: Mapping[str, tuple[Example, ...]],
        view: View,
        rates: Rates | None = None,
    ) -> None:
        self._grid = grid
        self._folder = folder
        self._machine = machine
        self._examples = examples
        self._view = view
        self._store = RecordStore(folder)
        self._template = Template()
        self._rouge = Rouge()
        self._model: ModelReady | None = None
        self._desk: _Desk | None = None
        self._rates = Rates() if rates is None else rates
        # Peaks of allocated memory are a GPU's; without one there is nothing to hold a forecast against.
        self._foreseer = Foreseer(self._template, folder, grid.prompts) if machine.device == "cuda" else None

    def run(self, spec: RunSpec) -> Record:
        """Runs one specification and returns its record, which is on disk by then.

        Raises:
            ModelUnavailable: there are no weights to run.
            GpuError: a memory limit is asked for, and there is no GPU that could keep it.
            Interrupted: somebody asked to stop; the run's record says so.
            ResultsError: the record cannot be written.
        """
        model = self._model_ready()
        self._view.run_started(spec)
        if self._foreseer is not None:
            # Before the run and not beside it: the rehearsal would take the processor from what is measured.
            self._foreseer.ask(spec, model)
        record = self._attempt(spec, model)
        if record is None:
            # Earlier runs may have left the memory of a warm worker in pieces: only a fresh process can say that a run
            # does not fit.
            self.leave_desk()
            record = self._attempt(spec, model)
        if record is None:
            raise RuntimeError("a fresh process was taken for a warm one")
        self._view.run_finished(spec, record)
        return record

    def close(self) -> None:
        """Ends every worker."""
        self.leave_desk()
        if self._foreseer is not None:
            self._foreseer.close()

    def leave_desk(self) -> None:
        """Ends the worker that runs are given to, if there is one: the next run has a fresh one."""
        if self._desk is not None:
            self._desk.close()
            self._desk = None

    def _attempt(self, spec: RunSpec, model: ModelReady) -> Record | None:
        """One try; None where a warm worker ran out of memory, which says nothing about the run."""
        desk = self._desk_for(spec)
        log = RunLog(
            spec,
            self._grid.protocol,
            {example.id: example for example in self._examples[spec.evaluated.split]},
            self._rouge,
            warm=desk.used,
        )
        start = time.monotonic()
        try:
            outcome = desk.run(self._job(spec, model, desk), log, self._grid.timeout_s, self._view)
        except Interrupted:
            outcome = Stopped("interrupted", "Interrupted", "somebody asked to stop", desk.phase)
            self._view.run_finished(spec, self._finish(log, outcome, desk, time.monotonic() - start))
            raise
        if log.warm and isinstance(outcome, Stopped) and outcome.status == "out_of_memory":
            return None
        return self._finish(log, outcome, desk, time.monotonic() - start)

    def _finish(self, log: RunLog, outcome: Outcome, desk: "_Desk", seconds: float) -> Record:
        if self._foreseer is not None:
            log.forecast = self._foreseer.forecast(log.spec, self._rates, str(desk.facts.get("gpu")))
        record = log.record(outcome, {**self._machine.environment, **desk.facts}, seconds)
        if isinstance(outcome, Completed):
            # Predictions first: a record that says completed always has them.
            write_predictions(self._folder, record.run_id, log.predictions())
        self._store.append(record)
        self._rates.add(record)
        if isinstance(outcome, Stopped):
            self.leave_desk()
        return record

    def _job(self, spec: RunSpec, model: ModelReady, desk: "_Desk") -> Job:
        train = spec.train
        return Job(
            spec=spec,
            model_folder=model.folder,
            train_file=None if train is None else str(self._folder.examples(train.split, train.hash)),
            evaluated_file=str(self._folder.examples(spec.evaluated.split, spec.evaluated.hash)),
            device=self._machine.device,
            measured=not desk.used,
            memory_limit=played(spec.memory_limit_bytes, desk.outsets),
            adapter_folder=str(self._folder.adapter(spec.run_id)) if self._keeps_adapter(spec) else None,
        )

    def _keeps_adapter(self, spec: RunSpec) -> bool:
        """Adapters of tuned confirm runs are kept, of every arm one unless the grid says otherwise. Random weights have
        nothing to adapt."""
        if spec.purpose is not Purpose.TUNED or spec.model.weights == "random" or spec.repeat:
            return False
        keep = self._grid.save_adapters
        return keep == "all" or (keep == "first-seed" and spec.seed == self._grid.seeds[0])

    def _desk_for(self, spec: RunSpec) -> "_Desk":
        """The warm worker where one with this base may be used, otherwise a fresh one.

        Trials and validation baselines share a warm worker: nothing that a paper quotes of memory or time comes from
        them. Every confirm run and every test baseline has a process of its own.
        """
        warm = spec.stage is Stage.TUNE or spec.evaluated.split == "validation"
        key = (spec.arm.base, spec.training is not None and spec.training.model_dropout) if warm else None
        desk = self._desk
        if desk is not None and (key is None or desk.key != key):
            self.leave_desk()
            desk = None
        if desk is None:
            log = self._folder.logs / f"{spec.run_id}.log"
            # The card is read before there is a worker, whose context would count as somebody else's.
            before = outsets(self._machine.gpus)
            desk = _Desk(self._template.start(self._machine.device, log), self._machine, key, before)
            self._desk = desk
        return desk

    def _model_ready(self) -> ModelReady:
        if self._model is None:
            self._view.note(f"model {self._grid.model.id}")
            worker = self._template.start(self._machine.device, self._folder.logs / "model.log")
            try:
                self._model = self._ask_for_model(worker)
            finally:
                worker.end()
        return self._model

    def _ask_for_model(self, worker: Worker) -> ModelReady:
        request = ModelRequest(self._grid.model.id, self._grid.model.revision, self._machine.device)
        try:
            worker.send(request)
            while True:
                event = worker.next_event()
                if isinstance(event, ModelReady):
                    return event
                if isinstance(event, Raised):
                    raise ModelUnavailable(event.message)
        except WorkerDied as error:
            raise ModelUnavailable(f"the process that prepares the model died ({error}): see {worker.log}") from error


class _Desk:
    """One worker with what is known of it: its GPU, what is seen there, whether it has run anything yet."""

    def __init__(self, worker: Worker, machine: Machine, key: object, before: tuple[Outset, ...]) -> None:
        self._worker = worker
        self._machine = machine
        self._watch: GpuWatch | None = None
        self.outsets = before
        self.key = key
        self.used = False
        self.phase: Phase | None = None
        self.facts: dict[str, Any] = {}

    def run(self, job: Job, log: RunLog, timeout_s: float | None, view: View) -> Outcome:
        """Has the worker do a job; the outcome follows from its events, its exit code and its signal alone."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self.used = True
        self.phase = None
        if self._watch is not None:
            self._watch.run_started()
        try:
            return self._until_the_end(job, log, deadline, view)
        except WorkerDied as error:
            self._last_words(log)
            return Stopped("killed", "WorkerDied", f"{error}: see {self._worker.log.name}", self.phase)
        except Silent:
            self._last_words(log)
            self._worker.dump_stacks()
            return Stopped(
                "timeout", "Timeout", f"no end after {timeout_s:.0f} s: see {self._worker.log.name}", self.phase
            )
        finally:
            if self._watch is not None:
                log.gpu, log.energy_of_run = self._watch.run_ended()

    def _last_words(self, log: RunLog) -> None:
        """What the GPU showed of the phase in which the worker fell silent: it cannot tell any more."""
        if self._watch is not None and self.phase is not None and self.phase not in log.ended:
            peak, energy = self._watch.phase_ended()
            log.add_phase(PhaseEnded(self.phase, 0.0, None, None, None, failed=True), peak, energy)

    def close(self) -> None:
        """Ends the worker and the sampling of its GPU."""
        if self._watch is not None:
            self._watch.close()
        self._worker.end()

    def _until_the_end(self, job: Job, log: RunLog, deadline: float | None, view: View) -> Outcome:
        self._worker.send(job)
        while True:
            outcome = self._take(self._worker.next_event(deadline), log, view)
            if outcome is not None:
                return outcome

    def _take(self, event: Event, log: RunLog, view: View) -> Outcome | None:
        match event:
            case Hello():
                self._greet(event)
            case PhaseStarted(phase=phase):
                self.phase = phase
                if self._watch is not None:
                    self._watch.phase_started()
                view.phase(phase)
            case PhaseEnded():
                peak, energy = (None, None) if self._watch is None else self._watch.phase_ended()
                log.add_phase(event, peak, energy)
            case Progress():
                view.progress(event)
            case Facts():
                log.add_facts(event)
            case Answers(answers=answers):
                log.add_answers(answers)
            case Finished(validation_loss=loss):
                return Completed(loss)
            case Raised():
                return Stopped(event.outcome, event.type, event.message, event.phase)
            case ModelReady() | PrecisionsTried() | Rehearsal():
                pass
        return None

    def _greet(self, hello: Hello) -> None:
        self.facts = {"worker": hello.facts, "gpu": hello.gpu_name, "gpu_uuid": hello.gpu_uuid, "driver": None}
        outset = None if hello.gpu_uuid is None else of_worker(self.outsets, hello.gpu_uuid)
        if outset is not None and self._machine.gpus is not None:
            self.facts["driver"] = outset.device.driver
            self._watch = GpuWatch(self._machine.gpus, outset, hello.pid)
