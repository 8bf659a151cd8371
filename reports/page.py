"""`index.html`: one page that needs nothing else. Everything that comes from outside is escaped."""

import html
from collections.abc import Sequence

from reports.claiming import ClaimResult
from reports.evidence import Evidence
from reports.tables import Table

_CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.verdict { border-left: .4rem solid #888; padding: .4rem 1rem; margin: 1rem 0; background: rgba(128,128,128,.08); }
.supported { border-color: #009E73; } .refuted { border-color: #D55E00; } .inconclusive { border-color: #E69F00; }
.verdict p { margin: .3rem 0; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; background: white; }
figcaption, .note { color: GrayText; font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid rgba(128,128,128,.35); white-space: nowrap; }
th { vertical-align: bottom; white-space: normal; } .number { text-align: right; font-variant-numeric: tabular-nums; }
""".strip()


def page(evidence: Evidence, results: Sequence[ClaimResult], tables: Sequence[Table], svg: str, caption: str) -> str:
    """The page of one study; `svg` is the figure that this program drew itself."""
    parts = [
        f"<h1>Study {_(evidence.study)}</h1>",
        f'<p class="note">{_(evidence.plan.data_description)}; {_(_model(evidence))}. '
        f"{_('; '.join(evidence.environment))}</p>",
        "<h2>Verdict</h2>",
        *([_verdict(result) for result in results] or [f"<p>{_(_no_claim(evidence))}</p>"]),
    ]
    parts += ["<h2>Memory against ROUGE</h2>", f"<figure>{svg}<figcaption>{_(caption)}</figcaption></figure>"]
    for table in tables:
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
    # Control characters (terminal escapes, for one) have no place on a page.
    return html.escape("".join(sign if sign.isprintable() or sign == "\n" else "�" for sign in str(text)), quote=True)


def _model(evidence: Evidence) -> str:
    model = None if evidence.frozen is None else evidence.frozen.model
    if model is None:
        return "not frozen yet"
    return model.id + (f" at {model.revision}" if model.revision else "")


def _no_claim(evidence: Evidence) -> str:
    if evidence.frozen is None:
        return "No verdict: the study is not frozen yet."
    return "This study makes no claim."


def _verdict(result: ClaimResult) -> str:
    lines = [
        f"<p><strong>{_(result.claim.name)}: {_(str(result.judgement.verdict).replace('_', ' '))}.</strong> "
        f"{_(result.judgement.reason)}</p>"
    ]
    for item in result.metrics if len(result.metrics) > 1 else ():
        lines.append(f"<p>{_(item.judgement.reason)}</p>")
    lines += [f"<p>What it would need: {_(need)}.</p>" for need in result.needs]
    lines += [f'<p class="note">{_(note)}.</p>' for note in result.notes]
    return f'<div class="verdict {_(result.judgement.verdict)}">' + "\n".join(lines) + "</div>"


def _table(table: Table) -> str:
    classes = [' class="number"' if column.numeric else "" for column in table.columns]
    head = "".join(
        f'<th scope="col"{style}>{_(column.header)}</th>' for column, style in zip(table.columns, classes, strict=True)
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
    parts = []
    if evidence.not_completed:
        items = [
            f"<li>{_(record.stage)} {_(record.arm)}, seed {record.seed}: <strong>{_(record.status)}</strong>"
            f"{_(f' in {record.error.phase}: {record.error.message}' if record.error else '')}</li>"
            for record in evidence.not_completed
        ]
        parts += ["<h2>Runs that did not complete</h2>", f"<ul>{''.join(items)}</ul>"]
    left_out = [f"{len(item.run_ids)} runs: {item.reason}" for item in evidence.left_out]
    left_out += [f"damaged record, {text}" for text in evidence.damaged]
    left_out += list(evidence.plan.data_notes)
    if left_out:
        parts += ["<h2>Left out</h2>", f"<ul>{''.join(f'<li>{_(text)}</li>' for text in left_out)}</ul>"]
    return parts
