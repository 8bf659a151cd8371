"""No room, no leave to write, no folder any more: one clear line, an exit code, and nothing recorded is damaged."""

import os
import resource
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from results.layout import StudyFolder
from results.store import RecordStore, ResultsError, read_records
from tests.faults.comparing import differing
from tests.faults.starts import STUDY, Place, Start, Undisturbed, completed, grid_text
from tests.integration.commands import ROOT, command, environment
from tests.unit.results.records import confirm

# One more run than the study has.
MORE = ("--set", "seeds=[11, 12, 13, 14]", "--only", "lora")


def copied(reference: Undisturbed, root: Path) -> Place:
    """A study at its end that may be written to."""
    place = Place(reference.place.grid, root)
    shutil.copytree(reference.place.folder.root, place.folder.root)
    return place


def last_line(said: str) -> str:
    """What a person is left with; there is no traceback before it."""
    assert "Traceback" not in said
    return said.strip().splitlines()[-1]


def in_namespace(script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Runs a shell script in a mount namespace of its own, or skips where that is not allowed; $1 is the folder."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is needed")
    unshare = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "sh", "-ec"]
    mounted = ["sh", str(folder)]
    trial = subprocess.run(
        [*unshare, 'mount -t tmpfs none "$1"', *mounted], capture_output=True, text=True, check=False
    )
    if trial.returncode:
        pytest.skip(f"no mounts here: {trial.stderr.strip()}")
    return subprocess.run(
        [*unshare, script, *mounted],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.faults
def test_a_disk_that_is_full_stops_the_study_in_one_line_and_it_goes_on_when_there_is_room(
    reference: Undisturbed, tmp_path: Path
) -> None:
    place = Place(reference.place.grid, tmp_path)
    results = tmp_path / "results"
    results.mkdir()
    kept = tmp_path / "kept"
    # Enough for the examples, the plan and a few runs, not for eight.
    line = " ".join(f"'{part}'" for part in place.line())
    script = f"""
mount -t tmpfs -o size=104k none "$1"
code=0; {line} > {tmp_path}/full.txt 2>&1 || code=$?; echo $code
cp -r "$1" {kept}
mount -o remount,size=50m "$1"
code=0; {line} > {tmp_path}/room.txt 2>&1 || code=$?; echo $code
cp -r "$1" {tmp_path}/end
"""
    done = in_namespace(script, results)
    assert done.stdout.split() == ["1", "0"], done.stdout + done.stderr + (tmp_path / "full.txt").read_text()
    said = last_line((tmp_path / "full.txt").read_text())
    assert "cannot be written: No space left on device" in said
    full = read_records(StudyFolder.of(kept, STUDY))
    assert full.damaged == ()
    assert {record.status for record in full.all} == {"completed"}
    assert 0 < len(full.all) < len(reference.records)
    results.rmdir()
    (tmp_path / "end").rename(results)
    assert Counter(completed(place.folder).values()) == {1: len(reference.records)}
    # An adapter that found no room is told in its run's record, and costs no score.
    differences = differing(reference.place, place)
    assert all("adapter_not_saved" in each or "index.html" in each for each in differences), differences
    assert (place.report / "verdict.json").read_bytes() == (reference.place.report / "verdict.json").read_bytes()


@pytest.mark.faults
def test_a_limit_on_files_stops_the_study_in_the_middle_of_a_record_and_takes_it_back(
    reference: Undisturbed, tmp_path: Path
) -> None:
    place = copied(reference, tmp_path)
    before = place.folder.records.read_bytes()
    limit = len(before) + 1000
    assert limit > 2 * place.folder.plan.stat().st_size
    mine = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Inherited by the study; this process writes no file meanwhile.
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, mine[1]))
    try:
        start = Start(place, *MORE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, mine)
    assert start.finish() == 1, start.said
    assert last_line(start.said) == (
        f"{place.folder.records} cannot be written: File too large. Earlier records are safe."
    )
    assert start.left_behind() == 0
    assert place.folder.records.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(reference: Undisturbed, tmp_path: Path) -> None:
    place = copied(reference, tmp_path)
    line = " ".join(f"'{part}'" for part in place.line(*MORE))
    done = in_namespace(f'mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; exec {line}', tmp_path / "results")
    assert done.returncode == 1, done.stdout + done.stderr
    assert last_line(done.stdout + done.stderr) == (f"{place.folder.lock} cannot be written: Read-only file system")
    assert place.folder.records.read_bytes() == reference.place.folder.records.read_bytes()


@pytest.mark.faults
def test_a_study_in_a_read_only_folder_can_still_be_reported(reference: Undisturbed, tmp_path: Path) -> None:
    copied(reference, tmp_path)
    places = ("--results", str(tmp_path / "results"), "--out", str(tmp_path / "out"))
    line = " ".join(f"'{part}'" for part in command("-m", "reports", STUDY, *places))
    done = in_namespace(f'mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; exec {line}', tmp_path / "results")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / STUDY / "verdict.json").read_bytes() == (
        reference.place.report / "verdict.json"
    ).read_bytes()


@pytest.mark.faults
@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_folder_that_is_gone_meanwhile_stops_the_study_in_one_line(tmp_path: Path, how: str) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(grid_text(whole=False, steps=60))
    place = Place(grid, tmp_path)
    start = Start(place)
    assert start.until(lambda: len(read_records(place.folder).all) >= 1), start.said
    elsewhere = tmp_path / "elsewhere"
    before = place.folder.records.read_bytes()
    place.folder.root.rename(elsewhere)
    if how == "removed":
        shutil.rmtree(elsewhere)
    assert start.finish(120) == 1, start.said
    assert last_line(start.said) == (
        f"{place.folder.records} cannot be written: its folder was removed, moved or replaced meanwhile"
    )
    assert start.left_behind() == 0
    # No record of a run that failed for want of its files passes for the study's.
    assert not place.folder.records.exists()
    if how == "moved":
        moved = StudyFolder(elsewhere)
        assert moved.records.read_bytes().startswith(before)
        assert read_records(moved).damaged == ()
        assert {record.status for record in read_records(moved).all} == {"completed"}


def test_a_full_disk_leaves_no_part_of_a_record_of_many_writes(tmp_path: Path) -> None:
    results = tmp_path / "results"
    folder = StudyFolder.of(results, "many")
    store = RecordStore(folder)
    store.append(confirm(run_id="1" * 16))
    before = folder.records.read_bytes()
    mine = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 700, mine[1]))
    try:
        with pytest.raises(ResultsError, match=r"File too large\. Earlier records are safe\.$"):
            store.extend(confirm(run_id=f"{number:016x}") for number in range(2, 9))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, mine)
    assert folder.records.read_bytes() == before
