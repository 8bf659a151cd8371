"""Names from outside stay names: none of them leads out of its folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import run_study
from reports.__main__ import main as reports
from results.__main__ import main as results
from results.external import FILE_NAME
from results.layout import StudyFolder
from results.store import read_records
from study.rows import summary_fields
from tests.unit.reports.records import write_study
from tests.unit.results.archives import tree
from tests.unit.results.records import confirm
from tests.unit.study.small_grid import SMALL, faults

# A study lies behind each of the first, so that leaving the folder would be seen to work.
OUTSIDE = ("..", ".", "../outside", "inner/study", "./study/../../outside")
BAD = (*OUTSIDE, "", ".hidden", "/etc", "a\\b", "a" * 300, "a\nb", "\x1b[2J", "a\u202eb", "\udc80", "study ", "ｓtudy")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Results with one study, and other studies around and beneath it."""
    folder = tmp_path / "results"
    write_study(folder)
    for place in ("..", ".", "../outside", "inner/study"):
        for path in ("plan.json", "frozen.json", "records.jsonl"):
            target = folder / place / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((folder / "study" / path).read_bytes())
    return folder


COMMANDS: dict[str, Callable[[str, list[str]], int]] = {
    "reports": lambda name, out: reports([name, *out, "--out", "reports-out"]),
    "reports card": lambda name, out: reports(["card", name, *out, "--out", "reports-out"]),
    "results verify": lambda name, out: results(["verify", name, *out]),
    "results export": lambda name, out: results(["export", name, "file.tar.gz", *out]),
    "results add-predictions": lambda name, out: results(
        ["add-predictions", "--study", name, "--arm", "x", "--predictions", "p", "--data", "d", *out]
    ),
    "reports compare": lambda name, out: reports(["compare", name, "study", *out]),
}


# A comparison takes a path too, which has a slash in it.
CASES = [(command, name) for command in COMMANDS for name in BAD if command != "reports compare" or "/" not in name]


@pytest.mark.parametrize(("command", "name"), CASES, ids=ascii)
def test_a_study_is_named_and_never_a_path(
    command: str, name: str, kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(kept.parent)
    before = tree(kept.parent)
    assert COMMANDS[command](name, ["--results", str(kept)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err[:-1].isprintable()
    assert tree(kept.parent) == before


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_what_a_grid_names_stays_a_name(name: str) -> None:
    # YAML takes the escapes of JSON.
    quoted = json.dumps(name)
    for text in (
        SMALL.replace("study: small", f"study: {quoted}"),
        SMALL.replace("{name: lora,", f"{{name: {quoted},").replace("reference: lora", "reference: zero-shot"),
        SMALL.replace("template: summarize", f"template: {{name: {quoted}, text: '{{dialogue}}'}}"),
        SMALL.replace("{candidate:", f"{{name: {quoted}, candidate:"),
    ):
        assert text != SMALL
        told = faults(text)
        assert told
        assert all(line.isprintable() for line in told)


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_a_system_from_elsewhere_is_named_and_never_a_path(
    name: str, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert FILE_NAME.fullmatch(f"{name}.0.json") is None
    before = tree(kept.parent)
    line = ["--arm", name, "--predictions", "p", "--data", "d", "--results", str(kept)]
    assert results(["add-predictions", "--study", "study", *line]) == 2
    assert capsys.readouterr().err[:-1].isprintable()
    assert tree(kept.parent) == before


@pytest.mark.parametrize("field", ["run_id", "evaluated_hash", "train_hash"])
@pytest.mark.parametrize("value", ["../../../x", "/etc/passwd", "a" * 300, "A" * 16, "A" * 64, "\x1b[2J", ""])
def test_a_record_that_would_name_a_file_elsewhere_is_damaged(field: str, value: str, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "small")
    folder.root.mkdir()
    data = confirm().model_dump(mode="json")
    (data if field in data else data["data"])[field] = value
    folder.records.write_text(json.dumps(data) + "\n")
    found = read_records(folder)
    assert found.all == ()
    assert found.damaged[0].reason.isprintable()


@pytest.mark.parametrize("key", ["\udc80", "training.\udcff", "a\nb", "\x1b[2J"], ids=ascii)
def test_a_setting_whose_key_cannot_be_printed_is_told_in_one_line(key: str) -> None:
    (told,) = faults(SMALL, f"{key}=1")
    assert told.startswith("--set '")
    assert told.endswith(": write key=value, such as training.steps=100")
    assert told.isprintable()


def test_a_grid_whose_name_is_too_long_for_a_file_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_study.main(["--grid", "a" * 5000, "--plan"]) == 2
    assert "no such file; choose from ablation.yaml" in capsys.readouterr().err


def test_a_column_with_a_number_without_end_is_no_reference() -> None:
    assert summary_fields({f"summary{'9' * 5000}": "text", "summary2": "text"}) == ("summary2",)
