"""Every figure of a report: its numbers, and drawings that depend on nothing else."""

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from reports.claiming import judge_claims
from reports.drawing_differences import draw_differences
from reports.drawing_forecast import draw_forecast
from reports.drawing_style import FORMATS, looks, short, wrapped
from reports.evidence import Evidence, gather
from reports.figure_cost import CostFigure, cost_figure
from reports.figure_curves import CurveFigure, curve_figure, read_losses
from reports.figure_differences import DifferenceGroup, DifferenceRow, Differences, Estimate, differences
from reports.figure_expected import ExpectedFigure, expected_figure
from reports.figure_forecast import ForecastFigure, ForecastPoint, forecast_figure
from reports.figure_importances import ImportanceFigure, importance_figure
from reports.figure_lengths import LengthFigure, length_figure
from reports.figure_trials import TrialFigure, trial_figure
from reports.figures import memory_figure, pareto_front
from reports.gallery import EXHIBITS, FILES, Drawn, drawn
from results.schema import Record
from results.store import RecordStore, read_records
from tests.unit.reports.figure_records import NO_TRIALS, SHARES, More, arms, write_measured
from tests.unit.reports.records import CHOSEN, LORA, QLORA, SEEDS, ZERO_SHOT, Arm, claim, run_id, tuned_id, write_study

NAMES = [
    "differences",
    "memory_vs_rouge",
    "memory_by_arm",
    "forecast_vs_measured",
    "cost_vs_rouge",
    "learning_rate",
    "expected_performance",
    "importances",
    "training_curves",
    "lengths",
]


def evidence_of(results: Path, more: More | None = None, **changes: Any) -> Evidence:
    return gather(write_measured(results, more, **changes))


def made_of(evidence: Evidence) -> dict[str, Drawn]:
    return {figure.name: figure for figure in drawn(evidence, judge_claims(evidence))}


def gallery(evidence: Evidence) -> list[str]:
    """The names of the figures, which are drawn, and of which nothing may leave the paper."""
    made = made_of(evidence)
    for name, figure in made.items():
        assert is_framed(figure.files["png"]), name
    return list(made)


def is_framed(png: bytes) -> bool:
    """Whether the outermost pixels are white: what is cut off at an edge touches it."""
    pixels = np.asarray(imread(io.BytesIO(png), format="png"))[..., :3]
    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    return all(bool((edge == 1.0).all()) for edge in edges)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """A study that measured everything."""
    return evidence_of(tmp_path_factory.mktemp("measured"))


@pytest.fixture(scope="module")
def made(measured: Evidence) -> dict[str, Drawn]:
    """Its figures."""
    return made_of(measured)


def rewritten(results: Path, change: Any) -> Evidence:
    """A measured study in which `change(record)` gives the fields that are other."""
    folder = write_measured(results)
    store = RecordStore(folder)
    for record in read_records(folder).last.values():
        store.append(Record.model_validate(record.model_dump() | change(record)))
    return gather(folder)


# --- the gallery ---


def test_a_study_that_measured_everything_has_every_figure_in_the_report_s_order(made: dict[str, Drawn]) -> None:
    assert list(made) == NAMES == [exhibit.name for exhibit in EXHIBITS]
    for figure in made.values():
        assert set(figure.files) == set(FORMATS)
        assert is_framed(figure.files["png"]), figure.name
        assert figure.value.caption.endswith(".")
    assert {f"figures/{name}.{kind}" for name in NAMES for kind in (*FORMATS, "txt")} == set(FILES)


def test_the_same_records_give_the_same_bytes_and_no_file_says_when(made: dict[str, Drawn], tmp_path: Path) -> None:
    again = made_of(evidence_of(tmp_path))
    assert {name: figure.files for name, figure in made.items()} == {name: item.files for name, item in again.items()}
    for figure in made.values():
        for data in figure.files.values():
            assert b"Date" not in data.replace(b"DejaVu", b"")
            assert b"atplotlib v" not in data


def test_figures_stand_at_the_width_of_a_column_or_of_a_page(made: dict[str, Drawn]) -> None:
    widths = {name: points_wide(figure.files["svg"]) for name, figure in made.items()}
    assert set(widths.values()) == {3.5 * 72, 7 * 72}
    assert [name for name, width in widths.items() if width == 3.5 * 72] == ["forecast_vs_measured", "importances"]


def test_hostile_names_are_drawn_as_text(tmp_path: Path) -> None:
    bad = "--><script>$\\frac{$ #Person1# \x1b[2J" + "x" * 80
    made = [replace(arm, name=bad) if arm.name == "lora" else arm for arm in arms(More())]
    figures = made_of(evidence_of(tmp_path, arms=made, claims=(claim(reference=bad, name=bad),)))
    assert list(figures) == NAMES
    for figure in figures.values():
        assert is_framed(figure.files["png"]), figure.name
        assert b"<script" not in figure.files["svg"]
        assert b"-->" not in figure.files["svg"].replace(b" -->", b"")
        assert "\x1b" not in figure.value.caption


def test_a_study_without_anything_has_no_figure(tmp_path: Path) -> None:
    nothing = [Arm("lora", not_run=SEEDS, trial_statuses=())]
    assert gallery(gather(write_study(tmp_path, arms=nothing, claims=()))) == []


def test_before_the_freeze_there_are_only_figures_of_trials(tmp_path: Path) -> None:
    assert gallery(evidence_of(tmp_path, frozen=False, arms=arms(More())[1:4])) == [
        "forecast_vs_measured",
        "learning_rate",
    ]


def test_random_weights_have_no_figure_with_scores(tmp_path: Path) -> None:
    found = gallery(evidence_of(tmp_path, More(importances=False), weights="random"))
    assert found == ["memory_by_arm", "forecast_vs_measured", "training_curves"]


def test_a_cpu_study_has_its_figures_without_energy_and_forecasts(tmp_path: Path) -> None:
    cpu = [replace(arm, gpu=None) for arm in (ZERO_SHOT, LORA, QLORA)]
    evidence = evidence_of(tmp_path, More(trials=2), arms=cpu, claims=(claim(),))
    found = gallery(evidence)
    assert "forecast_vs_measured" not in found
    assert {"differences", "memory_vs_rouge", "cost_vs_rouge", "training_curves", "lengths"} < set(found)


def test_an_arm_alone_and_one_that_lost_every_trial_can_be_drawn(tmp_path: Path) -> None:
    alone = replace(arms(More(trials=1))[1], zero_shot=None)
    assert "learning_rate" in gallery(evidence_of(tmp_path / "one", More(trials=1), arms=[alone], claims=()))
    lost = [replace(arm, trial_statuses=("diverged",) * 16) for arm in arms(More())]
    assert "learning_rate" not in gallery(evidence_of(tmp_path / "lost", arms=lost))


def test_constant_scores_can_be_drawn(tmp_path: Path) -> None:
    found = gallery(evidence_of(tmp_path, More(constant=True), residual=0.0))
    assert found == NAMES


@pytest.mark.slow
def test_twelve_arms_with_long_names_can_be_drawn(tmp_path: Path) -> None:
    made = [
        replace(arm, name=f"{arm.name}-{number:02}-of-a-family-with-a-name-that-no-column-has-room-for-at-all")
        for number in range(4)
        for arm in arms(More(trials=2))[1:4]
    ]
    cards = [replace(arm, zero_shot=None) for arm in made]
    about = claim(candidate=made[1].name, reference=made[0].name)
    assert gallery(evidence_of(tmp_path, More(trials=2, steps=10), arms=cards, claims=(about,))) == NAMES


# --- memory against ROUGE ---


def test_the_front_holds_those_that_nobody_beats() -> None:
    assert pareto_front([(6.0, 30.0), (8.0, 29.0), (7.0, 31.0), (9.0, 31.0), (7.0, 30.5)]) == ((6.0, 30.0), (7.0, 31.0))
    assert pareto_front([]) == ()


def test_the_front_is_of_trained_arms_and_the_caption_names_it(measured: Evidence) -> None:
    figure = memory_figure(measured)
    (only,) = figure.panels[0].front
    assert only == pytest.approx((6.12, 40.9))
    assert "Pareto front" in figure.caption


# --- differences ---


def test_a_row_has_both_intervals_of_the_comparison_and_its_verdict(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path, drop_in={CHOSEN: 38.0})
    (result,) = judge_claims(evidence)
    figure = differences([result])
    assert figure is not None
    (group,) = figure.groups
    assert (group.candidate, group.reference, group.margin) == ("qlora", "lora", 1.0)
    assert [row.label for row in group.rows] == ["ROUGE-1", "ROUGE-L", "ROUGE-1, drop-in", "ROUGE-L, drop-in"]
    assert [row.verdict for row in group.rows] == ["supported", "supported", None, None]
    comparison = result.metrics[0].comparison
    assert comparison is not None
    first = group.rows[0].estimate
    assert first == Estimate(comparison.difference, comparison.interval(0.90), comparison.interval(0.95))
    dropped = group.rows[2].estimate
    assert dropped is not None
    assert dropped.difference == pytest.approx(38.0 - 40.3)
    assert group.run_ids == result.run_ids
    assert "Grey rows are secondary" in figure.caption


def test_a_claim_that_cannot_be_compared_keeps_its_row(tmp_path: Path) -> None:
    unfit = claim(name="fp32", candidate="lora-fp32")
    figure = differences(judge_claims(evidence_of(tmp_path, claims=(claim(), unfit))))
    assert figure is not None
    (row,) = figure.groups[1].rows
    assert (row.estimate, row.verdict) == (None, "no verdict")


def test_without_any_comparison_there_is_no_forest(tmp_path: Path) -> None:
    assert differences(judge_claims(evidence_of(tmp_path, claims=(claim(candidate="lora-fp32"),)))) is None
    assert differences(()) is None


def test_a_forest_grows_with_its_claims_and_takes_long_names() -> None:
    estimate = Estimate(-0.5, (-0.9, -0.1), (-1.0, 0.0))
    row = DifferenceRow("ROUGE-1", estimate, "supported")
    one = DifferenceGroup("a", "qlora", "lora", 1.0, "supported", (row,), ())
    long = replace(one, candidate="c" * 70, reference="r" * 70, name="n" * 90)
    heights = [
        size(draw_differences(Differences("points", groups, ""))["png"])[1]
        for groups in ((one,), (one, one), (one, long))
    ]
    assert heights[0] < heights[1] < heights[2]


# --- forecasts ---


def test_more_arms_than_a_legend_can_tell_apart_are_told_by_family() -> None:
    few, many = (tuple(f"{name}@rank={rank}" for name in ("lora", "qlora") for rank in range(n)) for n in (7, 8))
    assert [ForecastFigure(few, (), "").group(arm) for arm in few] == list(few)
    assert {ForecastFigure(many, (), "").group(arm) for arm in many} == {"lora", "qlora"}


def test_forecasts_stand_beside_what_was_measured_and_runs_too_large_at_their_forecast(measured: Evidence) -> None:
    figure = forecast_figure(measured)
    assert figure is not None
    by_id = {point.run_id: point for point in figure.points}
    run = by_id[tuned_id("lora", 12)]
    assert (run.arm, run.fresh) == ("lora", True)
    assert (run.forecast, run.measured) == pytest.approx((9.6 * 0.99, 9.62))
    unfit = by_id[tuned_id("lora-fp32", 11)]
    assert (unfit.forecast, unfit.measured) == (17.5, None)
    assert not by_id[run_id("tune", None, "lora", 0, 0)].fresh
    assert "63 of 63 runs" in figure.caption
    assert "21 runs that ran out of memory" in figure.caption
    assert figure.run_ids == tuple(by_id)


def test_runs_that_all_ran_out_of_memory_can_be_drawn() -> None:
    point = ForecastPoint("big", 17.0, None, fresh=True, run_id="a")
    assert draw_forecast(ForecastFigure(("big",), (point,), ""))["svg"]
    assert draw_forecast(ForecastFigure((), (replace(point, forecast=0.0, measured=0.0),), ""))["svg"]


# --- cost ---


def cost(results: Path, **changes: Any) -> CostFigure:
    figure = cost_figure(evidence_of(results, **changes))
    assert figure is not None
    return figure


def test_costs_are_medians_with_their_range_and_scores_have_their_interval(measured: Evidence) -> None:
    figure = cost_figure(measured)
    assert figure is not None
    assert [panel.label for panel in figure.panels] == ["training time, s", "energy of a run, kJ"]
    assert figure.metric == "rouge1"
    lora = measured.arm("lora")
    assert lora is not None
    seconds = [record.seconds.train or 0.0 for record in lora.runs]
    point = figure.panels[0].points[0]
    assert point.name == "lora"
    assert point.cost == pytest.approx(np.median(seconds))
    assert (point.cost_low, point.cost_high) == (min(seconds), max(seconds))
    assert point.low < 40.3 < point.high
    assert [item.name for item in figure.panels[1].points] == ["lora", "lora-int8", "qlora"]
    assert "Did not fit in memory: lora-fp32." in figure.caption


def test_without_a_counter_there_is_no_panel_for_energy(tmp_path: Path) -> None:
    figure = cost(tmp_path, arms=(ZERO_SHOT, LORA, QLORA))
    assert [panel.label for panel in figure.panels] == ["training time, s"]
    assert "nergy" not in figure.caption


def test_a_loss_claimed_by_no_one_leaves_the_figure_to_rouge_l(tmp_path: Path) -> None:
    assert cost(tmp_path, claims=()).metric == "rougeL"


# --- trials ---


def trials(results: Path, more: More | None = None, **changes: Any) -> TrialFigure:
    figure = trial_figure(evidence_of(results, more, **changes))
    assert figure is not None
    return figure


def test_every_trial_is_a_point_and_the_chosen_one_is_known(tmp_path: Path) -> None:
    more = More(trial_statuses={3: "diverged", 7: "failed", 9: "pruned", 11: "out_of_memory"})
    figure = trials(tmp_path, more)
    panel = figure.panels[0]
    assert (figure.metric, panel.arm, len(panel.points)) == ("rougeL", "lora", 16)
    said = {number: panel.points[number].outcome for number in (3, 7, 9, 11)}
    assert said == {3: "diverged", 7: "failed", 9: "pruned", 11: "did not fit"}
    assert [point.run_id for point in panel.points if point.chosen] == [run_id("tune", None, "lora", 0, 5)]
    assert sum(point.value is None for point in panel.points) == 4
    assert figure.ranks == (4, 8, 16, 32, 64)
    assert all(point.value is None for point in figure.panels[3].points)
    assert "count against the budget" in figure.caption


def test_trials_of_another_card_are_left_out_and_counted(tmp_path: Path) -> None:
    def moved(record: Record) -> dict[str, Any]:
        elsewhere = record.arm == "lora" and record.trial in (1, 2)
        return {"environment": record.environment | {"gpu": "Another"}} if elsewhere else {}

    figure = trial_figure(rewritten(tmp_path, moved))
    assert figure is not None
    assert len(figure.panels[0].points) == 14
    assert "Not shown: 2 completed trials" in figure.caption


# --- expected performance ---


def test_the_expected_best_rises_with_the_trials_and_takes_its_seconds(measured: Evidence) -> None:
    figure = expected_figure(measured)
    assert isinstance(figure, ExpectedFigure)
    line = figure.lines[0]
    assert (line.arm, line.trials) == ("lora", tuple(range(1, 17)))
    assert list(line.scores) == sorted(line.scores)
    assert line.seconds == pytest.approx([number * line.seconds[0] for number in range(1, 17)])
    # All trials of one arm ran out of memory: a line of others' worst scores would mislead.
    assert [item.arm for item in figure.lines] == ["lora", "lora-int8", "qlora"]
    assert "No curve for lora-fp32: none of its trials has a score." in figure.caption


def test_an_arm_without_a_curve_is_named_with_its_reason(tmp_path: Path) -> None:
    made = [replace(arm, trial_statuses=("pruned",) * 16) if arm.name == "qlora" else arm for arm in arms(More())]
    figure = expected_figure(evidence_of(tmp_path, arms=made))
    assert figure is not None
    assert "No curve for qlora: 16 of 16 trials of the block were pruned." in figure.caption


# --- importances ---


def test_importances_are_those_of_the_freeze_and_an_arm_without_them_says_why(measured: Evidence) -> None:
    figure = importance_figure(measured)
    assert isinstance(figure, ImportanceFigure)
    assert figure.names == ("learning rate", "rank", "alpha")
    assert dict(figure.rows[0].shares) == {
        "learning rate": SHARES["learning_rate"],
        "rank": SHARES["rank"],
        "alpha": SHARES["alpha"],
    }
    assert (figure.rows[-1].shares, figure.rows[-1].reason) == ((), NO_TRIALS)
    assert run_id("tune", None, "lora", 0, 0) in figure.rows[0].run_ids
    assert "Test evaluator; 16 scored trials" in figure.caption


def test_a_freeze_without_importances_has_no_such_figure(tmp_path: Path) -> None:
    assert importance_figure(evidence_of(tmp_path, More(importances=False))) is None


# --- training curves ---


def curves(evidence: Evidence) -> CurveFigure:
    figure = curve_figure(evidence)
    assert figure is not None
    return figure


def test_a_curve_is_every_loss_of_a_run_and_the_mean_is_over_runs(measured: Evidence) -> None:
    figure = curves(measured)
    panel = figure.panels[0]
    assert [run.seed for run in panel.runs] == list(SEEDS)
    assert panel.steps == tuple(range(1, 121))
    assert panel.mean[5] == pytest.approx(np.mean([run.losses[5] for run in panel.runs]))
    assert "Nothing is smoothed" in figure.caption
    assert "lora-fp32" not in [item.arm for item in figure.panels]


def test_long_trainings_are_means_over_steps_and_the_caption_says_so(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path, More(steps=501))
    figure = curves(evidence)
    run = figure.panels[0].runs[0]
    record = evidence.last[run.run_id]
    assert len(run.losses) == 167
    assert run.steps[:2] == (2.0, 5.0)
    assert run.losses[1] == pytest.approx(np.mean(record.checks["losses"][3:6]))
    assert "mean over 3 consecutive steps" in figure.caption


def test_runs_of_unequal_length_have_a_mean_where_all_have_a_loss(tmp_path: Path) -> None:
    def shorter(record: Record) -> dict[str, Any]:
        losses = record.checks.get("losses", [])
        return {"checks": record.checks | {"losses": losses[:50] if record.seed == 11 else losses}}

    panel = curves(rewritten(tmp_path, shorter)).panels[0]
    assert len(panel.steps) == len(panel.mean) == 50
    assert [len(run.steps) for run in panel.runs] == [50, 120, 120, 120, 120]


@pytest.mark.parametrize("kept", [None, "1.0", [1.0, None], [float("nan")], [True], {"a": 1}, [[1.0]], []])
def test_losses_that_are_none_are_not_drawn(kept: object) -> None:
    assert read_losses(kept) == ()


# --- lengths ---


def test_lengths_are_ratios_by_run_and_shares_of_the_outputs(measured: Evidence) -> None:
    figure = length_figure(measured)
    assert isinstance(figure, LengthFigure)
    zero_shot, lora = figure.rows[:2]
    arm = measured.arm("lora")
    assert arm is not None
    assert lora.ratios == tuple(record.checks["length_ratio"] for record in arm.runs)
    assert lora.mean == pytest.approx(np.mean(lora.ratios))
    # 40 dialogues.
    assert lora.cut == pytest.approx(np.mean([2.5 * record.checks["hit_max_new_tokens"] for record in arm.runs]))
    assert (zero_shot.trained, len(zero_shot.ratios)) == (False, 1)


def test_lengths_without_counts_have_one_panel(tmp_path: Path) -> None:
    def uncounted(record: Record) -> dict[str, Any]:
        kept = {"length_ratio": record.checks.get("length_ratio")}
        return {"checks": kept}

    figure = length_figure(rewritten(tmp_path, uncounted))
    assert figure is not None
    assert all(row.empty is None and row.cut is None for row in figure.rows)
    assert "Right" not in figure.caption


# --- drawing ---


def test_an_arm_looks_the_same_in_every_figure_and_like_no_other() -> None:
    names = [f"arm-{number}" for number in range(30)]
    chosen = looks(names)
    assert len(set(chosen.values())) == len(names)
    assert looks(names) == chosen


def test_names_are_cut_in_their_middle_and_wrapped_to_their_room() -> None:
    name = "qlora-nf4-double-quant-all-linear-dropout-0.05-rslora-seed"
    assert short(name, 20) == "qlora-nf4-…lora-seed"
    for width in (10, 22, 30):
        lines = wrapped(name, width).split("\n")
        assert len(lines) <= 2
        assert max(map(len, lines)) <= width


def size(data: bytes) -> tuple[int, int]:
    """Width and height out of the header of a PNG, in pixels."""
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def points_wide(svg: bytes) -> float:
    """The width of an SVG, in points."""
    found = re.search(rb'width="([0-9.]+)pt"', svg)
    assert found is not None
    return float(found[1])
