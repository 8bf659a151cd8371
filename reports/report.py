"""From a study's records to the files of its report. Same records, same bytes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.claiming import ClaimResult, claim_json, judge_claims
from reports.evidence import Evidence, NoStudy, gather
from reports.figures import draw, memory_figure
from reports.latex import numbers_tex
from reports.page import page
from reports.tables import Table, as_csv, as_latex, as_markdown, main_table, trials_table, verdict_table
from reports.verdict import Verdict
from results.layout import StudyFolder
from results.store import write_atomically


@dataclass(frozen=True, slots=True)
class Report:
    """What was written, and what a terminal prints of it."""

    folder: Path
    index: Path
    summary: tuple[str, ...]


def write_report(results: Path, study: str, out: Path) -> Report:
    """Writes `out/<study>/` from `results/<study>/`.

    Raises:
        NoStudy: there is no such study; the message names those that are there.
        ResultsError: something recorded cannot be used, or the report cannot be written.
    """
    folder = StudyFolder.of(results, study)
    if not folder.plan.is_file():
        there = sorted(path.parent.name for path in results.glob("*/plan.json"))
        raise NoStudy(
            f"STUDY {study!r}: no study of that name in {results}; choose from {', '.join(there) or '(none)'}"
        )
    evidence = gather(folder)
    claims = judge_claims(evidence)
    files = _files(evidence, claims)
    target = out / evidence.study
    for name, data in files.items():
        write_atomically(target / name, data)
    return Report(target, target / "index.html", _summary(evidence, claims))


def _files(evidence: Evidence, claims: Sequence[ClaimResult]) -> dict[str, bytes]:
    tables = (main_table(evidence), verdict_table(claims), trials_table(evidence))
    files: dict[str, bytes] = {"verdict.json": _verdict_json(evidence, claims)}
    for table in tables:
        files |= _table_files(table)
    figure = memory_figure(evidence)
    drawn = draw(figure)
    files |= {f"figures/memory_vs_rouge.{kind}": data for kind, data in drawn.items()}
    files["figures/memory_vs_rouge.txt"] = (figure.caption + "\n").encode()
    # The XML declaration and doctype of a file of its own have no place inside a page.
    svg = drawn["svg"].decode()
    svg = svg[svg.index("<svg") :]
    files["numbers.tex"] = numbers_tex(evidence, claims).encode()
    files["index.html"] = page(evidence, claims, tables, svg, figure.caption).encode()
    return files


def _table_files(table: Table) -> dict[str, bytes]:
    return {
        f"tables/{table.name}.csv": as_csv(table).encode(),
        f"tables/{table.name}.md": as_markdown(table).encode(),
        f"tables/{table.name}.tex": as_latex(table).encode(),
    }


def _verdict_json(evidence: Evidence, claims: Sequence[ClaimResult]) -> bytes:
    content = {
        "study": evidence.study,
        "protocol": evidence.plan.protocol,
        "verdict": _overall(claims),
        "claims": [claim_json(result) for result in claims],
        "floors": evidence.plan.floors,
        "environment": list(evidence.environment),
        "not_completed": [
            {"run_id": record.run_id, "arm": record.arm, "stage": record.stage, "status": record.status}
            for record in evidence.not_completed
        ],
        "left_out": [{"reason": item.reason, "run_ids": list(item.run_ids)} for item in evidence.left_out],
    }
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _overall(claims: Sequence[ClaimResult]) -> str:
    """The study's verdict where it makes one claim; with several each stands for itself, and the first leads."""
    return str(claims[0].judgement.verdict) if claims else str(Verdict.NO_VERDICT)


def _summary(evidence: Evidence, claims: Sequence[ClaimResult]) -> tuple[str, ...]:
    lines: list[str] = []
    for result in claims:
        lines.append(f"{result.claim.name}: {str(result.judgement.verdict).replace('_', ' ')}")
        lines += [f"  {item.judgement.reason}" for item in result.metrics]
        lines += [f"  it would need: {need}" for need in result.needs]
        lines += [f"  note: {note}" for note in result.notes]
    if evidence.frozen is None:
        lines.append("no verdict: the study is not frozen yet")
    for arm in evidence.arms:
        if arm.scored is not None:
            scores = ", ".join(
                f"{kind} {arm.scored.scores[kind].mean():.2f}" for kind in ("rouge1", "rouge2", "rougeL")
            )
            lines.append(f"  {arm.part.name}: {scores} ({len(arm.scored.seeds)} seed(s))")
    lines += [
        f"  floor, {name}: " + ", ".join(f"{kind} {scores[kind]:.2f}" for kind in ("rouge1", "rouge2", "rougeL"))
        for name, scores in evidence.plan.floors.items()
    ]
    return tuple(lines)
