"""Tables of what was measured: memory, its parts, forecasts, cost and repeats, from runs whose truth is known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reports.evidence import Evidence, gather
from reports.measured_tables import PARTS, breakdown_table, cost_table, memory_table
from reports.numbers import numbers_tex
from reports.run_tables import forecast_table, repeats_table
from reports.tables import MISSING, Cell, Table, main_table, verdict_table
from results.layout import StudyFolder
from results.schema import Breakdown, Record
from results.store import RecordStore, read_records
from tests.unit.reports import records as simulated
from tests.unit.reports.records import (
    GIB,
    LORA,
    QLORA,
    SEEDS,
    ZERO_SHOT,
    Arm,
    Card,
    claim,
    tuned_id,
    write_study,
)

ON_CARD = (replace(ZERO_SHOT, card=Card()), replace(LORA, card=Card()), replace(QLORA, card=Card(parts=None)))
ON_CPU = tuple(replace(arm, gpu=None) for arm in (ZERO_SHOT, LORA, QLORA))
LORA_IDS = tuple(tuned_id("lora", seed) for seed in SEEDS)


def too_large(name: str = "lora-fp32", **card: Any) -> Arm:
    """An arm none of whose confirm runs fits."""
    return Arm(name, precision="fp32", card=Card(**card), statuses=dict.fromkeys(SEEDS, "out_of_memory"))


def evidence(results: Path, *arms: Arm, **changes: Any) -> Evidence:
    return gather(write_study(results, arms=arms or ON_CARD, **changes))


def changed(folder: StudyFolder, which: str, **update: Any) -> None:
    """Writes a run's record again, with other values."""
    record = read_records(folder).last[which]
    RecordStore(folder).append(Record.model_validate(record.model_dump() | update))


def headers(table: Table) -> list[str]:
    return [column.header for column in table.columns]


def rows(table: Table, **where: str) -> list[dict[str, Cell]]:
    """The rows with these texts, as cells by header."""
    found = [dict(zip(headers(table), row, strict=True)) for row in table.rows]
    return [row for row in found if all(row[header].text == text for header, text in where.items())]


def row(table: Table, **where: str) -> dict[str, Cell]:
    (only,) = rows(table, **where)
    return only


def texts(cells: dict[str, Cell], *wanted: str) -> list[str]:
    return [cells[header].text for header in wanted]


# --- memory ---


def test_memory_has_a_row_for_each_arm_and_phase_that_it_has(tmp_path: Path) -> None:
    table = memory_table(evidence(tmp_path))
    phases = ("load", "prepare", "train", "evaluate")
    assert [(cells[0].text, cells[1].text) for cells in table.rows] == [
        *(("zero-shot", phase) for phase in ("load", "prepare", "evaluate")),
        *(("lora", phase) for phase in phases),
        *(("qlora", phase) for phase in phases),
    ]


def test_memory_of_a_phase_is_the_median_over_fresh_runs_in_gib(tmp_path: Path) -> None:
    table = memory_table(evidence(tmp_path))
    # Seeds 11 to 15 add 0.01, 0.02, 0.03, 0.04 and 0 GiB to 9.6.
    train = row(table, arm="lora", phase="train")
    assert train["allocated"] == Cell("9.620", LORA_IDS)
    assert texts(train, "reserved", "process (NVML)", "device above baseline", "host RSS") == [
        "10.120",
        "10.620",
        "10.870",
        "3.000",
    ]
    assert texts(train, "outcome", "source", "runs") == ["completed", "process", "5"]
    assert row(table, arm="lora", phase="load")["allocated"].text == "4.800"
    assert [column.title for column in table.columns][3] == "allocated, GiB"


def test_a_reading_that_one_run_lacks_is_left_to_the_others_and_is_no_0(tmp_path: Path) -> None:
    folder = write_study(tmp_path, arms=ON_CARD)
    train = read_records(folder).last[tuned_id("lora", 14)].memory.train
    assert train is not None
    memory = {"train": train.model_dump() | {"process_bytes": None}}
    changed(folder, tuned_id("lora", 14), memory=memory)
    cells = row(memory_table(gather(folder)), arm="lora", phase="train")
    # Of 10.61, 10.62, 10.63 and 10.60.
    assert cells["process (NVML)"].text == "10.615"
    assert tuned_id("lora", 14) not in cells["process (NVML)"].run_ids
    assert cells["runs"].text == "5"
    assert row(memory_table(gather(folder)), arm="lora", phase="load")["runs"].text == "4"


def test_memory_without_a_gpu_is_resident_memory_alone(tmp_path: Path) -> None:
    table = memory_table(evidence(tmp_path, *ON_CPU))
    assert headers(table) == ["arm", "phase", "outcome", "host RSS", "source", "runs"]
    assert row(table, arm="qlora", phase="train")["host RSS"].text == "3.000"
    assert "without a GPU" in table.caption


def test_an_arm_that_did_not_fit_shows_the_phase_its_peaks_and_the_limit(tmp_path: Path) -> None:
    table = memory_table(evidence(tmp_path, *ON_CARD, too_large(limit=8.0, reached=7.5, phase="prepare")))
    cells = row(table, arm="lora-fp32")
    assert texts(cells, "phase", "outcome", "allocated", "reserved", "memory limit", "runs") == [
        "prepare",
        "did not fit",
        "7.500",
        "8.000",
        "8.000",
        "5",
    ]
    assert cells["outcome"].run_ids == tuple(tuned_id("lora-fp32", seed) for seed in SEEDS)
    assert row(table, arm="lora", phase="train")["memory limit"].text == MISSING


def test_a_limit_stands_beside_runs_that_fitted_too(tmp_path: Path) -> None:
    table = memory_table(evidence(tmp_path, replace(LORA, card=Card(limit=16.0)), claims=()))
    assert row(table, arm="lora", phase="train")["memory limit"].text == "16.000"


def test_an_arm_of_which_some_runs_did_not_fit_has_both_rows(tmp_path: Path) -> None:
    some = replace(LORA, card=Card(reached=9.5), statuses={11: "out_of_memory", 12: "out_of_memory"})
    table = memory_table(evidence(tmp_path, some, claims=()))
    fitted, unfit = rows(table, arm="lora", phase="train")
    assert texts(fitted, "outcome", "allocated", "runs") == ["completed", "9.630", "3"]
    assert texts(unfit, "outcome", "allocated", "runs") == ["did not fit", "9.500", "2"]


def test_runs_that_ran_out_of_memory_before_anything_was_read_are_dashes(tmp_path: Path) -> None:
    old = Arm("old", statuses=dict.fromkeys(SEEDS, "out_of_memory"))
    cells = row(memory_table(evidence(tmp_path, *ON_CARD, old)), arm="old")
    assert texts(cells, "phase", "outcome", "allocated", "source") == ["train", "did not fit", MISSING, MISSING]


def test_before_the_freeze_an_arm_without_a_trial_that_fits_did_not_fit(tmp_path: Path) -> None:
    unfit = replace(LORA, card=Card(), trial_statuses=("out_of_memory", "out_of_memory"))
    one = replace(QLORA, card=Card(), trial_statuses=("out_of_memory", "completed"))
    table = memory_table(evidence(tmp_path, unfit, one, frozen=False))
    assert [(cells[0].text, cells[2].text) for cells in table.rows] == [("lora", "did not fit")]
    assert row(table, arm="lora")["source"].text == "warm worker: allocated peak only"


def test_a_process_that_others_have_warmed_gives_no_figure(tmp_path: Path) -> None:
    folder = write_study(tmp_path, arms=ON_CARD)
    for seed in SEEDS[:3]:
        changed(folder, tuned_id("lora", seed), checks={"warm_worker": True})
    found = gather(folder)
    assert row(memory_table(found), arm="lora", phase="train")["allocated"] == Cell("9.620", LORA_IDS[3:])
    assert row(cost_table(found), arm="lora")["runs"] == Cell("2", LORA_IDS[3:])
    memory = found.arms[1].memory
    assert memory is not None
    assert memory.run_ids == LORA_IDS[3:]


def test_a_paged_optimizer_is_told_where_memory_is(tmp_path: Path) -> None:
    paged = evidence(tmp_path / "paged", optimizer="paged_adamw_8bit")
    for table in (memory_table(paged), breakdown_table(paged)):
        assert "paged memory, which the allocator does not see" in table.caption
    assert "paged" not in memory_table(evidence(tmp_path / "plain")).caption


# --- breakdown ---


def test_the_breakdown_holds_every_part_beside_the_measured_peak(tmp_path: Path) -> None:
    table = breakdown_table(evidence(tmp_path))
    assert set(PARTS) == set(Breakdown.model_fields)
    # Of the arms one was not broken down, and one was not trained.
    cells = row(table)
    assert cells["arm"].text == "lora"
    # The median seed adds 0.02 GiB to the rest.
    expected = ["5.200", "0.000", "0.100", "0.100", "0.200", "3.000", "0.800", "0.220", "9.620", "9.620"]
    assert texts(cells, *PARTS.values(), "total", "measured peak (allocated)") == expected
    assert cells["total"].run_ids == LORA_IDS
    assert texts(cells, "agreement", "runs") == ["within 1%", "5"]


@pytest.mark.parametrize(
    ("rest", "says"),
    [(0.2 + 0.09, "within 1%"), (0.2 + 0.12, "up to 1.2% apart in 5 of 5 runs"), (0.0, "up to 2.1% apart in 5 of 5")],
)
def test_parts_that_miss_the_peak_by_more_than_1_percent_are_said_to(tmp_path: Path, rest: float, says: str) -> None:
    arm = replace(LORA, card=Card(parts=simulated.PARTS | {"rest": rest}))
    assert row(breakdown_table(evidence(tmp_path, arm, claims=())))["agreement"].text.startswith(says)


def test_without_breakdowns_there_is_no_row(tmp_path: Path) -> None:
    assert breakdown_table(evidence(tmp_path, *ON_CPU)).rows == ()


# --- forecast ---


def forecast(results: Path, **card: Any) -> Table:
    return forecast_table(evidence(results, replace(LORA, card=Card(**card)), claims=(), seeds=(15, 20)))


def test_every_run_with_a_forecast_has_a_row_with_both_and_the_difference(tmp_path: Path) -> None:
    table = forecast(tmp_path, forecast=9.12, forecast_seconds=138.0)
    assert [texts(cells, "stage", "seed", "trial") for cells in rows(table)] == [
        ["tune", "0", "0"],
        ["tune", "0", "1"],
        ["confirm", "15", MISSING],
        ["confirm", "20", MISSING],
    ]
    cells = row(table, seed="15")
    assert texts(cells, "memory forecast", "memory measured", "memory difference") == ["9.120", "9.600", "-5.00"]
    assert texts(cells, "training forecast", "training measured", "training difference") == ["138.0", "115.0", "+20.00"]
    assert texts(cells, "repeat", "rank") == ["0", "16"]
    assert cells["memory measured"].run_ids == (tuned_id("lora", 15),)


def test_the_caption_counts_how_many_forecasts_were_close(tmp_path: Path) -> None:
    folder = write_study(tmp_path, arms=(replace(LORA, card=Card(forecast=9.6)),), claims=(), seeds=(15, 20, 25))
    # Of 9.6 GiB measured: exactly 5% more, and 10% less.
    for seed, share in ((15, 105), (20, 90)):
        bytes_measured = 100 * 10**8
        memory = {"train": {"allocated_bytes": bytes_measured, "source": "test"}}
        changed(
            folder,
            tuned_id("lora", seed),
            memory=memory,
            forecast={"train_allocated_bytes": bytes_measured * share // 100},
        )
    caption = forecast_table(gather(folder)).caption
    # The two trials and the third seed are forecast exactly.
    assert (
        "Memory: 4 of 5 forecasts lie within 5% of what was measured and 5 of 5 within 10%; "
        "the median absolute difference is 0.00%." in caption
    )
    assert "Training time" not in caption
    assert "2 runs shared a process with others" in caption


def test_the_caption_counts_time_where_it_was_forecast(tmp_path: Path) -> None:
    # Trials take 100 s, seeds 15 and 20 take 115 and 120 s: 15%, 15%, 0% and 4.17% off.
    caption = forecast(tmp_path, forecast=9.6, forecast_seconds=115.0).caption
    assert (
        "Training time: 2 of 4 forecasts lie within 5% of what was measured and 2 of 4 within 10%; "
        "the median absolute difference is 9.58%." in caption
    )


def test_runs_that_ran_out_of_memory_are_rows_of_the_forecast_and_are_not_counted(tmp_path: Path) -> None:
    arms = (replace(LORA, card=Card(forecast=9.6)), replace(too_large(forecast=15.0), trial_statuses=()))
    table = forecast_table(evidence(tmp_path, *arms, claims=()))
    unfit = rows(table, arm="lora-fp32")
    assert len(unfit) == 5
    assert {tuple(texts(cells, "memory forecast", "memory measured", "memory difference")) for cells in unfit} == {
        ("15.000", "did not fit", MISSING)
    }
    assert "Memory: 7 of 7 forecasts" in table.caption
    assert "5 runs did not fit in memory and cannot be counted." in table.caption


def test_a_run_that_failed_while_training_has_no_measured_peak(tmp_path: Path) -> None:
    folder = write_study(tmp_path, arms=(replace(LORA, card=Card(forecast=9.6), statuses={13: "diverged"}),), claims=())
    memory = {"train": {"allocated_bytes": 9 * GIB, "until_failure": True}}
    changed(folder, tuned_id("lora", 13), memory=memory, seconds={"train": 3.0})
    table = forecast_table(gather(folder))
    cells = row(table, seed="13")
    assert texts(cells, "memory measured", "memory difference") == ["diverged", MISSING]
    assert cells["training measured"].text == MISSING
    assert "Memory: 6 of 6 forecasts" in table.caption


def test_a_run_whose_evaluation_ran_out_of_memory_has_a_measured_training_peak(tmp_path: Path) -> None:
    folder = write_study(
        tmp_path, arms=(replace(LORA, card=Card(forecast=9.6), statuses={13: "out_of_memory"}),), claims=()
    )
    memory = {"train": {"allocated_bytes": 9 * GIB}, "evaluate": {"allocated_bytes": 10 * GIB, "until_failure": True}}
    changed(folder, tuned_id("lora", 13), memory=memory)
    table = forecast_table(gather(folder))
    assert row(table, seed="13")["memory measured"].text == "9.000"
    assert "did not fit" not in table.caption


def test_without_forecasts_there_is_no_row(tmp_path: Path) -> None:
    assert forecast_table(evidence(tmp_path)).rows == ()


def test_drop_in_runs_are_told_from_tuned_ones(tmp_path: Path) -> None:
    arms = (replace(LORA, card=Card()), replace(QLORA, card=Card(parts=None, forecast=6.0)))
    found = evidence(tmp_path, *arms, claims=(claim(drop_in=True),), drop_in={(8, 16, 1e-4): 39.0})
    stages = [cells["stage"].text for cells in rows(forecast_table(found))]
    assert stages == ["tune"] * 2 + ["confirm"] * 5 + ["confirm, drop-in"] * 5


# --- cost ---


def test_the_cost_of_an_arm_is_time_speed_energy_and_what_a_card_must_hold(tmp_path: Path) -> None:
    table = cost_table(evidence(tmp_path))
    cells = row(table, arm="lora")
    assert texts(cells, "load", "prepare", "train", "evaluate") == ["5.0", "1.0", "113.0", "50.0"]
    # 200,000 tokens in 113 s at 300 W, and 200 s a run at 300 W.
    assert texts(cells, "training speed", "training energy", "energy of a run") == ["1,770", "169.50", "60.00"]
    assert texts(cells, "peak memory (process)", "runs") == ["10.620", "5"]
    assert cells["training energy"].run_ids == LORA_IDS
    titles = [column.title for column in table.columns]
    assert "training energy, J per 1,000 tokens" in titles
    assert "energy of a run, kJ" in titles


def test_what_an_arm_has_no_cost_of_is_a_dash_and_never_0(tmp_path: Path) -> None:
    table = cost_table(evidence(tmp_path, *ON_CARD, Arm("old"), too_large(), Arm("later", not_run=SEEDS)))
    assert texts(row(table, arm="zero-shot"), "train", "training speed", "training energy") == [MISSING] * 3
    assert texts(row(table, arm="zero-shot"), "evaluate", "peak memory (process)") == ["50.0", "6.400"]
    assert texts(row(table, arm="old"), "load", "train", "training energy", "energy of a run") == [
        MISSING,
        "113.0",
        MISSING,
        MISSING,
    ]
    assert texts(row(table, arm="lora-fp32"), "train", "peak memory (process)", "runs") == [
        MISSING,
        "did not fit",
        MISSING,
    ]
    assert {cell.text for cell in table.rows[-1][1:]} == {MISSING}


def test_no_tokens_and_no_seconds_are_no_speed(tmp_path: Path) -> None:
    folder = write_study(tmp_path, arms=(replace(LORA, card=Card()),), claims=(), seeds=(11, 12))
    changed(folder, tuned_id("lora", 11), tokens={"trained": 0})
    changed(folder, tuned_id("lora", 12), seconds={"train": 0.0})
    cells = row(cost_table(gather(folder)))
    # The first trained on nothing (0 tokens/s), the second has no time to divide by.
    assert cells["training speed"] == Cell("0", (tuned_id("lora", 11),))
    assert cells["training energy"].run_ids == (tuned_id("lora", 12),)


def test_a_study_without_a_gpu_has_time_and_no_energy(tmp_path: Path) -> None:
    table = cost_table(evidence(tmp_path, *ON_CPU))
    assert headers(table) == ["arm", "train", "runs"]
    assert "Energy" not in table.caption


# --- repeats ---


def test_repeats_of_a_run_stand_in_one_row_with_how_far_they_lie_apart(tmp_path: Path) -> None:
    table = repeats_table(evidence(tmp_path, repeats=3, claims=()))
    assert [texts(cells, "arm", "seed", "runs") for cells in rows(table)] == [
        [arm, str(seed), "3"] for arm in ("lora", "qlora") for seed in SEEDS
    ]
    cells = row(table, arm="lora", seed="15")
    # 9.600, 9.601 and 9.602 GiB.
    assert texts(cells, "lowest peak (allocated)", "highest peak (allocated)", "spread of the peak") == [
        "9.600",
        "9.602",
        "0.02",
    ]
    assert texts(cells, "shortest training", "longest training") == ["115.0", "115.0"]
    assert texts(cells, "purpose", "rank", "alpha", "learning rate") == ["tuned", "16", "32", "0.0002"]
    assert cells["runs"].run_ids == tuple(tuned_id("lora", 15, repeat) for repeat in range(3))


def test_repeats_that_took_longer_say_so(tmp_path: Path) -> None:
    folder = write_study(tmp_path, arms=(replace(LORA, card=Card()),), claims=(), seeds=(15,), repeats=2)
    changed(folder, tuned_id("lora", 15, 1), seconds={"train": 130.0})
    assert texts(row(repeats_table(gather(folder))), "shortest training", "longest training") == ["115.0", "130.0"]


def test_a_repeat_that_did_not_complete_is_none(tmp_path: Path) -> None:
    folder = write_study(tmp_path, arms=(replace(LORA, card=Card()),), claims=(), seeds=(15,), repeats=2)
    changed(
        folder,
        tuned_id("lora", 15, 1),
        status="killed",
        quality=None,
        error={"type": "a", "message": "b", "phase": None},
    )
    assert repeats_table(gather(folder)).rows == ()


def test_a_repeat_in_a_process_that_others_have_warmed_is_none(tmp_path: Path) -> None:
    folder = write_study(tmp_path, arms=(replace(LORA, card=Card()),), claims=(), seeds=(15,), repeats=2)
    changed(folder, tuned_id("lora", 15, 1), checks={"warm_worker": True})
    assert repeats_table(gather(folder)).rows == ()


def test_runs_with_other_hyperparameters_or_another_purpose_are_no_repeats(tmp_path: Path) -> None:
    drop_in = {(8, 16, 1e-4): 39.0, (32, 16, 1e-4): 39.0, (8, 32, 1e-4): 39.0, (8, 16, 3e-4): 39.0}
    drop_in[simulated.CHOSEN] = 38.0
    found = evidence(tmp_path, *ON_CARD, claims=(claim(drop_in=True),), drop_in=drop_in)
    assert repeats_table(found).rows == ()


# --- a shared card, and what all of these have in common ---


@pytest.mark.parametrize("make", [memory_table, cost_table, forecast_table])
def test_counted_runs_on_a_shared_card_are_told_in_the_caption(
    tmp_path: Path, make: Callable[[Evidence], Table]
) -> None:
    shared = replace(LORA, card=Card(shared=(11, 12), forecast=9.6))
    caption = make(evidence(tmp_path / "shared", shared, claims=())).caption
    assert caption.endswith(
        "Among these runs, 2 runs shared their GPU with other processes: memory of the device, time and energy of "
        "these are not theirs alone."
    )
    alone = replace(LORA, card=Card(forecast=9.6))
    assert "shared their GPU" not in make(evidence(tmp_path / "alone", alone, claims=())).caption


def test_a_trial_on_a_shared_card_is_no_counted_run(tmp_path: Path) -> None:
    assert "shared" not in cost_table(evidence(tmp_path, replace(LORA, card=Card(shared=(0,))), claims=())).caption


def test_records_of_the_first_version_give_what_they_have(tmp_path: Path) -> None:
    found = evidence(tmp_path, ZERO_SHOT, LORA, QLORA)
    table = memory_table(found)
    assert headers(table) == ["arm", "phase", "outcome", "allocated", "host RSS", "source", "runs"]
    assert row(table, arm="lora", phase="train")["allocated"].text == "9.620"
    assert breakdown_table(found).rows == forecast_table(found).rows == repeats_table(found).rows == ()


def test_macros_of_these_tables_begin_with_their_name(tmp_path: Path) -> None:
    found = evidence(tmp_path, *ON_CARD, too_large(limit=8.0))
    measured = [memory_table(found), breakdown_table(found), cost_table(found), forecast_table(found)]
    without = numbers_tex(main_table(found), verdict_table(()))
    text = numbers_tex(main_table(found), verdict_table(()), measured)
    assert text.startswith(without)
    for line in (
        r"\newcommand{\MemoryLoraTrainCompletedAllocated}{9.620}",
        r"\newcommand{\MemoryLoraFpThreeTwoTrainDidNotFitAllocated}{7.500}",
        r"\newcommand{\BreakdownLoraActivations}{3.000}",
        r"\newcommand{\CostLoraTrainingEnergy}{169.50}",
    ):
        assert f"\n{line} %" in text
    assert "Forecast" not in text
