"""What a person sees of a study under way: a live view on a terminal, plain lines elsewhere."""

import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from harness.messages import Phase, Progress
from results.schema import Record
from study.metrics import METRICS
from study.problems import one_line
from study.runs import RunSpec

_STYLE = {"completed": "green", "pruned": "dim", "out_of_memory": "yellow", "diverged": "yellow"}


class View(Protocol):
    """What the conductor tells while it works."""

    def stage(self, name: str, planned: int, done: int) -> None:
        """A stage begins: how many runs it has, and how many of them are already there."""

    def run_started(self, spec: RunSpec) -> None:
        """A run begins."""

    def phase(self, spec: RunSpec, phase: Phase) -> None:
        """The run's next phase begins."""

    def progress(self, spec: RunSpec, progress: Progress) -> None:
        """Where the phase stands."""

    def run_finished(self, spec: RunSpec, record: Record) -> None:
        """A run is over and recorded."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def close(self) -> None:
        """The study is over, or stopped."""


@dataclass(slots=True)
class Pace:
    """How long the runs still to come may take, from the median of those that were made, kind by kind."""

    total: int
    done: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, kind: str, seconds: float) -> None:
        """One more run was made."""
        self.done += 1
        self.seconds.setdefault(kind, []).append(seconds)

    def left_s(self) -> float | None:
        """Seconds left; None before the first run."""
        everything = sorted(value for values in self.seconds.values() for value in values)
        return everything[len(everything) // 2] * max(self.total - self.done, 0) if everything else None


def duration(seconds: float | None) -> str:
    """Seconds as `45 s`, `3 min 20 s` or `2 h 05 min`; an em dash where unknown."""
    if seconds is None:
        return "—"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def summary_line(spec: RunSpec, record: Record) -> str:
    """One line of a finished run: what it was, how it ended, and its first score."""
    seconds = duration(record.seconds.total)
    if record.status != "completed":
        why = record.error.message if record.error else ""
        return f"{spec.stage} {spec.label()}: {record.status} after {seconds}. {why}".rstrip()
    parts = []
    if record.quality is not None:
        for key in ("rouge1", "validation_loss"):
            metric = METRICS[key]
            parts.append(f"{metric.label} {record.quality[key]:.{metric.decimals}f}")
    return f"{spec.stage} {spec.label()}: {', '.join([*parts, seconds])}"


def _inert(text: str) -> str:
    """Text from outside for a markup of rich: no style, and nothing that a terminal would act on."""
    return escape(one_line(text))


class PlainView:
    """One line an event, for logs and pipes: no colour, nothing drawn over."""

    # Seconds between two lines about one phase.
    EVERY_S = 20.0

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._pace = Pace(total)
        # When each run under way last had a line.
        self._last: dict[str, float] = {}

    def stage(self, name: str, planned: int, done: int) -> None:
        already = f", {done} already recorded" if done else ""
        self._line(f"{name}: {planned} run{'s' if planned != 1 else ''}{already}")
        self._pace.done += done

    def run_started(self, spec: RunSpec) -> None:
        self._last[spec.run_id] = time.monotonic()

    def phase(self, spec: RunSpec, phase: Phase) -> None:
        pass

    def progress(self, spec: RunSpec, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last.get(spec.run_id, 0.0) < self.EVERY_S:
            return
        self._last[spec.run_id] = now
        loss = "" if progress.loss is None else f", loss {progress.loss:.3f}"
        speed = "" if progress.tokens_per_second is None else f", {progress.tokens_per_second:.0f} tokens/s"
        label = f"{spec.stage} {spec.label()}"
        self._line(f"  {label}: {progress.phase} {progress.done}/{progress.total}{loss}{speed}")

    def run_finished(self, spec: RunSpec, record: Record) -> None:
        self._last.pop(spec.run_id, None)
        self._pace.add(spec.stage, record.seconds.total or 0.0)
        left = self._pace.left_s()
        self._line(f"[{self._pace.done}/{self._pace.total}] {summary_line(spec, record)}; about {duration(left)} left")

    def note(self, text: str) -> None:
        self._line(text)

    def close(self) -> None:
        pass

    def _line(self, text: str) -> None:
        self._console.print(one_line(text), markup=False, highlight=False, emoji=False, soft_wrap=True)


class LiveView:
    """A small live table over the lines of what is done."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._pace = Pace(total)
        self._stage = ""
        # Runs under way: what each is, and how it stands.
        self._runs_now: dict[str, tuple[str, str]] = {}
        self._bars = Bars(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._runs = self._bars.add_task("runs", total=total)
        self._steps = self._bars.add_task("", total=None)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)
        self._live.start()

    def stage(self, name: str, planned: int, done: int) -> None:
        self._stage = name
        self._pace.done += done
        self._bars.update(self._runs, completed=self._pace.done)
        already = f", {done} already recorded" if done else ""
        self._console.print(f"[bold]{_inert(name)}[/bold]: {planned} runs{already}", highlight=False, emoji=False)

    def run_started(self, spec: RunSpec) -> None:
        self._now(spec, "starting")

    def phase(self, spec: RunSpec, phase: Phase) -> None:
        self._now(spec, phase)
        self._bars.reset(self._steps, description=phase, total=None)

    def progress(self, spec: RunSpec, progress: Progress) -> None:
        self._bars.update(self._steps, description=progress.phase, completed=progress.done, total=progress.total)
        loss = "" if progress.loss is None else f"  loss {progress.loss:.3f}"
        speed = "" if progress.tokens_per_second is None else f"  {progress.tokens_per_second:.0f} tokens/s"
        self._now(spec, f"{progress.phase}{loss}{speed}")

    def run_finished(self, spec: RunSpec, record: Record) -> None:
        self._runs_now.pop(spec.run_id, None)
        self._pace.add(spec.stage, record.seconds.total or 0.0)
        self._bars.update(self._runs, completed=self._pace.done)
        style = _STYLE.get(record.status, "red")
        told = _inert(summary_line(spec, record))
        self._console.print(f"[{style}]•[/{style}] {told}", highlight=False, emoji=False)

    def note(self, text: str) -> None:
        self._console.print(_inert(text), highlight=False, emoji=False)

    def close(self) -> None:
        self._live.stop()

    def _now(self, spec: RunSpec, state: str) -> None:
        self._runs_now[spec.run_id] = (f"{spec.stage} {spec.label()}", state)

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 2))
        stage = f"[bold]{_inert(self._stage)}[/bold]"
        # Drawn by a thread of its own: what is under way may change meanwhile.
        for run, state in list(self._runs_now.values()) or [("", "")]:
            table.add_row(stage, _inert(run), _inert(state))
            stage = ""
        table.add_row("", f"about {duration(self._pace.left_s())} left", "")
        outer = Table.grid()
        outer.add_row(table)
        outer.add_row(self._bars)
        return outer


class SharedView:
    """A view that the threads of several seats tell, one at a time."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._lock = threading.Lock()

    def stage(self, name: str, planned: int, done: int) -> None:
        with self._lock:
            self._view.stage(name, planned, done)

    def run_started(self, spec: RunSpec) -> None:
        with self._lock:
            self._view.run_started(spec)

    def phase(self, spec: RunSpec, phase: Phase) -> None:
        with self._lock:
            self._view.phase(spec, phase)

    def progress(self, spec: RunSpec, progress: Progress) -> None:
        with self._lock:
            self._view.progress(spec, progress)

    def run_finished(self, spec: RunSpec, record: Record) -> None:
        with self._lock:
            self._view.run_finished(spec, record)

    def note(self, text: str) -> None:
        with self._lock:
            self._view.note(text)

    def close(self) -> None:
        with self._lock:
            self._view.close()


def make_view(console: Console, total: int) -> View:
    """A live view on a terminal, plain lines where output is captured."""
    return LiveView(console, total) if console.is_terminal else PlainView(console, total)
