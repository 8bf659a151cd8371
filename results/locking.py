"""The lock of a study, held while something is written into it."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from results.layout import StudyFolder
from results.store import ResultsError


@contextmanager
def locked(folder: StudyFolder) -> Iterator[None]:
    """Holds the study's lock as a conductor does (harness/lock.py, which this room does not know).

    The file stays, for one that is removed can be held by two, but it stays empty: it names nobody who is gone.

    Raises:
        ResultsError: somebody works on the study, or the lock cannot be had.
    """
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ResultsError(f"{folder.lock} cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResultsError(
                f"{folder.root}: another process works on this study; {folder.lock} says which"
            ) from error
        except OSError as error:
            raise ResultsError(f"{folder.lock} cannot be locked: {error.strerror}") from error
        since = datetime.now(UTC).isoformat(timespec="seconds")
        about = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since})
        _say(descriptor, about)
        try:
            yield
        finally:
            _say(descriptor, "")
    finally:
        os.close(descriptor)


def _say(descriptor: int, text: str) -> None:
    """Writes who holds a lock. A full disk is no reason to fail: a lock that names nobody still locks."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
