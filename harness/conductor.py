"""The conductor: runs one specification after another in worker processes and writes a record of each.

It never imports torch and never opens a CUDA context: a worker may die in any way and still leaves a record.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.gpu import GpuDevice, GpuReader, Sampler
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
)
from harness.outcomes import Completed, Outcome, Stopped
from harness.runlog import RunLog
from harness.scores import Rouge
from harness.signals import Interrupted
from harness.view import View
from harness.workers import Silent, Template, Worker, WorkerDied
from results.layout import StudyFolder
from results.schema import Record
from results.store import RecordStore, write_predictions
from study.examples import Example
from study.grid import Grid
from study.runs import RunSpec, Stage


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

    def run(self, spec: RunSpec) -> Record:
        """Runs one specification and returns its record, which is on disk by then.

        Raises:
            ModelUnavailable: there are no weights to run.
            Interrupted: somebody asked to stop; the run's record says so.
            ResultsError: the record cannot be written.
        """
        model = self._model_ready()
        desk = self._desk_for(spec)
        log = RunLog(
            spec,
            self._grid.protocol,
            {example.id: example for example in self._examples[spec.evaluated.split]},
            self._rouge,
            warm=desk.used,
        )
        self._view.run_started(spec)
        start = time.monotonic()
        try:
            outcome = desk.run(self._job(spec, model), log, self._grid.timeout_s, self._view)
        except Interrupted:
            outcome = Stopped("interrupted", "Interrupted", "somebody asked to stop", desk.phase)
            self._finish(log, outcome, desk, time.monotonic() - start)
            raise
        return self._finish(log, outcome, desk, time.monotonic() - start)

    def close(self) -> None:
        """Ends the worker, if there is one."""
        if self._desk is not None:
            self._desk.close()
            self._desk = None

    def _finish(self, log: RunLog, outcome: Outcome, desk: "_Desk", seconds: float) -> Record:
        record = log.record(outcome, {**self._machine.environment, **desk.facts}, seconds)
        if isinstance(outcome, Completed):
            # Predictions first: a record that says completed always has them.
            write_predictions(self._folder, record.run_id, log.predictions())
        self._store.append(record)
        if isinstance(outcome, Stopped):
            self.close()
        self._view.run_finished(log.spec, record)
        return record

    def _job(self, spec: RunSpec, model: ModelReady) -> Job:
        train = spec.train
        return Job(
            spec=spec,
            model_folder=model.folder,
            train_file=None if train is None else str(self._folder.examples(train.split, train.hash)),
            evaluated_file=str(self._folder.examples(spec.evaluated.split, spec.evaluated.hash)),
            device=self._machine.device,
        )

    def _desk_for(self, spec: RunSpec) -> "_Desk":
        """The warm worker where one with this base may be used, otherwise a fresh one.

        Trials and validation baselines share a warm worker: nothing that a paper quotes of memory or time comes from
        them. Every confirm run and every test baseline has a process of its own.
        """
        warm = spec.stage is Stage.TUNE or spec.evaluated.split == "validation"
        key = (spec.arm.base, spec.training is not None and spec.training.model_dropout) if warm else None
        desk = self._desk
        if desk is not None and (key is None or desk.key != key):
            self.close()
            desk = None
        if desk is None:
            log = self._folder.logs / f"{spec.run_id}.log"
            desk = _Desk(self._template.start(self._machine.device, log), self._machine, key)
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
    """One worker with what is known of it: its GPU, its samples, whether it has run anything yet."""

    def __init__(self, worker: Worker, machine: Machine, key: object) -> None:
        self._worker = worker
        self._machine = machine
        self._sampler: Sampler | None = None
        self._gpu: GpuDevice | None = None
        self._baselines = _baselines(machine)
        self._energy_at_greeting: float | None = None
        self.key = key
        self.used = False
        self.phase: Phase | None = None
        self.facts: dict[str, Any] = {}

    def run(self, job: Job, log: RunLog, timeout_s: float | None, view: View) -> Outcome:
        """Has the worker do a job; the outcome follows from its events, its exit code and its signal alone."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self.used = True
        self.phase = None
        energy = self._energy()
        try:
            self._worker.send(job)
            while True:
                outcome = self._take(self._worker.next_event(deadline), log, view)
                if outcome is not None:
                    break
        except WorkerDied as error:
            return Stopped("killed", "WorkerDied", f"{error}: see {self._worker.log.name}", self.phase)
        except Silent:
            self._worker.dump_stacks()
            return Stopped(
                "timeout", "Timeout", f"no end after {timeout_s:.0f} s: see {self._worker.log.name}", self.phase
            )
        after = self._energy()
        energy = self._energy_at_greeting if energy is None else energy
        log.energy_j = None if energy is None or after is None else after - energy
        return outcome

    def close(self) -> None:
        """Ends the worker and the sampling of its GPU."""
        if self._sampler is not None:
            self._sampler.close()
        self._worker.end()

    def _take(self, event: Event, log: RunLog, view: View) -> Outcome | None:
        match event:
            case Hello():
                self._greet(event)
            case PhaseStarted(phase=phase):
                self.phase = phase
                if self._sampler is not None:
                    self._sampler.reset()
                view.phase(phase)
            case PhaseEnded():
                log.add_phase(event, None if self._sampler is None else self._sampler.peak())
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
            case ModelReady() | PrecisionsTried():
                pass
        return None

    def _greet(self, hello: Hello) -> None:
        self.facts = {"worker": hello.facts, "gpu": hello.gpu_name, "gpu_uuid": hello.gpu_uuid, "driver": None}
        if hello.gpu_uuid is None or self._machine.gpus is None:
            return
        self._gpu = next((gpu for gpu in self._machine.gpus.devices() if gpu.uuid == hello.gpu_uuid), None)
        if self._gpu is not None:
            self.facts["driver"] = self._gpu.driver
            baseline = self._baselines.get(self._gpu.uuid, 0)
            self.facts["gpu_baseline_bytes"] = baseline
            self._sampler = Sampler(self._machine.gpus, self._gpu.uuid, hello.pid, baseline)
            self._energy_at_greeting = self._energy()

    def _energy(self) -> float | None:
        if self._gpu is None or self._machine.gpus is None:
            return None
        return self._machine.gpus.energy_j(self._gpu.uuid)


def _baselines(machine: Machine) -> dict[str, int]:
    """Memory in use on every GPU before a worker starts, in bytes."""
    if machine.gpus is None:
        return {}
    return {gpu.uuid: machine.gpus.read(gpu.uuid, 0).device_bytes for gpu in machine.gpus.devices()}
