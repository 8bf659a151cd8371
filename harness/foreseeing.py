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
        # Answers still to come; one to an earlier question that nobody waited for must not be taken for a later one's.
        self._owed = 0

    def ask(self, spec: RunSpec, model: ModelReady) -> None:
        """Has a run rehearsed, and waits for it; a run without training is not."""
        self._asked = self._answer = None
        if spec.train is None or spec.training is None or spec.hyperparameters is None:
            return
        case = RehearsalCase(spec.arm, spec.hyperparameters.rank, spec.training, spec.seed)
        examples = str(self._folder.examples(spec.train.split, spec.train.hash))
        try:
            if self._worker is None:
                self._worker = self._template.start("cpu", self._folder.logs / "forecast.log")
            self._worker.send(
                Rehearse(spec.model.id, spec.model.revision, model.folder, self._prompts, examples, (case,))
            )
        except WorkerDied:
            self.close()
            return
        self._asked = spec.run_id
        self._owed += 1
        self._answer = self._wait()

    def forecast(self, spec: RunSpec, rates: Rates, machine: str) -> ForecastPart:
        """The forecast of the run that was asked for last."""
        return forecast_run(spec, self._answer if self._asked == spec.run_id else None, rates, machine)

    def close(self) -> None:
        """Ends the worker."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None
        self._owed = 0

    def _wait(self) -> Rehearsal | None:
        """The answer to the last question; None where there is none, or where it was waited for already."""
        answer: Rehearsal | None = None
        deadline = time.monotonic() + PATIENCE_S
        try:
            while self._worker is not None and self._owed:
                event = self._worker.next_event(deadline)
                if isinstance(event, Rehearsal | Raised):
                    self._owed -= 1
                    answer = event if isinstance(event, Rehearsal) else None
        except (WorkerDied, Silent):
            self.close()
            return None
        return answer
