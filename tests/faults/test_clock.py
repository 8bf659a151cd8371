"""A wall clock that is set back and forward by hours under a study: only the dates that are written follow it."""

import ast
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from results.locking import StudyBusy, locked
from results.store import read_records
from tests.faults.comparing import differing
from tests.faults.jumping import VARIABLE, Jumps
from tests.faults.starts import Place, Start, Undisturbed, completed, grid_text
from tests.integration.commands import ROOT, command, environment

HOURS = 3600.0
# What takes the time of day, and why: dates for a person, and the allocator's history, which knows no other clock.
DATES = {
    "results/locking.py": 1,
    "harness/runlog.py": 1,
    "harness/freezing.py": 1,
    "harness/engine/census.py": 3,
}
WALL = {"time", "time_ns", "now", "utcnow", "today", "localtime", "gmtime", "ctime", "strftime"}


@pytest.fixture
def jumps(tmp_path: Path) -> Jumps:
    return Jumps(tmp_path / "clock")


def variables(jumps: Jumps) -> dict[str, str]:
    """The environment of a program whose clock jumps."""
    return {VARIABLE: str(jumps.path), "PYTHONPATH": f"{Path(__file__).parent / 'clock'}:{ROOT}"}


def wall_clock_calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WALL:
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id in {"time", "datetime", "date"}:
                yield f"{owner.id}.{node.func.attr}"


def test_nothing_but_dates_is_taken_from_the_wall_clock() -> None:
    found = {}
    for path in (
        ROOT / "run_study.py",
        *(path for room in ("study", "results", "harness", "reports") for path in (ROOT / room).rglob("*.py")),
    ):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if calls := list(wall_clock_calls(tree)):
            found[str(path.relative_to(ROOT))] = len(calls)
        imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "time"]
        assert not imported, path
    assert found == DATES


def test_the_clock_of_a_program_and_of_its_children_jumps_and_its_monotonic_one_does_not(jumps: Jumps) -> None:
    code = (
        "import datetime, multiprocessing, sys, time\n"
        "def show():\n"
        "    date = datetime.datetime.now(datetime.UTC)\n"
        "    print(time.time(), time.time_ns() / 1e9, date.timestamp(), time.monotonic(), flush=True)\n"
        "    assert isinstance(date, datetime.datetime) and isinstance(date - date, datetime.timedelta)\n"
        "show(); sys.stdin.readline(); show()\n"
        "import subprocess; subprocess.run([sys.executable, '-c', 'import time; print(time.time(), flush=True)'])\n"
    )
    with subprocess.Popen(
        command("-c", code),
        env={**environment(), **variables(jumps)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        first = [float(word) for word in process.stdout.readline().split()]
        jumps.to(-3 * HOURS)
        process.stdin.write("\n")
        process.stdin.flush()
        second = [float(word) for word in process.stdout.readline().split()]
        child = float(process.stdout.readline())
    assert first[:3] == pytest.approx([time.time()] * 3, abs=60)
    assert second[:3] == pytest.approx([time.time() - 3 * HOURS] * 3, abs=60)
    assert child == pytest.approx(time.time() - 3 * HOURS, abs=60)
    assert 0 < second[3] - first[3] < 60


def left_s(said: str) -> list[float]:
    """How long the study said that it would take, after each run, in seconds."""
    units = {"s": 1, "min": 60, "h": 3600}
    texts = re.findall(r"; about (.+) left$", said, flags=re.MULTILINE)
    return [
        sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+) (s|min|h)\b", text)) for text in texts
    ]


def test_a_clock_that_jumps_under_a_study_changes_nothing_but_dates(
    reference: Undisturbed, jumps: Jumps, tmp_path: Path
) -> None:
    """An hour ahead, then back by four, then forward by six, with a time limit far below that on every run."""
    place = Place(reference.place.grid, tmp_path)
    began, began_at = time.monotonic(), datetime.now(UTC)
    jumps.to(HOURS)
    start = Start(place, "--set", "training.timeout_minutes=2", variables=variables(jumps))
    assert start.until(lambda: len(read_records(place.folder).all) >= 2, 120), start.said
    jumps.to(-3 * HOURS)
    assert start.until(lambda: len(read_records(place.folder).all) >= 4, 120), start.said

    # Whoever comes now is told of a lock that was taken in the future, and takes it for no other.
    with pytest.raises(StudyBusy, match=f"process {start.process.pid}, since "), locked(place.folder):
        pass
    jumps.to(3 * HOURS)
    assert start.finish() == 0, start.said
    took = time.monotonic() - began

    records = read_records(place.folder).all
    assert completed(place.folder) == dict.fromkeys((record.run_id for record in reference.records), 1)
    assert [record.run_id for record in records] == [record.run_id for record in reference.records]
    assert sum(record.seconds.total or 0.0 for record in records) < took
    assert all(0 <= left < 10 * took for left in left_s(start.said))
    assert len(left_s(start.said)) == len(records)
    # The clock did jump where it is read: forth and back, and each date is what the clock showed.
    off = [datetime.fromisoformat(record.started_at) - began_at for record in records]
    assert min(off) < timedelta(hours=-2)
    assert max(off) > timedelta(hours=2)
    assert differing(reference.place, place) == []


def test_of_two_records_the_later_written_counts_whatever_their_dates_say(jumps: Jumps, tmp_path: Path) -> None:
    """Interrupted by a clock that is three hours ahead, completed by one that is three hours behind."""
    grid = tmp_path / "grid.yaml"
    grid.write_text(grid_text(whole=False, steps=40))
    place = Place(grid, tmp_path)
    only = ("--only", "lora", "--set", "seeds=[11]")
    jumps.to(3 * HOURS)
    first = Start(place, *only, variables=variables(jumps))
    assert first.under_way(place)
    time.sleep(1.0)
    first.process.send_signal(signal.SIGINT)
    assert first.finish() == 130, first.said
    (interrupted,) = read_records(place.folder).all
    assert interrupted.status == "interrupted"
    jumps.to(-3 * HOURS)
    again = Start(place, *only, variables=variables(jumps))
    # The other arm was not asked for.
    assert again.finish() == 1, again.said
    counts = read_records(place.folder).last[interrupted.run_id]
    assert counts.status == "completed"
    assert counts.started_at < interrupted.started_at
    assert 0 <= (counts.seconds.total or -1.0) < 300


@pytest.mark.faults
@pytest.mark.parametrize("seconds", [-24 * HOURS, -60.0, 60.0, 24 * HOURS, 365 * 24 * HOURS])
def test_a_clock_that_jumps_by_any_length_changes_nothing_but_dates(
    reference: Undisturbed, jumps: Jumps, tmp_path: Path, seconds: float
) -> None:
    place = Place(reference.place.grid, tmp_path)
    start = Start(place, "--set", "training.timeout_minutes=2", variables=variables(jumps))
    for more in range(1, len(reference.records)):
        if not start.until(lambda more=more: len(read_records(place.folder).all) >= more, 120):  # type: ignore[misc]
            break
        jumps.to(seconds if more % 2 else 0.0)
    assert start.finish() == 0, start.said
    assert differing(reference.place, place) == []
