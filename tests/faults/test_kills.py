"""Kills, interrupts, torn lines: the next start loses no finished run, repeats none, and ends where it would have.

The whole of the kills is made by `python -m tests.faults.table`, which fails where one of them changes anything.
"""

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from results.layout import StudyFolder
from results.store import RecordStore, read_records
from tests.faults.kills import FAULTS, SEED, TWO_SEATS, Campaign, Phase, Row
from tests.faults.starts import (
    GONE_WITHIN_S,
    Place,
    Start,
    Undisturbed,
    grid_text,
    hit,
    lock_is_free,
)
from tests.integration.commands import run
from tests.unit.results.records import confirm


def assert_clean(rows: list[Row], injections: int) -> None:
    """Nothing lost, doubled, left behind or changed, and as many injections as were asked for."""
    assert [row for row in rows if not row.clean] == []
    assert sum(row.injections for row in rows) == injections


def test_five_kills_at_random_moments_change_nothing_but_times(reference: Undisturbed, tmp_path: Path) -> None:
    rows = Campaign(reference, tmp_path, SEED).run(["worker", "worker", "conductor", "both", "conductor"])
    assert_clean(rows, 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "faults"),
    [("confirm", ["conductor", "both"]), pytest.param("write", ["both", "conductor"], marks=pytest.mark.faults)],
)
def test_kills_of_two_runs_at_a_time_change_nothing_but_times(
    reference: Undisturbed, tmp_path: Path, phase: Phase, faults: list[str]
) -> None:
    rows = Campaign(reference, tmp_path, SEED, phase=phase, arguments=TWO_SEATS).run(faults)
    assert_clean(rows, len(faults))
    if phase == "confirm":
        assert sum((row.moments for row in rows), Counter[str]()) == {"confirm": len(faults)}


def test_a_difference_would_be_seen(reference: Undisturbed, tmp_path: Path) -> None:
    # A campaign in which a finished run is dropped and another one doubled between two starts.
    campaign = Campaign(reference, tmp_path, SEED)
    row = campaign.rows["conductor"]
    folder = reference.place.folder
    copy = Place(reference.place.grid, tmp_path / "copy")
    _copy(folder.root, copy.folder.root)
    lines = copy.folder.records.read_bytes().splitlines(keepends=True)
    copy.folder.records.write_bytes(b"".join(lines[1:] + lines[-1:]))
    campaign.judge(copy, [row], {record.run_id for record in reference.records})
    assert (row.lost, row.doubled, row.unchanged, row.clean) == (1, 1, 0, False)
    other = campaign.rows["both"]
    copy.folder.records.write_bytes(b"".join(lines).replace(b'"hit_max_new_tokens":4', b'"hit_max_new_tokens":3'))
    campaign.judge(copy, [other], set())
    assert (other.lost, other.doubled, other.clean) == (0, 0, False)
    assert all("checks.hit_max_new_tokens: 4 / 3" in trouble for trouble in other.troubles)


def _copy(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())


def test_writers_that_are_killed_lose_no_record_that_was_said_to_be_on_disk(tmp_path: Path) -> None:
    done = run("-m", "tests.faults.appending", str(tmp_path), "60", str(SEED))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == 60
    assert found["said"] > 0
    assert (found["lost"], found["doubled"], found["damaged"]) == (0, 0, 0)


def test_a_record_torn_at_any_byte_costs_its_own_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # There are some 1,500 places: the disk is not waited for.
    monkeypatch.setattr("os.fsync", lambda _: None)
    folder = StudyFolder.of(tmp_path, "torn")
    store = RecordStore(folder)
    store.append(confirm(run_id="1" * 16))
    whole = folder.records.read_bytes()
    store.append(confirm(run_id="2" * 16))
    second = folder.records.read_bytes()[len(whole) :]
    assert len(second) > 1000
    for kept in range(len(second)):
        folder.records.write_bytes(whole + second[:kept])
        folder.torn.unlink(missing_ok=True)
        before = read_records(folder)
        # All but its newline is a whole record.
        complete = kept == len(second) - 1
        assert set(before.last) == ({"1" * 16, "2" * 16} if complete else {"1" * 16})
        assert len(before.damaged) == (0 < kept < len(second) - 1)
        if not complete:
            store.append(confirm(run_id="2" * 16))
        store.append(confirm(run_id="3" * 16))
        after = read_records(folder)
        assert Counter(record.run_id for record in after.all) == {"1" * 16: 1, "2" * 16: 1, "3" * 16: 1}
        assert after.damaged == ()
        assert folder.records.read_bytes().startswith(whole + second)
        assert (folder.torn.read_bytes() if folder.torn.exists() else b"") == (
            second[:kept] + b"\n" if 0 < kept < len(second) - 1 else b""
        )


@pytest.mark.faults
@pytest.mark.parametrize(("name", "code"), [("interrupt", 130), ("terminate", 143)])
def test_a_run_in_progress_ends_as_interrupted_and_nothing_is_left(tmp_path: Path, name: str, code: int) -> None:
    place = long_study(tmp_path)
    start = Start(place)
    assert start.under_way(place), start.said
    began = time.monotonic()
    assert FAULTS[name].inject(start, random.Random(SEED))
    assert start.finish(GONE_WITHIN_S) == code, start.said
    assert start.left_behind() == 0
    assert time.monotonic() - began < GONE_WITHIN_S
    assert [record.status for record in read_records(place.folder).all] == ["interrupted"]
    assert "the same command goes on from here" in start.said
    assert "Traceback" not in start.said
    assert lock_is_free(place.folder)
    # It names nobody who is gone.
    assert place.folder.lock.read_bytes() == b""


def test_a_second_interrupt_forces_what_the_first_waits_for(tmp_path: Path) -> None:
    place = long_study(tmp_path)
    start = Start(place)
    assert start.under_way(place), start.said
    # The conductor waits for the template to say that the worker is gone; stopped, it never does.
    stopped = start.template()
    assert hit(stopped, signal.SIGSTOP) == 1
    conductor = [psutil.Process(start.process.pid)]
    try:
        hit(conductor, signal.SIGINT)
        assert start.until(lambda: read_records(place.folder).all)
        # The run is recorded, and what is waited for does not come.
        time.sleep(0.5)
        assert start.process.poll() is None
        hit(conductor, signal.SIGINT)
        # By the signal itself, which a shell tells as 130.
        assert start.finish(5) == -signal.SIGINT, start.said
    finally:
        hit(stopped, signal.SIGCONT)
        hit(conductor, signal.SIGKILL)
        start.finish()
    assert start.left_behind() == 0
    assert [record.status for record in read_records(place.folder).all] == ["interrupted"]
    assert lock_is_free(place.folder)


def long_study(root: Path) -> Place:
    """A study whose first run takes minutes."""
    grid = root / "grid.yaml"
    grid.write_text(grid_text(whole=False, steps=20_000))
    return Place(grid, root)


STARTING = """
import os, signal, sys, threading, time
from multiprocessing import forkserver
from pathlib import Path
import harness.workers as workers

workers.PRELOAD = ()
template = workers.Template()
often = int(sys.argv[2])

def kill_templates():
    killed = set()
    while len(killed) < often:
        pid = forkserver._forkserver._forkserver_pid
        if pid is not None and pid not in killed:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.3)
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.001)

killer = threading.Thread(target=kill_templates, daemon=True)
killer.start()
try:
    worker = template.start("cpu", Path(sys.argv[1]))
except workers.NoWorkers as error:
    print(error)
else:
    print("started", worker.pid > 0)
    worker.end()
"""


@pytest.mark.parametrize(("often", "said"), [(1, "started True"), (3, "no worker process can be started, in 3 tries:")])
def test_a_template_that_dies_while_a_worker_starts_is_replaced(tmp_path: Path, often: int, said: str) -> None:
    done = run("-c", STARTING, str(tmp_path / "worker.log"), str(often))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(said)
