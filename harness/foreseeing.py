"""Forecasts of the runs: a worker without a GPU rehearses each distinct training once, out of the runs' way."""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from harness.forecast import Rates, forecast_run
from harness.messages import ModelReady, Raised, Rehearsal, RehearsalCase, Rehearse
from harness.workers import Allowance, Silent, Template, Worker, WorkerDied
from results.layout import StudyFolder
from results.schema import ForecastPart
from study.models import ModelSpec
from study.prompts import Prompts
from study.runs import RunSpec

# A rehearsal takes seconds, also of the largest models; what takes longer hangs.
PATIENCE_S = 120.0
# So often a worker may die or hang before nothing more is asked.
MOST_FAILURES = 3
# A rehearsal keeps one core busy: a run that is not measured leaves it one only where there are this many.
CORES_FOR_TWO = 3


@dataclass(frozen=True, slots=True)
class _Question:
    """What decides a rehearsal's answer: runs that differ in nothing else share it.

    The seed does, for it draws the batches; learning rate and alpha do not.
    """

    model: ModelSpec
    train_file: str
    case: RehearsalCase


class Foreseer:
    """Has the peaks of runs rehearsed, and the answer when a run's record is written.

    Where there are cores enough this happens beside runs that nobody measures, first of the run itself, then of those
    that were said to come. A measured run has the machine for itself: its rehearsal comes before it, unless it was made
    in an earlier run's time. A forecast must never cost a run: where the rehearsal fails, is late or dies, the record
    has none.
    """

    def __init__(self, template: Template, folder: StudyFolder, prompts: Prompts, cores: int | None = None) -> None:
        self._template = template
        self._folder = folder
        self._prompts = prompts
        self._may_be_beside = (len(os.sched_getaffinity(0)) if cores is None else cores) >= CORES_FOR_TWO
        self._worker: Worker | None = None
        self._thread: threading.Thread | None = None
        # Everything below is the condition's: threads of several seats ask, and one works ahead.
        self._turn = threading.Condition()
        self._model: ModelReady | None = None
        self._answers: dict[_Question, Rehearsal] = {}
        self._expected: dict[_Question, None] = {}
        self._asking = False
        self._beside = 0
        self._failures = 0
        self._closed = False

    def expect(self, specs: Iterable[RunSpec]) -> None:
        """Names runs that may come; the first ones are rehearsed first."""
        with self._turn:
            self._expected |= {question: None for spec in specs if (question := self._question(spec)) is not None}

    @contextmanager
    def around(self, spec: RunSpec, model: ModelReady, *, measured: bool) -> Iterator[None]:
        """A run inside this block has its forecast after it: asked for before a measured run, beside another one."""
        if measured or not self._may_be_beside:
            self.ask(spec, model)
            yield
            return
        with self._working_ahead(spec, model):
            yield
        self.ask(spec, model)

    def ask(self, spec: RunSpec, model: ModelReady) -> None:
        """Has a run rehearsed, unless its like has been, and waits for it; a run without training is not.

        Nothing else is being rehearsed when this returns and no other run is under way.
        """
        question = self._question(spec)
        if question is None:
            return
        with self._turn:
            self._model = model
            self._turn.wait_for(lambda: not self._asking)
            if question in self._answers or not self._begun(question):
                return
        self._settle(question)

    def forecast(self, spec: RunSpec, rates: Rates, machine: str) -> ForecastPart:
        """The forecast of a run, from what has been answered by now."""
        question = self._question(spec)
        with self._turn:
            answer = None if question is None else self._answers.get(question)
        return forecast_run(spec, answer, rates, machine)

    def close(self) -> None:
        """Ends the worker."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()
        while self._thread is not None and self._thread.is_alive():
            if self._worker is not None:
                self._worker.dismiss()
            self._thread.join(0.1)
        self._end_worker()

    def _question(self, spec: RunSpec) -> _Question | None:
        if spec.train is None or spec.training is None or spec.hyperparameters is None:
            return None
        arm = replace(spec.arm, name="", family="", axes=(), rank=None, alpha=None, learning_rate=None)
        case = RehearsalCase(arm, spec.hyperparameters.rank, spec.training, spec.seed)
        return _Question(spec.model, str(self._folder.examples(spec.train.split, spec.train.hash)), case)

    @contextmanager
    def _working_ahead(self, spec: RunSpec, model: ModelReady) -> Iterator[None]:
        """Inside the block what is expected is rehearsed, one after another, a run of its own first."""
        question = self._question(spec)
        with self._turn:
            self._model = model
            if question is not None:
                self._expected = {question: None} | self._expected
            self._beside += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._work_ahead, daemon=True, name="foreseer")
                self._thread.start()
            self._turn.notify_all()
        try:
            yield
        finally:
            with self._turn:
                self._beside -= 1

    def _work_ahead(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._closed or (self._beside and self._expected and not self._asking))
                if self._closed:
                    return
                question = next(iter(self._expected))
                if not self._begun(question):
                    continue
            self._settle(question)

    def _begun(self, question: _Question) -> bool:
        """Takes the turn to ask, with the condition held; False where there is nothing to ask any more."""
        self._expected.pop(question, None)
        if self._closed or question in self._answers or self._failures >= MOST_FAILURES:
            return False
        self._asking = True
        return True

    def _settle(self, question: _Question) -> None:
        """Asks, with the turn taken, and gives the turn back."""
        answer = None
        try:
            answer = self._answered(question)
        finally:
            with self._turn:
                if answer is not None:
                    self._answers[question] = answer
                self._asking = False
                self._turn.notify_all()

    def _answered(self, question: _Question) -> Rehearsal | None:
        """The answer to a question; a worker that gives none in time is ended, so that a late one is never taken for
        the next."""
        model = self._model
        if model is None:
            return None
        asked = Rehearse(
            question.model.id,
            question.model.revision,
            model.folder,
            self._prompts,
            question.train_file,
            (question.case,),
        )
        try:
            if self._worker is None:
                self._worker = self._template.start("cpu", self._folder.logs / "forecast.log")
            self._worker.send(asked)
            allowed = Allowance(PATIENCE_S)
            while True:
                event = self._worker.next_event(allowed)
                if isinstance(event, Rehearsal | Raised):
                    return event if isinstance(event, Rehearsal) else None
        except (WorkerDied, Silent):
            self._failures += 1
            self._end_worker()
            return None

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None
