"""The parts of an archive, one at a time: what an export and an import alike hold them to."""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from results.archive_format import FROZEN, PLAN, RECORDS, ArchiveError, Limits
from results.external import ExternalRun, checked_external
from results.schema import Frozen, Plan, Prediction, Record
from results.store import ResultsError, parsed
from study.problems import shown


@dataclass(frozen=True, slots=True)
class ArchivedRecord:
    """A validated line of an archive; `key` is the same for equal records, `number` counts lines from 1."""

    number: int
    line: bytes
    run_id: str
    study: str
    is_final: bool
    key: bytes


def archived_record(number: int, line: bytes) -> ArchivedRecord:
    """The record in a line of an archive.

    Raises:
        ResultsError: there is none.
    """
    record = parsed(Record, line, f"{RECORDS}, line {number}")
    return ArchivedRecord(number, line, record.run_id, record.study, record.is_final, record_key(record))


def record_key(record: Record) -> bytes:
    """The same for equal records, whatever the order of what a mapping holds; as they are once they were written."""
    written = json.loads(record.model_dump_json())
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).digest()


def external_study(name: str, data: bytes) -> str:
    """The study of a system from elsewhere, which is what its member's name says.

    Raises:
        ResultsError: it is not.
    """
    study = parsed(ExternalRun, data, name).study
    checked_external(data, name.removeprefix("external/"), study, name)
    return study


def check_predictions(name: str, data: bytes, limits: Limits) -> None:
    """Refuses what is not a prediction a line; `name` is its place in messages.

    Raises:
        ResultsError: it is not.
    """
    for number, line in lines_of(name, data, limits):
        parsed(Prediction, line, f"{name}, line {number}")


def lines_of(name: str, data: bytes, limits: Limits) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1; one at a time: a list of them could be a bomb.

    Raises:
        ArchiveError: a line is longer than the limit.
    """
    for number, line in enumerate(io.BytesIO(data), start=1):
        if len(line) > limits.line_bytes:
            raise ArchiveError(f"{name}, line {number}: longer than {limits.line_bytes} bytes")
        if line.strip():
            yield number, line


def hold_to_study(
    root: Path | None,
    study: str,
    records: Iterable[Record | ArchivedRecord],
    frozen: Frozen | None,
    plan: Plan | None,
) -> None:
    """Refuses parts of another study; `root` is the folder that they lie in, None in an archive.

    Raises:
        ArchiveError: a part is of another study.
    """
    for name, part in ((FROZEN, frozen), (PLAN, plan)):
        if part is not None and part.study != study:
            raise ArchiveError(f"{name if root is None else root / name}: of study {shown(part.study)}, not {study}")
    for record in records:
        if record.study != study:
            line = f", line {record.number}" if isinstance(record, ArchivedRecord) else ""
            where = RECORDS if root is None else root / RECORDS
            told = f"run {record.run_id} is of study {shown(record.study)}, not {study}"
            raise ArchiveError(f"{where}{line}: {told}")


def read_file(path: Path) -> bytes:
    """The content of a file of a study.

    Raises:
        ResultsError: it cannot be read, or is not there.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}") from error


def sha256_of(data: bytes) -> str:
    """The digest that a manifest has of a member."""
    return hashlib.sha256(data).hexdigest()
