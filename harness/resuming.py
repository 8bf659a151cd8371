"""Runs that go on from a checkpoint: which have one, what is left of it, and what their figures then are."""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from harness.messages import Device, PhaseEnded, Resumed
from results.layout import SET_ASIDE, StudyFolder
from results.schema import ALWAYS_AGAIN, Record
from study.settings import Training

# How a record names the source of the memory of a training that was made in parts.
SOURCE = "the worker, highest of the parts of a resumed training"


def no_checkpoints(training: Training, device: Device) -> str | None:
    """Why trainings like this have no checkpoints; None where they have."""
    if training.optimizer == "paged_adamw_8bit" and device == "cuda":
        return "the state of paged_adamw_8bit lies in paged memory, from where it is not restored exactly"
    return None


def remove(folder: StudyFolder, run_id: str) -> None:
    """Removes the checkpoint of a run that is over, and one that was set aside."""
    checkpoint = folder.checkpoint(run_id)
    for path in (checkpoint, checkpoint.with_name(checkpoint.name + SET_ASIDE)):
        _remove(path)
    with contextlib.suppress(OSError):
        # Only the last one leaves it empty.
        folder.checkpoints.rmdir()


def sweep(folder: StudyFolder, last: Mapping[str, Record]) -> None:
    """Removes what a conductor that was killed has left of runs that are over; those that go on keep theirs."""
    try:
        names = {path.name.removesuffix(SET_ASIDE) for path in folder.checkpoints.iterdir()}
    except OSError:
        return
    for run_id in sorted(names):
        record = last.get(run_id)
        if record is not None and record.status not in ALWAYS_AGAIN:
            remove(folder, run_id)


def _remove(path: Path) -> None:
    if path.is_symlink():
        # Whatever it points at is not the study's.
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def whole(end: PhaseEnded, earlier: Resumed) -> PhaseEnded:
    """A training made in parts: the seconds of all of them, without what was made again, and the highest peaks."""
    return replace(
        end,
        seconds=end.seconds + earlier.seconds,
        allocated_bytes=most(end.allocated_bytes, earlier.allocated_bytes),
        reserved_bytes=most(end.reserved_bytes, earlier.reserved_bytes),
        host_rss_bytes=most(end.host_rss_bytes, earlier.host_rss_bytes),
    )


def most(*peaks: int | None) -> int | None:
    """The highest of those that were read."""
    return max((peak for peak in peaks if peak is not None), default=None)
