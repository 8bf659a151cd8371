"""From a study's records to the files of its report. Same records, same bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.claiming import ClaimResult, judge_claims
from reports.evidence import Evidence, NoStudy, gather
from reports.gallery import FILES, drawn
from reports.latex_table import as_latex
from reports.measured_tables import breakdown_table, cost_table, memory_table
from reports.numbers import numbers_file, trouble
from reports.page import PageFigure, page
from reports.page_predictions import read_reading
from reports.rendering import as_csv, as_markdown
from reports.run_tables import forecast_table, repeats_table
from reports.study_tables import STUDY_TABLES, study_tables
from reports.tables import Table, main_table, trials_table, verdict_table
from reports.verdict_file import verdict_json
from reports.wording import summary
from results.layout import StudyFolder
from results.store import ResultsError, write_atomically
from study.problems import choices, shown

_TABLE_KINDS = ("csv", "md", "tex")
# Files that a report has only where there is something to show.
_OPTIONAL = (
    *(
        f"tables/{name}.{kind}"
        for name in (
            *("memory", "breakdown", "forecast", "cost", "repeats"),
            *STUDY_TABLES,
        )
        for kind in _TABLE_KINDS
    ),
    *FILES,
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
    folder = StudyFolder.planned(results, study)
    if folder is None:
        there = sorted(path.parent.name for path in results.glob("*/plan.json"))
        known = choices(there) if there else "there is none"
        raise NoStudy(f"STUDY {shown(study)}: no study of that name in {results}: {known}")
    evidence = gather(folder)
    claims = judge_claims(evidence)
    target = out / study
    files = {target / name: data for name, data in _files(evidence, claims, folder).items()}
    for path, data in files.items():
        write_atomically(path, data)
    _remove_outdated(target, files)
    told = trouble(files[target / "numbers.tex"])
    said = (*summary(evidence, claims), *([f"  note: {told}"] if told is not None else []))
    return Report(target, target / "index.html", tuple(files), said)


def _files(evidence: Evidence, claims: Sequence[ClaimResult], folder: StudyFolder) -> dict[str, bytes]:
    """Every file of the report by its name inside the report's folder; the page last, when what it shows is there."""
    main, verdicts, trials = main_table(evidence), verdict_table(claims), trials_table(evidence)
    measured = [*study_tables(evidence, claims), *_measured(evidence)]
    files: dict[str, bytes] = {"verdict.json": verdict_json(evidence, claims)}
    for table in (main, verdicts, trials, *measured):
        files |= _table_files(table)
    figures: list[PageFigure] = []
    for figure in drawn(evidence, claims):
        caption = figure.value.caption
        files |= {f"figures/{figure.name}.{kind}": data for kind, data in figure.files.items()}
        files[f"figures/{figure.name}.txt"] = (caption + "\n").encode()
        figures.append(PageFigure(figure.title, _inner_svg(figure.files["svg"]), caption))
    files["numbers.tex"] = numbers_file((main, verdicts, *measured), claims, evidence)
    reading = read_reading(folder, evidence, claims)
    files["index.html"] = page(evidence, claims, (main, verdicts, *measured, trials), figures, reading).encode()
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
