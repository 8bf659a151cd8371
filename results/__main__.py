"""`python -m results verify STUDY`."""

import argparse
import sys
from pathlib import Path

from results.layout import DEFAULT_RESULTS, StudyFolder
from results.store import ResultsError
from results.verify import verify
from study.problems import one_line


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 everything is whole, 1 something is not (listed), 2 bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m results", description="Looks after what studies recorded.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("verify", help="whether everything recorded is whole")
    check.add_argument("study", metavar="STUDY")
    check.add_argument("--results", type=Path, default=DEFAULT_RESULTS, metavar="DIR")
    parsed = parser.parse_args(arguments)
    known = sorted(path.name for path in parsed.results.iterdir() if path.is_dir()) if parsed.results.is_dir() else []
    if parsed.study not in known:
        text = f"STUDY {parsed.study!r}: no such study in {parsed.results}; there are: {', '.join(known) or 'none'}"
        print(one_line(text), file=sys.stderr)
        return 2
    return _verify(StudyFolder.of(parsed.results, parsed.study))


def _verify(folder: StudyFolder) -> int:
    try:
        found = verify(folder)
    except ResultsError as error:
        print(one_line(f"verify: {error}"), file=sys.stderr)
        return 1
    for fault in found.faults:
        print(one_line(fault))
    counts = f"{found.records} records of {found.runs} runs, {found.predictions} prediction files"
    print(f"{counts}: {len(found.faults)} faults")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
