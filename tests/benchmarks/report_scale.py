"""How long a report of a large study takes, and how much memory: simulated records, a real report.

python -m tests.benchmarks.report_scale [RUNS] [DIALOGUES]
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

from reports.report import write_report
from tests.unit.reports.records import ZERO_SHOT, Arm, Card, claim, write_study


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    dialogues = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    seeds = tuple(range(100, 120))
    trained = max(2, round(runs / len(seeds)))
    precisions = ("bf16", "int8", "nf4", "fp4")
    names = ["lora", "qlora", *(f"arm-{number}" for number in range(trained - 2))]
    arms = [Arm(name, precisions[index % 4], mean=40.0 - 0.1 * index, card=Card()) for index, name in enumerate(names)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_study(root, arms=(ZERO_SHOT, *arms), seeds=seeds, dialogues=dialogues, claims=(claim(drop_in=False),))
        start = time.monotonic()
        report = write_report(root, "study", root / "out")
        seconds = time.monotonic() - start
        page = report.index.stat().st_size
        files = len(report.files)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"| confirm runs | dialogues | report, s | peak memory, GiB | page, MB | files |\n|{'---:|' * 6}")
    print(f"| {trained * len(seeds)} | {dialogues} | {seconds:.1f} | {peak:.2f} | {page / 1e6:.1f} | {files} |")


if __name__ == "__main__":
    main()
