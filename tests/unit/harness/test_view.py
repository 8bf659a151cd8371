"""What a person reads of a study under way."""

import io

from rich.console import Console

from harness.messages import Progress
from harness.view import LiveView, Pace, PlainView, duration, make_view


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
    view.phase("train")
    view.progress(Progress("train", 3, 8, 1.234, 567.8))
    view._live.refresh()
    view.close()
    assert "loss 1.234" in out.getvalue()
    assert "568 tokens/s" in out.getvalue()


def test_no_color_is_respected(monkeypatch: object) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, no_color=True, width=80)
    view = LiveView(console, 1)
    view.stage("tune", 1, 0)
    view.close()
    assert "\x1b[31m" not in out.getvalue()
    assert "\x1b[32m" not in out.getvalue()
