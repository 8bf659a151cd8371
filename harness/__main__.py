"""`python -m harness score` and `python -m harness doctor`."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from harness.adapters.sources import DataError
from harness.doctor import print_findings
from harness.scoring import ScoringError, score_files
from study.problems import one_line


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 2 bad arguments or files."""
    parser = argparse.ArgumentParser(prog="python -m harness", description="Scores predictions; looks at this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser("score", help="ROUGE of predictions made elsewhere, one a line")
    score.add_argument("--predictions", type=Path, required=True, metavar="FILE", help="one prediction a line")
    score.add_argument("--data", type=Path, required=True, metavar="JSONL", help="dialogue, summary or summary1, 2, 3")
    commands.add_parser("doctor", help="what this machine can run")
    parsed = parser.parse_args(arguments)
    if parsed.command == "doctor":
        print_findings(Console())
        return 0
    try:
        result = score_files(parsed.predictions, parsed.data)
    except (ScoringError, DataError) as error:
        print(one_line(f"score: {error}"), file=sys.stderr)
        return 2
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
