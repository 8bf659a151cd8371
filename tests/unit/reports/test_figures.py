"""The figure's numbers, the places of its labels, and a drawing that depends on nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reports.drawing import FORMATS, draw, styles
from reports.drawing_memory import draw_bars
from reports.evidence import gather
from reports.figures import Bar, Kind, MemoryBars, MemoryFigure, MemoryPanel, Point, memory_bars, memory_figure
from reports.placement import Box, Label, place
from tests.unit.reports.records import LORA, PARTS, QLORA, SEEDS, ZERO_SHOT, Arm, Card, tuned_id, write_study

TOO_LARGE = Arm("lora-fp32", precision="fp32", statuses=dict.fromkeys(SEEDS, "out_of_memory"))
FRAME = Box(0.0, 0.0, 100.0, 100.0)


def figure(results: Path, **changes: Any) -> MemoryFigure:
    return memory_figure(gather(write_study(results, **changes)))


def point(name: str, memory: float = 6.0, score: float = 40.0, kind: Kind = "trained", base: str = "base") -> Point:
    return Point(name, kind, base, memory, memory - 0.1, memory + 0.1, score, score - 1.0, score + 1.0, ())


def drawable(*points: Point, did_not_fit: tuple[str, ...] = ()) -> MemoryFigure:
    panel = MemoryPanel("rouge1", points, (("constant summary", 14.0),))
    return MemoryFigure("peak GPU memory allocated, GiB", (panel,), did_not_fit, "")


def test_a_point_is_the_peak_of_training_and_the_score_with_its_95_interval(tmp_path: Path) -> None:
    panel, _ = figure(tmp_path).panels
    qlora = panel.points[2]
    assert (qlora.name, qlora.kind, qlora.base) == ("qlora", "trained", "zero-shot")
    assert qlora.memory == pytest.approx(6.12)
    assert (qlora.memory_low, qlora.memory_high) == pytest.approx((6.10, 6.14))
    assert qlora.score == pytest.approx(40.0)
    assert qlora.low < 40.0 < qlora.high
    assert qlora.run_ids == tuple(tuned_id("qlora", seed) for seed in SEEDS)


def test_there_is_a_panel_for_rouge_1_and_one_for_rouge_l(tmp_path: Path) -> None:
    first, second = figure(tmp_path).panels
    assert (first.metric, second.metric) == ("rouge1", "rougeL")
    assert second.points[1].score == pytest.approx(32.0)


def test_a_zero_shot_arm_stands_at_the_peak_of_evaluation(tmp_path: Path) -> None:
    zero_shot = figure(tmp_path).panels[0].points[0]
    assert zero_shot.kind == "zero-shot"
    assert zero_shot.memory == pytest.approx(5.4)


def test_memory_without_a_gpu_is_labelled_as_host_memory(tmp_path: Path) -> None:
    arms = [Arm(arm.name, method=arm.method, zero_shot=arm.zero_shot, gpu=None) for arm in (ZERO_SHOT, LORA)]
    found = figure(tmp_path, arms=arms)
    assert found.memory_label == "peak host memory (RSS), GiB"
    assert found.panels[0].points[0].memory == pytest.approx(3.0)


def test_an_arm_that_did_not_fit_is_shown_and_not_dropped(tmp_path: Path) -> None:
    found = figure(tmp_path, arms=(ZERO_SHOT, LORA, TOO_LARGE))
    assert found.did_not_fit == ("lora-fp32",)
    assert "lora-fp32" not in [item.name for item in found.panels[0].points]
    assert "Did not fit in memory: lora-fp32." in found.caption


def test_floors_are_lines_and_the_human_ceiling_is_none_of_them(tmp_path: Path) -> None:
    found = figure(tmp_path, floors={"constant summary": 14.0, "reference against reference": 53.0})
    assert found.panels[0].floors == (("constant summary", 14.0),)


def test_without_scores_there_is_no_point(tmp_path: Path) -> None:
    assert figure(tmp_path, weights="random").panels[0].points == ()


def test_trained_arms_look_different_and_a_zero_shot_model_looks_like_its_only_arm() -> None:
    base = point("zero-shot-nf4", kind="zero-shot", base="zero-shot-nf4")
    shared = point("zero-shot", kind="zero-shot", base="zero-shot")
    arms = [point(f"lora-{number}", base="zero-shot") for number in range(20)]
    chosen = styles(drawable(base, shared, point("qlora", base="zero-shot-nf4"), *arms, did_not_fit=("big",)))
    looks = [chosen[name] for name in ("qlora", "big", *(arm.name for arm in arms))]
    assert len(set(looks)) == len(looks)
    assert chosen["zero-shot-nf4"] == chosen["qlora"]
    assert chosen["zero-shot"] not in looks


def test_labels_cover_neither_each_other_nor_an_obstacle_and_stay_in_the_frame() -> None:
    labels = [Label(50.0, 50.0 + 3 * number, 20.0, 8.0) for number in range(4)]
    obstacles = [Box.around(label.x, label.y, 6.0, 6.0) for label in labels]
    found = place(labels, obstacles, FRAME, reach=5.0)
    assert found is not None
    for index, box in enumerate(found):
        assert box.is_inside(FRAME)
        assert not any(box.overlap(other) for other in (*obstacles, *found[:index]))
    assert place(labels, obstacles, FRAME, reach=5.0) == found


def test_a_label_without_room_is_not_squeezed_in() -> None:
    assert place([Label(50.0, 50.0, 200.0, 8.0)], [], FRAME, reach=5.0) is None


def test_the_nearest_place_is_right_of_the_marker() -> None:
    found = place([Label(20.0, 50.0, 20.0, 8.0)], [], FRAME, reach=5.0)
    assert found is not None
    assert (found[0].left, found[0].bottom) == pytest.approx((25.0, 46.0))


def test_the_same_numbers_give_the_same_bytes_and_other_numbers_others() -> None:
    one = drawable(point("lora"), point("qlora", memory=4.0), did_not_fit=("big",))
    first, second = draw(one), draw(one)
    assert set(first) == set(FORMATS)
    assert first == second
    assert draw(drawable(point("lora", score=39.0)))["svg"] != first["svg"]


def test_no_file_says_when_or_with_what_it_was_made() -> None:
    drawn = draw(drawable(point("lora")))
    for data in drawn.values():
        assert b"Date" not in data.replace(b"DejaVu", b"")
        assert b"atplotlib v" not in data
    assert drawn["pdf"].startswith(b"%PDF")
    assert drawn["png"].startswith(b"\x89PNG")


def test_hostile_names_are_drawn_as_text() -> None:
    svg = draw(drawable(point("--><script>$\\frac{$ #Person1#"), point("$x$", memory=4.0)))["svg"]
    assert b"<script" not in svg
    assert b"-->" not in svg.replace(b" -->", b"")


def test_arms_are_labelled_directly_and_by_a_legend_only_where_there_is_no_room() -> None:
    crowd = [point(f"an-arm-with-a-long-name-{number}", memory=6.0 + number / 100) for number in range(24)]
    assert b'id="legend_1"' in draw(drawable(*crowd))["svg"]
    assert b'id="legend_1"' not in draw(drawable(point("lora"), point("qlora", memory=4.0)))["svg"]


# --- memory arm by arm ---

ON_CARD = (ZERO_SHOT, replace(LORA, card=Card()), replace(QLORA, card=Card(parts=None)))
LABELS = ["base weights", "quantisation", "adapters", "gradients", "optimizer", "activations", "logits", "rest"]


def bars(results: Path, **changes: Any) -> MemoryBars | None:
    return memory_bars(gather(write_study(results, **({"arms": ON_CARD} | changes))))


def found(results: Path, **changes: Any) -> MemoryBars:
    figure = bars(results, **changes)
    assert figure is not None
    return figure


def test_a_bar_is_the_median_peak_and_its_parts_are_those_of_one_run(tmp_path: Path) -> None:
    figure = found(tmp_path)
    zero_shot, lora, qlora = figure.bars
    assert figure.label == "peak GPU memory allocated, GiB"
    assert [bar.kind for bar in figure.bars] == ["zero-shot", "trained", "trained"]
    assert [bar.peak for bar in figure.bars] == pytest.approx([5.4, 9.62, 6.12])
    assert dict(lora.parts) == pytest.approx(dict(zip(LABELS, PARTS.values(), strict=True)) | {"rest": 0.22})
    assert sum(size for _, size in lora.parts) == pytest.approx(9.62)
    assert zero_shot.parts == qlora.parts == ()
    assert lora.run_ids == tuple(tuned_id("lora", seed) for seed in SEEDS)


def test_bars_are_for_studies_with_breakdowns_and_for_those_without_scores(tmp_path: Path) -> None:
    plain = (ZERO_SHOT, LORA, replace(QLORA))
    assert bars(tmp_path / "plain", arms=plain) is None
    assert bars(tmp_path / "random", arms=plain, weights="random") is not None
    assert bars(tmp_path / "empty", arms=(Arm("qlora", not_run=SEEDS),), weights="random", claims=()) is None


def test_bars_without_a_gpu_are_resident_memory(tmp_path: Path) -> None:
    figure = found(tmp_path, arms=[replace(arm, gpu=None) for arm in (ZERO_SHOT, LORA, QLORA)], weights="random")
    assert figure.label == "peak host memory (RSS), GiB"
    assert [bar.peak for bar in figure.bars] == [3.0, 3.0, 3.0]


def test_an_arm_that_did_not_fit_has_a_bar_up_to_where_memory_ran_out(tmp_path: Path) -> None:
    unfit = replace(TOO_LARGE, card=Card(limit=16.0, reached=15.5))
    figure = found(tmp_path, arms=(*ON_CARD, unfit, replace(TOO_LARGE, name="old")))
    known, unknown = figure.bars[-2:]
    assert (known.kind, known.peak, known.limit, known.parts) == ("did not fit", 15.5, 16.0, ())
    assert (unknown.kind, unknown.peak, unknown.limit) == ("did not fit", None, None)
    assert "Did not fit in memory: lora-fp32, old" in figure.caption


def drawable_bars(count: int = 1) -> MemoryBars:
    parts = tuple(zip(LABELS, PARTS.values(), strict=True))
    made = [Bar(f"arm-{number}", "trained", 9.6, parts) for number in range(count)]
    others = [Bar("base", "zero-shot", 5.0), Bar("$x$ <script>", "did not fit", 15.0, limit=16.0)]
    return MemoryBars("peak GPU memory allocated, GiB", (*made, *others, Bar("big", "did not fit", None)), "")


def test_the_same_bars_give_the_same_bytes_and_no_file_says_when() -> None:
    first, second = draw_bars(drawable_bars()), draw_bars(drawable_bars())
    assert set(first) == set(FORMATS)
    assert first == second
    assert b"<script" not in first["svg"]
    for data in first.values():
        assert b"Date" not in data.replace(b"DejaVu", b"")
        assert b"atplotlib v" not in data


def test_the_figure_grows_with_its_arms() -> None:
    few, many = (png_size(draw_bars(drawable_bars(count))["png"]) for count in (1, 37))
    assert few[0] == many[0]
    # A row of 7 points needs 0.19 inches at 300 dots an inch.
    assert many[1] - few[1] == pytest.approx(36 * 0.19 * 300, abs=2)


def test_a_figure_in_which_nothing_was_read_can_be_drawn() -> None:
    assert draw_bars(MemoryBars("peak", (Bar("big", "did not fit", None),), ""))["svg"]


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height out of the header, in pixels."""
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
