"""Starts the project's commands as a person does: in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def environment(threads: int = 1) -> dict[str, str]:
    """This environment, with one thread a process: most models here are too small to share cores well."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}


def command(*arguments: str) -> list[str]:
    """A command line of this Python."""
    return [sys.executable, *arguments]


def run(*arguments: str, cwd: Path = ROOT, timeout: float = 400, threads: int = 1) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(threads),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
