"""The store: records appended one fsynced line at a time, and read back with damaged lines set apart."""

import contextlib
import fcntl
import gc
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from results.layout import StudyFolder
from results.schema import SCHEMA_VERSION, Frozen, Plan, Prediction, Record
from study.problems import one_line

PartT = TypeVar("PartT", bound=BaseModel)


class ResultsError(RuntimeError):
    """Something recorded cannot be used or cannot be written; the message says which file and what to do."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A line that is no record: its number (from 1) and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Records:
    """Every readable record in the order of writing, and the lines that are not."""

    all: tuple[Record, ...]
    damaged: tuple[Damage, ...]

    @property
    def last(self) -> dict[str, Record]:
        """The record that counts for each run: the last one written."""
        return {record.run_id: record for record in self.all}


def read_records(folder: StudyFolder) -> Records:
    """All records of a study; an absent file holds none. Nothing is changed on disk.

    Raises:
        ResultsError: the file is there but cannot be read.
    """
    records: list[Record] = []
    damaged: list[Damage] = []
    with _no_collection():
        for number, line in enumerate(_lines(folder.records), start=1):
            if not line.strip():
                continue
            try:
                records.append(Record.model_validate_json(line))
            except ValidationError as error:
                damaged.append(Damage(number, _reason(line, error)))
    return Records(tuple(records), tuple(damaged))


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keeps Python from looking for cycles while many objects without any are made and kept: it would look through all
    of them again and again, which took two thirds of the time of opening a large store."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:
            # Counts what is there now as old, without a look at it: nothing else is meant by this pair.
            gc.freeze()
            gc.unfreeze()
        gc.enable()


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file one after another, so that it is never in memory as a whole; an absent file has none."""
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {_cause(error)}") from error


def _reason(data: bytes, error: ValidationError) -> str:
    """Why `data` is not what it should be: from a newer program, torn, or the first of the fields that are wrong."""
    try:
        version = json.loads(data).get("schema_version")
    except (ValueError, AttributeError, RecursionError):
        return "not a JSON object: torn or damaged"
    if isinstance(version, int) and version > SCHEMA_VERSION:
        return f"schema_version {version} is newer than this program's {SCHEMA_VERSION}: update the program"
    first = error.errors(include_url=False)[0]
    return one_line(f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}")


class RecordStore:
    """Appends records to a study's file. One conductor at a time: the study's lock is its caller's duty."""

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        # Which folder it is, where there is one: another one of its name would hold none of the earlier records.
        self._root = _identity(folder.root)

    def append(self, record: Record) -> None:
        """Writes one line and returns once it is on disk.

        Raises:
            ResultsError: the line could not be written; whatever stood there before is untouched.
        """
        self.extend((record,))

    def extend(self, records: Iterable[Record]) -> None:
        """Writes a line each, and returns once all of them are on disk: one wait for the disk, not one a record.

        Raises:
            ResultsError: they could not be written, and none of them is there; what stood there before is untouched.
        """
        lines = b"".join(record.model_dump_json().encode() + b"\n" for record in records)
        path = self._folder.records
        if self._root is not None and _identity(path.parent) != self._root:
            raise ResultsError(f"{path} cannot be written: its folder was removed, moved or replaced meanwhile")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = not path.exists()
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                _append(descriptor, lines, self._folder.torn)
            finally:
                os.close(descriptor)
            if fresh:
                _sync_folder(path.parent)
        except OSError as error:
            raise ResultsError(f"{path} cannot be written: {_cause(error)}. Earlier records are safe.") from error


def _append(descriptor: int, lines: bytes, torn: Path) -> None:
    size = os.fstat(descriptor).st_size
    tail = _unended(descriptor, size)
    if tail and _is_object(tail):
        # All but its newline was written.
        lines = b"\n" + lines
    elif tail:
        # A crash while writing: what there is of the line is set apart first, then cut off.
        _write(torn, tail + b"\n")
        size -= len(tail)
        os.ftruncate(descriptor, size)
    try:
        _write_all(descriptor, lines)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _unended(descriptor: int, size: int) -> bytes:
    """What follows the last newline of a file of this size."""
    tail = b""
    while len(tail) < size:
        start = max(0, size - 2 * len(tail) - 65536)
        tail = os.pread(descriptor, size - start, start)
        if b"\n" in tail:
            return tail[tail.rindex(b"\n") + 1 :]
    return tail


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        _write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def _identity(folder: Path) -> tuple[int, int] | None:
    """Which folder it is, whatever its name; None where there is none."""
    try:
        seen = folder.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino


def _sync_folder(folder: Path) -> None:
    """A new name is safe only when the folder that holds it is on disk too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some file systems know no fsync of a folder: there is nothing better to do on them.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cause(error: OSError) -> str:
    return error.strerror or type(error).__name__


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces `path` by `data` in one step: a reader sees the old file or the new one, never a part.

    Raises:
        ResultsError: it could not be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ResultsError(f"{path} cannot be written: {_cause(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_unfinished(folder: StudyFolder) -> None:
    """Removes what killed writers left half written; for who holds the study's lock, so that none is alive."""
    for place in (folder.root, *(each for each in folder.root.glob("*/") if not each.is_symlink())):
        for left in place.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                left.unlink()


def write_predictions(folder: StudyFolder, run_id: str, predictions: Iterable[Prediction]) -> None:
    """Writes a run's predictions in one step, in the order of the split's examples."""
    lines = b"".join(prediction.model_dump_json().encode() + b"\n" for prediction in predictions)
    write_atomically(folder.predictions(run_id), lines)


def read_predictions(folder: StudyFolder, run_id: str) -> tuple[Prediction, ...]:
    """A run's predictions, in the order of the split's examples.

    Raises:
        ResultsError: no such file, or a line that is no prediction.
    """
    path = folder.predictions(run_id)
    data = _bytes(path)
    if data is None:
        raise ResultsError(f"{path} cannot be read: there is no such file")
    return tuple(
        _validated(Prediction, line, path, number)
        for number, line in enumerate(data.split(b"\n"), start=1)
        if line.strip()
    )


def read_frozen(folder: StudyFolder) -> Frozen | None:
    """The frozen choices, or None where the study is not frozen yet.

    Raises:
        ResultsError: the file is there but cannot be used.
    """
    return _read(Frozen, folder.frozen)


def write_frozen(folder: StudyFolder, frozen: Frozen) -> None:
    """Writes `frozen.json` in one step."""
    write_atomically(folder.frozen, frozen.model_dump_json(indent=2).encode() + b"\n")


def read_plan(folder: StudyFolder) -> Plan | None:
    """The planned matrix of the last start, or None where there was none.

    Raises:
        ResultsError: the file is there but cannot be used.
    """
    return _read(Plan, folder.plan)


def write_plan(folder: StudyFolder, plan: Plan) -> None:
    """Writes `plan.json` in one step."""
    write_atomically(folder.plan, plan.model_dump_json(indent=2).encode() + b"\n")


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {_cause(error)}") from error


def _read(model: type[PartT], path: Path) -> PartT | None:
    data = _bytes(path)
    return None if data is None else _validated(model, data, path, None)


def _validated(model: type[PartT], data: bytes, path: Path, line: int | None) -> PartT:
    return parsed(model, data, str(path) if line is None else f"{path}, line {line}")


def parsed(model: type[PartT], data: bytes, where: str) -> PartT:
    """`data` as the part that it should be; `where` is how a message names its place.

    Raises:
        ResultsError: it is none; says why, and whether a newer program wrote it.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise ResultsError(f"{where}: {_reason(data, error)}") from error
