"""Forecasts of the runs: a worker without a GPU rehearses each training before it starts."""

import time

from harness.forecast import Rates, forecast_run
from harness.messages import ModelReady, Raised, Rehearsal, RehearsalCase, Rehearse
from harness.workers import Silent, Template, Worker, WorkerDied
from results.layout import StudyFolder
from results.schema import ForecastPart
from study.prompts import Prompts
from study.runs import RunSpec

# A rehearsal takes seconds, also of the largest models; what takes longer hangs.
PATIENCE_S = 120.0


class Foreseer:
    """Has the peak of each run rehearsed before it starts, and the answer when its record is written.

    A forecast must never cost a run: where the rehearsal fails, is late or dies, the record has none.
    """

    def __init__(self, template: Template, folder: StudyFolder, prompts: Prompts) -> None:
        self._template = template
        self._folder = folder
        self._prompts = prompts
        self._worker: Worker | None = None
        self._asked: str | None = None
        self._answer: Rehearsal | None = None

    def ask(self, spec: RunSpec, model: ModelReady) -> None:
        """Has a run rehearsed, and waits for it; a run without training is not."""
        self._asked = self._answer = None
        if spec.train is None or spec.training is None or spec.hyperparameters is None:
            return
        case = RehearsalCase(spec.arm, spec.hyperparameters.rank, spec.training, spec.seed)
        examples = str(self._folder.examples(spec.train.split, spec.train.hash))
        question = Rehearse(spec.model.id, spec.model.revision, model.folder, self._prompts, examples, (case,))
        self._asked, self._answer = spec.run_id, self._answered(question)

    def forecast(self, spec: RunSpec, rates: Rates, machine: str) -> ForecastPart:
        """The forecast of the run that was asked for last."""
        return forecast_run(spec, self._answer if self._asked == spec.run_id else None, rates, machine)

    def close(self) -> None:
        """Ends the worker."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _answered(self, question: Rehearse) -> Rehearsal | None:
        """The answer to a question; a worker that gives none in time is ended, so that a late one is never taken for
        the next."""
        try:
            if self._worker is None:
                self._worker = self._template.start("cpu", self._folder.logs / "forecast.log")
            self._worker.send(question)
            deadline = time.monotonic() + PATIENCE_S
            while True:
                event = self._worker.next_event(deadline)
                if isinstance(event, Rehearsal | Raised):
                    return event if isinstance(event, Rehearsal) else None
        except (WorkerDied, Silent):
            self.close()
            return None
