"""Makes kills by the hundred and all other faults of a run, and writes what came of it: `python -m tests.faults.table`.

Writes the tables of kills and of outcomes in docs/faults.md, each between its two marks; what else stands there stays.
`--share 0.1` makes a tenth of the kills (at least one of each kind): the table says how many were made. `--only
outcomes` writes one table alone.
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

from tests.faults.kills import AIMED, SEED, WHOLE, Campaign, Row
from tests.faults.outcomes import Outcome, every_study, outcomes
from tests.faults.starts import grid_text, undisturbed
from tests.integration.commands import ROOT, run

FILE = ROOT / "docs" / "faults.md"
KILLS = ("<!-- kills: written by python -m tests.faults.table -->", "<!-- end of kills -->")
OUTCOMES = ("<!-- outcomes: written by python -m tests.faults.table -->", "<!-- end of outcomes -->")
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
    return f"{intro}\n\n{as_table(rows, writers)}"


def as_outcomes(rows: Sequence[Outcome]) -> str:
    """The table of outcomes, as Markdown."""
    lines = [
        "The exit code is that of a study in which this fault alone happens: 1 where a run is listed as not done, or "
        "as a finding, which no start makes again.",
        "",
        "| fault | outcome, error | retried | the study went on | exit code |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {row.fault} | {row.outcome} | {row.retries} | {row.others} | {row.code} |" for row in rows]
    return "\n".join(lines)


def written(old: str, part: str, marks: tuple[str, str]) -> str:
    """The file with what stands between two marks replaced, or put at its end."""
    begin, end = marks
    part = f"{begin}\n{part}\n{end}"
    if begin not in old or end not in old:
        return (old.rstrip() + "\n\n" if old.strip() else "# Faults\n\n") + part + "\n"
    return old[: old.index(begin)] + part + old[old.index(end) + len(end) :]


def kills(root: Path, share: float, seed: int) -> tuple[str, bool]:
    """Makes the kills: the table of them, and whether nothing was lost, doubled, left behind or changed."""
    began = time.monotonic()
    grid = root / "grid.yaml"
    grid.write_text(grid_text(whole=True))
    reference = undisturbed(grid, root / "undisturbed")
    campaign = Campaign(reference, root, seed)
    rows = []
    made = 0
    for name, whole in WHOLE.items():
        count = max(1, math.ceil(whole * share))
        made += count
        rows += campaign.run([name] * count)
        print(rows[-1], flush=True)
    for turn, (name, phase, arguments, whole) in enumerate(AIMED):
        count = max(1, math.ceil(whole * share))
        aimed = Campaign(reference, root / f"aimed-{turn}", seed + turn, phase=phase, arguments=arguments)
        rows += aimed.run([name] * count)
        print(rows[-1], flush=True)
    writers = json.loads(run("-m", "tests.faults.appending", str(root / "writers"), str(made), str(seed)).stdout)
    print(writers)
    minutes = (time.monotonic() - began) / 60
    about = f"studies of {len(reference.records)} runs, seed {seed}, in {minutes:.0f} minutes"
    clean = all(row.clean for row in rows) and not writers["lost"] + writers["doubled"] + writers["damaged"]
    return as_text(rows, writers, about), clean


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 nothing was lost, doubled, left behind or changed; 1 something was, and is printed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.table", description="Faults, and the tables of them.")
    parser.add_argument("--share", type=float, default=1.0, metavar="F", help="of the whole number of kills (1)")
    parser.add_argument("--seed", type=int, default=SEED, metavar="N")
    parser.add_argument("--only", choices=("kills", "outcomes"), help="write this table alone")
    parser.add_argument("--file", type=Path, default=FILE, metavar="FILE", help="what to write (docs/faults.md)")
    parsed = parser.parse_args(arguments)
    clean = True
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if parsed.only != "kills":
            rows = [row for found in every_study(root / "outcomes") for row in outcomes(found)]
            _write(parsed.file, as_outcomes(rows), OUTCOMES)
        if parsed.only != "outcomes":
            part, clean = kills(root, parsed.share, parsed.seed)
            _write(parsed.file, part, KILLS)
    return 0 if clean else 1


def _write(file: Path, part: str, marks: tuple[str, str]) -> None:
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    file.write_text(written(old, part, marks), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
