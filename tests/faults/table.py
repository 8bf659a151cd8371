"""Makes every fault as often as the whole test does and writes what came of it: `python -m tests.faults.table`.

Writes the table of kills in docs/faults.md, between its two marks; what else stands there stays. `--share 0.1` makes a
tenth of the injections (at least one of each kind): the table says how many were made.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.faults.kills import Campaign, Row, grid_text, undisturbed
from tests.faults.test_kills import SEED, WHOLE
from tests.integration.commands import ROOT, run

FILE = ROOT / "docs" / "faults.md"
BEGIN, END = "<!-- kills: written by python -m tests.faults.table -->", "<!-- end of kills -->"
HEAD = (
    "fault",
    "injections",
    "runs lost",
    "runs doubled",
    "orphans",
    "locks left",
    "studies",
    "verdict and report unchanged",
    "at",
)


def as_table(rows: Sequence[Row], writers: dict[str, int]) -> str:
    """The table, as Markdown."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---|" + "---:|" * (len(HEAD) - 2) + "---|"]
    for row in rows:
        numbers = (row.injections, row.lost, row.doubled, row.orphans, row.locks, row.studies)
        moments = ", ".join(f"{name} {count}" for name, count in sorted(row.moments.items()))
        cells = [row.fault, *map(str, numbers), f"{row.unchanged} of {row.studies}", moments]
        lines.append("| " + " | ".join(cells) + " |")
    of_writers = (str(writers[key]) for key in ("kills", "lost", "doubled"))
    cells = ["SIGKILL to a writer of long records", *of_writers, "", "", "", ""]
    told = f"{writers['torn']} lines torn and set apart; {writers['said']} records said to be on disk"
    lines.append("| " + " | ".join([*cells, told]) + " |")
    return "\n".join(lines)


def as_text(rows: Sequence[Row], writers: dict[str, int], about: str) -> str:
    """What stands between the marks."""
    moments = sum((row.moments for row in rows), Counter[str]())
    at = ", ".join(f"{count} in {name}" for name, count in sorted(moments.items()))
    intro = f"{sum(row.injections for row in rows)} injections into {about}. Moments: {at}."
    return f"{BEGIN}\n{intro}\n\n{as_table(rows, writers)}\n{END}"


def written(old: str, part: str) -> str:
    """The file with its table replaced, or put at its end."""
    if BEGIN not in old or END not in old:
        return (old.rstrip() + "\n\n" if old.strip() else "# Faults\n\n") + part + "\n"
    return old[: old.index(BEGIN)] + part + old[old.index(END) + len(END) :]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 nothing was lost, doubled, left behind or changed; 1 something was, and is printed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.table", description="Kills, and the table of them.")
    parser.add_argument("--share", type=float, default=1.0, metavar="F", help="of the whole number of injections (1)")
    parser.add_argument("--seed", type=int, default=SEED, metavar="N")
    parser.add_argument("--file", type=Path, default=FILE, metavar="FILE", help="what to write (docs/faults.md)")
    parsed = parser.parse_args(arguments)
    counts = {name: max(1, math.ceil(count * parsed.share)) for name, count in WHOLE.items()}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        grid = root / "grid.yaml"
        grid.write_text(grid_text(whole=True))
        reference = undisturbed(grid, root / "undisturbed")
        campaign = Campaign(reference, root, parsed.seed)
        rows = []
        for name, count in counts.items():
            rows += campaign.run([name] * count)
            print(rows[-1], flush=True)
        writers = json.loads(
            run(
                "-m", "tests.faults.appending", str(root / "writers"), str(sum(counts.values())), str(parsed.seed)
            ).stdout
        )
        print(writers)
    old = parsed.file.read_text(encoding="utf-8") if parsed.file.exists() else ""
    minutes = (time.monotonic() - began) / 60
    about = f"studies of {len(reference.records)} runs, seed {parsed.seed}, in {minutes:.0f} minutes"
    parsed.file.write_text(written(old, as_text(rows, writers, about)), encoding="utf-8")
    clean = all(row.clean for row in rows) and not writers["lost"] + writers["doubled"] + writers["damaged"]
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
