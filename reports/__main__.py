"""`python -m reports STUDY`: tables, figures and verdict of a study again, from its records alone."""

import argparse
import sys
from pathlib import Path

from reports.evidence import NoStudy
from reports.report import write_report
from results.layout import DEFAULT_RESULTS
from results.store import ResultsError


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 written, 1 the records or the report cannot be used, 2 no such study."""
    parser = argparse.ArgumentParser(prog="python -m reports", description="Reports on a study from its records.")
    parser.add_argument("study", metavar="STUDY")
    parser.add_argument("--results", type=Path, default=DEFAULT_RESULTS, metavar="DIR", help="where studies are kept")
    parser.add_argument("--out", type=Path, default=Path("reports/out"), metavar="DIR", help="where reports go")
    parsed = parser.parse_args(arguments)
    try:
        report = write_report(parsed.results, parsed.study, parsed.out)
    except NoStudy as error:
        print(error, file=sys.stderr)
        return 2
    except ResultsError as error:
        print(f"no report: {error}", file=sys.stderr)
        return 1
    print("\n".join(report.summary))
    print(f"report: {report.index}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
