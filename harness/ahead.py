"""The worker of the next run, started while the run before it is under way, or the model is looked for."""

import threading
import time
from contextlib import suppress
from pathlib import Path

from harness.messages import Hello, Prepare, Prepared, ProtocolError, Raised
from harness.workers import Allowance, NoWorkers, Silent, Template, Worker, WorkerDied
from study.runs import RunSpec

# Seconds that a worker which is wanted may still take to be prepared: tens of thousands of dialogues become token ids
# in less. One that takes longer hangs.
PATIENCE_S = 30.0
# Seconds that its end may take.
END_WITHIN_S = 5.0


class WorkerAhead:
    """One worker that does in advance what of its start needs no memory of the GPU.

    Everything that waits does so in a thread of its own, out of the way of the run that is under way. Whatever goes
    wrong here costs no run: there is no worker then, and one is started when its time comes.
    """

    def __init__(self, template: Template, log: Path, gpu: str | None, command: Prepare) -> None:
        self._template = template
        self._log = log
        self._gpu = gpu
        self._command = command
        self._worker: Worker | None = None
        self._hello: Hello | None = None
        self._prepared = self._ended = False
        self._thread = threading.Thread(target=self._start, daemon=True, name="worker-ahead")

    def start(self) -> None:
        """Has the worker started; does not wait for it."""
        # Where there is no thread left there is no worker ahead.
        with suppress(RuntimeError):
            self._thread.start()

    def ready_for(self, spec: RunSpec) -> bool:
        """Whether the worker is prepared for a run; waits while it still may become so."""
        if self._command.spec.run_id != spec.run_id:
            return False
        if self._thread.ident is not None:
            self._thread.join(PATIENCE_S)
        return self._prepared

    def take(self) -> tuple[Worker, Hello] | None:
        """The prepared worker with its greeting; it is the caller's from here on. None where it has died since."""
        worker = self._worker
        if worker is None or self._hello is None or not worker.alive:
            self.end()
            return None
        self._worker = None
        return worker, self._hello

    def end(self) -> None:
        """Ends the worker and waits until it is gone."""
        self._ended = True
        deadline = time.monotonic() + END_WITHIN_S
        while self._thread.is_alive() and time.monotonic() < deadline:
            if self._worker is not None:
                self._worker.dismiss()
            self._thread.join(0.05)
        if self._worker is not None and not self._thread.is_alive():
            self._worker.end()
            self._worker = None

    def _start(self) -> None:
        try:
            self._worker = self._template.start(self._command.device, self._log, self._gpu)
            if self._ended:
                # Nobody waits any more.
                self._worker.dismiss()
            self._worker.send(self._command)
            allowed = Allowance(PATIENCE_S)
            while not self._prepared:
                event = self._worker.next_event(allowed)
                if isinstance(event, Hello):
                    self._hello = event
                elif isinstance(event, Raised):
                    return
                self._prepared = isinstance(event, Prepared)
        except (NoWorkers, WorkerDied, Silent, ProtocolError, OSError):
            return
