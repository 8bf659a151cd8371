"""What a person reads of a study under way."""

import io

import pytest
from rich.console import Console

from harness.messages import Progress
from harness.specs import Specs
from harness.view import LiveView, Pace, PlainView, SharedView, duration, make_view
from study.dialogues import generate
from study.grid import load_grid
from study.runs import RunSpec
from tests.unit.results.records import confirm
from tests.unit.study.small_grid import SMALL

SPECS = Specs.of(load_grid(SMALL), generate(0, {"train": 8, "validation": 4, "test": 4}, turns=(4, 5)))


def trial(number: int) -> RunSpec:
    """A trial of the small grid."""
    arm = SPECS.grid.arm("lora")
    return SPECS.trial(arm, number, SPECS.grid.block(arm)[number])


def test_durations_read_as_a_person_says_them() -> None:
    assert [duration(value) for value in (None, 9.6, 200, 7500)] == ["—", "10 s", "3 min 20 s", "2 h 05 min"]


def test_time_left_follows_from_the_median_of_the_runs_made() -> None:
    pace = Pace(total=10)
    assert pace.left_s() is None
    for seconds in (1.0, 100.0, 20.0):
        pace.add("tune", seconds)
    assert pace.left_s() == 7 * 20.0


def test_captured_output_is_plain_lines_without_escapes() -> None:
    out = io.StringIO()
    view = make_view(Console(file=out, width=60), 3)
    assert isinstance(view, PlainView)
    view.stage("confirm", 3, 1)
    view.note("[red]not a style[/red] 100%")
    view.close()
    assert out.getvalue() == "confirm: 3 runs, 1 already recorded\n[red]not a style[/red] 100%\n"


def test_a_terminal_gets_a_live_view_that_shows_loss_and_speed() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    view = make_view(console, 3)
    assert isinstance(view, LiveView)
    view.stage("tune lora", 2, 0)
    spec = trial(0)
    view.run_started(spec)
    view.phase(spec, "train")
    view.progress(spec, Progress("train", 3, 8, 1.234, 567.8))
    view._live.refresh()
    view.close()
    assert "loss 1.234" in out.getvalue()
    assert "568 tokens/s" in out.getvalue()


def test_runs_side_by_side_each_have_their_line_until_they_end() -> None:
    view = LiveView(Console(file=io.StringIO(), force_terminal=True, width=100), 3)
    shared = SharedView(view)
    first, second = trial(0), trial(1)
    for spec in (first, second):
        shared.run_started(spec)
        shared.phase(spec, "load")
    shared.progress(second, Progress("train", 3, 8, 1.5, 10.0))
    assert [state for _, state in view._runs_now.values()] == ["load", "train  loss 1.500  10 tokens/s"]
    random = {"id": "random/tiny-phi", "revision": None, "weights": "random"}
    shared.run_finished(first, confirm(model=random, quality=None))
    assert [run for run, _ in view._runs_now.values()] == ["tune lora · trial 1"]
    shared.close()


def test_a_plain_line_names_the_run_that_it_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    view = PlainView(Console(file=out, width=200), 3)
    monkeypatch.setattr(PlainView, "EVERY_S", 0.0)
    first, second = trial(0), trial(1)
    view.run_started(first)
    view.run_started(second)
    view.progress(first, Progress("train", 3, 8))
    assert out.getvalue() == "  tune lora · trial 0: train 3/8\n"


def test_no_color_is_respected(monkeypatch: object) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, no_color=True, width=80)
    view = LiveView(console, 1)
    view.stage("tune", 1, 0)
    view.close()
    assert "\x1b[31m" not in out.getvalue()
    assert "\x1b[32m" not in out.getvalue()
