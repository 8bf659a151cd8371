"""Where a study's wall-clock goes, and what warm workers save: a real study through the real start path.

python -m tests.benchmarks.study [--grid G] [--set KEY=VALUE …] [--only ARM …] [--allow-cpu]
python -m tests.benchmarks.study --against-processes [new forked] [the same options]

The first prints a table of seconds, by what they went into and by stage, and the share outside the workers' phases.
The second makes the trials of the tune stage several times, in warm workers and in a process for each trial (forked
from the template, and started from nothing as a script for each run would be), and prints how much longer those take,
and, on standard error, the first table of the trials in warm workers.

A study that is given `--only` makes the trials of those arms and is not frozen: the others' are missing. For the share
of a whole study, its confirm runs with it, the arms themselves are given (`model.id=random/phi-2` for Phi-2's shape):

python -m tests.benchmarks.study --grid smollm2-precisions --set 'claims=[]' 'seeds=[11, 12]' 'tune={trials: 4}' \
  'arms=[{name: lora-bf16, precision: bf16}, {name: lora-int8, precision: int8}, {name: qlora-nf4, precision: nf4}]' \
  'space={rank: [8, 16], alpha: 32, learning_rate: {low: 5.0e-4, high: 4.0e-3}}' \
  training.steps=24 'training.engine={pad_to_multiple: 64}'
"""

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console

import harness.conductor
import harness.desk
import harness.flow
import harness.start
from harness.adapters.tuning import ArmTuner
from harness.ahead import WorkerAhead
from harness.conductor import Conductor
from harness.flow import Study
from harness.foreseeing import Foreseer
from harness.messages import PHASES, Event, Finished, Hello, PhaseEnded, PhaseStarted, Raised
from harness.runlog import RunLog
from harness.start import RunOptions, run_grid
from harness.view import PlainView
from harness.watching import GpuWatch
from harness.workers import Template, Worker
from results.layout import StudyFolder
from results.schema import Record
from results.store import RecordStore, read_records
from study.runs import RunSpec, Stage

TINY = Path(__file__).parents[1] / "grids" / "tiny.yaml"
ONCE = "once"
COLUMNS = (ONCE, *(str(stage) for stage in Stage))
STARTING, GREETED, BETWEEN = "worker: to its greeting", "worker: to its first phase", "worker: between phases"
BEHIND = "conductor behind the worker"
# Whose time goes under which heading; what is nested in another counts for itself.
HEADINGS: tuple[tuple[Any, str, str], ...] = (
    (harness.start, "load", "data"),
    (harness.start, "known_records", "earlier records"),
    (Conductor, "_model_ready", "model"),
    (Foreseer, "ask", "rehearsal"),
    (Worker, "end", "worker: end"),
    (WorkerAhead, "ready_for", "worker: ahead, waited for"),
    (RunLog, "add_answers", "scoring"),
    (RunLog, "record", "scoring"),
    (RecordStore, "append", "records and predictions"),
    (harness.conductor, "write_predictions", "records and predictions"),
    *((PlainView, name, "view") for name in ("stage", "run_started", "phase", "progress", "run_finished", "note")),
    (Study, "save_inputs", "planning"),
    (Study, "write_plan", "planning"),
    (Study, "_finish", "planning"),
    (harness.flow, "parted", "planning"),
    (Study, "_frozen", "choosing"),
    (ArmTuner, "__init__", "choosing"),
    (ArmTuner, "propose", "choosing"),
    (harness.desk, "outsets", "GPU readings"),
    *((GpuWatch, name, "GPU readings") for name in ("__init__", "run_started", "phase_started", "phase_ended")),
    *((GpuWatch, name, "GPU readings") for name in ("run_ended", "close")),
)


class Clock:
    """Seconds by stage and heading, each second once: under the innermost of the headings that are open.

    While a worker is in a phase the second is the phase's, whatever the conductor does beside it.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.column = ONCE
        self.phase: str | None = None
        self._open = ["other"]
        self._since = time.monotonic()

    def tick(self) -> None:
        """Counts the time since the last tick."""
        now = time.monotonic()
        self.seconds[self.column, self.phase or self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def under(self, heading: str) -> Iterator[None]:
        """What happens inside the block is counted under a heading."""
        self.tick()
        self._open.append(heading)
        try:
            yield
        finally:
            self.tick()
            self._open.pop()


class Profile:
    """The clock, set by what the conductor does and hears."""

    def __init__(self) -> None:
        self.clock = Clock()
        # Seconds of the workers' phases as they told them: some records withhold them.
        self.told: dict[tuple[str, str], float] = defaultdict(float)
        # How far each worker has come, by its log; a worker that is not there has said nothing.
        self._waits: dict[Path, str] = {}
        self._forked = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watches every call of HEADINGS and every event inside the block."""
        with ExitStack() as stack:
            for owner, name, heading in HEADINGS:
                timed = self._timed(getattr(owner, name), heading)
                stack.enter_context(mock.patch.object(owner, name, timed))
            stack.enter_context(mock.patch.object(Worker, "next_event", self._hearing(Worker.next_event)))
            stack.enter_context(mock.patch.object(Conductor, "run", self._staged(Conductor.run)))
            stack.enter_context(mock.patch.object(Template, "start", self._starting(Template.start)))
            yield
        self.clock.tick()

    def _timed(self, function: Callable[..., Any], heading: str) -> Callable[..., Any]:
        @wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            if _beside():
                return function(*arguments, **named)
            with self.clock.under(heading):
                return function(*arguments, **named)

        return timed

    def _staged(self, run: Callable[..., Record]) -> Callable[..., Record]:
        @wraps(run)
        def staged(conductor: Conductor, spec: RunSpec, then: RunSpec | None = None) -> Record:
            self.clock.tick()
            self.clock.column = str(spec.stage)
            try:
                return run(conductor, spec, then)
            finally:
                self.clock.tick()
                self.clock.column = ONCE

        return staged

    def _starting(self, start: Callable[..., Worker]) -> Callable[..., Worker]:
        @wraps(start)
        def starting(*arguments: Any, **named: Any) -> Worker:
            if _beside():
                return start(*arguments, **named)
            # The first one waits for the libraries, which a study imports once.
            column, heading = self.clock.column, "worker: fork"
            if not self._forked:
                self.clock.tick()
                self.clock.column, heading = ONCE, "template: imports"
            self._forked = True
            with self.clock.under(heading):
                worker = start(*arguments, **named)
            self.clock.column = column
            return worker

        return starting

    def _hearing(self, next_event: Callable[..., Event]) -> Callable[..., Event]:
        @wraps(next_event)
        def hearing(worker: Worker, deadline: float | None = None) -> Event:
            if _beside():
                event = next_event(worker, deadline)
                if isinstance(event, Hello):
                    self._waits[worker.log] = GREETED
                return event
            apart = worker.log.name in ("model.log", "forecast.log")
            with ExitStack() as stack:
                if not apart:
                    stack.enter_context(self.clock.under(self._waits.get(worker.log, STARTING)))
                event = next_event(worker, deadline)
            if not apart:
                self._heard(worker.log, event)
            return event

        return hearing

    def _heard(self, log: Path, event: Event) -> None:
        self.clock.tick()
        match event:
            case Hello():
                self._waits[log] = GREETED
            case PhaseStarted(phase=phase):
                self._waits[log] = BETWEEN
                self.clock.phase = phase
            case PhaseEnded(phase=phase, seconds=seconds):
                self.told[self.clock.column, phase] += seconds
                self.clock.phase = None
            case Finished() | Raised():
                self.clock.phase = None


def _beside() -> bool:
    """Whether this is a thread that prepares something beside the study: only what the study waits for is counted."""
    return threading.current_thread() is not threading.main_thread()


def options_of(parsed: argparse.Namespace, results: Path) -> RunOptions:
    """The options of one start."""
    return RunOptions(
        grid=str(parsed.grid),
        overrides=tuple(parsed.set),
        only=tuple(parsed.only),
        results=results,
        retry_failed=False,
        allow_cpu=parsed.allow_cpu,
    )


def profiled(options: RunOptions, console: Console) -> tuple[Profile, tuple[Record, ...]]:
    """A study run to its end, with the clock and the records of it. One that was stopped ends this process, with its
    table on the console."""
    profile = Profile()
    with profile.running():
        done = run_grid(options, console)
    if done.study is None:
        for folder in options.results.iterdir():
            if records := read_records(StudyFolder.of(options.results, folder.name)).all:
                console.print("\n".join(table(profile, records)), markup=False, soft_wrap=True)
        sys.exit(done.exit_code)
    return profile, read_records(StudyFolder.of(options.results, done.study)).all


def table(profile: Profile, records: Sequence[Record]) -> Iterator[str]:
    """The table as Markdown: phases as the workers timed them, and everything else as the conductor did."""
    spent = dict(profile.clock.seconds)
    rows: dict[str, dict[str, float]] = {}
    for phase in PHASES:
        rows[phase] = {}
        for column in COLUMNS:
            own = profile.told[column, phase]
            rows[phase][column] = own
            behind = rows.setdefault(BEHIND, {})
            behind[column] = behind.get(column, 0.0) + spent.pop((column, phase), 0.0) - own
    behind = rows.pop(BEHIND)
    for (column, heading), seconds in sorted(spent.items(), key=lambda item: -item[1]):
        rows.setdefault(heading, {})[column] = seconds
    rows[BEHIND] = behind
    counts = Counter(str(record.stage) for record in records)
    totals = {column: sum(row.get(column, 0.0) for row in rows.values()) for column in COLUMNS}
    outside = {column: totals[column] - sum(rows[phase][column] for phase in PHASES) for column in COLUMNS}
    names = [ONCE, *(f"{column} ({counts[column]} runs)" for column in COLUMNS[1:])]
    yield f"| seconds | {' | '.join(names)} | all |"
    yield f"|---|{'---:|' * (len(COLUMNS) + 1)}"
    for heading, row in (*rows.items(), ("wall-clock", totals), ("outside the phases", outside)):
        cells = [row.get(column, 0.0) for column in COLUMNS]
        yield f"| {heading} | {' | '.join(f'{seconds:.2f}' for seconds in (*cells, sum(cells)))} |"
    shares = [(outside[column], totals[column]) for column in COLUMNS]
    shares.append((sum(outside.values()), sum(totals.values())))
    yield f"| share outside | {' | '.join(f'{100 * part / whole:.1f}%' if whole else '—' for part, whole in shares)} |"


@contextmanager
def a_process_for_each_trial(method: str | None) -> Iterator[None]:
    """Inside the block no worker is used twice, nor started ahead; `method` is how processes start, None as they do
    otherwise."""
    run = Conductor.run

    @wraps(run)
    def alone(conductor: Conductor, spec: RunSpec, then: RunSpec | None = None) -> Record:
        conductor.leave_desk()
        return run(conductor, spec)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Conductor, "run", alone))
        if method is not None:
            context = multiprocessing.get_context(method)
            stack.enter_context(mock.patch("multiprocessing.get_context", return_value=context))
        yield


def against_processes(parsed: argparse.Namespace, console: Console) -> Iterator[str]:
    """The trials of the tune stage in warm workers and in processes of their own, and the ratio of seconds."""
    yield "| trials in | runs | tune, s | s a trial | against warm |"
    yield "|---|---:|---:|---:|---:|"
    warm = None
    ways: dict[str, tuple[str, Callable[[], Any]]] = {
        "forked": ("a forked process each", lambda: a_process_for_each_trial(None)),
        "new": ("a new process each", lambda: a_process_for_each_trial("spawn")),
    }
    for name, way in (("warm workers", ExitStack), *(ways[name] for name in parsed.against_processes)):
        # A study that is never frozen ends with its trials.
        unfrozen = mock.patch.object(Study, "_frozen", return_value=None)
        with tempfile.TemporaryDirectory() as folder, way(), unfrozen:
            profile, records = profiled(options_of(parsed, Path(folder)), console)
        runs = sum(record.stage == "tune" and record.status == "completed" for record in records)
        seconds = sum(spent for (column, _), spent in profile.clock.seconds.items() if column == "tune")
        warm = warm or seconds
        yield f"| {name} | {runs} | {seconds:.1f} | {seconds / max(runs, 1):.2f} | {seconds / warm:.2f}× |"
        if warm is seconds:
            # At once: the other ways take many times as long, and may be cut off.
            console.print("\n".join(table(profile, records)), markup=False, soft_wrap=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.study")
    parser.add_argument("--grid", default=TINY, metavar="G")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--only", nargs="+", default=[], metavar="ARM")
    parser.add_argument("--allow-cpu", action="store_true")
    parser.add_argument("--against-processes", nargs="*", choices=("forked", "new"))
    parsed = parser.parse_args()
    # What the study says goes to standard error: the table alone is the answer.
    console = Console(stderr=True, width=120, force_terminal=False)
    if parsed.against_processes is not None:
        for line in against_processes(parsed, console):
            print(line, flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        profile, records = profiled(options_of(parsed, Path(folder)), console)
        for line in table(profile, records):
            print(line)


if __name__ == "__main__":
    main()
