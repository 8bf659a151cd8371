"""Where runs are made: a seat is a GPU, or the CPU; a desk is the worker that sits there, with what is known of it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.ahead import WorkerAhead
from harness.gpu import GpuReader
from harness.messages import (
    Alive,
    Answers,
    Device,
    Event,
    Facts,
    Finished,
    Hello,
    Job,
    ModelReady,
    Phase,
    PhaseEnded,
    PhaseStarted,
    PrecisionsTried,
    Prepare,
    Prepared,
    Progress,
    Raised,
    Rehearsal,
    Resumed,
)
from harness.outcomes import Completed, Outcome, Stopped, of_death
from harness.runlog import RunLog
from harness.view import View
from harness.watching import GpuWatch, Outset, of_worker, outsets
from harness.workers import Allowance, Hung, NoWorkers, Silent, Template, Worker, WorkerDied
from study.runs import RunSpec, Stage


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a study runs: the device, a reader of GPUs where there are any, and a seat for each run at a time.

    A seat is the UUID of its GPU, or None: whatever a worker finds first (one seat), or the CPU. Trainings keep a
    checkpoint after every `checkpoint_every` optimizer steps, or none. `cores` are those that this process may use.
    """

    device: Device
    gpus: GpuReader | None
    environment: Mapping[str, Any]
    seats: tuple[str | None, ...] = (None,)
    checkpoint_every: int | None = None
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))


# What leaves time for something else beside it; a load is over sooner, and busy with what would be beside it.
LONG_PHASES: tuple[Phase, ...] = ("train", "evaluate")


class Halted(RuntimeError):
    """The worker was ended because the study stops."""


def warm_key(spec: RunSpec) -> tuple[object, ...] | None:
    """The base that a warm worker must have for a run; None for a run that takes a fresh process.

    Trials and validation baselines share a warm worker: nothing that a paper quotes of memory or time comes from
    them. Every confirm run and every test baseline has a process of its own, and nothing of another run beside it on
    its GPU: not the worker before it, which is gone, nor the one after it, which is not there yet. Only between two
    runs with a key may the next one's worker be started while the first is under way.
    """
    warm = spec.stage is Stage.TUNE or spec.evaluated.split == "validation"
    return (spec.arm.base, spec.training is not None and spec.training.model_dropout) if warm else None


class Desk:
    """One worker with what is known of it: its GPU, what is seen there, whether it has run anything yet.

    `hello` is the greeting of a worker that was started ahead; another one's is still to come.
    """

    def __init__(
        self, worker: Worker, machine: Machine, key: object, before: tuple[Outset, ...], hello: Hello | None = None
    ) -> None:
        self._worker = worker
        self._machine = machine
        self._hello = hello
        self._watch: GpuWatch | None = None
        self._halted = self._begun = False
        self.outsets = before
        self.key = key
        self.used = False
        self.phase: Phase | None = None
        self.facts: dict[str, Any] = {}

    def run(
        self,
        job: Job,
        log: RunLog,
        timeout_s: float | None,
        view: View,
        at_work: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Has the worker do a job; the outcome follows from its events, its exit code and its signal alone. Whenever
        the worker has begun something long, `at_work` is called.

        Raises:
            Halted: another thread has ended the worker.
            NoWorkers: the worker could not even begin, as no other could: that is no run's doing.
        """
        self.phase = None
        try:
            self._begin(job, log)
            return self._until_the_end(log, None if timeout_s is None else Allowance(timeout_s), view, at_work)
        except WorkerDied as error:
            self._last_words(log)
            if self._halted:
                raise Halted from error
            status = of_death(error.exit_code)
            if status == "failed" and not self._begun:
                raise NoWorkers(f"a worker crashed before it had begun ({error}): see {self._worker.log}") from error
            return Stopped(status, "WorkerDied", f"{error}: see {self._worker.log.name}", self.phase)
        except Silent as error:
            self._last_words(log)
            self._worker.dump_stacks()
            hung = isinstance(error, Hung)
            why = str(error) if hung else f"no end after {timeout_s:.0f} s"
            kind = "Hung" if hung else "Timeout"
            return Stopped("timeout", kind, f"{why}: see {self._worker.log.name}", self.phase)
        finally:
            if self._watch is not None:
                log.gpu, log.energy_of_run = self._watch.run_ended()

    def halt(self) -> None:
        """Ends the worker from another thread: the run that is under way raises Halted."""
        self._halted = True
        self._worker.dismiss()

    def dismiss(self) -> None:
        """Has the worker go while its run is still scored and written; `close` then waits for less."""
        self.key = None
        self._worker.dismiss()

    def close(self) -> None:
        """Ends the worker and the sampling of its GPU."""
        if self._watch is not None:
            self._watch.close()
        self._worker.end()

    def _last_words(self, log: RunLog) -> None:
        """What the GPU showed of the phase in which the worker fell silent: it cannot tell any more."""
        if self._watch is not None and self.phase is not None and self.phase not in log.ended:
            peak, energy = self._watch.phase_ended()
            log.add_phase(PhaseEnded(self.phase, 0.0, None, None, None, failed=True), peak, energy)

    def _begin(self, job: Job, log: RunLog) -> None:
        """Hands the job over; the GPU is read while the worker takes it up."""
        again, self.used = self.used, True
        try:
            self._worker.send(job)
        finally:
            if self._hello is not None:
                log.started_ahead = True
                self._greet(self._hello)
                self._hello = None
            elif self._watch is not None and again:
                self._watch.run_started()

    def _until_the_end(
        self, log: RunLog, allowed: Allowance | None, view: View, at_work: Callable[[], None]
    ) -> Outcome:
        while True:
            event = self._worker.next_event(allowed)
            if isinstance(event, Resumed) and allowed is not None:
                # The time that a run is given is for all of its parts.
                allowed.left_s -= event.seconds
            outcome = self._take(event, log, view)
            if isinstance(event, PhaseStarted) and event.phase in LONG_PHASES:
                at_work()
            if outcome is not None:
                return outcome

    def _take(self, event: Event, log: RunLog, view: View) -> Outcome | None:
        match event:
            case Hello():
                self._greet(event)
            case PhaseStarted(phase=phase):
                self.phase, self._begun = phase, True
                if self._watch is not None:
                    self._watch.phase_started()
                view.phase(log.spec, phase)
            case PhaseEnded():
                peak, energy = (None, None) if self._watch is None else self._watch.phase_ended()
                log.add_phase(event, peak, energy)
            case Resumed():
                log.resumed = event
                view.note(f"{log.spec.label()}: goes on after step {event.step} of {event.steps}")
            case Progress():
                view.progress(log.spec, event)
            case Facts():
                log.add_facts(event)
            case Answers(answers=answers):
                log.add_answers(answers)
            case Finished(validation_loss=loss):
                return Completed(loss)
            case Raised(begun=False):
                raise NoWorkers(f"no worker can begin: {event.type}: {event.message} (see {self._worker.log})")
            case Raised():
                return Stopped(event.outcome, event.type, event.message, event.phase)
            case ModelReady() | PrecisionsTried() | Prepared() | Rehearsal() | Alive():
                pass
        return None

    def _greet(self, hello: Hello) -> None:
        self.facts = {"worker": hello.facts, "gpu": hello.gpu_name, "gpu_uuid": hello.gpu_uuid, "driver": None}
        outset = None if hello.gpu_uuid is None else of_worker(self.outsets, hello.gpu_uuid)
        if outset is not None and self._machine.gpus is not None:
            self.facts["driver"] = outset.device.driver
            self._watch = GpuWatch(self._machine.gpus, outset, hello.pid)


class Seat:
    """One place for one worker at a time; `gpu` is the UUID that the worker is pinned to, None where it is not."""

    def __init__(self, template: Template, machine: Machine, logs: Path, gpu: str | None) -> None:
        self._template = template
        self._machine = machine
        self._logs = logs
        self._gpu = gpu
        self._halted = False
        self._ahead: WorkerAhead | None = None
        self.desk: Desk | None = None

    def desk_for(self, spec: RunSpec) -> Desk:
        """The warm worker where one with this base may be used, otherwise a fresh one: that which was started ahead for
        this run, where there is one."""
        key = warm_key(spec)
        if self.desk is None or key is None or self.desk.key != key:
            if self._ahead is not None and not (key is not None and self._ahead.ready_for(spec)):
                self._leave_ahead()
            self._leave_desk()
            # The card is read before a worker has a context, which would count as somebody else's.
            before = outsets(self._machine.gpus, self._gpu)
            ready = None if self._ahead is None else self._ahead.take()
            self._ahead = None
            worker, hello = ready or (self._template.start(self._machine.device, self._log(spec), self._gpu), None)
            self.desk = Desk(worker, self._machine, key, before, hello)
        if self._halted:
            self.desk.halt()
        return self.desk

    def start_ahead(self, command: Prepare) -> None:
        """Has the worker of the run that comes next started, beside the one that is at work; does not wait for it.

        Neither run may be a measured one: that is the caller's to see to.
        """
        if self._ahead is None:
            self._ahead = WorkerAhead(self._template, self._log(command.spec), self._gpu, command)
            self._ahead.start()

    def leave(self) -> None:
        """Ends the worker, if there is one, and the one that was started ahead, and waits until they are gone: the next
        run has a fresh one."""
        self._leave_ahead()
        self._leave_desk()

    def halt(self) -> None:
        """Stops what is under way here, from another thread, and whatever would come next."""
        self._halted = True
        if (desk := self.desk) is not None:
            desk.halt()

    def _leave_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.end()
            self._ahead = None

    def _leave_desk(self) -> None:
        if self.desk is not None:
            self.desk.close()
            self.desk = None

    def _log(self, spec: RunSpec) -> Path:
        return self._logs / f"{spec.run_id}.log"
