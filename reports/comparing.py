"""`python -m reports compare A B`: two studies of the same arms (other libraries, another GPU), and what got worse."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports.changes import SCORES, TOLERANCES, StudyChanges, compare_studies
from reports.changes_text import as_markdown_page, as_terminal
from reports.evidence import Evidence, NoStudy, gather
from results.layout import DEFAULT_RESULTS, StudyFolder
from results.store import ResultsError, write_atomically
from study.metrics import ROUGE_TYPES
from study.problems import choices, one_line, shown

_HIGHEST_TOLERANCE = 1000.0


def main(arguments: Sequence[str]) -> int:
    """Exit codes: 0 nothing got worse, 1 something did (named), 2 bad arguments, or files that cannot be used."""
    parsed = _parser().parse_args(arguments)
    try:
        tolerances = _tolerances(parsed.tolerance)
        before, after = (_study(parsed.results, name) for name in (parsed.a, parsed.b))
    except (ValueError, NoStudy, ResultsError) as error:
        print(one_line(f"compare: {error}"), file=sys.stderr)
        return 2
    changes = compare_studies(before, after, tolerances)
    print(as_terminal(changes), end="")
    return _written(changes, parsed.out)


def _written(changes: StudyChanges, out: Path | None) -> int:
    if out is not None:
        try:
            write_atomically(out, as_markdown_page(changes).encode())
        except ResultsError as error:
            print(one_line(f"compare: {error}"), file=sys.stderr)
            return 2
    return 1 if changes.regressions else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reports compare",
        description="Compares two studies of the same arms, and exits with 1 where B is worse than A.",
        epilog="Tolerances: "
        + ", ".join(f"{key}={value:g}" for key, value in TOLERANCES.items())
        + " (scores in points, the rest in percent); a ROUGE type stands for that one alone.",
    )
    parser.add_argument("a", metavar="A", help="the study to hold against: a name, or a path to its folder")
    parser.add_argument("b", metavar="B", help="the study that may have got worse")
    parser.add_argument("--results", type=Path, default=DEFAULT_RESULTS, metavar="DIR", help="where studies are kept")
    parser.add_argument(
        "--tolerance",
        nargs="+",
        action="extend",
        default=[],
        metavar="WHAT=NUMBER",
        help="what may get worse by how much before it counts",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the comparison as Markdown, too")
    return parser


def _tolerances(given: Sequence[str]) -> dict[str, float]:
    """The default tolerances with what was given in their place.

    Raises:
        ValueError: what is no WHAT=NUMBER; names it.
    """
    found = {**dict.fromkeys(ROUGE_TYPES, TOLERANCES[SCORES]), **TOLERANCES}
    for text in given:
        key, _, value = text.partition("=")
        if key not in found:
            raise ValueError(f"--tolerance {shown(text)}: {choices(found)}, each as WHAT=NUMBER")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        # Written so that "nan" is refused too.
        if not 0.0 <= number <= _HIGHEST_TOLERANCE:
            raise ValueError(f"--tolerance {shown(text)}: use a number from 0 to {_HIGHEST_TOLERANCE:g}")
        found |= dict.fromkeys((*ROUGE_TYPES, SCORES), number) if key == SCORES else {key: number}
    return found


def _study(results: Path, name: str) -> Evidence:
    """The evidence of a study, by its name under `results` or by its path.

    Raises:
        NoStudy: there is none; the message names those that are there.
        ResultsError: something of it cannot be used.
    """
    folder = StudyFolder(Path(name)) if "/" in name else StudyFolder.planned(results, name)
    if folder is None or not folder.has_plan:
        there = sorted(found.parent.name for found in results.glob("*/plan.json"))
        known = choices(there) if there else "there is none"
        raise NoStudy(f"STUDY {shown(name)}: no study of that name in {results}: {known}")
    return gather(folder)
