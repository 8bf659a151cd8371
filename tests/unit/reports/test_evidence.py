"""Which records count, which are left out, and what the score matrices hold."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports.evidence import Evidence, Hyperparameters, NoStudy, gather
from reports.scores import Unscored
from results.layout import StudyFolder
from results.store import RecordStore, read_predictions, read_records, write_predictions
from tests.unit.reports.records import (
    GIB,
    LORA,
    PACKAGES,
    QLORA,
    SEEDS,
    ZERO_SHOT,
    Arm,
    claim,
    run_id,
    tuned_id,
    write_study,
)


def gathered(results: Path, **changes: Any) -> Evidence:
    return gather(write_study(results, **changes))


def test_a_score_is_the_mean_over_references_of_f_in_points(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    scored = gather(folder).arms[1].scored
    assert scored is not None
    assert scored.seeds == SEEDS
    assert scored.scores["rouge1"].shape == (5, 40)
    first = read_predictions(folder, tuned_id("lora", 11))[0].scores
    assert first is not None
    assert scored.scores["rouge1"][0, 0] == pytest.approx(np.mean([triple[2] for triple in first["rouge1"]]))
    assert scored.scores["rouge1"].mean() == pytest.approx(40.0)


def test_only_completed_confirm_runs_on_the_test_split_are_scored(tmp_path: Path) -> None:
    scored = gathered(tmp_path).arms[1].scored
    assert scored is not None
    assert scored.run_ids == tuple(tuned_id("lora", seed) for seed in SEEDS)


def test_a_zero_shot_arm_is_scored_by_its_run_on_the_test_split_alone(tmp_path: Path) -> None:
    evidence = gathered(tmp_path)
    assert len([run for run in evidence.plan.runs if run.arm == "zero-shot"]) == 2
    assert evidence.arms[0].run_ids == (run_id("baseline", None, "zero-shot", 0, None),)
    assert evidence.arms[0].test_statuses == {"completed": 1}


def test_the_last_record_of_a_run_counts(tmp_path: Path) -> None:
    folder = write_study(tmp_path, arms=(ZERO_SHOT, LORA, Arm("qlora", statuses={13: "failed"})))
    failed = read_records(folder).last[tuned_id("qlora", 13)]
    RecordStore(folder).append(failed.model_copy(update={"status": "killed"}))
    arm = gather(folder).arms[2]
    assert arm.test_statuses == {"completed": 4, "killed": 1}
    assert arm.missing_seeds == {13: "killed"}


def test_runs_that_the_grid_no_longer_asks_for_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    extra = read_records(folder).last[tuned_id("lora", 11)].model_copy(update={"run_id": "0" * 16, "seed": 99})
    RecordStore(folder).append(extra)
    evidence = gather(folder)
    assert [(item.reason, item.run_ids) for item in evidence.left_out] == [
        ("the grid no longer asks for them", ("0" * 16,))
    ]
    scored = evidence.arms[1].scored
    assert scored is not None
    assert 99 not in scored.seeds


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (Arm("qlora", gpu="Other GPU"), "device Other GPU"),
        (Arm("qlora", packages=PACKAGES | {"torch": "2.8.0"}), "torch 2.8.0"),
    ],
)
def test_records_of_another_machine_or_version_are_not_joined_silently(
    tmp_path: Path, changed: Arm, named: str
) -> None:
    evidence = gathered(tmp_path, arms=(ZERO_SHOT, LORA, changed))
    left_out, trials = evidence.left_out
    assert named in left_out.reason
    assert left_out.run_ids == tuple(tuned_id("qlora", seed) for seed in SEEDS)
    assert named in trials.reason
    assert trials.reason.startswith("validation runs not comparable with the rest")
    assert trials.run_ids == tuple(run_id("tune", None, "qlora", 0, trial) for trial in (0, 1))
    assert not set(trials.run_ids) & {record.run_id for record in evidence.validation}
    assert evidence.arms[2].scored is None
    assert evidence.arms[2].memory is None
    assert evidence.arms[1].scored is not None


def test_another_release_of_the_same_driver_is_comparable(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    record = read_records(folder).last[tuned_id("qlora", 11)]
    environment = record.environment | {"driver": "580.99.1"}
    RecordStore(folder).append(record.model_copy(update={"environment": environment}))
    assert gather(folder).left_out == ()


def test_runs_on_different_dialogues_spoil_their_arm(tmp_path: Path) -> None:
    arm = gathered(tmp_path, arms=(ZERO_SHOT, LORA, Arm("qlora", other_dialogues=(12,)))).arms[2]
    assert arm.test == Unscored("has runs that were scored on different dialogues")


def test_a_run_without_its_predictions_is_a_missing_seed(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    folder.predictions(tuned_id("qlora", 14)).unlink()
    evidence = gather(folder)
    scored = evidence.arms[2].scored
    assert scored is not None
    assert scored.seeds == (11, 12, 13, 15)
    assert [item.run_ids for item in evidence.left_out] == [(tuned_id("qlora", 14),)]
    assert "missing or damaged" in evidence.left_out[0].reason


def test_predictions_that_hold_a_dialogue_twice_or_lack_scores_are_not_used(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    twice = read_predictions(folder, tuned_id("qlora", 11))
    write_predictions(folder, tuned_id("qlora", 11), [*twice, twice[0]])
    bare = [item.model_copy(update={"scores": {}}) for item in read_predictions(folder, tuned_id("qlora", 12))]
    write_predictions(folder, tuned_id("qlora", 12), bare)
    evidence = gather(folder)
    scored = evidence.arms[2].scored
    assert scored is not None
    assert scored.seeds == (13, 14, 15)
    assert {item.reason for item in evidence.left_out} == {
        "their predictions hold a dialogue twice",
        "their predictions lack scores",
    }


def test_random_weights_have_memory_but_no_scores(tmp_path: Path) -> None:
    arm = gathered(tmp_path, weights="random").arms[1]
    assert arm.scored is None
    assert arm.test == Unscored("has random weights, which have no scores")
    assert arm.memory is not None


def test_memory_is_the_median_and_range_over_seeds_of_the_phase_that_decides(tmp_path: Path) -> None:
    evidence = gathered(tmp_path)
    memory = evidence.arms[1].memory
    assert memory is not None
    assert memory.on_gpu
    # Seeds 11 to 15 add 0.01, 0.02, 0.03, 0.04 and 0 GiB.
    assert memory.median_bytes == int(9.62 * GIB)
    assert (memory.low_bytes, memory.high_bytes) == (int(9.6 * GIB), int(9.64 * GIB))
    assert evidence.arms[0].memory is not None


def test_without_a_gpu_memory_is_resident_memory_and_says_so(tmp_path: Path) -> None:
    arms = [Arm(arm.name, method=arm.method, zero_shot=arm.zero_shot, gpu=None) for arm in (ZERO_SHOT, LORA, QLORA)]
    evidence = gathered(tmp_path, arms=arms)
    memory = evidence.arms[1].memory
    assert memory is not None
    assert not evidence.on_gpu
    assert memory.median_bytes == 3 * GIB


def test_one_reading_that_is_missing_does_not_turn_into_another_kind_of_memory(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    for seed in SEEDS:
        record = read_records(folder).last[tuned_id("qlora", seed)]
        train = record.memory.train.model_copy(update={"allocated_bytes": None}) if record.memory.train else None
        memory = record.memory.model_copy(update={"train": train})
        RecordStore(folder).append(record.model_copy(update={"memory": memory}))
    assert gather(folder).arms[2].memory is None


def test_an_arm_did_not_fit_only_where_no_test_run_completed(tmp_path: Path) -> None:
    all_too_large = Arm("qlora", statuses=dict.fromkeys(SEEDS, "out_of_memory"))
    assert gathered(tmp_path / "a", arms=(LORA, all_too_large)).arms[1].did_not_fit
    one = Arm("qlora", statuses={11: "out_of_memory"})
    assert not gathered(tmp_path / "b", arms=(LORA, one)).arms[1].did_not_fit
    one_trial = Arm("qlora", trial_statuses=("out_of_memory", "completed"))
    assert not gathered(tmp_path / "c", arms=(LORA, one_trial), frozen=False).arms[1].did_not_fit
    every_trial = Arm("qlora", trial_statuses=("out_of_memory", "out_of_memory"))
    assert gathered(tmp_path / "d", arms=(LORA, every_trial), frozen=False).arms[1].did_not_fit


def test_drop_in_runs_for_different_references_are_kept_apart(tmp_path: Path) -> None:
    drop_in = {(8, 16, 1e-4): 39.0, (32, 64, 3e-4): 37.0}
    arm = gathered(tmp_path, claims=(claim(drop_in=True),), drop_in=drop_in).arms[2]
    means = {
        key.rank: scored.scores["rouge1"].mean()
        for key, scored in arm.drop_in.items()
        if not isinstance(scored, Unscored)
    }
    assert means == pytest.approx({8: 39.0, 32: 37.0})
    assert Hyperparameters(8, 16, 1e-4) in arm.drop_in
    assert arm.run_ids == tuple(tuned_id("qlora", seed) for seed in SEEDS)
    assert arm.scored is not None
    assert arm.scored.scores["rouge1"].mean() == pytest.approx(40.0)


def test_damaged_lines_are_told_and_nothing_else_is_lost(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    with open(folder.records, "ab") as file:
        file.write(b'{"schema_version": 1, "run_id": "tor')
    evidence = gather(folder)
    assert len(evidence.damaged) == 1
    assert "torn or damaged" in evidence.damaged[0]
    assert evidence.arms[2].scored is not None


def test_planned_runs_without_a_record_are_known(tmp_path: Path) -> None:
    evidence = gathered(tmp_path, arms=(ZERO_SHOT, LORA, Arm("qlora", not_run=(14, 15))))
    assert [run.seed for run in evidence.not_run] == [14, 15]
    assert evidence.arms[2].test_statuses == {"completed": 3, "not_run": 2}


def test_a_study_in_which_nothing_fitted_was_on_a_gpu_all_the_same(tmp_path: Path) -> None:
    unfit = Arm("lora", statuses=dict.fromkeys(SEEDS, "out_of_memory"))
    assert gathered(tmp_path / "gpu", arms=(unfit,), claims=()).on_gpu
    assert not gathered(tmp_path / "cpu", arms=(replace(unfit, gpu=None),), claims=()).on_gpu


def test_random_weights_are_known_before_and_after_the_freeze(tmp_path: Path) -> None:
    assert gathered(tmp_path / "a", weights="random").random_weights
    assert gathered(tmp_path / "b", weights="random", frozen=False).random_weights
    assert not gathered(tmp_path / "c").random_weights
    assert not gathered(tmp_path / "d", arms=(), claims=(), frozen=False).random_weights


def test_a_study_without_a_plan_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(NoStudy, match=r"no plan\.json"):
        gather(StudyFolder.of(tmp_path, "nothing"))
