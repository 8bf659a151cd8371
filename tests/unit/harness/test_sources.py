"""Dialogues from local files and from the generator, and the check for what splits share."""

import json
from pathlib import Path

import pytest

from harness.adapters.sources import DataError, distinct, load, merged, summary_fields
from study.datasets import DataSpec, GeneratedData, LocalData
from study.dialogues import SCENES
from study.examples import Example

ROWS: list[dict[str, object]] = [
    {"fname": f"d{n}", "dialogue": f"#Person1#: Topic {n} it is {n * 7}?\r\n#Person2#: Yes, {n}, of course."}
    for n in range(8)
]


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def spec(train: str, validation: str, test: str, overlap: str = "refuse") -> DataSpec:
    splits = (("train", train), ("validation", validation), ("test", test))
    local = LocalData(splits, "dialogue", None)
    limits = (("train", None), ("validation", None), ("test", None))
    return DataSpec(local, limits, "drop" if overlap == "drop" else "refuse")


@pytest.fixture
def dev(tmp_path: Path) -> str:
    return write(tmp_path / "dev.jsonl", [{**row, "summary": f"Summary {row['fname']}."} for row in ROWS[:6]])


@pytest.fixture
def three_references(tmp_path: Path) -> str:
    rows = [{**row, "summary1": "One.", "summary2": "Two.", "summary3": "Two."} for row in ROWS[6:]]
    return write(tmp_path / "test.jsonl", rows)


def three_referencess_are_sliced_and_line_breaks_made_one_kind(dev: str, three_references: str) -> None:
    loaded = load(spec(f"{dev}[:4]", f"{dev}[-2:]", three_references))
    assert [len(loaded.splits[split]) for split in ("train", "validation", "test")] == [4, 2, 2]
    assert loaded.splits["train"][0].dialogue == "#Person1#: Topic 0 it is 0?\n#Person2#: Yes, 0, of course."
    assert loaded.splits["validation"][0].id == "d4"


def test_every_listed_reference_counts_and_repeats_are_reported(dev: str, three_references: str) -> None:
    loaded = load(spec(f"{dev}[:4]", f"{dev}[-2:]", three_references))
    assert loaded.splits["test"][0].references == ("One.", "Two.", "Two.")
    assert any("2 dialogues list one reference twice" in note for note in loaded.notes)


def test_csv_files_are_read_too(tmp_path: Path, dev: str, three_references: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text('dialogue,summary\n"A: One, two?\nB: Three.","Count."\n"A: Four?\nB: Five.","More."\n')
    loaded = load(spec(str(path), f"{dev}[-2:]", three_references))
    assert loaded.splits["train"][0].dialogue == "A: One, two?\nB: Three."


def test_dialogues_that_splits_share_are_refused_or_dropped_with_a_count(dev: str, three_references: str) -> None:
    with pytest.raises(DataError, match=r"2 equal .*data\.overlap to drop"):
        load(spec(f"{dev}[:4]", f"{dev}[2:6]", three_references))
    loaded = load(spec(f"{dev}[:4]", f"{dev}[2:6]", three_references, overlap="drop"))
    assert len(loaded.splits["train"]) == 2
    assert len(loaded.splits["validation"]) == 4
    assert any("left out 2 from train" in note for note in loaded.notes)


def test_rows_of_one_dialogue_become_one_example_with_all_references() -> None:
    rows = [Example("a", "A: Hi.", ("One.",)), Example("b", "A: Ho.", ("Two.",)), Example("c", "A: Hi.", ("Three.",))]
    assert merged(rows) == [Example("a", "A: Hi.", ("One.", "Three.")), Example("b", "A: Ho.", ("Two.",))]


def test_ids_are_made_distinct() -> None:
    rows = [Example("a", "A: 1.", ("x",)), Example("a", "A: 2.", ("y",))]
    assert [example.id for example in distinct(rows)] == ["a", "a#2"]


def test_reference_fields_are_found_in_their_order() -> None:
    assert summary_fields({"summary10": "j", "summary2": "b", "summary1": "a", "topic1": "t"}) == (
        "summary1",
        "summary2",
        "summary10",
    )
    assert summary_fields({"summary": "s", "summary1": "a"}) == ("summary",)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "A: Hi.", "summary": "x"}], "no text in 'dialogue'"),
        ([{"dialogue": "  ", "summary": "x"}], "no text in 'dialogue'"),
        ([{"dialogue": "A: Hi.", "topic": "x"}], "no summary"),
    ],
)
def test_rows_that_cannot_be_used_are_named(
    tmp_path: Path, dev: str, rows: list[dict[str, object]], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(spec(f"{dev}[:4]", f"{dev}[-2:]", write(tmp_path / "odd.jsonl", rows)))
    assert "row 0" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_a_broken_and_an_empty_file_are_one_line(tmp_path: Path, dev: str) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"dialogue": "A: Hi.", "summ\n')
    for name in (str(tmp_path / "nowhere.jsonl"), str(broken), f"{dev}[9:]"):
        with pytest.raises(DataError) as caught:
            load(spec(f"{dev}[:4]", f"{dev}[-2:]", name))
        assert "\n" not in str(caught.value)


def test_generated_splits_do_not_overlap() -> None:
    generated = GeneratedData(20, SCENES, (4, 6), (1, 3))
    limits = (("train", 60), ("validation", 20), ("test", 20))
    loaded = load(DataSpec(generated, limits, "refuse"))
    assert [len(examples) for examples in loaded.splits.values()] == [60, 20, 20]
    assert loaded.notes == () or "between splits" not in " ".join(loaded.notes)
