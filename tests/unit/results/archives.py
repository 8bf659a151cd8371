"""Archives and studies to build tests on, whole or with whatever is wrong with them."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from results.exporting import export_study
from results.layout import StudyFolder
from results.schema import Record
from results.store import RecordStore
from tests.unit.results.records import FAILED, prediction, quality

RUN, TRIAL, OTHER = "0" * 16, "1" * 16, "2" * 16
PREDICTIONS = [prediction(number) for number in range(3)]
QUALITY = quality(45.0, 50.0)
OUT_OF_MEMORY = {**FAILED, "status": "out_of_memory"}
INTERRUPTED = {"status": "interrupted", "quality": None}


def append(folder: StudyFolder, *records: Record) -> None:
    for record in records:
        RecordStore(folder).append(record)


def tree(root: Path) -> dict[str, bytes]:
    """Every file under `root` with its content."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def contents(file: Path) -> dict[str, bytes]:
    """The members of an archive, in their order."""
    with tarfile.open(file) as tar:
        found = [(member.name, tar.extractfile(member)) for member in tar.getmembers()]
        return {name: stream.read() for name, stream in found if stream is not None}


def entry(name: str, data: bytes = b"", **changes: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A header, with whatever is wrong with it, and the bytes that follow it."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, data


def packed(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar.gz of these, as written by hand."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=form) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def signed(members: dict[str, bytes], **changes: Any) -> bytes:
    """An archive of these members whose manifest is right about them, but for `changes`."""
    others = {name: data for name, data in members.items() if name != "manifest.json"}
    said = json.loads(members["manifest.json"])
    said["sha256"] = {name: hashlib.sha256(data).hexdigest() for name, data in others.items()}
    said |= changes
    return packed(*(entry(*each) for each in {**others, "manifest.json": json.dumps(said).encode()}.items()))


def archive_of(study: StudyFolder, path: Path, *records: Record) -> Path:
    """The archive of a study that holds just these records."""
    append(study, *records)
    export_study(study, path)
    return path


def plain(members: dict[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [entry(*each) for each in members.items()]


def header_of(name: str) -> bytes:
    return entry(name)[0].tobuf(tarfile.USTAR_FORMAT)
