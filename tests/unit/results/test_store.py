"""The store: what was written stays, whatever happens while more is written."""

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from results.layout import StudyFolder
from results.store import (
    RecordStore,
    ResultsError,
    read_frozen,
    read_plan,
    read_predictions,
    read_records,
    remove_unfinished,
    write_atomically,
    write_frozen,
    write_plan,
    write_predictions,
)
from tests.unit.results.records import FAILED, confirm, frozen, plan, prediction

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder.of(tmp_path, "small")


def append(folder: StudyFolder, *run_ids: str) -> None:
    for run_id in run_ids:
        RecordStore(folder).append(confirm(run_id=run_id * 16))


def ids(folder: StudyFolder) -> list[str]:
    return [record.run_id[0] for record in read_records(folder).all]


def test_a_study_without_a_file_has_no_records_and_reading_makes_none(folder: StudyFolder) -> None:
    found = read_records(folder)
    assert (found.all, found.damaged, found.last) == ((), (), {})
    assert not folder.root.exists()


def test_records_come_back_in_the_order_of_writing(folder: StudyFolder) -> None:
    append(folder, "2", "1", "3")
    assert ids(folder) == ["2", "1", "3"]
    assert read_records(folder).all[0] == confirm(run_id="2" * 16)


def test_the_last_record_of_a_run_counts(folder: StudyFolder) -> None:
    RecordStore(folder).append(confirm(**FAILED))
    append(folder, "1", "0")
    found = read_records(folder)
    assert len(found.all) == 3
    assert {run_id[0]: record.status for run_id, record in found.last.items()} == {"0": "completed", "1": "completed"}


def test_a_record_is_appended_to_bytes_that_stay_as_they_were(folder: StudyFolder) -> None:
    append(folder, "1")
    before = folder.records.read_bytes()
    append(folder, "2")
    assert folder.records.read_bytes().startswith(before)


@pytest.mark.parametrize(
    "kept", [1, 100, -2, -1], ids=["first byte", "a part", "all but the end", "all but the newline"]
)
def test_a_torn_last_line_costs_nothing_but_itself(folder: StudyFolder, kept: int) -> None:
    append(folder, "1")
    whole = folder.records.read_bytes()
    folder.records.write_bytes(whole + whole[:kept])
    append(folder, "2")
    # Without its newline alone a record is still whole.
    assert ids(folder) == (["1", "1", "2"] if kept == -1 else ["1", "2"])
    assert read_records(folder).damaged == ()
    assert folder.records.read_bytes().startswith(whole)
    # What is no record is set apart, and said to nobody any more: the run is made again.
    set_apart = folder.torn.read_bytes() if folder.torn.exists() else b""
    assert set_apart == (b"" if kept == -1 else whole[:kept] + b"\n")


def test_a_torn_end_as_long_as_a_disk_leaves_it_is_set_apart_whole(folder: StudyFolder) -> None:
    append(folder, "1")
    whole = folder.records.read_bytes()
    # A file system that loses power may leave a grown file without its data.
    folder.records.write_bytes(whole + b"\x00" * 300_000)
    append(folder, "2")
    assert ids(folder) == ["1", "2"]
    assert read_records(folder).damaged == ()
    assert folder.torn.read_bytes() == b"\x00" * 300_000 + b"\n"


def test_nothing_is_written_to_a_folder_that_took_the_place_of_the_study_s(folder: StudyFolder) -> None:
    append(folder, "1")
    store = RecordStore(folder)
    elsewhere = folder.root.with_name("elsewhere")
    folder.root.rename(elsewhere)
    for _ in range(2):
        with pytest.raises(ResultsError, match=r"records\.jsonl cannot be written: its folder was removed, moved or"):
            store.append(confirm(run_id="2" * 16))
        # As a worker's log does, for one.
        folder.logs.mkdir(parents=True, exist_ok=True)
    assert not folder.records.exists()
    assert ids(StudyFolder(elsewhere)) == ["1"]


def test_damaged_lines_are_named_and_the_others_read(folder: StudyFolder) -> None:
    append(folder, "1", "2")
    first, second = folder.records.read_bytes().splitlines()
    lines = [
        first,
        b"\x00" * 40,
        b"",
        b"[1]",
        b'{"run_id": "\xff"}',
        first.replace(b'"schema_version":2', b'"schema_version":7'),
        first.replace(b'"status":"completed"', b'"status":"done"'),
        first.replace(b'"seed":11', b'"seed":"\\u001b[2J"'),
        b"[" * 5000,
        first.replace(b'"error":null', b'"error":{"type":"E","message":"m","phase":null}'),
        second,
    ]
    folder.records.write_bytes(b"\n".join(lines) + b"\n")
    found = read_records(folder)
    assert ids(folder) == ["1", "2"]
    told = {damage.line: damage.reason for damage in found.damaged}
    torn = "not a JSON object: torn or damaged"
    assert [told.get(number) for number in (2, 4, 5, 9)] == [torn] * 4
    assert told[6] == "schema_version 7 is newer than this program's 2: update the program"
    assert told[7].startswith("status: Input should be 'completed', ")
    assert told[8].startswith("seed: Input should be a valid integer")
    assert told[10] == "content: Value error, a completed run has no error"
    assert len(told) == 8
    assert all(reason.isprintable() for reason in told.values())


def test_reading_leaves_the_collector_of_cycles_as_it_was(folder: StudyFolder) -> None:
    append(folder, "1")
    folder.records.write_bytes(folder.records.read_bytes() * 3 + b"torn")
    assert gc.isenabled()
    assert len(read_records(folder).all) == 3
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    gc.disable()
    try:
        read_records(folder)
        assert not gc.isenabled()
    finally:
        gc.enable()
    folder.records.unlink()
    folder.records.mkdir()
    with pytest.raises(ResultsError):
        read_records(folder)
    assert gc.isenabled()


def test_objects_that_a_program_has_frozen_stay_so(folder: StudyFolder) -> None:
    append(folder, "1")
    gc.freeze()
    try:
        before = gc.get_freeze_count()
        read_records(folder)
        # Some of them may be gone meanwhile; none was given back to the collector.
        assert 0 < gc.get_freeze_count() <= before
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_a_last_line_without_its_end_is_read_if_it_is_whole(folder: StudyFolder) -> None:
    append(folder, "1", "2")
    folder.records.write_bytes(folder.records.read_bytes().rstrip(b"\n"))
    assert ids(folder) == ["1", "2"]
    # A carriage return is white space to JSON, and no line of its own.
    folder.records.write_bytes(folder.records.read_bytes().replace(b"\n", b"\r\n\r\n"))
    assert ids(folder) == ["1", "2"]
    assert read_records(folder).damaged == ()


def test_several_writers_at_once_never_mix_their_lines(folder: StudyFolder) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append(folder, f"{number:x}"), range(16)))
    assert sorted(ids(folder)) == sorted("0123456789abcdef")
    assert read_records(folder).damaged == ()


def test_an_atomic_write_replaces_the_whole_file_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    write_atomically(path, b"first, and longer")
    with path.open("rb") as reader:
        write_atomically(path, b"second")
        assert reader.read() == b"first, and longer"
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_predictions_come_back_in_their_order(folder: StudyFolder) -> None:
    written = [prediction(2), prediction(0), prediction(1, scores=None)]
    write_predictions(folder, "0" * 16, written)
    assert list(read_predictions(folder, "0" * 16)) == written


def test_a_missing_or_damaged_prediction_file_is_named(folder: StudyFolder) -> None:
    with pytest.raises(ResultsError, match=r"predictions/0{16}\.jsonl cannot be read: there is no such file"):
        read_predictions(folder, "0" * 16)
    write_predictions(folder, "0" * 16, [prediction(0)])
    path = folder.predictions("0" * 16)
    path.write_bytes(path.read_bytes() + b'{"example_id": ')
    with pytest.raises(ResultsError, match=r"0{16}\.jsonl, line 2: not a JSON object: torn or damaged"):
        read_predictions(folder, "0" * 16)


def test_frozen_choices_and_the_plan_come_back_as_they_were(folder: StudyFolder) -> None:
    assert read_frozen(folder) is None
    assert read_plan(folder) is None
    write_frozen(folder, frozen())
    write_plan(folder, plan())
    assert read_frozen(folder) == frozen()
    assert read_plan(folder) == plan()


def test_a_frozen_file_that_cannot_be_used_is_never_taken_for_none(folder: StudyFolder) -> None:
    write_frozen(folder, frozen())
    text = folder.frozen.read_text()
    for damaged, told in (
        (text[:50], "not a JSON object: torn or damaged"),
        ("", "not a JSON object: torn or damaged"),
        (text.replace('"schema_version": 2', '"schema_version": 3'), "schema_version 3 is newer"),
        (text.replace('"seeds": [', '"seeds": ["x",'), "seeds.0: Input should be a valid integer"),
    ):
        folder.frozen.write_text(damaged)
        with pytest.raises(ResultsError, match=f"frozen.json: {told}"):
            read_frozen(folder)


def test_a_folder_where_a_file_should_be_is_an_error_with_its_name(folder: StudyFolder) -> None:
    folder.records.mkdir(parents=True)
    with pytest.raises(ResultsError, match=r"records\.jsonl cannot be read: Is a directory"):
        read_records(folder)
    with pytest.raises(ResultsError, match=r"records\.jsonl cannot be written: Is a directory"):
        append(folder, "1")


def test_a_file_where_the_folder_should_be_is_an_error_with_its_name(folder: StudyFolder) -> None:
    folder.root.write_text("in the way")
    with pytest.raises(ResultsError, match=r"records\.jsonl cannot be written: "):
        append(folder, "1")
    with pytest.raises(ResultsError, match=r"frozen\.json cannot be written: "):
        write_frozen(folder, frozen())
    assert folder.root.read_text() == "in the way"


WRITE = """
import os, resource, sys
from pathlib import Path
from results.layout import StudyFolder
from results.store import *
from tests.unit.results.records import *
from tests.unit.results.test_store import *

def told(write):
    try:
        write()
    except ResultsError as error:
        print(error)
    else:
        print("written")

big = confirm(run_id="2" * 16, environment={"text": "x" * 100_000})
folder = StudyFolder(Path("small"))
"""


def in_another_process(code: str, folder: Path) -> list[str]:
    """The lines that `code` prints when it runs in `folder`; there, limits can be set that cannot be lifted again."""
    done = subprocess.run(
        [sys.executable, "-c", WRITE + code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_full_disk_is_an_error_and_damages_nothing(folder: StudyFolder) -> None:
    append(folder, "1")
    write_frozen(folder, frozen())
    before = {path: path.read_bytes() for path in (folder.records, folder.frozen)}
    limit = len(before[folder.records]) + 500
    lines = in_another_process(
        f"""
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
told(lambda: RecordStore(folder).append(big))
told(lambda: write_frozen(folder, frozen(study="x" * {limit})))
told(lambda: write_predictions(folder, "2" * 16, [prediction(n) for n in range(100)]))
""",
        folder.root.parent,
    )
    assert lines == [
        "small/records.jsonl cannot be written: File too large. Earlier records are safe.",
        "small/frozen.json cannot be written: File too large",
        "small/predictions/2222222222222222.jsonl cannot be written: File too large",
    ]
    assert {path: path.read_bytes() for path in before} == before
    assert list((folder.root / "predictions").iterdir()) == []
    assert {path.name for path in folder.root.iterdir()} == {"records.jsonl", "frozen.json", "predictions"}
    append(folder, "3")
    assert ids(folder) == ["1", "3"]
    assert read_records(folder).damaged == ()


def test_a_read_only_folder_is_an_error_and_damages_nothing(folder: StudyFolder) -> None:
    append(folder, "1")
    write_frozen(folder, frozen())
    before = {path: path.read_bytes() for path in (folder.records, folder.frozen)}
    for path in before:
        path.chmod(0o444)
    folder.root.chmod(0o555)
    try:
        # Nothing is read-only to root.
        lines = in_another_process(
            """
if os.getuid() == 0:
    os.chmod(".", 0o755)
    os.setuid(65534)
told(lambda: RecordStore(folder).append(big))
told(lambda: write_frozen(folder, frozen()))
told(lambda: write_predictions(folder, "2" * 16, [prediction(0)]))
print(len(read_records(folder).all))
""",
            folder.root.parent,
        )
    finally:
        folder.root.chmod(0o755)
    assert lines == [
        "small/records.jsonl cannot be written: Permission denied. Earlier records are safe.",
        "small/frozen.json cannot be written: Permission denied",
        "small/predictions/2222222222222222.jsonl cannot be written: Permission denied",
        "1",
    ]
    assert {path: path.read_bytes() for path in before} == before


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    folder = StudyFolder.of(tmp_path, "left")
    kept = folder.predictions("0123456789abcdef")
    write_atomically(kept, b"whole")
    left = [kept.with_name(f".{kept.name}.4711.tmp"), folder.root / ".plan.json.4711.tmp"]
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / ".other.tmp").write_bytes(b"not of this study")
    (folder.root / "link").symlink_to(outside)
    for path in left:
        path.write_bytes(b"half")
    remove_unfinished(folder)
    assert not any(path.exists() for path in left)
    assert kept.read_bytes() == b"whole"
    assert (outside / ".other.tmp").exists()
