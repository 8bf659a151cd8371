"""LaTeX that compiles: every table of a report, and the example paper, with the values that the macros have."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from reports.latex import latex
from reports.latex_table import as_latex
from reports.report import write_report
from reports.tables import Cell, Column, Table
from tests.unit.reports.records import CHOSEN, LORA, QLORA, ZERO_SHOT, Arm, Card, Study, claim, write_study
from tests.unit.reports.test_elsewhere import add

PAPER = Path("reports/paper/paper.tex").resolve()
_ALL = r"""\documentclass[10pt,a4paper]{article}
\usepackage[utf8]{inputenc}\usepackage[a4paper,margin=2cm]{geometry}\usepackage{booktabs,siunitx}
\begin{document}\footnotesize
%s
\end{document}
"""


def missing() -> str | None:
    """Why nothing can be compiled here; None where it can."""
    if shutil.which("pdflatex") is None:
        return "there is no pdflatex (on Debian: texlive-latex-extra texlive-science)"
    for package in ("booktabs", "siunitx", "geometry", "graphicx"):
        found = subprocess.run(["kpsewhich", f"{package}.sty"], capture_output=True, check=False)
        if found.returncode != 0:
            return f"pdflatex has no {package} (on Debian: texlive-latex-extra texlive-science)"
    return None


REASON = missing()
needs_tex = pytest.mark.skipif(REASON is not None, reason=REASON or "")


def compiled(folder: Path, text: str, name: str = "made") -> str:
    """What pdflatex said; fails with the end of it where there is no PDF."""
    (folder / f"{name}.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", f"{name}.tex"]
    said = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=300)
    output = said.stdout.decode("utf-8", "replace")
    assert said.returncode == 0, output[-2000:]
    assert (folder / f"{name}.pdf").stat().st_size > 1000
    return output


def report(tmp_path: Path, study: Study, *, external: bool = False) -> Path:
    folder = write_study(tmp_path / "data", study)
    if external:
        add(folder, label="Zürich_&%$#{}~^\\ 中 <script>")
    return write_report(tmp_path / "data", study.name, tmp_path / "out").folder


WHOLE = Study(
    arms=(
        ZERO_SHOT,
        replace(LORA, card=Card(forecast=9.5)),
        replace(QLORA, card=Card(forecast=6.0)),
        Arm("lora-fp32@targets=all-linear,checkpointing=false", memory=30.0),
    ),
    claims=(claim(metrics=("rouge1", "rougeL"), drop_in=True), claim(name="int8", reference="zero-shot")),
    drop_in={CHOSEN: 39.5},
    description="dialogues_of 100% & more",
)


@needs_tex
def test_every_table_of_a_report_compiles_and_fits_a_page_s_text(tmp_path: Path) -> None:
    folder = report(tmp_path, WHOLE, external=True)
    texts = [path.read_text() for path in sorted((folder / "tables").glob("*.tex"))]
    assert len(texts) >= 8
    said = compiled(tmp_path, _ALL % "\n\\clearpage\n".join(f"\\noindent\n{text}" for text in texts))
    assert "Overfull \\hbox" not in said


@needs_tex
@pytest.mark.parametrize(
    "study",
    [
        WHOLE,
        Study(weights="random", claims=(), arms=(ZERO_SHOT, LORA, QLORA)),
        Study(frozen=False),
        Study(seeds=(11,)),
        Study(arms=(replace(ZERO_SHOT, gpu=None), replace(LORA, gpu=None), replace(QLORA, gpu=None))),
    ],
    ids=["whole", "random weights", "not frozen", "one seed", "no GPU"],
)
def test_the_paper_compiles_whatever_the_study_has(tmp_path: Path, study: Study) -> None:
    folder = report(tmp_path, study, external=study is WHOLE)
    said = compiled(tmp_path, f"\\def\\report{{{folder}}}\\input{{{PAPER}}}")
    assert "Undefined control sequence" not in said
    assert "Overfull \\hbox" not in said


@needs_tex
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="there is no pdftotext (on Debian: poppler-utils)")
def test_the_papers_text_holds_the_numbers_of_the_report(tmp_path: Path) -> None:
    folder = report(tmp_path, replace(WHOLE, arms=(ZERO_SHOT, LORA, replace(QLORA, mean=38.0))))
    compiled(tmp_path, f"\\def\\report{{{folder}}}\\input{{{PAPER}}}")
    read = subprocess.run(["pdftotext", "-layout", "made.pdf", "-"], cwd=tmp_path, capture_output=True, check=True)
    text = re.sub(r"\s+", " ", read.stdout.decode()).replace("−", "-")
    assert "qlora matches lora within ±1 points: refuted" in text
    assert "The difference in ROUGE-1 is -2.00 points" in text
    assert "??" not in text


@needs_tex
def test_the_paper_stops_where_two_numbers_would_have_one_macro(tmp_path: Path) -> None:
    folder = report(tmp_path, Study(arms=(ZERO_SHOT, LORA, Arm("q-lora"), Arm("q_lora")), claims=()))
    with pytest.raises(AssertionError, match="would stand for main / q-lora"):
        compiled(tmp_path, f"\\def\\report{{{folder}}}\\input{{{PAPER}}}")


@needs_tex
def test_any_text_compiles(tmp_path: Path) -> None:
    hostile = "\\input{x} #1_$%&~^{}<>|[2em]* “q” ’ … ± − Δ σ é ñ č ß Ł 中 🎉 \u202e \x07 \x1b[31m"
    table = Table("t", "", (Column("a"), Column("b", numeric=True)), ((Cell(hostile), Cell(hostile)),))
    compiled(tmp_path, _ALL % f"{latex(hostile)}\n\n{as_latex(table)}")


def test_latex_is_ascii_whatever_the_text() -> None:
    assert latex("Zürich 中") == 'Z\\"{u}rich {[}U+4E2D]'
    assert latex("σ ≤ Łódź").isascii()


def one(texts: list[str], column: Column) -> list[str]:
    """The lines of a table of one column of such cells."""
    rows = tuple((Cell("x"), Cell(text)) for text in texts)
    return as_latex(Table("t", "", (Column("arm"), column), rows)).splitlines()


def test_numbers_are_aligned_by_siunitx_and_everything_else_is_set_as_it_is() -> None:
    assert one(["1,234.5", "0.25", "—"], Column("n", numeric=True))[1] == "\\begin{tabular}{lS[table-format=4.2]}"
    assert one(["1,234.5", "0.25", "—"], Column("n", numeric=True))[5:8] == [
        "x & 1234.5 \\\\",
        "x & 0.25 \\\\",
        "x & {---} \\\\",
    ]
    assert one(["+0.10", "-0.20"], Column("n", numeric=True))[1] == (
        "\\begin{tabular}{lS[table-format=+1.2,retain-explicit-plus]}"
    )
    assert one(["40.00 ± 1.20", "2e-05", "<0.001", "did not fit"], Column("n", numeric=True))[5:9] == [
        "x & $40.00 \\pm 1.20$ \\\\",
        "x & \\num{2e-05} \\\\",
        "x & \\textless{}0.001 \\\\",
        "x & did not fit \\\\",
    ]


def test_a_wide_table_is_split_into_blocks_that_each_name_the_row() -> None:
    columns = (Column("arm"), *(Column(f"column number {place}", "GiB", numeric=True) for place in range(16)))
    table = Table("t", "", columns, ((Cell("lora"), *(Cell(f"{place}.00") for place in range(16))),))
    text = as_latex(table)
    assert text.count("\\begin{tabular}{l") == text.count("lora & ") == 2
    assert sum(f" {place}.00 " in text for place in range(16)) == 16


def test_long_names_are_broken_between_their_parts() -> None:
    name = "qlora-fp4@checkpointing=true,targets=all-linear,double_quant=true,rank=64"
    text = as_latex(Table("t", "", (Column("arm"), Column("n", numeric=True)), ((Cell(name), Cell("1")),)))
    cell = re.search(r"\{@\{\}l@\{\}\}(.*?)\\end\{tabular\}", text)
    assert cell is not None
    parts = cell[1].split("\\\\")
    assert "".join(parts).replace("\\_", "_") == name
    assert all(len(part.replace("\\_", "_")) <= 30 for part in parts)
