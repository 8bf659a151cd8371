"""From a study's records to the files of its report. Same records, same bytes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.claiming import ClaimResult, judge_claims
from reports.drawing import FORMATS, draw
from reports.drawing_memory import draw_bars
from reports.evidence import Evidence, NoStudy, gather
from reports.figures import memory_bars, memory_figure
from reports.measured_tables import breakdown_table, cost_table, memory_table
from reports.numbers import numbers_tex
from reports.page import PageFigure, page
from reports.rendering import as_csv, as_latex, as_markdown
from reports.run_tables import forecast_table, repeats_table
from reports.tables import Table, main_table, trials_table, verdict_table
from reports.verdict_file import verdict_json
from reports.wording import summary
from results.layout import StudyFolder
from results.store import ResultsError, write_atomically
from study.problems import choices, shown

# As a grid may name a study: it becomes a folder's name here.
_STUDY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_TABLE_KINDS = ("csv", "md", "tex")
# Files that a report has only where there is something to show.
_OPTIONAL = (
    *(
        f"tables/{name}.{kind}"
        for name in ("memory", "breakdown", "forecast", "cost", "repeats")
        for kind in _TABLE_KINDS
    ),
    *(f"figures/{name}.{kind}" for name in ("memory_vs_rouge", "memory_by_arm") for kind in (*FORMATS, "txt")),
)


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
    _remove_outdated(target, files)
    return Report(target, target / "index.html", tuple(files), summary(evidence, claims))


def _files(evidence: Evidence, claims: Sequence[ClaimResult]) -> dict[str, bytes]:
    """Every file of the report by its name inside the report's folder; the page last, when what it shows is there."""
    main, verdicts, trials = main_table(evidence), verdict_table(claims), trials_table(evidence)
    measured = _measured(evidence)
    files: dict[str, bytes] = {"verdict.json": verdict_json(evidence, claims)}
    for table in (main, verdicts, trials, *measured):
        files |= _table_files(table)
    figures: list[PageFigure] = []
    for name, title, drawn, caption in _figures(evidence):
        files |= {f"figures/{name}.{kind}": data for kind, data in drawn.items()}
        files[f"figures/{name}.txt"] = (caption + "\n").encode()
        figures.append(PageFigure(title, _inner_svg(drawn["svg"]), caption))
    files["numbers.tex"] = numbers_tex(main, verdicts, measured).encode()
    files["index.html"] = page(evidence, claims, (main, verdicts, *measured, trials), figures).encode()
    return files


def _measured(evidence: Evidence) -> list[Table]:
    """The tables of measurements that have anything to show."""
    tables = (
        memory_table(evidence),
        breakdown_table(evidence),
        forecast_table(evidence),
        cost_table(evidence),
        repeats_table(evidence),
    )
    return [table for table in tables if table.rows]


def _figures(evidence: Evidence) -> Iterator[tuple[str, str, dict[str, bytes], str]]:
    """Each figure: the name of its files, its title, the files, its caption. Random weights have no score to draw."""
    if not evidence.random_weights:
        scatter = memory_figure(evidence)
        yield "memory_vs_rouge", "Memory against ROUGE", draw(scatter), scatter.caption
    bars = memory_bars(evidence)
    if bars is not None:
        yield "memory_by_arm", "Memory by arm", draw_bars(bars), bars.caption


def _inner_svg(data: bytes) -> str:
    """The XML declaration and doctype of a file of its own have no place inside a page."""
    svg = data.decode()
    return svg[svg.index("<svg") :]


def _remove_outdated(folder: Path, written: Mapping[Path, bytes]) -> None:
    """What an earlier report wrote of these and this one does not have would pass for this one's.

    Raises:
        ResultsError: it cannot be removed.
    """
    for name in _OPTIONAL:
        path = folder / name
        if path not in written:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise ResultsError(f"{name} of an earlier report cannot be removed: {error.strerror}") from None


def _table_files(table: Table) -> dict[str, bytes]:
    as_kind = {"csv": as_csv, "md": as_markdown, "tex": as_latex}
    return {f"tables/{table.name}.{kind}": as_kind[kind](table).encode() for kind in _TABLE_KINDS}
