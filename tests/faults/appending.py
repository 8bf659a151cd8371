"""Writers of records that are killed while they write: `python -m tests.faults.appending FOLDER KILLS SEED`.

A writer says each run's id in a pipe once `append` has returned; it is killed at a random moment, and the next one goes
on. Records are made long, so that many moments lie inside a write. Prints one JSON object: `kills`; `said`, the records
that writers said were on disk; `lost`, those of them that are not; `doubled`; `torn`, lines that a kill left without
their end; `damaged`, lines that are still there and no record.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NoReturn

from results.layout import StudyFolder
from results.store import RecordStore, read_records
from tests.unit.results.records import confirm

# Of an error's message, in bytes: the kernel looks for a fatal signal between the pages that it copies.
LENGTH = 200_000
STRIDE = 1_000_000


def _write(folder: StudyFolder, first: int, said: int) -> NoReturn:
    store = RecordStore(folder)
    error = {"type": "E", "message": "m" * LENGTH, "phase": None}
    number = first
    while True:
        run_id = f"{number:016x}"
        store.append(confirm(run_id=run_id, status="failed", error=error, quality=None))
        os.write(said, f"{run_id}\n".encode())
        number += 1


def _killed_writer(folder: StudyFolder, first: int, seconds: float) -> list[str]:
    """What a writer said before it was killed."""
    reading, writing = os.pipe()
    writer = os.fork()
    if writer == 0:
        os.close(reading)
        _write(folder, first, writing)
    os.close(writing)
    time.sleep(seconds)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    with os.fdopen(reading) as lines:
        return lines.read().split()


def _ends_torn(folder: StudyFolder) -> bool:
    if not folder.records.exists() or not folder.records.stat().st_size:
        return False
    with folder.records.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def kill_writers(folder: StudyFolder, kills: int, seed: int) -> dict[str, int]:
    """Kills so many writers, one after another; what came of it, as the module says."""
    chance = random.Random(seed)
    said: list[str] = []
    torn = 0
    for turn in range(kills):
        said += _killed_writer(folder, turn * STRIDE, chance.uniform(0.001, 0.03))
        torn += _ends_torn(folder)
    RecordStore(folder).append(confirm(run_id="f" * 16))
    found = read_records(folder)
    counts = Counter(record.run_id for record in found.all)
    return {
        "kills": kills,
        "said": len(said),
        "lost": len(set(said) - set(counts)),
        "doubled": sum(count - 1 for count in counts.values()),
        "torn": torn,
        "damaged": len(found.damaged),
    }


if __name__ == "__main__":
    print(json.dumps(kill_writers(StudyFolder(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]))))
