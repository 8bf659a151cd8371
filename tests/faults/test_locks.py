"""Two conductors on one study: the second is told who holds it; a lock of a dead one is nobody's."""

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from results.layout import StudyFolder
from results.locking import StudyBusy, locked
from results.store import ResultsError, read_records
from tests.faults.starts import Place, Start, grid_text, hit, lock_is_free
from tests.integration.commands import ROOT, command, environment

HOLD = """
import sys
from pathlib import Path
from results.locking import locked
from results.layout import StudyFolder
with locked(StudyFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""
ELSEWHERE = "another-node"


@contextmanager
def holder(folder: StudyFolder, *before: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds a study's lock until the block ends; `before` is put before its command."""
    process = subprocess.Popen(
        [*before, *command("-c", HOLD, str(folder.root))],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "held\n":
            pytest.skip(f"no such process here: {process.communicate()[1].strip()}")
        yield process
    finally:
        process.kill()
        process.communicate()


def refusal(folder: StudyFolder) -> str:
    """What somebody is told who wants the lock while another holds it."""
    with pytest.raises(StudyBusy) as told, locked(folder):
        pass
    return str(told.value)


@pytest.mark.faults
def test_a_second_conductor_is_told_who_works_and_takes_over_from_one_that_died(tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(grid_text(whole=False, steps=20_000))
    place = Place(grid, tmp_path)
    first = Start(place)
    assert first.under_way(place), first.said
    about = json.loads(place.folder.lock.read_text())
    second = Start(Place(grid, tmp_path), output="second.txt")
    assert second.finish() == 1
    told = second.said.strip()
    # One line: host, process, and since when.
    assert told == (
        f"another process works on this study: host {socket.gethostname()}, process {first.process.pid}, "
        f"since {about['since']}"
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", about["since"])
    # The first one goes on as if nothing had been.
    assert first.process.poll() is None
    assert json.loads(place.folder.lock.read_text()) == about
    assert first.workers()
    hit([psutil.Process(first.process.pid)], signal.SIGKILL)
    assert first.finish() == -signal.SIGKILL
    assert first.left_behind() == 0
    # What it wrote names it still, and locks nothing.
    assert json.loads(place.folder.lock.read_text()) == about
    third = Start(place, output="third.txt")
    assert third.until(lambda: json.loads(place.folder.lock.read_text() or "{}").get("pid") == third.process.pid)
    assert third.until(third.workers)
    hit([psutil.Process(third.process.pid)], signal.SIGTERM)
    assert third.finish(10) == 143, third.said
    assert third.left_behind() == 0
    assert {record.status for record in read_records(place.folder).all} <= {"interrupted"}
    assert lock_is_free(place.folder)


def test_a_lock_held_by_a_process_of_another_host_name_is_respected_and_told(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or shutil.which("hostname") is None:
        pytest.skip("unshare and hostname are needed")
    folder = StudyFolder(tmp_path / "study")
    name = ("unshare", *(() if os.geteuid() == 0 else ("--map-root-user",)), "--uts", "sh", "-c")
    with holder(folder, *name, f'hostname {ELSEWHERE} && exec "$@"', "sh"):
        assert refusal(folder).startswith(f"another process works on this study: host {ELSEWHERE}, process ")
        assert refusal(folder).endswith(json.loads(folder.lock.read_text())["since"])
    with locked(folder):
        assert json.loads(folder.lock.read_text())["host"] == socket.gethostname()


def test_the_kernel_s_lock_decides_and_not_what_the_file_says(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "study")
    folder.root.mkdir()
    since = "2026-01-01T00:00:00+00:00"
    # As a file system that hosts share shows a conductor elsewhere: locked, with what it wrote.
    folder.lock.write_text(json.dumps({"host": ELSEWHERE, "pid": 4, "since": since}))
    with folder.lock.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert refusal(folder) == (f"another process works on this study: host {ELSEWHERE}, process 4, since {since}")
        file.truncate(0)
        assert refusal(folder) == "another process works on this study: it has not said which"
    # One that died elsewhere, a job that was preempted and starts again on another node, leaves the same file unlocked.
    folder.lock.write_text(json.dumps({"host": ELSEWHERE, "pid": 4, "since": since}))
    with locked(folder):
        assert json.loads(folder.lock.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lock_left_by_a_dead_process_is_taken_over(tmp_path: Path, number: signal.Signals) -> None:
    folder = StudyFolder(tmp_path / "study")
    with holder(folder) as process:
        assert f"process {process.pid}" in refusal(folder)
        process.send_signal(number)
        process.wait(timeout=10)
        with locked(folder):
            assert json.loads(folder.lock.read_text())["pid"] == os.getpid()


def test_a_lock_that_is_given_back_names_nobody(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "study")
    with pytest.raises(RuntimeError, match="within"), locked(folder):
        raise RuntimeError("within")
    assert folder.lock.read_bytes() == b""


def test_a_lock_that_cannot_be_had_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    refused = r"file/\.lock cannot be written: (Not a directory|File exists)$"
    with pytest.raises(ResultsError, match=refused), locked(StudyFolder(tmp_path / "file")):
        pass

    def without_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", without_locks)
    refused = r"\.lock cannot be locked: Function not implemented$"
    with pytest.raises(ResultsError, match=refused), locked(StudyFolder(tmp_path / "study")):
        pass
