"""What the page's reader of predictions holds, and what it leaves out."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from reports.claiming import judge_claims
from reports.evidence import gather
from reports.page_predictions import Reading, read_reading, reading_data
from results.layout import StudyFolder
from results.store import read_predictions, write_predictions
from study.examples import Example, digest
from tests.unit.reports.records import (
    CHOSEN,
    LORA,
    QLORA,
    SEEDS,
    TEST_HASH,
    ZERO_SHOT,
    Arm,
    claim,
    tuned_id,
    write_study,
)
from tests.unit.reports.test_elsewhere import add


def reading(folder: StudyFolder, limit: int = 200) -> Reading:
    evidence = gather(folder)
    return read_reading(folder, evidence, judge_claims(evidence), limit)


def examples(count: int) -> list[Example]:
    return [
        Example(f"dialogue-{number}", f"#Person1#: Hello {number}.\n#Person2#: Bye.", (f"one {number}", "two", "three"))
        for number in range(count)
    ]


def with_examples(folder: StudyFolder, written: Sequence[Example], named: str | None = None) -> StudyFolder:
    """Puts the examples file of the test split beside a study, whose records come to name it."""
    name = named or digest(written)
    for path in (folder.records, folder.plan, folder.frozen):
        path.write_text(path.read_text().replace(TEST_HASH, name))
    path = folder.examples("test", name)
    path.parent.mkdir()
    rows = [{"id": each.id, "dialogue": each.dialogue, "references": each.references} for each in written]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_each_arm_is_shown_by_the_run_of_its_lowest_seed(tmp_path: Path) -> None:
    folder = write_study(tmp_path, arms=(ZERO_SHOT, LORA, replace(QLORA, statuses={11: "failed"})))
    found = reading(folder)
    assert [(system.arm, system.seed, system.seeds) for system in found.systems] == [
        ("zero-shot", 0, 1),
        ("lora", 11, 5),
        ("qlora", 12, 4),
    ]
    assert [system.run_id for system in found.systems[1:]] == [tuned_id("lora", 11), tuned_id("qlora", 12)]
    assert len(found.dialogues) == 40
    assert found.left_out == 0


def test_damaged_predictions_of_one_seed_give_way_to_the_next(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    folder.predictions(tuned_id("lora", 11)).write_text("{")
    assert [system.seed for system in reading(folder).systems] == [0, 12, 11]


def test_an_arm_without_a_completed_run_is_not_in_the_reader(tmp_path: Path) -> None:
    unfit = Arm("big", statuses=dict.fromkeys(SEEDS, "out_of_memory"))
    folder = write_study(tmp_path, arms=(LORA, unfit), claims=(claim(candidate="big"),))
    found = reading(folder)
    assert [system.arm for system in found.systems] == ["lora"]
    assert found.contrasts == ()


def test_scores_are_the_shown_runs_and_means_are_over_seeds(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    evidence = gather(folder)
    arm = evidence.arm("lora")
    assert arm is not None
    assert arm.scored is not None
    found = reading(folder)
    for dialogue in found.dialogues:
        place = arm.scored.example_ids.index(dialogue.id)
        summary = dialogue.summaries[1]
        assert summary is not None
        assert summary.scores == pytest.approx(
            [arm.scored.scores[key][0, place] for key in ("rouge1", "rouge2", "rougeL")]
        )
        assert summary.mean is not None
        assert summary.mean[0] == pytest.approx(arm.scored.scores["rouge1"][:, place].mean())
    zero_shot = found.dialogues[0].summaries[0]
    assert zero_shot is not None
    # One seed has no mean over seeds.
    assert zero_shot.mean is None


def test_the_most_different_dialogues_of_the_claim_are_kept_and_the_others_counted(tmp_path: Path) -> None:
    folder = write_study(tmp_path, claims=(claim(metrics=("rougeL",)),))
    whole, some = reading(folder), reading(folder, limit=7)
    (contrast,) = some.contrasts
    assert (some.systems[contrast.candidate].arm, some.systems[contrast.reference].arm) == ("qlora", "lora")
    assert contrast.metric == 2

    def apart(found: Reading) -> list[float]:
        pairs = [(item.summaries[contrast.candidate], item.summaries[contrast.reference]) for item in found.dialogues]
        return [abs(a.scores[2] - b.scores[2]) for a, b in pairs if a and b and a.scores and b.scores]

    assert apart(some) == sorted(apart(whole), reverse=True)[:7]
    assert (len(some.dialogues), some.left_out) == (7, 33)


def test_without_a_claim_dialogues_are_ordered_by_how_far_the_arms_lie_apart(tmp_path: Path) -> None:
    found = reading(write_study(tmp_path, claims=()))
    spreads = []
    for dialogue in found.dialogues:
        scores = [summary.scores[0] for summary in dialogue.summaries if summary and summary.scores]
        spreads.append(max(scores) - min(scores))
    assert spreads == sorted(spreads, reverse=True)


def test_drop_in_runs_do_not_stand_for_the_tuned_arm(tmp_path: Path) -> None:
    folder = write_study(tmp_path, claims=(claim(drop_in=True),), drop_in={CHOSEN: 30.0})
    assert [system.run_id for system in reading(folder).systems][2] == tuned_id("qlora", 11)


def test_dialogues_and_references_come_from_the_file_that_the_runs_were_scored_on(tmp_path: Path) -> None:
    folder = with_examples(write_study(tmp_path), examples(40))
    found = reading(folder)
    assert found.without_text is None
    assert all(item.example is not None and item.example.id == item.id for item in found.dialogues)
    first = reading_data(found)["dialogues"][0]
    assert first["dialogue"].count("\n") == 1
    assert len(first["references"]) == 3


def test_a_published_study_says_that_its_dialogues_are_not_there(tmp_path: Path) -> None:
    found = reading(write_study(tmp_path))
    assert found.without_text == (
        "The dialogues and references are not in this copy of the study: their text is never published."
    )
    assert reading_data(found)["dialogues"][0]["dialogue"] is None


def test_dialogues_that_the_runs_were_not_scored_on_are_not_shown(tmp_path: Path) -> None:
    folder = with_examples(write_study(tmp_path), examples(40), named=TEST_HASH)
    found = reading(folder)
    assert found.without_text is not None
    assert "holds others than the runs were scored on" in found.without_text
    assert all(item.example is None for item in found.dialogues)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"id": 1}', '{"id": "a", "dialogue": "", "references": ["x"]}', "\udcff"]
)
def test_a_damaged_file_of_dialogues_is_said_and_not_shown(tmp_path: Path, content: str) -> None:
    folder = write_study(tmp_path)
    path = folder.examples("test", TEST_HASH)
    path.parent.mkdir()
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    found = reading(folder)
    assert found.without_text == "The file of dialogues and references is damaged, and is not shown."


def test_random_weights_are_read_without_scores_in_the_splits_order(tmp_path: Path) -> None:
    found = reading(write_study(tmp_path, weights="random"))
    assert [item.id for item in found.dialogues] == [f"dialogue-{number}" for number in range(40)]
    data = reading_data(found)
    assert data["metrics"] == []
    assert data["dialogues"][0]["summaries"][0][1:] == [None, None, []]


def test_remarks_tell_what_became_of_a_summary(tmp_path: Path) -> None:
    folder = write_study(tmp_path, arms=(LORA,), claims=())
    run = tuned_id("lora", 11)
    first, *others = read_predictions(folder, run)
    changed = first.model_copy(update={"prediction": " \n", "hit_limit": True, "truncated": True})
    write_predictions(folder, run, [changed, *others])
    (summary,) = next(item.summaries for item in reading(folder).dialogues if item.id == first.example_id)
    assert summary is not None
    assert summary.remarks == ("empty", "stopped at the length limit", "its dialogue was cut")


def test_a_text_without_end_is_cut_and_the_page_does_not_grow_with_it(tmp_path: Path) -> None:
    folder = write_study(tmp_path, arms=(LORA, QLORA), claims=(), dialogues=500, prediction="word " * 10_000)
    found = reading(folder)
    assert 100 < len(found.dialogues) <= 200
    assert len(found.dialogues) + found.left_out == 500
    text = reading_data(found)["dialogues"][0]["summaries"][0][0]
    assert len(text) == 6000
    assert text.endswith("…")


def test_a_reader_of_no_runs_is_empty(tmp_path: Path) -> None:
    folder = write_study(tmp_path, frozen=False, arms=(LORA,))
    assert reading(folder) == Reading()


def test_a_system_from_elsewhere_is_read_beside_the_arms(tmp_path: Path) -> None:
    folder = write_study(tmp_path, claims=(claim(candidate="external/pegasus"),))
    runs = [add(folder, seed=seed) for seed in (4, 2, 3)]
    found = reading(folder)
    assert (found.systems[-1].arm, found.systems[-1].run_id, found.systems[-1].seeds) == (
        "external/pegasus",
        runs[1].run_id,
        3,
    )
    assert found.contrasts[0].candidate == len(found.systems) - 1
    summary = found.dialogues[0].summaries[-1]
    assert summary is not None
    assert summary.text == "from elsewhere"
    assert summary.scores != summary.mean


def test_a_system_that_was_scored_on_other_dialogues_is_not_in_the_reader(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    add(folder, test_hash="12" * 32)
    assert [system.arm for system in reading(folder).systems] == ["zero-shot", "lora", "qlora"]
