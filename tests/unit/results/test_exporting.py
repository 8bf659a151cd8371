"""Exports: one study gives one file, which holds what is whole and nothing else."""

import gzip
import hashlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from results.archive_format import LIMITS, ArchiveError, Limits
from results.exporting import export_study
from results.layout import StudyFolder
from results.merging import Imported, import_study
from results.store import ResultsError, read_plan, write_plan, write_predictions
from tests.unit.results.archives import PREDICTIONS, RUN, TRIAL, append, contents, tree
from tests.unit.results.records import confirm, plan


def test_an_archive_holds_what_was_seen_and_nothing_else(file: Path) -> None:
    with tarfile.open(file) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [
        "frozen.json",
        "manifest.json",
        "plan.json",
        f"predictions/{RUN}.jsonl",
        f"predictions/{TRIAL}.jsonl",
        "records.jsonl",
    ]
    assert {(member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode) for member in members} == {
        (0, 0, 0, "", "", 0o644)
    }
    assert b"not ours to give" not in gzip.decompress(file.read_bytes())


def test_the_manifest_tells_of_every_other_member(file: Path) -> None:
    members = contents(file)
    said = json.loads(members.pop("manifest.json"))
    assert said == {
        "format": "qlora-ablation-study",
        "format_version": 1,
        "study": "small",
        "records": 4,
        "runs": 3,
        "predictions": 2,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }


def test_the_same_study_gives_the_same_bytes(folder: StudyFolder, file: Path, tmp_path: Path) -> None:
    again = tmp_path / "deeper" / "another-name.tar.gz"
    for path in folder.root.rglob("*"):
        path.touch()
    export_study(folder, again)
    assert again.read_bytes() == file.read_bytes()


def test_a_study_that_travelled_gives_the_same_bytes(file: Path, there: Path, tmp_path: Path) -> None:
    import_study(file, there)
    export_study(StudyFolder.of(there, "small"), tmp_path / "back.tar.gz")
    assert (tmp_path / "back.tar.gz").read_bytes() == file.read_bytes()


def test_what_is_not_whole_is_left_behind_and_counted(folder: StudyFolder, file: Path, there: Path) -> None:
    folder.records.write_bytes(folder.records.read_bytes() + b'{"torn\n{"torn')
    write_predictions(folder, "e" * 16, PREDICTIONS)
    path = folder.predictions(TRIAL)
    path.write_bytes(path.read_bytes()[:-20])
    done = export_study(folder, file)
    assert (done.records, done.runs, done.predictions) == (4, 3, 1)
    assert (done.left_lines, done.left_predictions) == (2, 2)
    assert import_study(file, there).records == 4


def test_a_study_with_a_plan_alone_can_travel(tmp_path: Path, there: Path) -> None:
    folder = StudyFolder.of(tmp_path / "here", "small")
    write_plan(folder, plan())
    export_study(folder, tmp_path / "file.tar.gz")
    assert import_study(tmp_path / "file.tar.gz", there) == Imported("small", 0, 0, 0, 0, 0)
    assert read_plan(StudyFolder.of(there, "small")) == plan()


def test_a_study_with_an_empty_record_file_can_travel(tmp_path: Path, there: Path) -> None:
    folder = StudyFolder.of(tmp_path / "here", "small")
    folder.root.mkdir(parents=True)
    folder.records.touch()
    export_study(folder, tmp_path / "file.tar.gz")
    assert import_study(tmp_path / "file.tar.gz", there).records == 0


def test_there_must_be_something_to_export(folder: StudyFolder, file: Path) -> None:
    before = file.read_bytes()
    folder.records.unlink()
    folder.plan.unlink()
    with pytest.raises(ArchiveError, match=r"small: nothing to export: it has neither records\.jsonl nor plan\.json"):
        export_study(folder, file)
    assert file.read_bytes() == before


def test_a_study_with_parts_of_another_is_not_exported(folder: StudyFolder, tmp_path: Path) -> None:
    renamed = StudyFolder(folder.root.rename(folder.root.with_name("other")))
    with pytest.raises(ArchiveError, match=r"other/frozen\.json: of study 'small', not other"):
        export_study(renamed, tmp_path / "file.tar.gz")
    renamed.frozen.unlink()
    renamed.plan.unlink()
    with pytest.raises(ArchiveError, match=r"other/records\.jsonl: run 0{16} is of study 'small', not other"):
        export_study(renamed, tmp_path / "file.tar.gz")


def test_a_folder_that_no_grid_could_name_is_not_exported(tmp_path: Path) -> None:
    folder = StudyFolder.of(tmp_path, "a study")
    append(folder, confirm(study="a study"))
    with pytest.raises(ArchiveError, match="STUDY 'a study': no name for a study: use letters"):
        export_study(folder, tmp_path / "file.tar.gz")


def test_choices_that_cannot_be_read_are_not_left_behind(folder: StudyFolder, tmp_path: Path) -> None:
    folder.frozen.write_text("{")
    with pytest.raises(ResultsError, match=r"frozen\.json: not a JSON object"):
        export_study(folder, tmp_path / "file.tar.gz")
    assert not (tmp_path / "file.tar.gz").exists()


def test_a_prediction_file_that_changes_meanwhile_stops_the_export(
    folder: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from results.exporting import _manifest_of

    def meanwhile(*arguments: Any) -> Any:
        write_predictions(folder, RUN, PREDICTIONS[:1])
        return _manifest_of(*arguments)

    monkeypatch.setattr("results.exporting._manifest_of", meanwhile)
    with pytest.raises(ResultsError, match=r"0{16}\.jsonl: changed while it was exported"):
        export_study(folder, tmp_path / "file.tar.gz")
    assert not (tmp_path / "file.tar.gz").exists()


@pytest.mark.parametrize(
    "limits",
    [
        replace(LIMITS, member_bytes=100),
        replace(LIMITS, total_bytes=5000),
        replace(LIMITS, members=5),
        replace(LIMITS, line_bytes=100),
    ],
    ids=str,
)
def test_nothing_is_exported_that_no_import_would_take(folder: StudyFolder, file: Path, limits: Limits) -> None:
    before = file.read_bytes()
    with pytest.raises(ArchiveError):
        export_study(folder, file, limits)
    assert file.read_bytes() == before


def test_an_export_never_writes_into_the_study_or_over_a_folder(folder: StudyFolder, tmp_path: Path) -> None:
    before = tree(folder.root)
    (tmp_path / "link").symlink_to(folder.root)
    for path in (folder.records, folder.root / "new.tar.gz", tmp_path / "link" / "frozen.json", tmp_path):
        with pytest.raises(ArchiveError, match="a folder, or a place inside of the study's own"):
            export_study(folder, path)
    assert tree(folder.root) == before
