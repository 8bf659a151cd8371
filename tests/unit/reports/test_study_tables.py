"""The tables that a claim rests on: what their cells hold, and the runs behind them."""

from pathlib import Path
from typing import Any

import pytest

from reports.claiming import judge_claims
from reports.evidence import gather
from reports.study_tables import STUDY_TABLES, study_tables
from reports.tables import MISSING, Cell, Table
from results.layout import StudyFolder
from results.schema import Status
from results.store import RecordStore, read_records
from tests.unit.reports.records import CHOSEN, LORA, QLORA, SEEDS, ZERO_SHOT, Arm, claim, run_id, tuned_id, write_study
from tests.unit.reports.trial_scores import trial_id, write_tuned

FOUR: tuple[Status, ...] = ("completed",) * 4
ARMS = (ZERO_SHOT, Arm("lora", trial_statuses=FOUR), Arm("qlora", trial_statuses=FOUR))
SCORES = {"lora": [20.0, 10.0, 80.0, 40.0], "qlora": [10.0, 20.0, 40.0, 79.0]}


def tables_of(folder: StudyFolder) -> dict[str, Table]:
    evidence = gather(folder)
    return {table.name: table for table in study_tables(evidence, judge_claims(evidence))}


def made(results: Path, **changes: Any) -> dict[str, Table]:
    return tables_of(write_study(results, **changes))


def rows(table: Table, **where: str) -> list[dict[str, Cell]]:
    found = [dict(zip([column.header for column in table.columns], row, strict=True)) for row in table.rows]
    return [row for row in found if all(row[header].text == text for header, text in where.items())]


def row(table: Table, **where: str) -> dict[str, Cell]:
    (only,) = rows(table, **where)
    return only


def test_a_study_with_scores_has_every_table_in_order(tmp_path: Path) -> None:
    assert tuple(tables_of(write_tuned(tmp_path, SCORES, arms=ARMS))) == STUDY_TABLES


def test_random_weights_have_what_was_chosen_and_no_scores(tmp_path: Path) -> None:
    found = made(tmp_path, weights="random")
    assert tuple(found) == ("hyperparameters",)
    assert not any("validation" in column.header for column in found["hyperparameters"].columns)


# --- seeds ---


def test_every_seed_of_every_arm_has_its_scores_and_its_run(tmp_path: Path) -> None:
    table = made(tmp_path)["seeds"]
    assert [(cells[0].text, cells[1].text) for cells in table.rows] == [
        ("zero-shot", "0"),
        *(("lora", str(seed)) for seed in SEEDS),
        *(("qlora", str(seed)) for seed in SEEDS),
    ]
    first = row(table, arm="qlora", seed="12")
    assert first["ROUGE-1"] == Cell("40.00", (tuned_id("qlora", 12),))
    assert first["ROUGE-2"].text == "18.00"
    assert (first["dialogues"].text, first["status"].text) == ("40", "completed")
    assert first["run"].text == tuned_id("qlora", 12)


def test_a_seed_without_a_score_is_a_row_with_what_became_of_it(tmp_path: Path) -> None:
    folder = write_study(
        tmp_path, arms=(ZERO_SHOT, LORA, Arm("qlora", statuses={11: "out_of_memory", 12: "diverged"}, not_run=(13,)))
    )
    folder.predictions(tuned_id("qlora", 14)).unlink()
    table = tables_of(folder)["seeds"]
    said = [row(table, arm="qlora", seed=str(seed))["status"].text for seed in SEEDS]
    assert said == ["out_of_memory", "diverged", "not_run", "completed, but left out", "completed"]
    assert row(table, arm="qlora", seed="11")["ROUGE-1"] == Cell(MISSING)
    assert row(table, arm="qlora", seed="13")["status"].run_ids == ()


def test_a_repeat_of_a_scored_run_says_that_it_counts_no_more(tmp_path: Path) -> None:
    table = made(tmp_path, repeats=2)["seeds"]
    both = rows(table, arm="lora", seed="11")
    assert [item["status"].text for item in both] == ["completed", "completed, repeat of a scored run"]
    assert both[1]["ROUGE-1"].text == MISSING


# --- hyperparameters ---


def test_what_was_chosen_stands_with_its_score_trials_edges_and_reason(tmp_path: Path) -> None:
    table = made(tmp_path, edges=("learning_rate high", "rank low"))["hyperparameters"]
    only = row(table, arm="qlora")
    assert {header: cell.text for header, cell in only.items()} == {
        "arm": "qlora",
        "rank": "16",
        "alpha": "32",
        "learning rate": "0.0002",
        "validation ROUGE-L": "30.00",
        "trials": "2",
        "completed trials": "2",
        "at an edge of the space": "learning rate high, rank low",
        "chosen by": "best validation ROUGE-L",
    }
    assert only["rank"].run_ids == (run_id("tune", None, "qlora", 0, 0),)
    assert [cells[0].text for cells in table.rows] == ["lora", "qlora"]
    inside = row(made(tmp_path / "inside")["hyperparameters"], arm="lora")
    assert inside["at an edge of the space"].text == "no"


# --- estimands ---


def test_the_difference_stands_with_its_cross_check_and_the_gain_kept(tmp_path: Path) -> None:
    table = made(tmp_path, arms=(ZERO_SHOT, LORA, Arm("qlora", mean=38.2)))["estimands"]
    only = row(table, claim="qlora-matches-lora", metric="ROUGE-1")
    assert only["estimand"].text == "tuned against tuned"
    assert only["difference"].text == "-1.80"
    low, high = only["90% interval (bootstrap)"].text.strip("[]").split(", ")
    assert float(low) < -1.8 < float(high)
    assert only["gain kept"].text == "90.0"
    assert only["difference"].run_ids == tuple(tuned_id(arm, seed) for arm in ("qlora", "lora") for seed in SEEDS)


def test_drop_in_is_a_row_of_its_own_with_its_own_runs(tmp_path: Path) -> None:
    table = made(tmp_path, claims=(claim(drop_in=True),), drop_in={CHOSEN: 39.0})["estimands"]
    tuned, drop_in = table.rows
    assert (tuned[2].text, drop_in[2].text) == ("tuned against tuned", "drop-in (secondary)")
    assert drop_in[3].text == "-1.00"
    ids = tuple(run_id("confirm", "drop_in", "qlora", seed, None, CHOSEN) for seed in SEEDS)
    assert drop_in[3].run_ids == (*ids, *(tuned_id("lora", seed) for seed in SEEDS))


def test_without_a_gain_there_is_no_share_of_it(tmp_path: Path) -> None:
    arms = (Arm("zero-shot", method="none", mean=41.0, zero_shot=None), LORA, QLORA)
    only = row(made(tmp_path, arms=arms)["estimands"], metric="ROUGE-1")
    assert (only["gain kept"].text, only["gain kept, 95% interval"].text) == (MISSING, MISSING)


# --- power ---


def test_the_components_and_the_power_of_a_claim_are_those_of_its_comparison(tmp_path: Path) -> None:
    evidence = gather(write_study(tmp_path, arms=(ZERO_SHOT, LORA, Arm("qlora", not_run=(15,))), residual=9.0))
    claims = judge_claims(evidence)
    (table,) = [table for table in study_tables(evidence, claims) if table.name == "power"]
    item, only = claims[0].metrics[0], row(table, metric="ROUGE-1")
    assert item.comparison is not None
    assert only["σ residual"].text == f"{item.comparison.components.sigma_residual:.2f}"
    assert only["degrees of freedom"].text == f"{item.comparison.dof:.1f}"
    counts = ("seeds of the candidate", "seeds of the reference", "dialogues", "margin")
    assert [only[header].text for header in counts] == ["4", "5", "40", "1"]
    assert only["power"].text == f"{100 * (item.power or 0):.0f}"
    assert only["smallest margin"].text == f"{item.comparison.smallest_margin:.2f}"
    assert (only["seeds needed"].text == MISSING) != (only["dialogues needed"].text == MISSING)


def test_a_claim_without_a_comparison_has_no_row(tmp_path: Path) -> None:
    unfit = Arm("qlora", statuses=dict.fromkeys(SEEDS, "out_of_memory"))
    found = made(tmp_path, arms=(ZERO_SHOT, LORA, unfit))
    assert "power" not in found
    assert "estimands" not in found
    assert len(rows(found["seeds"], status="out_of_memory")) == 5


# --- sensitivity and expected performance ---


def test_the_sensitivity_has_a_column_for_each_configuration_of_the_reference(tmp_path: Path) -> None:
    folder = write_tuned(tmp_path, SCORES, arms=ARMS, claims=(claim(metrics=("rougeL",)),))
    table = tables_of(folder)["sensitivity"]
    texts = [[cell.text for cell in cells] for cells in table.rows]
    # lora 80, 40, 20; qlora 79, 40, 20.
    assert texts == [
        ["qlora-matches-lora", "ROUGE-L", "1", "-1.00", "+39.00", "+59.00", "119.00"],
        ["qlora-matches-lora", "ROUGE-L", "2", "-40.00", "+0.00", "+20.00", "119.00"],
        ["qlora-matches-lora", "ROUGE-L", "3", "-60.00", "-20.00", "+0.00", "119.00"],
    ]
    assert table.rows[0][3].run_ids == (trial_id("qlora", 3), trial_id("lora", 2))


def test_the_expected_performance_is_printed_at_powers_of_two(tmp_path: Path) -> None:
    table = tables_of(write_tuned(tmp_path, SCORES, arms=ARMS))["expected"]
    lora = rows(table, arm="lora")
    assert [item["trials"].text for item in lora] == ["1", "2", "4"]
    assert [item["expected best validation ROUGE-L"].text for item in lora] == ["37.50", "51.88", "66.05"]
    assert [item["training"].text for item in lora] == ["250.0", "500.0", "1000.0"]
    assert lora[0]["trials"].run_ids == ()
    assert lora[0]["training"].run_ids == tuple(trial_id("lora", trial) for trial in range(4))


def test_an_arm_without_a_curve_is_told_below_the_table(tmp_path: Path) -> None:
    pruned = Arm("qlora", trial_statuses=("completed", "pruned", "completed", "completed"))
    table = tables_of(write_tuned(tmp_path, {"lora": SCORES["lora"]}, arms=(*ARMS[:2], pruned)))["expected"]
    assert rows(table, arm="qlora") == []
    assert table.caption.endswith("Without a curve: qlora: 1 of 4 trials of the block were pruned.")


@pytest.mark.parametrize("name", STUDY_TABLES)
def test_same_records_give_the_same_table(tmp_path: Path, name: str) -> None:
    folder = write_tuned(tmp_path, SCORES, arms=ARMS)
    assert tables_of(folder)[name] == tables_of(folder)[name]


def test_runs_left_out_of_the_trials_are_in_no_curve(tmp_path: Path) -> None:
    folder = write_tuned(tmp_path, SCORES, arms=ARMS)
    record = read_records(folder).last[trial_id("qlora", 3)]
    RecordStore(folder).append(record.model_copy(update={"prompt_hash": "11" * 8}))
    assert "not comparable with the rest" in tables_of(folder)["expected"].caption
