"""Whether what a study recorded is whole: nothing is found in a whole one, and every kind of damage in others."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from results.__main__ import main
from results.layout import StudyFolder
from results.store import RecordStore, write_frozen, write_plan, write_predictions
from results.verify import verify
from tests.unit.results.records import (
    EXAMPLES,
    FAILED,
    MODEL,
    TEST_HASH,
    confirm,
    frozen,
    plan,
    prediction,
    quality,
    trial,
)

RUN, TRIAL = "0" * 16, "1" * 16
# Means over references are 45, 30 and 20, the best 50, 30 and 30: over the dialogues 31.666667 and 36.666667.
PREDICTIONS = [prediction(0, (40.0, 50.0)), prediction(1, (30.0,)), prediction(2, (10.0, 20.0, 30.0))]
QUALITY = quality(31.666667, 36.666667)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A whole study of two completed runs and one that failed."""
    folder = StudyFolder.of(tmp_path, "small")
    store = RecordStore(folder)
    for record in (
        confirm(**FAILED),
        confirm(quality=QUALITY),
        trial(run_id=TRIAL, quality=QUALITY),
        trial(run_id="2" * 16, **FAILED),
    ):
        store.append(record)
    for run_id in (RUN, TRIAL):
        write_predictions(folder, run_id, PREDICTIONS)
    rows = [
        json.dumps({"id": each.id, "dialogue": each.dialogue, "references": each.references}, ensure_ascii=False)
        for each in EXAMPLES
    ]
    path = folder.examples("test", TEST_HASH)
    path.parent.mkdir()
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    write_frozen(folder, frozen())
    write_plan(folder, plan())
    return folder


def test_a_whole_study_has_no_fault(folder: StudyFolder) -> None:
    found = verify(folder)
    assert (found.records, found.runs, found.predictions, found.faults) == (4, 3, 2, ())


def test_dialogues_that_are_not_published_are_no_fault(folder: StudyFolder) -> None:
    folder.examples("test", TEST_HASH).unlink()
    assert verify(folder).faults == ()


def test_random_weights_have_predictions_without_scores(folder: StudyFolder) -> None:
    RecordStore(folder).append(confirm(model={**MODEL.model_dump(), "weights": "random"}, quality=None))
    write_predictions(folder, RUN, [prediction(number, scores=None) for number in range(3)])
    assert verify(folder).faults == ()


def tear_the_records(folder: StudyFolder) -> None:
    folder.records.write_bytes(folder.records.read_bytes() + b'{"torn')


def lose_predictions(folder: StudyFolder) -> None:
    folder.predictions(RUN).unlink()


def lose_a_prediction(folder: StudyFolder) -> None:
    write_predictions(folder, RUN, PREDICTIONS[:2])


def repeat_a_prediction(folder: StudyFolder) -> None:
    write_predictions(folder, RUN, [PREDICTIONS[0], PREDICTIONS[0], PREDICTIONS[2]])


def swap_predictions(folder: StudyFolder) -> None:
    write_predictions(folder, RUN, [PREDICTIONS[1], PREDICTIONS[0], PREDICTIONS[2]])


def damage_predictions(folder: StudyFolder) -> None:
    path = folder.predictions(RUN)
    path.write_bytes(path.read_bytes()[:-20])


def change_a_score(folder: StudyFolder) -> None:
    write_predictions(folder, RUN, [prediction(0, (40.0, 50.0003)), *PREDICTIONS[1:]])


def change_the_best_score(folder: StudyFolder) -> None:
    write_predictions(folder, RUN, [prediction(0, (30.0, 60.0)), *PREDICTIONS[1:]])


def drop_the_scores(folder: StudyFolder) -> None:
    write_predictions(folder, RUN, [prediction(0, scores=None), prediction(1, ()), PREDICTIONS[2]])


def forget_a_metric(folder: StudyFolder) -> None:
    RecordStore(folder).append(confirm(quality={key: value for key, value in QUALITY.items() if key != "rouge2_max"}))


def score_random_weights(folder: StudyFolder) -> None:
    RecordStore(folder).append(confirm(model={**MODEL.model_dump(), "weights": "random"}, quality=None))


def change_a_dialogue(folder: StudyFolder) -> None:
    path = folder.examples("test", TEST_HASH)
    path.write_text(path.read_text(encoding="utf-8").replace("hello 1", "hello 7"), encoding="utf-8")


def damage_the_dialogues(folder: StudyFolder) -> None:
    folder.examples("test", TEST_HASH).write_text('{"id": "d0"}\n')


def damage_the_freeze(folder: StudyFolder) -> None:
    folder.frozen.write_text("{")


def freeze_a_run_that_is_not_there(folder: StudyFolder) -> None:
    choice = frozen().choices[0].model_dump() | {"run_id": "f" * 16}
    write_frozen(folder, frozen(choices=[choice]))


def damage_the_plan(folder: StudyFolder) -> None:
    folder.plan.write_text("[]")


def leave_predictions_behind(folder: StudyFolder) -> None:
    write_predictions(folder, "e" * 16, PREDICTIONS)


CONFIRM = "run 0000000000000000 (lora, confirm): "
DAMAGE: list[tuple[Callable[[StudyFolder], None], str]] = [
    (tear_the_records, "records.jsonl, line 5: not a JSON object: torn or damaged"),
    (lose_predictions, f"{CONFIRM}ROOT/predictions/{RUN}.jsonl cannot be read: there is no such file"),
    (lose_a_prediction, f"{CONFIRM}2 predictions of 3 dialogues"),
    (repeat_a_prediction, f"{CONFIRM}a dialogue has two predictions"),
    (swap_predictions, f"{CONFIRM}its predictions are not those of the split's dialogues, in their order"),
    (damage_predictions, f"{CONFIRM}ROOT/predictions/{RUN}.jsonl, line 3: not a JSON object: torn or damaged"),
    (change_a_score, f"{CONFIRM}ROUGE-1 is recorded as 31.666667, its predictions give 31.666717"),
    (
        change_the_best_score,
        f"{CONFIRM}ROUGE-1 (best reference) is recorded as 36.666667, its predictions give 40.000000",
    ),
    (drop_the_scores, f"{CONFIRM}2 predictions have no rouge1 scores"),
    (forget_a_metric, f"{CONFIRM}ROUGE-2 (best reference) is not recorded, its predictions give 36.666667"),
    (score_random_weights, f"{CONFIRM}a run without quality has predictions with scores"),
    (change_a_dialogue, f"ROOT/examples/test-{TEST_HASH[:16]}.jsonl: its digest is "),
    (damage_the_dialogues, f"ROOT/examples/test-{TEST_HASH[:16]}.jsonl cannot be read: KeyError: 'dialogue'"),
    (damage_the_freeze, "ROOT/frozen.json: not a JSON object: torn or damaged"),
    (freeze_a_run_that_is_not_there, "frozen.json: the choice of lora comes from run ffffffffffffffff, which has no"),
    (damage_the_plan, "ROOT/plan.json: not a JSON object: torn or damaged"),
    (leave_predictions_behind, "ROOT/predictions/eeeeeeeeeeeeeeee.jsonl: predictions of a run that has no record"),
]


@pytest.mark.parametrize(("damage", "told"), DAMAGE, ids=[damage.__name__ for damage, _ in DAMAGE])
def test_damage_is_found_and_named(folder: StudyFolder, damage: Callable[[StudyFolder], None], told: str) -> None:
    damage(folder)
    faults = verify(folder).faults
    assert faults
    assert faults[0].replace(str(folder.root), "ROOT").startswith(told)


def test_the_command_says_that_a_whole_study_is_whole(folder: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "small", "--results", str(folder.root.parent)]) == 0
    assert capsys.readouterr().out == "4 records of 3 runs, 2 prediction files: 0 faults\n"


def test_the_command_lists_the_faults_a_line_each(folder: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    lose_predictions(folder)
    damage_the_plan(folder)
    assert main(["verify", "small", "--results", str(folder.root.parent)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[-1] == "4 records of 3 runs, 2 prediction files: 2 faults"


@pytest.mark.parametrize("study", ["", ".", "..", "small/", "other", "../small", "a\nb"])
def test_the_command_refuses_what_is_no_study_in_one_line(
    folder: StudyFolder, study: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", study, "--results", str(folder.root.parent)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"STUDY {study!r}: no such study in {folder.root.parent}; there are: small\n"


def test_the_command_fails_where_the_records_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    StudyFolder.of(tmp_path, "small").records.mkdir(parents=True)
    assert main(["verify", "small", "--results", str(tmp_path)]) == 1
    assert "records.jsonl cannot be read: Is a directory" in capsys.readouterr().err
