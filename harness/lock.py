"""One conductor a study: an advisory lock that the kernel takes back when its holder dies."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from results.layout import StudyFolder


class StudyBusy(RuntimeError):
    """Another conductor works on this study; says which."""


@contextmanager
def held(folder: StudyFolder) -> Iterator[None]:
    """Holds the study's lock inside the block.

    Raises:
        StudyBusy: somebody else holds it; names host, process and since when.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StudyBusy(f"another process works on this study: {_holder(descriptor)}") from error
        os.ftruncate(descriptor, 0)
        about = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.pwrite(descriptor, json.dumps(about).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        about = json.loads(os.pread(descriptor, 4096, 0))
        return f"host {about['host']}, process {about['pid']}, since {about['since']}"
    except (ValueError, KeyError, TypeError):
        return "it has not said which"
