"""`python -m results export` and `import`: what they say, and their exit codes."""

from pathlib import Path

import pytest

from results.__main__ import main
from results.layout import StudyFolder
from results.locking import locked


def test_the_command_moves_a_study(
    folder: StudyFolder, there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file.tar.gz"
    assert main(["export", "small", str(file), "--results", str(folder.root.parent)]) == 0
    assert capsys.readouterr() == (f"exported 4 records of 3 runs of small (2 prediction files) to {file}\n", "")
    assert main(["import", str(file), "--results", str(there)]) == 0
    assert capsys.readouterr() == (
        "imported 4 records of 3 runs into small (0 already there, 0 kept, 2 prediction files)\n",
        "",
    )
    assert main(["verify", "small", "--results", str(there)]) == 0


def test_the_command_says_what_it_left_behind(
    folder: StudyFolder, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.records.write_bytes(folder.records.read_bytes() + b'{"torn')
    assert main(["export", "small", str(file), "--results", str(folder.root.parent)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("exported 4 records of 3 runs of small ")
    told = "left behind: 1 damaged lines of records.jsonl; python -m results verify small names them"
    assert captured.err == f"export: {told}\n"


def test_the_command_refuses_to_export_nothing(
    folder: StudyFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = folder.root.parent
    (results / "empty").mkdir()
    file = str(tmp_path / "file.tar.gz")
    assert main(["export", "empty", file, "--results", str(results)]) == 2
    assert capsys.readouterr() == (
        "",
        f"export: {results / 'empty'}: nothing to export: it has neither records.jsonl nor plan.json\n",
    )
    assert main(["export", "none", file, "--results", str(results)]) == 2
    assert capsys.readouterr().err == f"STUDY 'none': no such study in {results}; there are: empty, small\n"
    assert not (tmp_path / "file.tar.gz").exists()


def test_the_command_fails_where_the_study_is_busy_or_cannot_be_written(
    file: Path, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(StudyFolder.of(there, "small")):
        assert main(["import", str(file), "--results", str(there)]) == 1
    assert capsys.readouterr().err.startswith(f"import: {there / 'small'}: another process works on this study: host ")
    assert main(["import", str(file), "--results", str(file)]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"import: {file}/small/frozen.json cannot be read: Not a directory\n"
    assert captured.out == ""
