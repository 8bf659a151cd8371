"""`index.html`: one page that needs nothing else. Everything that comes from outside is escaped."""

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from reports.claiming import ClaimResult
from reports.evidence import Evidence
from reports.public_text import public_text
from reports.remarks import shared_gpu, shared_sentence
from reports.tables import NO_SCORES, Table
from reports.wording import claim_sentence, metric_sentences, secondary_sentences
from results.schema import Record
from study.problems import one_line

# Nothing is loaded and nothing runs: the only allowances are the page's own styles.
_CSP = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.verdict { border-left: .4rem solid #888; padding: .4rem 1rem; margin: 1rem 0; background: rgba(128,128,128,.08); }
.supported { border-color: #009E73; } .refuted { border-color: #D55E00; } .inconclusive { border-color: #E69F00; }
.verdict p { margin: .3rem 0; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; background: white; }
figcaption, .note { opacity: .8; font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid rgba(128,128,128,.35); white-space: nowrap; }
th { vertical-align: bottom; white-space: normal; } .number { text-align: right; font-variant-numeric: tabular-nums; }
""".strip()


@dataclass(frozen=True, slots=True)
class PageFigure:
    """A figure on the page; `svg` is one that this program drew itself."""

    title: str
    svg: str
    caption: str


def page(
    evidence: Evidence, results: Sequence[ClaimResult], tables: Sequence[Table], figures: Sequence[PageFigure]
) -> str:
    """The page of one study."""
    parts = [
        f"<h1>Study {_(evidence.study)}</h1>",
        f'<p class="note">{_("; ".join(_about(evidence)))}</p>',
        "<h2>Verdict</h2>",
        *([_verdict(result) for result in results] or ["<p>This study makes no claim.</p>"]),
    ]
    if evidence.random_weights:
        parts.append(f"<p>{_(NO_SCORES.capitalize())}.</p>")
    for figure in figures:
        parts += [f"<h2>{_(figure.title)}</h2>", _figure(figure)]
    for table in tables:
        if table.rows:
            parts += [f"<h2>{_(table.name.capitalize())}</h2>", _table(table)]
    parts += _findings(evidence)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_CSP}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_(evidence.study)}</title><style>{_STYLE}</style></head><body>",
            *parts,
            "</body></html>",
            "",
        ]
    )


def _(text: object) -> str:
    return html.escape(one_line(str(text)), quote=True)


def _about(evidence: Evidence) -> list[str]:
    runs = Counter(record.status for record in evidence.last.values())
    counts = ", ".join(f"{count} {status}" for status, count in sorted(runs.items())) or "none"
    return [
        evidence.description,
        evidence.model or "no model yet",
        *evidence.machines,
        f"recorded runs: {counts}, {len(evidence.not_run)} planned and not run",
    ]


def _verdict(result: ClaimResult) -> str:
    lines = [f"<p><strong>{_(claim_sentence(result))}</strong></p>"]
    lines += [f"<p>{_(sentence)}</p>" for sentence in metric_sentences(result)]
    lines += [f"<p>{_(sentence)}.</p>" for sentence in secondary_sentences(result)]
    lines += [f"<p>What it would need: {_(need)}.</p>" for need in result.needs]
    lines += [f'<p class="note">{_(note)}.</p>' for note in result.notes]
    return f'<div class="verdict {_(result.judgement.verdict)}">' + "\n".join(lines) + "</div>"


def _figure(figure: PageFigure) -> str:
    caption = _(figure.caption)
    return f'<figure role="img" aria-label="{caption}">{figure.svg}<figcaption>{caption}</figcaption></figure>'


def _table(table: Table) -> str:
    classes = [' class="number"' if column.numeric else "" for column in table.columns]
    head = "".join(
        f'<th scope="col"{style}>{_(column.title)}</th>' for column, style in zip(table.columns, classes, strict=True)
    )
    rows = []
    for row in table.rows:
        cells = []
        for cell, style in zip(row, classes, strict=True):
            title = f' title="runs {_(" ".join(cell.run_ids))}"' if cell.run_ids else ""
            cells.append(f"<td{style}{title}>{_(cell.text)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f'<p class="note">{_(table.caption)}</p>'
    )


def _findings(evidence: Evidence) -> list[str]:
    not_run = Counter(f"{run.stage} {run.arm}" for run in evidence.not_run)
    sections = {
        "Runs that did not complete": [
            *(_failure(record) for record in evidence.not_completed),
            *(f"{_(what)}: {count} planned and not run" for what, count in not_run.items()),
        ],
        "Runs on a shared GPU": _shared(evidence),
        "Left out": [
            *(f"{len(item.run_ids)} runs: {_(public_text(item.reason))}" for item in evidence.left_out),
            *(f"damaged record, {_(text)}" for text in evidence.damaged),
        ],
        "Notes on the data": [_(note) for note in evidence.notes],
    }
    parts = []
    for title, items in sections.items():
        if items:
            parts += [f"<h2>{title}</h2>", "<ul>" + "\n".join(f"<li>{item}</li>" for item in items) + "</ul>"]
    return parts


def _shared(evidence: Evidence) -> list[str]:
    """One line for all runs that were not alone on their GPU, which runs being its title."""
    shared = shared_gpu(evidence.last.values())
    ids = " ".join(record.run_id for record in shared)
    return [f'<span title="runs {_(ids)}">{_(shared_sentence(len(shared)))}</span>'] if shared else []


def _failure(record: Record) -> str:
    which = f"seed {record.seed}" if record.trial is None else f"trial {record.trial}, seed {record.seed}"
    why = ""
    if record.error is not None:
        phase = f" in {record.error.phase}" if record.error.phase else ""
        why = f"{phase}: {public_text(record.error.message)}"
    return f"{_(record.stage)} {_(record.arm)}, {which}: <strong>{_(record.status)}</strong>{_(why)}"
