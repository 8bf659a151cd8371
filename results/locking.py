"""One writer a study: an advisory lock that the kernel takes back when its holder dies."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from results.layout import StudyFolder
from results.store import ResultsError


class StudyBusy(ResultsError):
    """Somebody else works on this study; says who."""


@contextmanager
def locked(folder: StudyFolder) -> Iterator[None]:
    """Holds the study's lock inside the block. The file stays, for one that is removed can be held by two, but it stays
    empty: it names nobody who is gone, unless they were killed.

    Raises:
        StudyBusy: somebody else holds it; names host, process and since when.
        ResultsError: the lock cannot be had: a folder that cannot be written, a file system without locks.
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
            raise StudyBusy(f"another process works on this study: {_holder(descriptor)}") from error
        except OSError as error:
            raise ResultsError(f"{folder.lock} cannot be locked: {error.strerror}") from error
        since = datetime.now(UTC).isoformat(timespec="seconds")
        _say(descriptor, json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since}))
        try:
            yield
        finally:
            _say(descriptor, "")
    finally:
        os.close(descriptor)


def _say(descriptor: int, text: str) -> None:
    """Writes who holds the lock. A full disk is no reason to fail: a lock that names nobody still locks."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _holder(descriptor: int) -> str:
    try:
        about = json.loads(os.pread(descriptor, 4096, 0))
        return f"host {about['host']}, process {about['pid']}, since {about['since']}"
    except (ValueError, KeyError, TypeError):
        return "it has not said which"
