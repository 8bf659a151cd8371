"""`python -m reports STUDY`, `compare A B`, `card STUDY` and `calibrate`: everything from records alone."""

import argparse
import importlib
import os
import sys
from pathlib import Path

from reports.evidence import NoStudy
from reports.report import write_report
from results.layout import DEFAULT_RESULTS
from results.store import ResultsError
from study.problems import one_line

# Commands beside the report itself.
COMMANDS = {"compare": "reports.comparing", "calibrate": "reports.calibrating", "card": "reports.card"}


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 written, 1 the records or the report cannot be used, 2 no such study."""
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in COMMANDS:
        return int(importlib.import_module(COMMANDS[given[0]]).main(given[1:]))
    parser = argparse.ArgumentParser(
        prog="python -m reports",
        description="Reports on a study from its records.",
        epilog=f"Other commands: {', '.join(COMMANDS)} (each with --help).",
    )
    parser.add_argument("study", metavar="STUDY")
    parser.add_argument("--results", type=Path, default=DEFAULT_RESULTS, metavar="DIR", help="where studies are kept")
    parser.add_argument("--out", type=Path, default=Path("reports/out"), metavar="DIR", help="where reports go")
    parsed = parser.parse_args(given)
    try:
        report = write_report(parsed.results, parsed.study, parsed.out)
    except NoStudy as error:
        print(one_line(str(error)), file=sys.stderr)
        return 2
    except ResultsError as error:
        print(one_line(f"no report: {error}"), file=sys.stderr)
        return 1
    print("\n".join(report.summary))
    print(one_line(f"report: {report.index}"))
    return 0


if __name__ == "__main__":
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has seen enough; the report itself is written before anything is printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
