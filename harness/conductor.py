"""The conductor: runs one specification after another in worker processes and writes a record of each.

It never imports torch and never opens a CUDA context: a worker may die in any way and still leaves a record.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

from harness.desk import Desk, Halted, Machine, Seat, warm_key
from harness.forecast import Rates
from harness.foreseeing import CORES_FOR_TWO, Foreseer
from harness.messages import Checkpoints, Job, ModelReady, ModelRequest, Prepare, Raised
from harness.outcomes import Completed, Outcome, Stopped
from harness.pruning import Pruner
from harness.resuming import remove
from harness.runlog import RunLog
from harness.scores import Scorer
from harness.sidebyside import side_by_side
from harness.signals import Interrupted
from harness.view import SharedView, View
from harness.watching import played
from harness.workers import NoWorkers, Silent, Template, Worker, WorkerDied
from results.layout import StudyFolder
from results.schema import ALWAYS_AGAIN, Record
from results.store import RecordStore, write_predictions
from study.examples import Example
from study.grid import Grid
from study.runs import Purpose, RunSpec, Stage

__all__ = ["Conductor", "Machine", "ModelUnavailable"]


class ModelUnavailable(RuntimeError):
    """The model cannot be had; one line that says what to do."""


class Conductor:
    """Runs specifications for one study. Holds at most one worker at a time in each of the machine's seats, and, where
    there is one seat, the worker of the next run beside it: while neither run is a measured one, see `warm_key`."""

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
        self._examples = {split: {example.id: example for example in of_split} for split, of_split in examples.items()}
        self._view = view if len(machine.seats) == 1 else SharedView(view)
        self._store = RecordStore(folder)
        self._template = Template()
        self._scorer = Scorer()
        self._model: ModelReady | None = None
        self._seats = tuple(Seat(self._template, machine, folder.logs, gpu) for gpu in machine.seats)
        self._rates = Rates() if rates is None else rates
        # Peaks of allocated memory are a GPU's; without one there is nothing to hold a forecast against.
        self._foreseer = (
            Foreseer(self._template, folder, grid.prompts, machine.cores) if machine.device == "cuda" else None
        )
        self._pruner = Pruner(grid.tune)
        # What the seats' threads share: the store, the rates, the pruner, and the runs that are under way.
        self._sharing = threading.Lock()
        self._under_way: dict[str, RunLog] = {}

    @property
    def seats(self) -> int:
        """How many runs are made at a time, at most."""
        return len(self._seats)

    def expect(self, specs: Iterable[RunSpec]) -> None:
        """Names runs that may come, in their order: what can be prepared of them is, while nothing is measured."""
        if self._foreseer is not None:
            self._foreseer.expect(specs)

    def recall(self, specs: Iterable[RunSpec], last: Mapping[str, Record]) -> None:
        """Tells how runs of the plan ended earlier: trials are held against those before them."""
        with self._sharing:
            for spec in specs:
                if spec.run_id in last:
                    self._pruner.add(spec, last[spec.run_id])

    def run(self, spec: RunSpec, then: RunSpec | None = None) -> Record:
        """Runs one specification and returns its record, which is on disk by then. `then` is the run that comes next,
        where that is known.

        Raises:
            ModelUnavailable: there are no weights to run.
            GpuError: a memory limit is asked for, and there is no GPU that could keep it.
            Interrupted: somebody asked to stop; the run's record says so.
            ResultsError: the record cannot be written.
        """
        key = warm_key(spec)
        here = (seat for seat in self._seats if key is not None and seat.desk is not None and seat.desk.key == key)
        seat = next(here, self._seats[0])
        if self._model is None and key is not None:
            # While the model is looked for nothing is under way.
            self._start_ahead(seat, spec, None)
        return self._run(seat, spec, self._model_ready(), then)

    def run_all(self, specs: Sequence[RunSpec], keep: Callable[[Record], None], then: RunSpec | None = None) -> None:
        """Runs specifications that do not wait for each other, and hands over each record: in their order where there
        is one seat, else as they end. Trials that may be pruned wait for those of their arm that stand before them.
        `then` is the run that comes after all of these, where that is known: it is of use where there is one seat, for
        with several nobody can tell which of them takes it.

        Raises:
            ModelUnavailable, GpuError, Interrupted, ResultsError: as `run` does; what else is under way then stops, and
                its records say so.
        """
        if self.seats == 1 or len(specs) < 2:
            for spec, following in zip(specs, (*specs, then)[1:], strict=True):
                keep(self.run(spec, following))
            return
        model = self._model_ready()
        side_by_side(self._seats, specs, lambda seat, spec: self._run(seat, spec, model), keep, self._pruner.turn)

    def close(self) -> None:
        """Ends every worker."""
        self.leave_desk()
        self._scorer.close()
        if self._foreseer is not None:
            self._foreseer.close()

    def leave_desk(self) -> None:
        """Ends the workers that runs are given to, if there are any: the next run has a fresh one."""
        for seat in self._seats:
            seat.leave()

    def _run(self, seat: Seat, spec: RunSpec, model: ModelReady, then: RunSpec | None = None) -> Record:
        self._view.run_started(spec)
        record = self._attempt(seat, spec, model, then)
        if isinstance(record, Stopped):
            # Earlier runs may have left the memory of a warm worker in pieces: only a fresh process can say that a run
            # does not fit.
            seat.leave()
            with self._sharing:
                # Nor does it go on from where the warm one was.
                remove(self._folder, spec.run_id)
            record = self._attempt(seat, spec, model, then, retried=record)
        if isinstance(record, Stopped):
            raise RuntimeError("a fresh process was taken for a warm one")
        self._view.run_finished(spec, record)
        return record

    def _attempt(
        self, seat: Seat, spec: RunSpec, model: ModelReady, then: RunSpec | None, retried: Stopped | None = None
    ) -> Record | Stopped:
        """One try; no record where a warm worker ran out of memory, which says nothing about the run."""
        with self._foreseen(spec, model):
            desk = seat.desk_for(spec)
            examples = self._examples[spec.evaluated.split]
            log = RunLog(spec, self._grid.protocol, examples, self._scorer, warm=desk.used, retried=retried)
            at_work = partial(self._look_ahead, seat, spec, then, model)
            start = time.monotonic()
            try:
                with self._among_others(log):
                    job = self._job(spec, model, desk)
                    outcome = desk.run(job, log, self._grid.timeout_s, self._view, at_work)
            except (Interrupted, Halted):
                outcome = Stopped("interrupted", "Interrupted", "somebody asked to stop", desk.phase)
                self._view.run_finished(spec, self._finish(log, outcome, seat, time.monotonic() - start))
                raise
            seconds = time.monotonic() - start
            if desk.key is None or (then is not None and warm_key(then) != desk.key):
                desk.dismiss()
        if log.warm and isinstance(outcome, Stopped) and outcome.status == "out_of_memory":
            return outcome
        return self._finish(log, outcome, seat, seconds)

    def _finish(self, log: RunLog, outcome: Outcome, seat: Seat, seconds: float) -> Record:
        facts = {} if seat.desk is None else seat.desk.facts
        with self._sharing:
            if self._foreseer is not None:
                log.forecast = self._foreseer.forecast(log.spec, self._rates, str(facts.get("gpu")))
            record = log.record(outcome, {**self._machine.environment, **facts}, seconds)
            if isinstance(outcome, Completed):
                # Predictions first: a record that says completed always has them.
                write_predictions(self._folder, record.run_id, log.predictions())
            self._store.append(record)
            if record.status not in ALWAYS_AGAIN:
                remove(self._folder, record.run_id)
            self._rates.add(record)
            self._pruner.add(log.spec, record)
        if isinstance(outcome, Stopped) and outcome.status != "pruned":
            seat.leave()
        return record

    def _foreseen(self, spec: RunSpec, model: ModelReady) -> AbstractContextManager[None]:
        if self._foreseer is None:
            return nullcontext()
        return self._foreseer.around(spec, model, measured=warm_key(spec) is None)

    @contextmanager
    def _among_others(self, log: RunLog) -> Iterator[None]:
        """Counts how many runs are under way at once: each run keeps the most that it was among."""
        with self._sharing:
            self._under_way[log.spec.run_id] = log
            for other in self._under_way.values():
                other.side_by_side = max(other.side_by_side, len(self._under_way))
        try:
            yield
        finally:
            with self._sharing:
                del self._under_way[log.spec.run_id]

    def _look_ahead(self, seat: Seat, spec: RunSpec, then: RunSpec | None, model: ModelReady) -> None:
        """Has the worker that the next run needs started beside a run, where nobody measures either of them."""
        here, there = warm_key(spec), None if then is None else warm_key(then)
        if then is not None and here is not None and there is not None and here != there:
            self._start_ahead(seat, then, model)

    def _start_ahead(self, seat: Seat, spec: RunSpec, model: ModelReady | None) -> None:
        """Has the worker started that a run needs which is to come; on few cores it waits for its time."""
        if self.seats == 1 and self._machine.cores >= CORES_FOR_TWO:
            folder, files = None if model is None else model.folder, self._files(spec)
            seat.start_ahead(Prepare(spec, folder, *files, self._machine.device))

    def _files(self, spec: RunSpec) -> tuple[str | None, str]:
        """Where the examples lie that a run learns from, if it does, and those that it is scored on."""
        train, evaluated = spec.train, spec.evaluated
        train_file = None if train is None else str(self._folder.examples(train.split, train.hash))
        return train_file, str(self._folder.examples(evaluated.split, evaluated.hash))

    def _job(self, spec: RunSpec, model: ModelReady, desk: Desk) -> Job:
        train_file, evaluated_file = self._files(spec)
        with self._sharing:
            waypoints = self._pruner.waypoints(spec)
        return Job(
            spec=spec,
            model_folder=model.folder,
            train_file=train_file,
            evaluated_file=evaluated_file,
            device=self._machine.device,
            measured=not desk.used,
            memory_limit=played(spec.memory_limit_bytes, desk.outsets),
            adapter_folder=str(self._folder.adapter(spec.run_id)) if self._keeps_adapter(spec) else None,
            waypoints=waypoints,
            checkpoints=self._checkpoints(spec),
            padded_rank=self._padded_rank(spec),
            unpacked=self._grid.tune.unpacked_base and spec.stage is Stage.TUNE and spec.arm.precision.is_4bit,
        )

    def _padded_rank(self, spec: RunSpec) -> int | None:
        """The largest rank of an arm's trials where these share captured steps; None for any other run.

        Sets that are run again on further seeds take turns with their seeds, and each seed has shapes of its own: there
        is nothing to share.
        """
        tune = self._grid.tune
        if not tune.share_graphs or spec.stage is not Stage.TUNE or spec.seed != tune.seed:
            return None
        space = self._grid.space_of(spec.arm)
        # Trials that differ in the learning rate alone share theirs as they are.
        return max(space.rank) if len(space.rank) * len(space.alpha) > 1 else None

    def _checkpoints(self, spec: RunSpec) -> Checkpoints | None:
        every = self._machine.checkpoint_every
        if every is None or spec.train is None:
            return None
        folder = self._folder.checkpoint(spec.run_id)
        # No parents: a study that was removed under way is not made anew. The worker says that it finds no folder.
        with self._sharing, suppress(OSError):
            folder.parent.mkdir(exist_ok=True)
            folder.mkdir(exist_ok=True)
        return Checkpoints(str(folder), every)

    def _keeps_adapter(self, spec: RunSpec) -> bool:
        """Adapters of tuned confirm runs are kept, of every arm one unless the grid says otherwise. Random weights have
        nothing to adapt."""
        if spec.purpose is not Purpose.TUNED or spec.model.weights == "random" or spec.repeat:
            return False
        keep = self._grid.save_adapters
        return keep == "all" or (keep == "first-seed" and spec.seed == self._grid.seeds[0])

    def _model_ready(self) -> ModelReady:
        if self._model is None:
            self._view.note(f"model {self._grid.model.id}")
            worker = self._template.start(self._machine.device, self._folder.logs / "model.log")
            try:
                self._model = self._ask_for_model(worker)
            finally:
                worker.end()
            read_ahead(Path(self._model.folder))
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
                    # A worker that cannot begin is no fault of the model that was asked for.
                    raise (ModelUnavailable if event.begun else NoWorkers)(event.message)
        except WorkerDied as error:
            raise NoWorkers(f"the process that prepares the model died ({error}): see {worker.log}") from error
        except Silent as error:
            worker.dump_stacks()
            raise NoWorkers(f"the process that prepares the model hangs ({error}): see {worker.log}") from error


def read_ahead(folder: Path) -> None:
    """Asks the kernel to read the weights in a folder into memory, so that the first load is like the later ones."""
    for path in sorted(folder.glob("*.safetensors")):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(descriptor)
