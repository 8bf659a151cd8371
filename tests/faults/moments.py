"""Moments of a study at which it can be hit: the phases that it tells of, and the writing of a record."""

import ctypes
import os
import re
import select
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from results.layout import StudyFolder

# Of inotify(7).
_MODIFY, _MOVED_TO = 0x2, 0x80
_HEAD = struct.Struct("iIII")
RECORDS = "records.jsonl"


def phase_of(said: str) -> str:
    """Where a study stood by what it had printed: `start`, `baseline`, `tune`, `confirm` or `report`."""
    if re.search(r"^\d+ runs made|^nothing to run", said, flags=re.MULTILINE):
        return "report"
    stages = re.findall(r"^(?:\[\d+/\d+\] )?(baseline|tune|confirm)\b", said, flags=re.MULTILINE)
    return stages[-1] if stages else "start"


@contextmanager
def writes(folder: StudyFolder) -> Iterator[Callable[[float], bool]]:
    """Tells of a study's writes as they happen: what comes back waits for the next one, and says whether one came in
    so many seconds. A write is a record that is appended and not yet said to be on disk, or a file of predictions that
    has its name, and whose record follows."""
    system = ctypes.CDLL(None, use_errno=True)
    descriptor = system.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    try:
        system.inotify_add_watch(descriptor, os.fsencode(folder.root), _MODIFY)
        (folder.root / "predictions").mkdir(exist_ok=True)
        system.inotify_add_watch(descriptor, os.fsencode(folder.root / "predictions"), _MOVED_TO)

        def next_write(timeout_s: float) -> bool:
            deadline = time.monotonic() + timeout_s
            while (left := deadline - time.monotonic()) > 0:
                if select.select([descriptor], [], [], left)[0] and _tells_of_a_record(os.read(descriptor, 65536)):
                    return True
            return False

        yield next_write
    finally:
        os.close(descriptor)


def _tells_of_a_record(events: bytes) -> bool:
    at = 0
    while at < len(events):
        _, mask, _, length = _HEAD.unpack_from(events, at)
        name = events[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0")
        if mask & _MOVED_TO or name == os.fsencode(RECORDS):
            return True
        at += _HEAD.size + length
    return False
