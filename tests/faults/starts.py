"""Studies started as a person starts them, in a session of their own, and what can be seen and hit of them."""

import fcntl
import os
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.engine.sources import model_folder
from results.layout import StudyFolder
from results.schema import Record
from results.store import read_records
from tests.integration.commands import ROOT, command, environment

STUDY = "killed"
# The small study that faults are injected into. A folder of weights counts as pretrained: runs are scored.
GRID = """
study: {study}
model: {{id: {model}}}
data:
  source: generated
  limits: {{train: 8, validation: 4, test: 4}}
  generated: {{seed: 3, turns: [4, 5]}}
prompt: {{template: summarize}}
arms:
{arms}
space: {{rank: 4, alpha: [8, 16], learning_rate: {{low: 1e-3, high: 1e-2}}}}
tune: {{trials: {tune}}}
seeds: {seeds}
training: {{device: cpu, steps: {steps}, batch_size: 4, max_tokens: 512{limit}}}
generation: {{max_new_tokens: 6, batch_size: 4}}
"""
# There is a verdict that could change.
_CLAIMS = "claims:\n  - {candidate: qlora, reference: lora, metrics: [rouge1], margin: 5.0}\n"
_LORA, _QLORA = "  - {name: lora, precision: bf16}\n", "  - {name: qlora, precision: nf4}\n"
_OTHERS = "  - {name: zero-shot, precision: bf16, method: none}\n  - {name: int8-lora, precision: int8}\n"
# In the environment of all processes of a study: they are found by it whoever their parent is.
_TOKEN = "QLORA_FAULT_TOKEN"
# Seconds that the processes of a study may take to be gone.
GONE_WITHIN_S = 10.0


def grid_text(*, whole: bool, steps: int = 2) -> str:
    """The study that is killed: 8 runs in two precisions; `whole` has 8-bit, baselines, a sampler's trials too."""
    grid = GRID.format(
        study=STUDY,
        model=model_folder("random/tiny-phi", None, "cpu").folder,
        arms=_LORA + _QLORA + (_OTHERS if whole else ""),
        tune="2, tpe_trials: 1" if whole else "1, tpe_trials: 0",
        seeds=[11, 12, 13],
        steps=steps,
        limit="",
    )
    return grid + _CLAIMS


@dataclass(frozen=True)
class Place:
    """Where a study of a grid is kept and reported."""

    grid: Path
    root: Path

    @property
    def folder(self) -> StudyFolder:
        """The study's folder."""
        return StudyFolder.of(self.root / "results", STUDY)

    @property
    def report(self) -> Path:
        """Its report."""
        return self.root / "out" / STUDY

    def line(self, *arguments: str) -> list[str]:
        """The command that runs it."""
        places = ["--results", str(self.root / "results"), "--out", str(self.root / "out")]
        return command("run_study.py", "--grid", str(self.grid), *places, *arguments)


class Start:
    """One start of a study, in a session and a process group of its own."""

    def __init__(
        self, place: Place, *arguments: str, output: str = "said.txt", variables: Mapping[str, str] | None = None
    ) -> None:
        place.root.mkdir(parents=True, exist_ok=True)
        self._token = uuid.uuid4().hex
        _take_interrupts()
        self.said_file = place.root / output
        with self.said_file.open("wb") as said:
            self.process = subprocess.Popen(
                place.line(*arguments),
                cwd=ROOT,
                env={**environment(), **(variables or {}), _TOKEN: self._token, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self.said_file.read_text(encoding="utf-8", errors="replace")

    def processes(self) -> list[psutil.Process]:
        """Every process of it that is alive, by a look through all of /proc; zombies hold nothing and do not count."""
        mark = f"{_TOKEN}={self._token}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    process = psutil.Process(int(entry.name))
                    if process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
            except (OSError, psutil.Error):
                # Gone meanwhile, or somebody else's.
                continue
        return found

    def template(self) -> list[psutil.Process]:
        """The process that workers are forked from."""
        return [process for process in self._servers() if process.ppid() == self.process.pid]

    def workers(self) -> list[psutil.Process]:
        """Its worker processes."""
        return [process for process in self._servers() if process.ppid() != self.process.pid]

    def _servers(self) -> list[psutil.Process]:
        servers = []
        for process in self.processes():
            try:
                if process.pid != self.process.pid and "forkserver" in " ".join(process.cmdline()):
                    process.ppid()
                    servers.append(process)
            except psutil.Error:
                continue
        return servers

    def until(self, there: Callable[[], object], timeout_s: float = 60.0) -> bool:
        """Waits until something is there; whether it came before the end of the process."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if there():
                return True
            if self.process.poll() is not None:
                return bool(there())
            time.sleep(0.02)
        raise TimeoutError(f"nothing after {timeout_s:.0f} s: {self.said}")

    def under_way(self, place: Place, run: int = 1) -> bool:
        """Waits until the study has begun so many runs: each fresh worker has a log of its own."""
        return self.until(lambda: len(list(place.folder.logs.glob("[0-9a-f]*.log"))) >= run and self.workers())

    def left_behind(self) -> int:
        """How many processes are not gone in time; they are ended then."""
        deadline = time.monotonic() + GONE_WITHIN_S
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in left:
            hit([process], signal.SIGKILL)
        return len(left)

    def finish(self, timeout_s: float = 300.0) -> int:
        """Waits for the end; the exit code."""
        return self.process.wait(timeout=timeout_s)


def _take_interrupts() -> None:
    """Has SIGINT reach what is started here: a shell ignores it for what it starts in the background, and so would all
    that comes of that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def hit(processes: Sequence[psutil.Process], number: signal.Signals) -> int:
    """Sends a signal; how many were there to take it."""
    reached = 0
    for process in processes:
        try:
            process.send_signal(number)
            reached += 1
        except psutil.NoSuchProcess:
            continue
    return reached


def lock_is_free(folder: StudyFolder) -> bool:
    """Whether the next conductor would get the study's lock."""
    try:
        descriptor = os.open(folder.lock, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def record_lines(folder: StudyFolder) -> int:
    """How many lines of records there are."""
    try:
        return folder.records.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def completed(folder: StudyFolder) -> Counter[str]:
    """How many completed records each run has."""
    return Counter(record.run_id for record in read_records(folder).all if record.status == "completed")


@dataclass(frozen=True)
class Undisturbed:
    """A study that nobody disturbed, and how long it took."""

    place: Place
    seconds: float
    records: tuple[Record, ...]


def undisturbed(grid: Path, root: Path) -> Undisturbed:
    """Runs the study once from start to end."""
    place = Place(grid, root)
    began = time.monotonic()
    start = Start(place)
    code = start.finish()
    if code != 0:
        raise RuntimeError(f"exit code {code}: {start.said}")
    return Undisturbed(place, time.monotonic() - began, read_records(place.folder).all)
