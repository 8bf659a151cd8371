"""Predictions from elsewhere: added once, scored as everything else, verified, and carried to other machines."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from harness.__main__ import main as harness_main
from results.__main__ import main
from results.external import read_externals, write_external
from results.layout import StudyFolder
from results.store import RecordStore, write_frozen, write_plan, write_predictions
from results.verify import verify
from tests.unit.results.records import EXAMPLES, confirm, frozen, plan, prediction, quality

TEXTS = ("They greet zero.", "", "Somebody says hello. They greet 2.")
RUN = "0" * 16

Add = Callable[..., int]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study with a plan, a freeze and one scored run on three dialogues."""
    folder = StudyFolder.of(tmp_path / "data", "small")
    RecordStore(folder).append(confirm(quality=quality(45.0, 50.0)))
    write_predictions(folder, RUN, [prediction(number) for number in range(3)])
    write_frozen(folder, frozen(choices=[]))
    write_plan(folder, plan())
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return rows_file(tmp_path / "test.jsonl", range(3))


@pytest.fixture
def add(folder: StudyFolder, data: Path, tmp_path: Path) -> Add:
    def added(texts: Sequence[str] | str = TEXTS, *more: str, name: str = "pegasus", data: Path = data) -> int:
        path = tmp_path / ("given.txt" if not isinstance(texts, str) else "given.jsonl")
        path.write_text(texts if isinstance(texts, str) else "".join(text + "\n" for text in texts), encoding="utf-8")
        files = ["--predictions", str(path), "--data", str(data), "--results", str(folder.root.parent)]
        return main(["add-predictions", "--study", "small", "--arm", name, *files, *more])

    return added


def rows_file(path: Path, numbers: Sequence[int]) -> Path:
    rows = [
        {"id": EXAMPLES[n].id, "dialogue": EXAMPLES[n].dialogue, "summary": EXAMPLES[n].references[0]} for n in numbers
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def jsonl(*rows: Mapping[str, object]) -> str:
    return "".join(json.dumps(dict(row)) + "\n" for row in rows)


def test_a_system_is_scored_as_the_harness_scores_the_same_files(
    add: Add, folder: StudyFolder, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(TEXTS, "--label", "PEGASUS (Zhang 2020)") == 0
    (run,) = read_externals(folder).runs
    assert (run.arm, run.label, run.seed) == ("external/pegasus", "PEGASUS (Zhang 2020)", 0)
    assert [item.prediction for item in run.predictions] == list(TEXTS)
    capsys.readouterr()
    assert harness_main(["score", "--predictions", str(tmp_path / "given.txt"), "--data", str(data)]) == 0
    theirs = json.loads(capsys.readouterr().out)
    for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        assert run.quality[kind] == pytest.approx(theirs[kind]["mean_reference"], abs=1e-5)
        assert run.quality[f"{kind}_max"] == pytest.approx(theirs[kind]["max_reference"], abs=1e-5)


def test_the_same_again_changes_nothing_and_other_predictions_need_to_be_asked_for(
    add: Add, folder: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder.external("pegasus", 0)
    assert add() == 0
    first = path.read_bytes()
    assert add() == 0
    assert "already there" in capsys.readouterr().out
    assert path.read_bytes() == first
    other = ("They greet.", "They greet.", "They greet.")
    assert add(other) == 2
    assert capsys.readouterr().err == (
        "add-predictions: --arm 'pegasus': seed 0 was added before with other predictions; --replace puts these in "
        "their place, another --seed beside them\n"
    )
    assert path.read_bytes() == first
    assert add(other, "--replace") == 0
    assert [item.prediction for item in read_externals(folder).runs[0].predictions] == list(other)


def test_a_new_label_changes_the_label_alone(add: Add, folder: StudyFolder) -> None:
    add()
    before = read_externals(folder).runs[0]
    assert add(TEXTS, "--label", "PEGASUS") == 0
    assert add() == 0
    after = read_externals(folder).runs[0]
    assert after == before.model_copy(update={"label": "PEGASUS"})
    assert after.run_id == before.run_id


def test_seeds_of_one_system_stand_beside_each_other(add: Add, folder: StudyFolder) -> None:
    for seed in ("2", "10", "1"):
        assert add((f"They greet {seed}.",) * 3, "--seed", seed) == 0
    runs = read_externals(folder).runs
    assert [run.seed for run in runs] == [1, 2, 10]
    assert len({run.run_id for run in runs}) == 3


def test_objects_are_put_into_the_order_of_the_dialogues_by_their_ids(add: Add, folder: StudyFolder) -> None:
    rows = [
        {"example_id": "d2", "prediction": "two\nlines"},
        {"id": "d0", "prediction": "zero"},
        {"id": "d1", "prediction": ""},
    ]
    assert add(jsonl(*rows)) == 0
    found = [(item.example_id, item.prediction) for item in read_externals(folder).runs[0].predictions]
    assert found == [("d0", "zero"), ("d1", ""), ("d2", "two\nlines")]


def test_the_studys_own_copy_of_the_dialogues_will_do(add: Add, folder: StudyFolder, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    rows = [{"id": item.id, "dialogue": item.dialogue, "references": item.references} for item in EXAMPLES]
    own.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert add(data=own) == 0


@pytest.mark.parametrize(
    ("texts", "name", "message"),
    [
        (("a", "b"), "pegasus", "--predictions given.txt: 2 predictions, test.jsonl has 3 dialogues"),
        (TEXTS, "lora", "--arm 'lora': an arm of this study has that name; give the system another one"),
        (TEXTS, "../x", "--arm '../x': use letters, digits, - and _ (at most 64, a letter or digit first)"),
        ('{"prediction": "a"}\nplain\n', "p", "--predictions given.jsonl, line 2: no JSON"),
        ('{"text": "a"}\n', "p", "--predictions given.jsonl, line 1: no text in 'prediction' (it has text)"),
        ('{"prediction": "\\ud800"}\n', "p", "line 1: the prediction holds half a character, which no file can"),
        (
            jsonl(*({"id": name, "prediction": "a"} for name in ("d0", "d1", "d9"))),
            "p",
            "'d9' is no dialogue of the test split",
        ),
        (jsonl(*({"id": name, "prediction": "a"} for name in ("d0", "d1", "d1"))), "p", "'d1' has two predictions"),
        (
            jsonl({"id": "d0", "prediction": "a"}, {"prediction": "a"}, {"id": "d1", "prediction": "a"}),
            "p",
            "some predictions have an id and some have none",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    add: Add, folder: StudyFolder, capsys: pytest.CaptureFixture[str], texts: str, name: str, message: str
) -> None:
    assert add(texts, name=name) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("add-predictions: ")
    assert said.count("\n") == 1
    assert read_externals(folder).runs == ()


def test_other_dialogues_or_another_order_are_no_test_split(
    add: Add, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for numbers in ((0, 1), (1, 0, 2)):
        other = rows_file(tmp_path / "other.jsonl", numbers)
        assert add(TEXTS[: len(numbers)], data=other) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"add-predictions: --data other.jsonl: its {len(numbers)} dialogues (digest ")
        assert "are not the test split of this study (3 dialogues, digest " in said


def test_random_weights_have_nothing_that_a_score_could_stand_beside(
    add: Add, folder: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    random = {"id": "phi", "revision": None, "weights": "random"}
    folder.records.unlink()
    RecordStore(folder).append(confirm(model=random, quality=None))
    write_frozen(folder, frozen(choices=[], model=random))
    assert add() == 2
    assert "its weights are random, so that it has no scores" in capsys.readouterr().err


def test_a_study_that_is_not_there_and_one_without_plan_are_named(
    add: Add, folder: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.plan.unlink()
    assert add() == 2
    assert "--study 'small': it has no plan.json: run its grid first" in capsys.readouterr().err


def test_a_whole_system_has_no_fault_and_every_damage_is_told(add: Add, folder: StudyFolder) -> None:
    add()
    assert verify(folder).faults == ()
    (run,) = read_externals(folder).runs
    write_external(folder, run.model_copy(update={"quality": run.quality | {"rouge1": 99.0}}))
    (fault,) = verify(folder).faults
    assert "external/pegasus, seed 0: ROUGE-1 is recorded as 99.000000" in fault
    write_external(folder, run.model_copy(update={"test_hash": "9" * 64}))
    (fault,) = verify(folder).faults
    assert "that are no test split of this study" in fault
    folder.external("pegasus", 0).write_bytes(b"{")
    folder.external("pegasus", 1).write_text(run.model_dump_json())
    faults = verify(folder).faults
    assert ["pegasus.0.json" in fault for fault in faults] == [True, False]
    assert "holds seed 0 of pegasus, which is not what its name says" in faults[1]


def test_a_damaged_file_is_replaced_only_when_that_is_asked_for(add: Add, folder: StudyFolder) -> None:
    add()
    folder.external("pegasus", 0).write_bytes(b"{")
    assert add() == 1
    assert add(TEXTS, "--replace") == 0
    assert verify(folder).faults == ()


def test_systems_travel_with_their_study_and_never_over_others(
    add: Add, folder: StudyFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add()
    add(("a", "b", "c"), "--seed", "1")
    folder.external("broken", 0).write_bytes(b"{")
    archive, there = tmp_path / "small.tar.gz", tmp_path / "there"
    capsys.readouterr()
    assert main(["export", "small", str(archive), "--results", str(folder.root.parent)]) == 0
    told = capsys.readouterr()
    assert "1 prediction files, 2 systems from elsewhere" in told.out
    assert "1 damaged files of systems from elsewhere" in told.err
    assert main(["import", str(archive), "--results", str(there)]) == 0
    assert "2 systems from elsewhere" in capsys.readouterr().out
    moved = StudyFolder.of(there, "small")
    for seed in (0, 1):
        assert moved.external("pegasus", seed).read_bytes() == folder.external("pegasus", seed).read_bytes()
    assert verify(moved).faults == ()
    assert main(["import", str(archive), "--results", str(there)]) == 0
    assert "elsewhere" not in capsys.readouterr().out
    kept = read_externals(moved).runs[0].model_copy(update={"label": "mine"})
    write_external(moved, kept)
    assert main(["import", str(archive), "--results", str(there)]) == 0
    assert "1 of those kept as they are here" in capsys.readouterr().out
    assert read_externals(moved).runs[0] == kept
