"""What comes from outside is text wherever it is shown: on a terminal, in a spreadsheet, in a paper, on a page."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.adapters.sources import DataError, Loaded
from harness.planning import make_plan, print_plan
from harness.scoring import ScoringError
from harness.start import _notes, _say
from harness.view import LiveView, PlainView, View
from reports.__main__ import main as reports
from reports.latex_table import as_latex
from reports.rendering import as_csv, as_markdown
from reports.report import write_report
from reports.tables import Cell, Column, Table
from results.schema import ErrorPart
from study.grid import load_grid
from study.models import ModelSpec
from tests.unit.harness.test_view import trial
from tests.unit.reports.records import LORA, ZERO_SHOT, Arm, claim, write_study
from tests.unit.results.records import FAILED, confirm
from tests.unit.study.small_grid import SMALL

# Clears the screen, sets the title, a C1 sequence, a bell, goes back, turns text round; a style and an end of none.
HOSTILE = "a\x1b[2J\x1b]0;title\x07\x9b31m\b\r\n\u202etext\u2066 [bold red]b[/nothing] :bug: \\"
# How it is shown.
WRITTEN = "a\\x1b[2J\\x1b]0;title\\x07\\x9b31m\\x08\\r\\n\\u202etext\\u2066 [bold red]b[/nothing] :bug:"
SIGNS = "\x07\x08\x1b\r\x9b\u202e\u2066\udc80"


def no_sign(text: str) -> bool:
    """Whether a terminal would act on nothing of `text` but line breaks; rich's own sequences left out."""
    return not any(sign in text for sign in SIGNS)


def shown(view: Callable[[Console, int], View], *, terminal: bool) -> str:
    """What a view prints of a run, a stage and a note that are all hostile."""
    out = io.StringIO()
    made = view(Console(file=out, force_terminal=terminal, color_system=None, width=400, legacy_windows=False), 3)
    record = confirm(**{**FAILED, "error": ErrorPart(type="E", message=HOSTILE + "\udc80", phase="train")})
    made.stage(HOSTILE, 2, 0)
    made.run_started(trial(0))
    made.run_finished(trial(0), record)
    made.note(HOSTILE + "\udc80")
    if isinstance(made, LiveView):
        made._now(trial(1), HOSTILE)
        made._live.refresh()
    made.close()
    return out.getvalue()


def test_plain_lines_hold_no_sign_that_a_terminal_acts_on() -> None:
    text = shown(PlainView, terminal=False)
    assert no_sign(text)
    assert text.count("\n") == 3
    assert text.count(WRITTEN) == 3


def test_a_live_view_holds_no_sequence_but_its_own() -> None:
    text = shown(LiveView, terminal=True)
    for sequence in ("\x1b[2J\x1b]", "\x1b]0;", "\x07", "\x9b", "\b", "\u202e", "\u2066", "\udc80"):
        assert sequence not in text
    assert text.count(WRITTEN) >= 3


def test_errors_and_notes_of_a_start_hold_no_sign_that_a_terminal_acts_on(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=400)
    assert _say(console, DataError(HOSTILE + "\udc80")) == 2
    _notes(Loaded({"test": ()}, (HOSTILE,), HOSTILE + "\udc80"), console)
    captured = capsys.readouterr()
    assert (captured.err.count("\n"), captured.out.count("\n")) == (1, 2)
    assert no_sign(captured.err + captured.out)


def test_a_plan_shows_a_model_s_folder_as_it_is_written() -> None:
    grid = replace(load_grid(SMALL), model=ModelSpec(f"./{HOSTILE}", None, "pretrained"))
    out = io.StringIO()
    print_plan(make_plan(grid, 3, None), Console(file=out, width=400))
    assert no_sign(out.getvalue())
    assert "[bold red]b[/nothing] :bug:" in out.getvalue()


def test_what_cannot_be_scored_is_told_without_escapes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import harness.__main__ as command

    def refused(*_: object) -> None:
        raise ScoringError(HOSTILE)

    monkeypatch.setattr(command, "score_files", refused)
    assert command.main(["score", "--predictions", "p", "--data", "d"]) == 2
    error = capsys.readouterr().err
    assert no_sign(error)
    assert error.count("\n") == 1


def test_a_report_on_no_study_is_told_without_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "results\x1b[2J"
    write_study(folder, name="study\n\x1b[2J")
    assert reports(["nothing\x1b[2J", "--results", str(folder), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert no_sign(error)
    assert error.count("\n") == 1


FORMULAS = ("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|'/C calc'!A0", '=HYPERLINK("http://x")', "＝1")


@pytest.mark.parametrize("text", FORMULAS)
def test_no_title_and_no_cell_of_a_table_is_a_formula(text: str) -> None:
    table = Table("t", text, (Column(text), Column("b", numeric=True)), ((Cell(text), Cell(text)),))
    for row in csv.reader(io.StringIO(as_csv(table))):
        for cell in row:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))
    # A caption may name arms, too.
    assert no_sign(as_csv(table) + as_markdown(table) + as_latex(table))


def test_no_table_of_a_study_holds_a_formula_whatever_its_arms_and_claims_are_called(tmp_path: Path) -> None:
    texts = FORMULAS[:4]
    write_study(
        tmp_path / "results",
        arms=(ZERO_SHOT, LORA, *map(Arm, texts)),
        claims=tuple(claim(name=text, candidate=text) for text in texts),
        model=texts[0],
        description=texts[0],
        error=texts[0],
        prediction=texts[0],
        floors=dict.fromkeys(texts, 14.0),
    )
    report = write_report(tmp_path / "results", "study", tmp_path / "out")
    tables = [path for path in report.files if path.suffix == ".csv"]
    assert len(tables) > 3
    quoted: set[str] = set()
    for path in tables:
        for row in csv.reader(io.StringIO(path.read_text())):
            for cell in row:
                assert cell not in texts
                quoted.add(cell)
    assert quoted >= {f"'{text}" for text in texts}
