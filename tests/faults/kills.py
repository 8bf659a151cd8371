"""Studies that are killed at random moments, and what is left of them: the runner behind the tests and docs/faults.md.

Every injection is real: a signal to processes of a study that was started as a person starts it. A campaign starts a
study, hits it, looks at what is left, starts the same command again, and so on until the study is at its end; then the
result is held against that of an undisturbed study, and the next study begins.
"""

import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from results.schema import ALWAYS_AGAIN
from results.store import read_records
from tests.faults.comparing import differing
from tests.faults.moments import phase_of, writes
from tests.faults.starts import (
    Place,
    Start,
    Undisturbed,
    completed,
    hit,
    lock_is_free,
    record_lines,
)

Phase = Literal["baseline", "tune", "confirm", "write"]
# Studies in a row that may end before the wanted moment has come.
MISSES = 10
SEED = 20261124
# At least 100 moments for those that kill, and some for those that ask.
WHOLE = {"conductor": 40, "both": 30, "worker": 30, "template": 10, "interrupt": 15, "terminate": 10, "preempt": 15}
TWO_SEATS = ("--cpu-workers", "2")
# The same where two runs are made at a time, and at moments that chance seldom finds: a fault, when, with which
# arguments, how often.
AIMED: tuple[tuple[str, Phase | None, tuple[str, ...], int], ...] = (
    ("conductor", None, TWO_SEATS, 10),
    ("worker", None, TWO_SEATS, 10),
    ("both", None, TWO_SEATS, 10),
    ("preempt", None, TWO_SEATS, 5),
    ("worker", "confirm", (), 10),
    ("conductor", "confirm", (), 10),
    ("worker", "confirm", TWO_SEATS, 10),
    ("both", "confirm", TWO_SEATS, 10),
    ("conductor", "write", (), 15),
    ("both", "write", TWO_SEATS, 10),
)

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


class Campaign:
    """Hits studies of one grid until a number of injections is made; a row a kind of fault.

    Args:
        phase: when it hits: in this stage, or (`write`) while a record is written; None: at any moment.
        arguments: what every start is given besides (`--cpu-workers 2`).
    """

    def __init__(
        self,
        reference: Undisturbed,
        root: Path,
        seed: int,
        *,
        phase: Phase | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self._reference = reference
        self._root = root
        self._chance = random.Random(seed)
        self._studies = 0
        self._phase = phase
        self._arguments = tuple(arguments)
        aim = "".join([", " + " ".join(self._arguments) if arguments else "", f", in {phase}" if phase else ""])
        self.rows = {name: Row(f"{fault.name}{aim}") for name, fault in FAULTS.items()}

    def run(self, faults: Sequence[str]) -> list[Row]:
        """Makes the injections in this order; the rows of the faults that are named."""
        waiting = list(faults)
        missed = 0
        while waiting:
            before = len(waiting)
            self._one_study(waiting)
            missed = missed + 1 if len(waiting) == before else 0
            if missed == MISSES:
                raise RuntimeError(f"the moment never came, in {MISSES} studies: {self._phase}")
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
            start = Start(place, *self._arguments)
            injected = self._hit(start, place, FAULTS[name], row, waiting)
            done = start.finish() == 0
            seen = self._look(start, place, FAULTS[name], row, seen, injected=injected)
        if not done:
            last = Start(place, *self._arguments)
            if (code := last.finish()) != 0:
                next(iter(here.values())).troubles.append(f"the last start ended with {code}: {last.said[-2000:]}")
        self.judge(place, list(here.values()), seen)

    def _hit(self, start: Start, place: Place, fault: Fault, row: Row, waiting: list[str]) -> int:
        """Injections made in one start: one, or as many as the conductor lives through."""
        made = 0
        name = waiting[0]
        while waiting and waiting[0] == name:
            if not self._moment(start, place):
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

    def _moment(self, start: Start, place: Place) -> bool:
        """Waits for a moment of the wanted phase; whether it came before the study was at its end."""
        if self._phase == "write":
            return self._at_a_write(start, place)
        if self._phase is not None and not start.until(lambda: phase_of(start.said) == self._phase, timeout_s=120):
            return False
        self._wait(start, place)
        return start.process.poll() is None and self._phase in (None, phase_of(start.said))

    def _at_a_write(self, start: Start, place: Place) -> bool:
        """Waits for one of the next writes, and then no time or a few milliseconds, so that some hits lie in it, and
        others between the predictions of a run and its record."""
        if not start.until(place.folder.plan.exists):
            return False
        left = self._chance.randint(1, 4)
        with writes(place.folder) as next_write:
            while left and start.process.poll() is None:
                left -= next_write(0.2)
        time.sleep(self._chance.choice((0.0, 0.0, 0.001, 0.003)))
        return left == 0 and start.process.poll() is None

    def _wait(self, start: Start, place: Place) -> None:
        """Waits for so many more runs, and a part of the next, or of the way to the first."""
        runs = len(self._reference.records)
        there = record_lines(place.folder)
        left = max(runs - len(completed(place.folder)), 0)
        # Within a phase only a few: it ends with the runs that it has.
        more = self._chance.randint(0, min(4 if self._phase is None else 2, left))
        while record_lines(place.folder) < there + more and start.process.poll() is None:
            time.sleep(0.005)
        share = 0.3 if more == 0 and self._phase is None else 1 / runs
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
