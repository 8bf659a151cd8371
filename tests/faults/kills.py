"""Studies that are killed at random moments, and what is left of them: the runner behind the tests and docs/faults.md.

Every injection is real: a signal to processes of a study that was started as a person starts it. A campaign starts a
study, hits it, looks at what is left, starts the same command again, and so on until the study is at its end; then the
result is held against that of an undisturbed study, and the next study begins.
"""

import fcntl
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from harness.engine.sources import model_folder
from reports.report import write_report
from results.layout import StudyFolder
from results.schema import ALWAYS_AGAIN, Record
from results.store import read_records
from tests.integration.commands import ROOT, command, environment

STUDY = "killed"
# A folder of weights counts as pretrained: runs are scored, and there is a verdict that could change.
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
tune: {{trials: {trials}, tpe_trials: {tpe}}}
seeds: [11, 12, 13]
training: {{device: cpu, steps: {steps}, batch_size: 4, max_tokens: 512}}
generation: {{max_new_tokens: 6, batch_size: 4}}
claims:
  - {{candidate: qlora, reference: lora, metrics: [rouge1], margin: 5.0}}
"""
_LORA, _QLORA = "  - {name: lora, precision: bf16}\n", "  - {name: qlora, precision: nf4}\n"
_OTHERS = "  - {name: zero-shot, precision: bf16, method: none}\n  - {name: int8-lora, precision: int8}\n"
# In the environment of all processes of a study: they are found by it whoever their parent is.
_TOKEN = "QLORA_FAULT_TOKEN"
# Seconds that the processes of a study may take to be gone.
GONE_WITHIN_S = 10.0
# What another start measures anew. All else in a record, and every prediction, is the same byte for byte.
MEASURED = ("memory", "seconds", "forecast", "energy_j", "energy_window_s", "energy", "gpu", "started_at")
# A time, and whether a trial's process had run something before: that depends on where the study was broken off.
MEASURED_CHECKS = ("first_step_s", "warm_worker")


def grid_text(*, whole: bool, steps: int = 2) -> str:
    """The study that is killed: 8 runs in two precisions; `whole` has 8-bit, baselines, a sampler's trials too."""
    return GRID.format(
        study=STUDY,
        model=model_folder("random/tiny-phi", None, "cpu").folder,
        arms=_LORA + _QLORA + (_OTHERS if whole else ""),
        trials=2 if whole else 1,
        tpe=1 if whole else 0,
        steps=steps,
    )


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

    def __init__(self, place: Place, *arguments: str, output: str = "said.txt") -> None:
        place.root.mkdir(parents=True, exist_ok=True)
        self._token = uuid.uuid4().hex
        self.said_file = place.root / output
        with self.said_file.open("wb") as said:
            self.process = subprocess.Popen(
                place.line(*arguments),
                cwd=ROOT,
                env={**environment(), _TOKEN: self._token, "PYTHONUNBUFFERED": "1"},
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


def _lines(folder: StudyFolder) -> int:
    try:
        return folder.records.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def completed(folder: StudyFolder) -> Counter[str]:
    """How many completed records each run has."""
    return Counter(record.run_id for record in read_records(folder).all if record.status == "completed")


# Faults: each takes a start, at the moment, and says whether there was something to hit.


def _conductor(start: Start, _: random.Random) -> bool:
    return hit([psutil.Process(start.process.pid)], signal.SIGKILL) > 0


def _worker(start: Start, chance: random.Random) -> bool:
    if not start.until(start.workers):
        return False
    workers = start.workers()
    return bool(workers) and hit([chance.choice(workers)], signal.SIGKILL) > 0


def _template(start: Start, _: random.Random) -> bool:
    return start.until(start.template) and hit(start.template(), signal.SIGKILL) > 0


def _both(start: Start, _: random.Random) -> bool:
    """Everything at one moment, as a machine that loses power or a job's end with SIGKILL."""
    os.killpg(start.process.pid, signal.SIGKILL)
    return True


def _interrupt(start: Start, _: random.Random) -> bool:
    return hit([psutil.Process(start.process.pid)], signal.SIGINT) > 0


def _terminate(start: Start, _: random.Random) -> bool:
    return hit([psutil.Process(start.process.pid)], signal.SIGTERM) > 0


def _preempt(start: Start, chance: random.Random) -> bool:
    """As Slurm does: SIGTERM to every process, and SIGKILL after a time of grace."""
    os.killpg(start.process.pid, signal.SIGTERM)
    deadline = time.monotonic() + chance.choice((0.0, 0.05, 0.3, 3.0))
    while time.monotonic() < deadline and start.process.poll() is None:
        time.sleep(0.01)
    try:
        os.killpg(start.process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return True
    return True


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault. `goes_on` says that the conductor lives on; `codes` are the exit codes it may end with."""

    name: str
    inject: Callable[[Start, random.Random], bool]
    codes: frozenset[int]
    goes_on: bool = False


# Before its handlers are there, and after, a process ends by the signal itself (-2, -15), as a shell's 130 and 143.
FAULTS = {
    "conductor": Fault("SIGKILL to the conductor", _conductor, frozenset({-9})),
    "worker": Fault("SIGKILL to a worker", _worker, frozenset({0, 1}), goes_on=True),
    "template": Fault("SIGKILL to the workers' template", _template, frozenset({0, 1}), goes_on=True),
    "both": Fault("SIGKILL to all of them at once", _both, frozenset({-9})),
    "interrupt": Fault("SIGINT to the conductor", _interrupt, frozenset({130, -2})),
    "terminate": Fault("SIGTERM to the conductor", _terminate, frozenset({143, -15})),
    "preempt": Fault("SIGTERM, then SIGKILL, to all of them", _preempt, frozenset({143, -15, -9})),
}


@dataclass(slots=True)
class Row:
    """What came of one kind of fault: a row of the table in docs/faults.md."""

    fault: str
    injections: int = 0
    lost: int = 0
    doubled: int = 0
    orphans: int = 0
    locks: int = 0
    torn: int = 0
    studies: int = 0
    unchanged: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, doubled, left behind or changed."""
        bad = self.lost + self.doubled + self.orphans + self.locks + len(self.troubles)
        return bad == 0 and self.unchanged == self.studies


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


class Campaign:
    """Hits studies of one grid until a number of injections is made; a row a kind of fault."""

    def __init__(self, reference: Undisturbed, root: Path, seed: int) -> None:
        self._reference = reference
        self._root = root
        self._chance = random.Random(seed)
        self._studies = 0
        self.rows = {name: Row(fault.name) for name, fault in FAULTS.items()}

    def run(self, faults: Sequence[str]) -> list[Row]:
        """Makes the injections in this order; the rows of the faults that are named."""
        waiting = list(faults)
        while waiting:
            self._one_study(waiting)
        return [self.rows[name] for name in dict.fromkeys(faults)]

    def _one_study(self, waiting: list[str]) -> None:
        self._studies += 1
        place = Place(self._reference.place.grid, self._root / f"study-{self._studies}")
        here: dict[str, Row] = {}
        seen: set[str] = set()
        done = False
        while waiting and not done and len(seen) < len(self._reference.records):
            name = waiting[0]
            row = self.rows[name]
            here[name] = row
            start = Start(place)
            injected = self._hit(start, place, FAULTS[name], row, waiting)
            done = start.finish() == 0
            seen = self._look(start, place, FAULTS[name], row, seen, injected=injected)
        if not done:
            last = Start(place)
            if (code := last.finish()) != 0:
                next(iter(here.values())).troubles.append(f"the last start ended with {code}: {last.said[-2000:]}")
        self.judge(place, list(here.values()), seen)

    def _hit(self, start: Start, place: Place, fault: Fault, row: Row, waiting: list[str]) -> int:
        """Injections made in one start: one, or as many as the conductor lives through."""
        made = 0
        name = waiting[0]
        while waiting and waiting[0] == name:
            self._wait(start, place)
            if start.process.poll() is not None:
                break
            when = phase_of(start.said)
            if not fault.inject(start, self._chance):
                break
            made += 1
            waiting.pop(0)
            row.injections += 1
            row.moments[when] += 1
            if not fault.goes_on:
                break
        return made

    def _wait(self, start: Start, place: Place) -> None:
        """Waits for a moment: so many more runs, and a part of the next, or of the way to the first."""
        runs = len(self._reference.records)
        there = _lines(place.folder)
        more = self._chance.randint(0, min(4, max(runs - len(completed(place.folder)), 0)))
        while _lines(place.folder) < there + more and start.process.poll() is None:
            time.sleep(0.005)
        share = 0.3 if more == 0 else 1 / runs
        moment = time.monotonic() + self._chance.uniform(0.0, share * self._reference.seconds)
        while time.monotonic() < moment and start.process.poll() is None:
            time.sleep(0.005)

    def _look(self, start: Start, place: Place, fault: Fault, row: Row, seen: set[str], *, injected: int) -> set[str]:
        """What is left after a start; the runs that are completed by now."""
        row.orphans += start.left_behind()
        row.locks += not lock_is_free(place.folder)
        found = read_records(place.folder)
        row.torn += len(found.damaged)
        now = {record.run_id for record in found.all if record.status == "completed"}
        row.lost += len(seen - now)
        told = len(re.findall(r"^\[\d+/\d+\] ", start.said, flags=re.MULTILINE))
        code = start.process.returncode
        if told > len(found.all):
            row.lost += told - len(found.all)
        if code not in (fault.codes if injected else {0}):
            row.troubles.append(f"exit code {code}: {start.said[-2000:]}")
        if "Traceback" in start.said and code not in (-2,):
            row.troubles.append(start.said[-4000:])
        odd = {record.status for record in found.all} - {"completed", *ALWAYS_AGAIN}
        if odd:
            row.troubles.append(f"recorded as {odd}")
        return now

    def judge(self, place: Place, rows: Sequence[Row], seen: set[str]) -> None:
        """Holds a study that is at its end against the undisturbed one, in the rows of the faults that it had."""
        counts = completed(place.folder)
        lost = len(({record.run_id for record in self._reference.records} | seen) - set(counts))
        doubled = sum(count - 1 for count in counts.values())
        differences = differing(self._reference.place, place)
        for row in rows:
            row.lost += lost
            row.doubled += doubled
            row.studies += 1
            row.unchanged += not differences
            row.troubles += differences
        if not differences and not lost and not doubled:
            shutil.rmtree(place.root)


def phase_of(said: str) -> str:
    """Where a study stood by what it had printed: `start`, `baseline`, `tune`, `confirm` or `report`."""
    if re.search(r"^\d+ runs made|^nothing to run", said, flags=re.MULTILINE):
        return "report"
    stages = re.findall(r"^(?:\[\d+/\d+\] )?(baseline|tune|confirm)\b", said, flags=re.MULTILINE)
    return stages[-1] if stages else "start"


def differing(reference: Place, place: Place) -> list[str]:
    """In what two studies differ, but for times: records, predictions, plan, choices, and every file of the report.

    The report is made of the records with the measured fields of the reference in their place: then each of its files
    must be the same byte for byte, and none has to be left out for the times that it shows.
    """
    told = []
    first, second = read_records(reference.folder), read_records(place.folder)
    if second.damaged:
        told.append(f"damaged lines: {second.damaged}")
    if set(first.last) != set(second.last):
        told.append(f"other runs: {set(first.last) ^ set(second.last)}")
    for run_id in set(first.last) & set(second.last):
        one, other = (_unmeasured(records.last[run_id]) for records in (first, second))
        told += [f"run {run_id}: {key}: {one[key]} / {other.get(key)}" for key in one if one[key] != other.get(key)]
    told += _unequal_files(reference.folder.root / "predictions", place.folder.root / "predictions")
    if reference.folder.plan.read_bytes() != place.folder.plan.read_bytes():
        told.append("plan.json differs")
    chosen, also = (json.loads(each.folder.frozen.read_text()) for each in (reference, place))
    if {**chosen, "frozen_at": None} != {**also, "frozen_at": None}:
        told.append("frozen.json differs")
    return told or _unequal_reports(reference, place)


def _unmeasured(record: Record) -> dict[str, Any]:
    content = record.model_dump(mode="json")
    checks = {f"checks.{key}": value for key, value in content.pop("checks").items() if key not in MEASURED_CHECKS}
    return {key: value for key, value in content.items() if key not in MEASURED} | checks


def _unequal_reports(reference: Place, place: Place) -> list[str]:
    beside = place.root / "beside"
    shutil.copytree(place.folder.root, beside / STUDY)
    copy = StudyFolder.of(beside, STUDY)
    shutil.copy(reference.folder.frozen, copy.frozen)
    measured = read_records(reference.folder).last
    lines = []
    for record in read_records(place.folder).all:
        content = record.model_dump(mode="json")
        if record.is_final:
            of_reference = measured[record.run_id].model_dump(mode="json")
            content |= {key: of_reference[key] for key in MEASURED}
            content["checks"] |= {
                key: of_reference["checks"][key] for key in MEASURED_CHECKS if key in content["checks"]
            }
        lines.append(json.dumps(content) + "\n")
    copy.records.write_text("".join(lines))
    out = place.root / "beside-out"
    write_report(beside, STUDY, out)
    return _unequal_files(reference.report, out / STUDY)


def _unequal_files(first: Path, second: Path) -> list[str]:
    def contents(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    one, other = contents(first), contents(second)
    names = sorted(set(one) | set(other))
    return [f"{first.name}/{name} differs" for name in names if one.get(name) != other.get(name)]
