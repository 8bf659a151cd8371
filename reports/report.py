"""From a study's records to the files of its report. Same records, same bytes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.claiming import ClaimResult, judge_claims
from reports.drawing import draw
from reports.evidence import Evidence, NoStudy, gather
from reports.figures import memory_figure
from reports.numbers import numbers_tex
from reports.page import page
from reports.rendering import as_csv, as_latex, as_markdown
from reports.tables import Table, main_table, trials_table, verdict_table
from reports.verdict_file import verdict_json
from reports.wording import summary
from results.layout import StudyFolder
from results.store import write_atomically
from study.problems import choices, shown

# As a grid may name a study: it becomes a folder's name here.
_STUDY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Report:
    """What was written (`files`, the page last), and what a terminal prints of it."""

    folder: Path
    index: Path
    files: tuple[Path, ...]
    summary: tuple[str, ...]


def write_report(results: Path, study: str, out: Path) -> Report:
    """Writes `out/<study>/` from `results/<study>/`.

    Raises:
        NoStudy: there is no such study; the message names those that are there.
        ResultsError: something recorded cannot be used, or the report cannot be written.
    """
    folder = StudyFolder.of(results, study)
    if not _STUDY.fullmatch(study) or not folder.plan.is_file():
        there = sorted(path.parent.name for path in results.glob("*/plan.json"))
        known = choices(there) if there else "there is none"
        raise NoStudy(f"STUDY {shown(study)}: no study of that name in {results}: {known}")
    evidence = gather(folder)
    claims = judge_claims(evidence)
    target = out / study
    files = {target / name: data for name, data in _files(evidence, claims).items()}
    for path, data in files.items():
        write_atomically(path, data)
    return Report(target, target / "index.html", tuple(files), summary(evidence, claims))


def _files(evidence: Evidence, claims: Sequence[ClaimResult]) -> dict[str, bytes]:
    """Every file of the report by its name inside the report's folder; the page last, when what it shows is there."""
    main, verdicts, trials = main_table(evidence), verdict_table(claims), trials_table(evidence)
    files: dict[str, bytes] = {"verdict.json": verdict_json(evidence, claims)}
    for table in (main, verdicts, trials):
        files |= _table_files(table)
    figure = memory_figure(evidence)
    drawn = draw(figure)
    files |= {f"figures/memory_vs_rouge.{kind}": data for kind, data in drawn.items()}
    files["figures/memory_vs_rouge.txt"] = (figure.caption + "\n").encode()
    files["numbers.tex"] = numbers_tex(main, verdicts).encode()
    # The XML declaration and doctype of a file of its own have no place inside a page.
    svg = drawn["svg"].decode()
    svg = svg[svg.index("<svg") :]
    files["index.html"] = page(evidence, claims, (main, verdicts, trials), svg, figure.caption).encode()
    return files


def _table_files(table: Table) -> dict[str, bytes]:
    return {
        f"tables/{table.name}.csv": as_csv(table).encode(),
        f"tables/{table.name}.md": as_markdown(table).encode(),
        f"tables/{table.name}.tex": as_latex(table).encode(),
    }
