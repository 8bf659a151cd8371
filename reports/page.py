"""`index.html`: one page that needs nothing else. Everything that comes from outside is escaped."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from reports.claiming import ClaimResult
from reports.evidence import Evidence
from reports.page_assets import asset, inlined_svg, policy
from reports.page_predictions import Reading, reading_data
from reports.page_runs import RunColumn, RunRow, Runs, all_runs, runs_data
from reports.page_text import escaped, island
from reports.page_verdict import verdict_section
from reports.public_text import public_text
from reports.remarks import shared_gpu, shared_sentence
from reports.tables import MISSING, NO_SCORES, Cell, Column, Table
from results.schema import Record


@dataclass(frozen=True, slots=True)
class PageFigure:
    """A figure on the page; `svg` is one that this program drew itself."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class _Section:
    """A part of the page. `scripted`: empty without the page's script; `group`: where it stands in the contents."""

    name: str
    title: str
    body: str
    scripted: bool = False
    group: str = ""


def page(
    evidence: Evidence,
    results: Sequence[ClaimResult],
    tables: Sequence[Table],
    figures: Sequence[PageFigure],
    reading: Reading | None = None,
) -> str:
    """The page of one study; `reading` are the predictions that it lets one read."""
    runs, reading = all_runs(evidence), reading or Reading()
    sections = [_verdicts(evidence, results)]
    sections += [_figure(figure, number) for number, figure in enumerate(figures, start=1)]
    sections += [_plot(runs)] if runs.rows else []
    sections += [_table(table) for table in tables if table.rows]
    sections += _findings(evidence)
    sections += [_predictions(reading)] if reading.dialogues else []
    sections += [_runs(runs)] if runs.rows else []
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy()}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escaped(evidence.study)}</title><style>{asset('page.css')}</style></head><body>",
            f"<header><h1>Study {escaped(evidence.study)}</h1>",
            f"{_about(evidence)}</header><main>",
            # The verdict before everything else, also before what else there is.
            _section(sections[0]),
            _contents(sections[1:]),
            *(_section(section) for section in sections[1:]),
            "</main>",
            '<noscript><p class="note">Without JavaScript this page shows the verdict, figures and tables. Sorting, '
            "the records of runs, the plot and the reader of predictions need it; nothing is loaded or sent.</p>"
            "</noscript>",
            island("runs", runs_data(runs)),
            island("predictions", reading_data(reading)),
            f"<script>{asset('page.js')}</script>",
            "</body></html>",
            "",
        ]
    )


def _section(section: _Section) -> str:
    hidden = " hidden" if section.scripted else ""
    return f'<section id="{section.name}"{hidden}><h2>{escaped(section.title)}</h2>\n{section.body}</section>'


def _contents(sections: Sequence[_Section]) -> str:
    lists = []
    for group, members in groupby(sections, key=lambda section: section.group):
        items = [f'<li class="group">{escaped(group)}</li>'] if group else []
        for section in members:
            hidden = " hidden" if section.scripted else ""
            items.append(f'<li{hidden}><a href="#{section.name}">{escaped(section.title)}</a></li>')
        lists.append(f"<ul>{''.join(items)}</ul>")
    return f'<nav aria-label="Contents">{"".join(lists)}</nav>'


def _about(evidence: Evidence) -> str:
    counts = Counter(record.status for record in evidence.last.values())
    runs = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in sorted(counts.items())) or "none"
    facts = {
        "Data": [evidence.description],
        "Model": [evidence.model or "no model yet"],
        "Machine": list(evidence.machines),
        "Recorded runs": [f"{runs}; {len(evidence.not_run)} planned and not run"],
    }
    items = "".join(
        f"<dt>{name}</dt>{''.join(f'<dd>{escaped(fact)}</dd>' for fact in found)}"
        for name, found in facts.items()
        if any(found)
    )
    return f'<dl class="about">{items}</dl>'


def _verdicts(evidence: Evidence, results: Sequence[ClaimResult]) -> _Section:
    random = f'<p class="remark">{escaped(NO_SCORES.capitalize())}.</p>' if evidence.random_weights else ""
    return _Section("verdict", "Verdict", random + verdict_section(results))


def _figure(figure: PageFigure, number: int) -> _Section:
    caption = escaped(figure.caption)
    drawn = f'<div class="drawing" role="img" aria-label="{caption}">{inlined_svg(figure.svg, number)}</div>'
    return _Section(
        f"figure-{number}", figure.title, f"<figure>{drawn}<figcaption>{caption}</figcaption></figure>", group="Figures"
    )


# --- tables ---


def _table(table: Table) -> _Section:
    head = "".join(_header(column.title, numeric=column.numeric) for column in table.columns)
    rows = "\n".join(
        f"<tr>{''.join(_cell(cell, column) for cell, column in zip(row, table.columns, strict=True))}</tr>"
        for row in table.rows
    )
    body = _scrolled(f"{table.name} table", f'<table class="sortable">{_parts(head, rows)}</table>')
    note = f'<p class="note">{escaped(table.caption)}</p>'
    title = table.name.capitalize()
    return _Section(f"table-{escaped(table.name)}", title, body + note, group="Tables")


def _parts(head: str, rows: str) -> str:
    return f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"


def _scrolled(label: str, table: str) -> str:
    """A table that may be wider than the page: scrolled by pointer and by keyboard."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(label)}">{table}</div>'


def _header(title: str, *, numeric: bool) -> str:
    # "ROUGE-1" is one word, and broken at no hyphen.
    words = [
        f'<span class="word-of">{escaped(word)}</span>' if "-" in word else escaped(word) for word in title.split()
    ]
    return f'<th scope="col"{_style(numeric)}>{" ".join(words)}</th>'


def _style(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def _cell(cell: Cell, column: Column) -> str:
    text = escaped(cell.text)
    if cell.run_ids and cell.text != MISSING:
        count = f"{len(cell.run_ids)} run{'' if len(cell.run_ids) == 1 else 's'}"
        text = f'<a href="#runs" data-runs="{escaped(" ".join(cell.run_ids))}" title="{count}">{text}</a>'
    return f"<td{_style(column.numeric)}>{text}</td>"


# --- runs ---


def _runs(runs: Runs) -> _Section:
    head = "".join(
        [_header("run", numeric=False), *(_header(column.title, numeric=column.numeric) for column in runs.columns)]
    )
    rows = "\n".join(_run(row, runs.columns) for row in runs.rows)
    table = _scrolled("runs table", f'<table class="sortable" id="run-table">{_parts(head, rows)}</table>')
    note = (
        '<p class="note">Every planned run, whatever came of it; a run opens its record. Scores of trials and of '
        "validation baselines are those of the validation split, all others of the test split.</p>"
    )
    return _Section("runs", "Runs", f'<div id="run-filter"></div>{table}{note}')


def _run(row: RunRow, columns: Sequence[RunColumn]) -> str:
    cells = "".join(_run_cell(row, column) for column in columns)
    link = f'<a href="#run-{row.run_id}"><code>{row.run_id[:8]}</code></a>'
    return f'<tr id="run-{row.run_id}"><th scope="row">{link}</th>{cells}</tr>'


def _run_cell(row: RunRow, column: RunColumn) -> str:
    value = row.values[column.key]
    text = escaped(value.text)
    if column.key == "status":
        text = f'<span class="status {escaped(row.status.replace(" ", "-"))}">{text}</span>'
    # What is printed may be rounded: rows are sorted by the number itself.
    exact = "" if value.number is None else f' data-value="{value.number!r}"'
    return f"<td{_style(column.numeric)}{exact}>{text}</td>"


def _plot(runs: Runs) -> _Section:
    note = (
        '<p class="note">One point a run. Move over a point, or focus the plot and use the arrow keys, to read it; '
        "click it or press Enter to open its record.</p>"
    )
    return _Section("explore", "Every run in a plot", f'<div id="plot"></div>{note}', scripted=True, group="Figures")


# --- predictions ---


def _predictions(reading: Reading) -> _Section:
    count = len(reading.dialogues)
    more = f"; {reading.left_out} more, which differ less, are left out" if reading.left_out else ""
    notes = [f"Of each arm one run is shown, that of its lowest seed, on {count} dialogues of the test split{more}."]
    if reading.contrasts:
        notes.append("Differences are those of the shown runs; the verdict is about the mean over seeds, given beside.")
    notes += [reading.without_text] if reading.without_text is not None else []
    if any(item.example is not None for item in reading.dialogues):
        notes.append("This page holds text of the data set: mind its licence before you publish it.")
    body = "".join(f'<p class="note">{escaped(note)}</p>' for note in notes)
    return _Section("predictions", "Predictions", f'<div id="reader"></div>{body}', scripted=True)


# --- findings ---


def _findings(evidence: Evidence) -> list[_Section]:
    not_run = Counter(f"{run.stage} {run.arm}" for run in evidence.not_run)
    found = {
        "Runs that did not complete": [
            *(_failure(record) for record in evidence.not_completed),
            *(f"{escaped(what)}: {count} planned and not run" for what, count in not_run.items()),
        ],
        "Runs on a shared GPU": _shared(evidence),
        "Left out": [
            *(_left_out(len(item.run_ids), item.reason, item.run_ids) for item in evidence.left_out),
            *(f"damaged record, {escaped(text)}" for text in evidence.damaged),
        ],
        "Notes on the data": [escaped(note) for note in evidence.notes],
    }
    names = {
        "Runs that did not complete": "failures",
        "Runs on a shared GPU": "company",
        "Left out": "left-out",
        "Notes on the data": "data-notes",
    }
    return [
        _Section(names[title], title, "<ul>" + "\n".join(f"<li>{item}</li>" for item in items) + "</ul>")
        for title, items in found.items()
        if items
    ]


def _left_out(count: int, reason: str, run_ids: Sequence[str]) -> str:
    ids = escaped(" ".join(run_ids))
    return f'<a href="#runs" data-runs="{ids}">{count} runs</a>: {escaped(public_text(reason))}'


def _shared(evidence: Evidence) -> list[str]:
    """One line for all runs that were not alone on their GPU, which runs being its title."""
    shared = shared_gpu(evidence.last.values())
    ids = escaped(" ".join(record.run_id for record in shared))
    if not shared:
        return []
    return [f'<a href="#runs" data-runs="{ids}" title="runs {ids}">{escaped(shared_sentence(len(shared)))}</a>']


def _failure(record: Record) -> str:
    which = f"seed {record.seed}" if record.trial is None else f"trial {record.trial}, seed {record.seed}"
    why = ""
    if record.error is not None:
        phase = f" in {record.error.phase}" if record.error.phase else ""
        why = f"{phase}: {public_text(record.error.message)}"
    run = f'<a href="#run-{record.run_id}">{escaped(record.stage)} {escaped(record.arm)}, {which}</a>'
    return f"{run}: <strong>{escaped(record.status)}</strong>{escaped(why)}"
