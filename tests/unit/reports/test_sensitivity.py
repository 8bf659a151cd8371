"""How far a claim hangs on the choice of hyperparameters: the best three of each arm, on validation records alone."""

from pathlib import Path
from typing import Any

import pytest

from reports.evidence import gather
from reports.sensitivity import Sensitivity, best_configurations, sensitivities
from results.schema import Status
from results.store import RecordStore, read_frozen, read_records, write_frozen
from tests.unit.reports.records import ZERO_SHOT, Arm, claim
from tests.unit.reports.trial_scores import RATES, add_trial, trial_id, write_tuned

FOUR: tuple[Status, ...] = ("completed",) * 4
ARMS = (ZERO_SHOT, Arm("lora", trial_statuses=FOUR), Arm("qlora", trial_statuses=FOUR))
SCORES = {"lora": [30.0, 28.0, 31.0, 20.0], "qlora": [29.5, 10.0, 27.0, 30.5]}


def found(results: Path, **changes: Any) -> tuple[Sensitivity, ...]:
    return sensitivities(gather(write_tuned(results, SCORES, arms=ARMS, **changes)))


def test_each_of_the_best_three_stands_against_each(tmp_path: Path) -> None:
    (only,) = found(tmp_path, claims=(claim(metrics=("rougeL",)),))
    # Best first: lora 31, 30, 28; qlora 30.5, 29.5, 27.
    differences = {(pair.candidate.rank_in_arm, pair.reference.rank_in_arm): pair.difference for pair in only.pairs}
    assert differences == pytest.approx(
        {
            **{(1, 1): -0.5, (1, 2): 0.5, (1, 3): 2.5},
            **{(2, 1): -1.5, (2, 2): -0.5, (2, 3): 1.5},
            **{(3, 1): -4.0, (3, 2): -3.0, (3, 3): -1.0},
        }
    )
    assert only.spread == pytest.approx(6.5)
    first = only.pairs[0]
    assert first.run_ids == (trial_id("qlora", 3), trial_id("lora", 2))
    assert (first.candidate.learning_rate, first.reference.learning_rate) == (RATES[3], RATES[2])


def test_every_metric_of_a_claim_is_its_own_and_no_test_score_is_looked_at(tmp_path: Path) -> None:
    folder = write_tuned(tmp_path, SCORES, arms=ARMS, claims=(claim(metrics=("rouge1", "rougeL")),))
    before = sensitivities(gather(folder))
    assert [item.metric for item in before] == ["rouge1", "rougeL"]
    assert before[0].pairs[0].candidate.scores["rouge1"] == pytest.approx(32.5)
    for path in folder.root.glob("predictions/*"):
        path.unlink()
    assert sensitivities(gather(folder)) == before
    used = {run_id for item in before for pair in item.pairs for run_id in pair.run_ids}
    assert used <= {record.run_id for record in gather(folder).last.values() if record.split == "validation"}


def test_a_set_that_was_run_again_has_the_mean_over_its_seeds(tmp_path: Path) -> None:
    folder = write_tuned(tmp_path, SCORES, arms=ARMS, claims=(claim(metrics=("rougeL",)),))
    again = [add_trial(folder, "qlora", 3, value, seed=seed) for seed, value in ((7, 28.5), (8, 27.5))]
    evidence = gather(folder)
    best = best_configurations(evidence, evidence.arms[2])[0]
    assert best.scores["rougeL"] == pytest.approx((30.5 + 28.5 + 27.5) / 3)
    assert best.run_ids == (trial_id("qlora", 3), *again)


def test_what_was_chosen_is_first_also_where_more_seeds_overtook_the_trials_order(tmp_path: Path) -> None:
    folder = write_tuned(tmp_path, SCORES, arms=ARMS)
    frozen = read_frozen(folder)
    assert frozen is not None
    lora, qlora = frozen.choices
    write_frozen(
        folder, frozen.model_copy(update={"choices": (lora, qlora.model_copy(update={"run_id": trial_id("qlora", 0)}))})
    )
    evidence = gather(folder)
    ranks = [(item.rank_in_arm, item.run_ids) for item in best_configurations(evidence, evidence.arms[2])]
    assert ranks == [(place + 1, (trial_id("qlora", trial),)) for place, trial in enumerate((0, 3, 2))]


def test_a_trial_that_is_not_comparable_keeps_its_place_and_stands_against_nothing(tmp_path: Path) -> None:
    folder = write_tuned(tmp_path, SCORES, arms=ARMS, claims=(claim(metrics=("rougeL",)),))
    record = read_records(folder).last[trial_id("qlora", 0)]
    RecordStore(folder).append(record.model_copy(update={"prompt_hash": "11" * 8}))
    (only,) = sensitivities(gather(folder))
    assert {pair.candidate.rank_in_arm for pair in only.pairs} == {1, 3}
    assert len(only.pairs) == 6


def test_an_arm_with_one_configuration_has_no_spread_to_tell(tmp_path: Path) -> None:
    arms = (ZERO_SHOT, *(Arm(name, trial_statuses=("completed",)) for name in ("lora", "qlora")))
    folder = write_tuned(tmp_path, {"lora": [30.0], "qlora": [29.0]}, arms=arms)
    (only,) = sensitivities(gather(folder))
    assert [pair.difference for pair in only.pairs] == pytest.approx([-1.0])
    assert only.spread == 0.0


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"frozen": False}, id="before-the-freeze"),
        pytest.param({"weights": "random"}, id="random-weights"),
        pytest.param({"claims": ()}, id="no-claim"),
        pytest.param({"claims": (claim(reference="gone"),)}, id="no-such-arm"),
        pytest.param({"claims": (claim(candidate="zero-shot"),)}, id="nothing-was-tuned"),
    ],
)
def test_where_there_is_nothing_to_compare_there_is_no_sensitivity(tmp_path: Path, changes: dict[str, Any]) -> None:
    scores = {} if "weights" in changes or "frozen" in changes else SCORES
    assert sensitivities(gather(write_tuned(tmp_path, scores, arms=ARMS, **changes))) == ()
