"""Tables: what the cells hold, and that no reader acts on what comes from outside."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from reports.claiming import judge_claims
from reports.evidence import gather
from reports.latex import latex, latex_number, macro_name
from reports.latex_table import as_latex
from reports.numbers import numbers_tex
from reports.rendering import as_csv, as_markdown
from reports.tables import MISSING, Cell, Column, Table, main_table, trials_table, verdict_table
from tests.unit.reports.records import LORA, QLORA, SEEDS, ZERO_SHOT, Arm, run_id, tuned_id, write_study

HOSTILE = "<script>alert(1)</script> #Person1# \\input{x} =cmd()|a_b $x$ & 50% [y](z) *"


def main(results: Path, **changes: Any) -> Table:
    return main_table(gather(write_study(results, **changes)))


def cell(table: Table, row: str, header: str) -> Cell:
    (index,) = [number for number, column in enumerate(table.columns) if column.header == header]
    (found,) = [cells for cells in table.rows if cells[0].text == row]
    return found[index]


def one_cell(text: str, *, numeric: bool = False) -> Table:
    return Table("t", "caption", (Column("a", numeric=numeric), Column("b")), ((Cell(text), Cell("next")),))


def test_every_arm_of_the_plan_has_a_row_in_its_order_and_floors_come_last(tmp_path: Path) -> None:
    table = main(tmp_path)
    assert [row[0].text for row in table.rows] == ["zero-shot", "lora", "qlora", "constant summary", "first 3 turns"]
    assert cell(table, "constant summary", "method").text == "floor"
    assert cell(table, "constant summary", "ROUGE-1").text == "14.00"
    assert cell(table, "zero-shot", "method").text == "zero-shot"


def test_the_columns_say_their_unit(tmp_path: Path) -> None:
    titles = [column.title for column in main(tmp_path).columns]
    assert "peak memory (GPU allocated), GiB" in titles
    assert "training, s" in titles
    assert "ROUGE-1, points" in titles
    without = [Arm(arm.name, method=arm.method, zero_shot=arm.zero_shot, gpu=None) for arm in (ZERO_SHOT, LORA, QLORA)]
    titles = [column.title for column in main(tmp_path / "cpu", arms=without).columns]
    assert "peak memory (host RSS), GiB" in titles


def test_a_row_holds_what_was_measured_with_the_runs_behind_it(tmp_path: Path) -> None:
    table = main(tmp_path)
    ids = tuple(tuned_id("qlora", seed) for seed in SEEDS)
    score = cell(table, "qlora", "ROUGE-1")
    assert score.text.startswith("40.00 ± ")
    assert score.run_ids == ids
    assert cell(table, "qlora", "peak memory (GPU allocated)") == Cell("6.120", ids)
    assert cell(table, "qlora", "training") == Cell("113.0", ids)
    assert cell(table, "qlora", "trainable parameters").text == "23,592,960"
    assert cell(table, "qlora", "trainable").text == "0.842"
    assert [cell(table, "qlora", header).text for header in ("seeds", "rank", "alpha", "learning rate")] == [
        "5",
        "16",
        "32",
        "0.0002",
    ]
    assert cell(table, "qlora", "test runs").text == "5 completed"


def test_what_is_missing_is_a_dash_and_never_0(tmp_path: Path) -> None:
    failed = Arm("qlora", statuses=dict.fromkeys(SEEDS, "failed"))
    table = main(tmp_path, arms=(ZERO_SHOT, LORA, failed))
    texts = {column.header: cell(table, "qlora", column.header).text for column in table.columns}
    for header in ("trainable parameters", "peak memory (GPU allocated)", "training", "ROUGE-1", "ROUGE-Lsum", "seeds"):
        assert texts[header] == MISSING, header
    assert texts["test runs"] == "5 failed"
    assert cell(table, "zero-shot", "training").text == MISSING
    assert cell(table, "zero-shot", "rank").text == MISSING


def test_an_arm_without_memory_for_it_did_not_fit_and_its_status_counts_say_so(tmp_path: Path) -> None:
    table = main(tmp_path, arms=(ZERO_SHOT, LORA, Arm("qlora", statuses=dict.fromkeys(SEEDS, "out_of_memory"))))
    assert cell(table, "qlora", "peak memory (GPU allocated)").text == "did not fit"
    mixed = main(tmp_path / "mixed", arms=(ZERO_SHOT, LORA, Arm("qlora", statuses={11: "out_of_memory"})))
    assert cell(mixed, "qlora", "test runs").text == "4 completed, 1 out_of_memory"
    assert cell(mixed, "qlora", "peak memory (GPU allocated)").text == "10.025"


def test_random_weights_have_neither_columns_of_scores_nor_floors_and_say_why(tmp_path: Path) -> None:
    unfit = Arm("lora-fp32", statuses=dict.fromkeys(SEEDS, "out_of_memory"))
    evidence = gather(write_study(tmp_path, arms=(ZERO_SHOT, LORA, unfit), weights="random", claims=()))
    table, trials = main_table(evidence), trials_table(evidence)
    assert not any("ROUGE" in column.header or column.header == "seeds" for column in table.columns)
    assert [row[0].text for row in table.rows] == ["zero-shot", "lora", "lora-fp32"]
    assert table.caption.startswith("Random weights: memory and time only, no scores.")
    assert cell(table, "lora-fp32", "peak memory (GPU allocated)").text == "did not fit"
    assert cell(table, "lora", "test runs").text == "5 completed"
    assert [column.header for column in trials.columns][-3:] == ["learning rate", "status", "chosen"]
    assert "no scores" in trials.caption


def test_columns_without_anything_in_them_can_be_left_out() -> None:
    columns = (Column("a"), Column("b", numeric=True), Column("c"))
    rows = ((Cell("x"), Cell(MISSING), Cell("")), (Cell("y"), Cell(MISSING), Cell("z")))
    assert Table("t", "", columns, rows).without_empty_columns() == Table(
        "t", "", (columns[0], columns[2]), ((Cell("x"), Cell("")), (Cell("y"), Cell("z")))
    )


def test_every_trial_is_listed_also_those_that_gave_nothing(tmp_path: Path) -> None:
    arms = (ZERO_SHOT, LORA, Arm("qlora", trial_statuses=("completed", "out_of_memory", "diverged")))
    table = trials_table(gather(write_study(tmp_path, arms=arms)))
    assert [(row[0].text, row[1].text, row[-2].text, row[-1].text) for row in table.rows] == [
        ("lora", "0", "completed", "chosen"),
        ("lora", "1", "completed", ""),
        ("qlora", "0", "completed", "chosen"),
        ("qlora", "1", "out_of_memory", ""),
        ("qlora", "2", "diverged", ""),
    ]
    loss = [column.header for column in table.columns].index("validation loss")
    assert [row[loss].text for row in table.rows[2:]] == ["1.5000", MISSING, MISSING]
    assert table.rows[3][-2].run_ids == (run_id("tune", None, "qlora", 0, 1),)


def test_the_verdict_table_holds_the_difference_with_both_intervals(tmp_path: Path) -> None:
    table = verdict_table(judge_claims(gather(write_study(tmp_path, arms=(ZERO_SHOT, LORA, Arm("qlora", mean=38.0))))))
    assert cell(table, "qlora-matches-lora", "difference").text == "-2.00"
    low, high = cell(table, "qlora-matches-lora", "90% interval").text.strip("[]").split(", ")
    assert float(low) < -2.0 < float(high)
    assert cell(table, "qlora-matches-lora", "verdict").text == "refuted"


def test_no_p_value_is_printed_as_0(tmp_path: Path) -> None:
    table = verdict_table(judge_claims(gather(write_study(tmp_path))))
    assert cell(table, "qlora-matches-lora", "TOST p").text == "<0.001"
    assert cell(table, "qlora-matches-lora", "Holm p").text == MISSING


def test_a_row_with_another_number_of_cells_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="another number of cells"):
        Table("t", "", (Column("a"), Column("b")), ((Cell("1"),),))


@pytest.mark.parametrize("text", ["=cmd()", "+cmd", "-cmd", "@sum", "\t=1", "\r=1", "\n=1", "＝1", "-2+3"])
def test_no_csv_cell_is_a_formula(text: str) -> None:
    (_, (first, _)) = csv.reader(io.StringIO(as_csv(one_cell(text))))
    assert first.startswith("'")


@pytest.mark.parametrize("text", ["-0.25", "+1.50", "qlora-nf4", "[-1.00, +0.50]"])
def test_numbers_and_names_stand_in_csv_as_they_are(text: str) -> None:
    (_, (first, _)) = csv.reader(io.StringIO(as_csv(one_cell(text))))
    assert first == text


def test_what_is_missing_is_empty_in_csv() -> None:
    assert as_csv(one_cell(MISSING)) == "a,b\n,next\n"


def test_markdown_cells_hold_no_markup_and_no_new_cell_or_row() -> None:
    (row,) = [line for line in as_markdown(one_cell("a|b\n<script> `x` *y* [z](u)")).splitlines() if "next" in line]
    assert row == r"| a\|b\\n\<script\> \`x\` \*y\* \[z\](u) | next |"


def test_latex_special_signs_are_written_out() -> None:
    assert latex(r"\input{x} #1_$%&~^") == (
        r"\textbackslash{}input\{x\} \#1\_\$\%\&\textasciitilde{}\textasciicircum{}"
    )
    assert latex("a\nb") == r"a\textbackslash{}nb"


def test_a_latex_row_cannot_start_with_an_argument_of_the_row_before() -> None:
    # "\\ [2em]" and "\\ *" would be read as options of the line break.
    assert as_latex(one_cell("[2em]")).splitlines()[5].startswith("{[}")
    assert latex("*").startswith("{*}")


def test_minus_signs_of_numbers_are_minus_signs_in_latex() -> None:
    assert latex_number("-0.25") == "$-$0.25"
    assert latex_number("[-1.00, -0.50]") == "{[}$-$1.00, $-$0.50]"
    assert latex_number("2e-05") == "2e-05"
    assert latex("qlora-nf4") == "qlora-nf4"


def test_macro_names_are_letters_only() -> None:
    assert macro_name("qlora-nf4", "ROUGE-1") == "QloraNfFourROUGEOne"
    assert macro_name("Ünïcode_%{}", "2") == "NCodeTwo"


def test_a_hostile_name_stays_on_its_line_of_the_macro_file(tmp_path: Path) -> None:
    arms = (ZERO_SHOT, LORA, Arm("x\n\\input{secret}"))
    text = numbers_tex(main(tmp_path, arms=arms), verdict_table(()))
    assert all(line.startswith(("\\newcommand{", "%")) for line in text.splitlines())


def test_hostile_text_is_inert_in_every_rendering() -> None:
    table = one_cell(HOSTILE)
    assert as_csv(table) == f"a,b\n{HOSTILE},next\n"
    assert as_markdown(table).splitlines()[2] == (
        r"| \<script\>alert(1)\</script\> \#Person1\# \\input{x} =cmd()\|a\_b \$x\$ \& 50% \[y\](z) \* | next |"
    )
    # Long texts are set in lines.
    assert as_latex(table).splitlines()[5] == (
        r"\begin{tabular}[b]{@{}l@{}}\textless{}script\textgreater{}alert(1)\textless{}/script\textgreater{}\\"
        r"\#Person1\# \textbackslash{}input\{x\} =cmd()\textbar{}a\_b\\"
        r"\$x\$ \& 50\% {[}y](z) {*}\end{tabular} & next \\"
    )
