"""A wall clock that is set back or forward under a running program, in each of its processes at the same moment.

`sitecustomize.py` in tests/faults/clock imports this where JUMPING_CLOCK names a file. The file holds the seconds that
the clock is off, eight bytes; a test writes there, and the clock has jumped. The monotonic clock goes on, as the
kernel's does.
"""

import ctypes
import gc
import mmap
import os
import struct
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

VARIABLE = "JUMPING_CLOCK"


class Jumps:
    """The test's side: the file that says by how much all clocks are off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.to(0.0)

    def to(self, seconds: float) -> None:
        """Sets every clock so many seconds off; eight bytes are written at once."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, struct.pack("d", seconds), 0)
        finally:
            os.close(descriptor)


def install(path: str) -> None:
    """The program's side: replaces what Python code asks for the time of day."""
    with open(path, "rb") as file:
        shared = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)

    def off() -> float:
        return float(struct.unpack("d", shared[:8])[0])

    true_time, true_ns = time.time, time.time_ns
    true_local, true_utc = time.localtime, time.gmtime

    def now() -> float:
        return true_time() + off()

    changes: dict[str, Any] = {
        "time": now,
        "time_ns": lambda: true_ns() + int(off() * 1e9),
        "localtime": lambda seconds=None: true_local(now() if seconds is None else seconds),
        "gmtime": lambda seconds=None: true_utc(now() if seconds is None else seconds),
    }
    for name, changed in changes.items():
        setattr(time, name, changed)
    # The methods of the class itself: extension modules hold it, and crash on another in its place.
    methods: dict[str, Any] = gc.get_referents(datetime.__dict__)[0]
    methods["now"] = classmethod(lambda cls, tz=None: cls.fromtimestamp(now(), tz))
    methods["today"] = classmethod(lambda cls: cls.fromtimestamp(now()))
    methods["utcnow"] = classmethod(lambda cls: cls.fromtimestamp(now(), UTC).replace(tzinfo=None))
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime))
