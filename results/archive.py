"""A study as one file: written on one machine, checked and merged on another.

The file is a tar.gz of `manifest.json`, `records.jsonl`, `frozen.json`, `plan.json`, `predictions/<run_id>.jsonl` and
`external/<name>.<seed>.json` (systems from elsewhere; an archive with one is refused by programs before 0.2.0).
Dialogues, logs and the lock never travel. The same study gives the same bytes.

An archive may come from anywhere: its headers are read here, block by block, and nothing of it is unpacked by name.

Format history (`format_version`):

1. First version (0.1.0).
"""

import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import socket
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, NoReturn

from pydantic import Field, ValidationError

from results.external import FILE_NAME, ExternalRun, checked_external, external_names
from results.layout import StudyFolder
from results.schema import Frozen, Part, Plan, Prediction, Record
from results.store import (
    Records,
    RecordStore,
    ResultsError,
    parsed,
    read_frozen,
    read_plan,
    read_records,
    write_atomically,
    write_frozen,
    write_plan,
)
from study.problems import one_line, shortened, shown
from study.schema import Name

FORMAT: Literal["qlora-ablation-study"] = "qlora-ablation-study"
FORMAT_VERSION: Literal[1] = 1

MAX_MEMBER_BYTES = 256 * 1024**2
MAX_TOTAL_BYTES = 2 * 1024**3
MAX_MEMBERS = 200_000
# A line becomes objects that take some twenty times its bytes.
MAX_LINE_BYTES = 4 * 1024**2

_MANIFEST, _RECORDS, _FROZEN, _PLAN = "manifest.json", "records.jsonl", "frozen.json", "plan.json"
_PREDICTIONS = re.compile(r"predictions/([0-9a-f]{16})\.jsonl", re.ASCII)
_EXTERNAL = re.compile("external/" + FILE_NAME.pattern, re.ASCII)
_CHUNK_BYTES = 1024**2
_REASON_CHARACTERS = 300
_NOT_A_FILE = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.DIRTYPE: "a folder",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


class ArchiveError(ResultsError):
    """An archive that is refused, or a study that cannot be one: names file, member and reason in one line."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may hold at most, in uncompressed bytes: what goes beyond is taken for an attack."""

    member_bytes: int = MAX_MEMBER_BYTES
    total_bytes: int = MAX_TOTAL_BYTES
    members: int = MAX_MEMBERS
    line_bytes: int = MAX_LINE_BYTES


LIMITS = Limits()


class Manifest(Part):
    """`manifest.json`: whose study it is, how much it holds, and the sha256 of every other member."""

    format: Literal["qlora-ablation-study"] = FORMAT
    format_version: Literal[1] = FORMAT_VERSION
    study: Name
    records: int
    runs: int
    predictions: int
    sha256: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]


@dataclass(frozen=True, slots=True)
class ArchivedRecord:
    """A validated line of an archive; `key` is the same for equal records, `number` counts lines from 1."""

    number: int
    line: bytes
    run_id: str
    study: str
    is_final: bool
    key: bytes


@dataclass(frozen=True, slots=True)
class Archive:
    """A whole archive without contradiction; `predictions` maps a run to the sha256 of its member, `externals` the
    member of a system from elsewhere to its own."""

    study: str
    records: tuple[ArchivedRecord, ...]
    frozen: Frozen | None
    plan: Plan | None
    predictions: Mapping[str, str]
    externals: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Merge:
    """What an import changes: records to append, runs whose predictions are written, and what is None stays as it is.

    `there` counts archived records that the study holds already, `kept` those that stay out because the study's own
    record of their run counts. `externals` are members that the study has nothing of, `externals_kept` counts those of
    which it has something else, which stays.
    """

    append: tuple[ArchivedRecord, ...]
    there: int
    kept: int
    predictions: frozenset[str]
    frozen: Frozen | None
    plan: Plan | None
    externals: frozenset[str] = frozenset()
    externals_kept: int = 0


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import changed, in counts, and what it left as it was."""

    study: str
    records: int
    runs: int
    there: int
    kept: int
    predictions: int
    externals: int = 0
    externals_kept: int = 0

    def __str__(self) -> str:
        rest = f"{self.there} already there, {self.kept} kept, {self.predictions} prediction files"
        rest += f", {self.externals} systems from elsewhere" if self.externals else ""
        rest += f", {self.externals_kept} of those kept as they are here" if self.externals_kept else ""
        return f"imported {self.records} records of {self.runs} runs into {self.study} ({rest})"


@dataclass(frozen=True, slots=True)
class Exported:
    """What an archive holds, and how many lines and prediction files were left behind because they are not whole."""

    study: str
    records: int
    runs: int
    predictions: int
    left_lines: int
    left_predictions: int
    externals: int = 0
    left_externals: int = 0

    def __str__(self) -> str:
        files = f"{self.predictions} prediction files"
        files += f", {self.externals} systems from elsewhere" if self.externals else ""
        return f"exported {self.records} records of {self.runs} runs of {self.study} ({files})"

    @property
    def left_behind(self) -> str | None:
        """What is not in the archive, in words; None where everything is."""
        left = []
        if self.left_lines:
            left.append(f"{self.left_lines} damaged lines of {_RECORDS}")
        if self.left_predictions:
            left.append(f"{self.left_predictions} prediction files (damaged, or of a run without a record)")
        if self.left_externals:
            left.append(f"{self.left_externals} damaged files of systems from elsewhere")
        named = f"; python -m results verify {self.study} names them"
        return f"left behind: {', '.join(left)}{named}" if left else None


# Writing


def export_study(folder: StudyFolder, file: Path, limits: Limits = LIMITS) -> Exported:
    """Writes what is whole of a study to `file`, in one step. Nothing of the study is changed or locked.

    Raises:
        ArchiveError: there is nothing to export, the study cannot be an archive, or `file` is no place for one.
        ResultsError: something of the study cannot be read, or `file` cannot be written.
    """
    # The study's own files are not safe from `file`, should it name one of them.
    if os.path.isdir(file) or Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder.root)):
        raise ArchiveError(f"FILE {str(file)!r}: a folder, or a place inside of the study's own")
    records = read_records(folder)
    texts = _texts(folder, records.all, limits)
    if not {_RECORDS, _PLAN} & texts.keys():
        raise ArchiveError(f"{folder.root}: nothing to export: it has neither {_RECORDS} nor {_PLAN}")
    predictions, left = _whole_predictions(folder, records.last, limits)
    externals, left_externals = _whole_externals(folder)
    digests = {name: _sha256(data) for name, data in texts.items()} | predictions | externals
    manifest = _manifest_of(folder, records, digests, len(predictions))
    texts[_MANIFEST] = _written(manifest)
    write_atomically(file, _packed(_members(folder, texts, predictions | externals), folder, limits))
    return Exported(
        manifest.study,
        manifest.records,
        manifest.runs,
        manifest.predictions,
        len(records.damaged),
        left,
        len(externals),
        left_externals,
    )


def _texts(folder: StudyFolder, records: Iterable[Record], limits: Limits) -> dict[str, bytes]:
    """The members but for manifest and predictions, as the store writes them.

    Raises:
        ArchiveError: a part belongs to another study, or a record is longer than a line may be.
        ResultsError: `frozen.json` or `plan.json` cannot be used: a study never loses its choices without a word.
    """
    frozen, plan = read_frozen(folder), read_plan(folder)
    _hold_to_study(folder.root, folder.root.name, records, frozen, plan)
    texts: dict[str, bytes] = {}
    if folder.records.exists():
        lines = [record.model_dump_json().encode() + b"\n" for record in records]
        if lines and max(map(len, lines)) > limits.line_bytes:
            raise ArchiveError(f"{folder.records}: a record is longer than {limits.line_bytes} bytes")
        texts[_RECORDS] = b"".join(lines)
    if frozen is not None:
        texts[_FROZEN] = _written(frozen)
    if plan is not None:
        texts[_PLAN] = _written(plan)
    return texts


def _written(part: Part) -> bytes:
    return part.model_dump_json(indent=2).encode() + b"\n"


def _whole_predictions(
    folder: StudyFolder, recorded: Mapping[str, Record], limits: Limits
) -> tuple[dict[str, str], int]:
    """The sha256 of each whole prediction file of a recorded run, by member, and how many other files there are."""
    found: dict[str, str] = {}
    left = 0
    for name in _prediction_names(folder):
        match = _PREDICTIONS.fullmatch(name)
        data = _read(folder.root / name) if match is not None and match[1] in recorded else None
        if data is not None and _are_predictions(name, data, limits):
            found[name] = _sha256(data)
        else:
            left += 1
    return found, left


def _prediction_names(folder: StudyFolder) -> list[str]:
    path = folder.predictions("any").parent
    try:
        return sorted(f"{path.name}/{name}" for name in os.listdir(path) if name.endswith(".jsonl"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}") from error


def _are_predictions(name: str, data: bytes, limits: Limits) -> bool:
    try:
        _check_predictions(name, data, limits)
    except ResultsError:
        return False
    return True


def _whole_externals(folder: StudyFolder) -> tuple[dict[str, str], int]:
    """The sha256 of each whole system from elsewhere, by member, and how many other files there are."""
    found: dict[str, str] = {}
    left = 0
    for file_name in external_names(folder):
        name = f"external/{file_name}"
        data = _read(folder.root / name)
        try:
            checked_external(data, file_name, folder.root.name, name)
        except ResultsError:
            left += 1
        else:
            found[name] = _sha256(data)
    return found, left


def _manifest_of(folder: StudyFolder, records: Records, digests: Mapping[str, str], predictions: int) -> Manifest:
    try:
        return Manifest(
            study=folder.root.name,
            records=len(records.all),
            runs=len(records.last),
            predictions=predictions,
            sha256=dict(sorted(digests.items())),
        )
    except ValidationError as error:
        told = error.errors(include_url=False)[0]["msg"]
        raise ArchiveError(f"STUDY {shown(folder.root.name)}: no name for a study: {told}") from error


def _members(
    folder: StudyFolder, texts: Mapping[str, bytes], predictions: Mapping[str, str]
) -> Iterator[tuple[str, bytes]]:
    """Every member in the archive's order; predictions (systems from elsewhere among them) are read when they are asked
    for, one file in memory.

    Raises:
        ResultsError: a prediction file is no longer what the manifest says.
    """
    for name in sorted([*texts, *predictions]):
        if name in texts:
            yield name, texts[name]
            continue
        data = _read(folder.root / name)
        if _sha256(data) != predictions[name]:
            raise ResultsError(f"{folder.root / name}: changed while it was exported: export again")
        yield name, data


def _packed(members: Iterable[tuple[str, bytes]], folder: StudyFolder, limits: Limits) -> bytes:
    """The archive's bytes, compressed: nothing but names and content tells one from another.

    Raises:
        ArchiveError: no import would take it, because it is larger than the limits.
    """
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, compresslevel=6, mtime=0) as stream:
        with tarfile.open(mode="w", fileobj=stream, format=tarfile.USTAR_FORMAT) as tar:
            for number, (name, data) in enumerate(members, start=1):
                if len(data) > limits.member_bytes or number > limits.members:
                    most = f"{limits.members} members of {limits.member_bytes} bytes"
                    raise ArchiveError(f"{folder.root / name}: more than an archive may hold, {most}")
                # What is not set here is the same everywhere: mode 644, no owner, time 0.
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        if stream.tell() > limits.total_bytes:
            raise ArchiveError(f"{folder.root}: more than an archive may hold, {limits.total_bytes} bytes")
    return packed.getvalue()


# Checking


def read_archive(file: BinaryIO, path: Path, limits: Limits = LIMITS) -> Archive:
    """The archive in `file`, read to its end and checked in every part; `path` is its name in messages.

    Raises:
        ArchiveError: it is refused.
        ResultsError: it cannot be read.
    """
    found = _Contents(path, limits)
    for name, data in _Reader(file, path, limits).members():
        found.take(name, data)
    return found.archive()


class _Contents:
    """What the members of one archive say, member after member; only the records' lines stay in memory."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._digests: dict[str, str] = {}
        self._manifest: Manifest | None = None
        self._records: tuple[ArchivedRecord, ...] = ()
        self._frozen: Frozen | None = None
        self._plan: Plan | None = None
        self._systems: dict[str, str] = {}

    def take(self, name: str, data: bytes) -> None:
        """Validates one member."""
        with _naming(self._path):
            if name == _MANIFEST:
                self._manifest = _manifest(data)
                return
            self._digests[name] = _sha256(data)
            if name == _RECORDS:
                self._records = tuple(_archived(number, line) for number, line in _lines(name, data, self._limits))
            elif name == _FROZEN:
                self._frozen = parsed(Frozen, data, name)
            elif name == _PLAN:
                self._plan = parsed(Plan, data, name)
            elif _EXTERNAL.fullmatch(name):
                self._systems[name] = _study_of(name, data)
            else:
                _check_predictions(name, data, self._limits)

    def archive(self) -> Archive:
        """The whole, once every member was taken: checks what no member says alone."""
        if self._manifest is None:
            _refuse(self._path, _MANIFEST, "missing")
        self._check_digests(self._manifest)
        if not {_RECORDS, _PLAN} & set(self._digests):
            _refuse(self._path, _RECORDS, f"missing, and there is no {_PLAN}: nothing to import")
        recorded = {record.run_id for record in self._records}
        predictions: dict[str, str] = {}
        for name, digest in self._digests.items():
            if match := _PREDICTIONS.fullmatch(name):
                predictions[match[1]] = digest
                if match[1] not in recorded:
                    _refuse(self._path, name, "predictions of a run that has no record in the archive")
        self._check_counts(self._manifest, len(recorded), len(predictions))
        with _naming(self._path):
            _hold_to_study(None, self._manifest.study, self._records, self._frozen, self._plan)
            for name, study in self._systems.items():
                if study != self._manifest.study:
                    raise ArchiveError(f"{name}: of study {shown(study)}, not {self._manifest.study}")
        externals = {name: self._digests[name] for name in self._systems}
        return Archive(self._manifest.study, self._records, self._frozen, self._plan, predictions, externals)

    def _check_digests(self, manifest: Manifest) -> None:
        for name in sorted(manifest.sha256.keys() - self._digests.keys()):
            _refuse(self._path, shown(name), f"missing, though {_MANIFEST} lists it")
        for name, digest in self._digests.items():
            listed = manifest.sha256.get(name)
            if listed is None:
                _refuse(self._path, name, f"not listed in {_MANIFEST}")
            if listed != digest:
                _refuse(self._path, name, f"damaged: its sha256 is {digest[:16]}…, in {_MANIFEST} {listed[:16]}…")

    def _check_counts(self, manifest: Manifest, runs: int, predictions: int) -> None:
        said = (manifest.records, manifest.runs, manifest.predictions)
        found = (len(self._records), runs, predictions)
        if said != found:
            words = "{} records of {} runs and {} prediction files"
            _refuse(self._path, _MANIFEST, f"tells of {words.format(*said)}; there are {words.format(*found)}")


def _manifest(data: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        version = _written_version(data)
        if version is not None and version > FORMAT_VERSION:
            newer = f"format_version {version} is newer than this program's {FORMAT_VERSION}: update the program"
            raise ArchiveError(f"{_MANIFEST}: {newer}") from error
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "content"
        raise ArchiveError(f"{_MANIFEST}: {place}: {first['msg']}") from error


def _written_version(data: bytes) -> int | None:
    try:
        version = json.loads(data).get("format_version")
    except (ValueError, AttributeError, RecursionError):
        return None
    return version if isinstance(version, int) else None


def _archived(number: int, line: bytes) -> ArchivedRecord:
    record = parsed(Record, line, f"{_RECORDS}, line {number}")
    return ArchivedRecord(number, line, record.run_id, record.study, record.is_final, _key(record))


def _key(record: Record) -> bytes:
    """The same for equal records, whatever the order of what a mapping holds; as they are once they were written."""
    written = json.loads(record.model_dump_json())
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).digest()


def _study_of(name: str, data: bytes) -> str:
    """The study of a system from elsewhere, which is what its member's name says.

    Raises:
        ResultsError: it is not.
    """
    study = parsed(ExternalRun, data, name).study
    checked_external(data, name.removeprefix("external/"), study, name)
    return study


def _check_predictions(name: str, data: bytes, limits: Limits) -> None:
    for number, line in _lines(name, data, limits):
        parsed(Prediction, line, f"{name}, line {number}")


def _lines(name: str, data: bytes, limits: Limits) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1; one at a time: a list of them could be a bomb."""
    for number, line in enumerate(io.BytesIO(data), start=1):
        if len(line) > limits.line_bytes:
            raise ArchiveError(f"{name}, line {number}: longer than {limits.line_bytes} bytes")
        if line.strip():
            yield number, line


def _hold_to_study(
    root: Path | None,
    study: str,
    records: Iterable[Record | ArchivedRecord],
    frozen: Frozen | None,
    plan: Plan | None,
) -> None:
    """Refuses parts of another study; `root` is the folder that they lie in, None in an archive."""
    for name, part in ((_FROZEN, frozen), (_PLAN, plan)):
        if part is not None and part.study != study:
            raise ArchiveError(f"{name if root is None else root / name}: of study {shown(part.study)}, not {study}")
    for record in records:
        if record.study != study:
            line = f", line {record.number}" if isinstance(record, ArchivedRecord) else ""
            where = _RECORDS if root is None else root / _RECORDS
            told = f"run {record.run_id} is of study {shown(record.study)}, not {study}"
            raise ArchiveError(f"{where}{line}: {told}")


class _Reader:
    """The members of a tar.gz in their order, every byte counted as it is unpacked.

    `tarfile` would believe headers: a long name or an extended header is read whole before anybody is asked. Here one
    block is a header or the archive is refused, and no header of such a kind is known.
    """

    def __init__(self, file: BinaryIO, path: Path, limits: Limits) -> None:
        self._stream = gzip.GzipFile(fileobj=file, mode="rb")
        self._path = path
        self._limits = limits
        self._taken = 0

    def members(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of each member; ends when the last byte was seen and the checksum of gzip held."""
        seen: set[str] = set()
        while (info := self._header(is_first=not seen)) is not None:
            name = self._allowed(info)
            if name in seen:
                _refuse(self._path, name, "twice in the archive")
            if len(seen) == self._limits.members:
                _refuse(self._path, name, f"one more than the {self._limits.members} members that an archive may have")
            seen.add(name)
            yield name, self._content(name, info.size)
        while rest := self._some(_CHUNK_BYTES):
            if rest.count(0) != len(rest):
                _refuse(self._path, None, "something follows the end of the archive")

    def _header(self, *, is_first: bool) -> tarfile.TarInfo | None:
        """The next header, or None at the block of zeros that ends an archive."""
        block = self._exactly(tarfile.BLOCKSIZE, None)
        if block.count(0) == len(block):
            return None
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            _refuse(self._path, None, "not a tar.gz" if is_first else "damaged: no header where one should be")

    def _allowed(self, info: tarfile.TarInfo) -> str:
        """The member's name, once it is a plain file on the list of what an archive may hold."""
        name, told = info.name, shown(info.name)
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            kind = _NOT_A_FILE.get(info.type, f"of type {info.type!r}")
            _refuse(self._path, told, f"{kind}, and only plain files are allowed")
        if name.startswith("/"):
            _refuse(self._path, told, "an absolute path")
        if ".." in name.split("/") or "\\" in name:
            _refuse(self._path, told, "a path with '..' or a backslash")
        is_known = name in (_MANIFEST, _RECORDS, _FROZEN, _PLAN)
        if not (is_known or _PREDICTIONS.fullmatch(name) or _EXTERNAL.fullmatch(name)):
            _refuse(self._path, told, "no file that an archive of a study has")
        return name

    def _content(self, name: str, size: int) -> bytes:
        if not 0 <= size <= self._limits.member_bytes:
            _refuse(self._path, name, f"its size is {size} bytes; the limit is {self._limits.member_bytes}")
        data = self._exactly(size, name)
        self._exactly(-size % tarfile.BLOCKSIZE, name)
        return data

    def _exactly(self, size: int, member: str | None) -> bytes:
        """The next `size` bytes. Taken in pieces: what a header says is not there until it was seen."""
        data = bytearray()
        while len(data) < size:
            piece = self._some(min(size - len(data), _CHUNK_BYTES))
            if not piece:
                _refuse(self._path, member, "truncated" if self._taken else "empty: not a tar.gz")
            data += piece
        return bytes(data)

    def _some(self, size: int) -> bytes:
        """At most `size` of the next bytes; none at the end of the file."""
        try:
            piece = self._stream.read(size)
        except EOFError:
            _refuse(self._path, None, "truncated")
        except (gzip.BadGzipFile, zlib.error) as error:
            _refuse(self._path, None, f"damaged: {error}" if self._taken else "not a tar.gz, or damaged")
        except OSError as error:
            raise ResultsError(f"{self._path} cannot be read: {error.strerror or error}") from error
        self._taken += len(piece)
        if self._taken > self._limits.total_bytes:
            _refuse(self._path, None, f"larger than {self._limits.total_bytes} bytes when unpacked")
        return piece


# Merging


def import_study(path: Path, results: Path, limits: Limits = LIMITS) -> Imported:
    """Merges the archive at `path` into its study under `results`. Nothing is written before everything was checked.

    Predictions come first and records last: a completed record is never there without its predictions, and what an
    interrupted import left out the next one brings.

    Raises:
        ArchiveError: the archive is refused; nothing was written.
        ResultsError: somebody works on the study, or something cannot be read or written.
    """
    if not os.path.isfile(path):
        why = "not a plain file" if os.path.exists(path) else "no such file"
        raise ArchiveError(f"FILE {str(path)!r}: {why}")
    try:
        file = path.open("rb")
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}") from error
    with file:
        archive = read_archive(file, path, limits)
        folder = StudyFolder.of(results, archive.study)
        # Before the lock, which leaves a file, and under it once more: its last holder may have made the choices.
        _frozen_to_write(folder, archive, path)
        with _locked(folder):
            merge = plan_merge(folder, archive, path)
            if merge.predictions or merge.externals:
                file.seek(0)
                _write_predictions(folder, archive, merge, _Reader(file, path, limits))
            _write(folder, merge)
    return Imported(
        archive.study,
        len(merge.append),
        len({record.run_id for record in merge.append}),
        merge.there,
        merge.kept,
        len(merge.predictions),
        len(merge.externals),
        merge.externals_kept,
    )


def plan_merge(folder: StudyFolder, archive: Archive, path: Path) -> Merge:
    """What an import of `archive` changes in a study. Only reads.

    Raises:
        ArchiveError: the study froze other choices; `path` names the archive in the message.
        ResultsError: something of the study cannot be read.
    """
    archived = {record.run_id: record for record in archive.records}
    local = [record for record in read_records(folder).all if record.run_id in archived]
    last = {record.run_id: record for record in local}
    there = {_key(record) for record in local}
    # Its own final record of a run counts, and so does what came after a record that the archive ends with.
    settled = {run_id for run_id, record in last.items() if record.is_final or archived[run_id].key in there}
    new = {record.key: record for record in archive.records if record.key not in there}
    append = tuple(record for record in _in_order(archive.records, new) if record.run_id not in settled)
    here = {name: _digest_of(folder.root / name) for name in archive.externals}
    return Merge(
        append=append,
        there=len(archive.records) - len(new),
        kept=len(new) - len(append),
        predictions=_predictions_to_write(folder, archive, append, last),
        frozen=_frozen_to_write(folder, archive, path),
        plan=_plan_to_write(folder, archive),
        externals=frozenset(name for name, digest in here.items() if digest is None),
        externals_kept=sum(digest not in (None, archive.externals[name]) for name, digest in here.items()),
    )


def _in_order(records: Iterable[ArchivedRecord], new: Mapping[bytes, ArchivedRecord]) -> Iterator[ArchivedRecord]:
    """The new ones in the archive's order; one that stands there twice at its last place, since the last counts."""
    return (record for record in records if new.get(record.key) is record)


def _predictions_to_write(
    folder: StudyFolder, archive: Archive, append: Iterable[ArchivedRecord], last: Mapping[str, Record]
) -> frozenset[str]:
    """The runs whose predictions are taken: they belong to the record that counts, and are never put beside another.

    Where the study holds that record already, its own predictions stay and only missing ones are taken.
    """
    appended = {record.run_id for record in append}
    archived = {record.run_id: record for record in archive.records}
    chosen: set[str] = set()
    for run_id, digest in archive.predictions.items():
        local = _digest_of(folder.predictions(run_id))
        missing = local is None and run_id not in appended and _key(last[run_id]) == archived[run_id].key
        if missing or (run_id in appended and local != digest):
            chosen.add(run_id)
    return frozenset(chosen)


def _digest_of(path: Path) -> str | None:
    return _sha256(_read(path)) if os.path.lexists(path) else None


def _frozen_to_write(folder: StudyFolder, archive: Archive, path: Path) -> Frozen | None:
    local = read_frozen(folder)
    if local is not None and archive.frozen is not None and local != archive.frozen:
        _refuse(path, _FROZEN, f"differs from {folder.frozen}: the choices of one study cannot be two")
    return archive.frozen if local is None else None


def _plan_to_write(folder: StudyFolder, archive: Archive) -> Plan | None:
    local = read_plan(folder)
    if local is None or archive.plan is None:
        return archive.plan
    more = {run.run_id for run in archive.plan.runs} > {run.run_id for run in local.runs}
    return archive.plan if more else None


def _write_predictions(folder: StudyFolder, archive: Archive, merge: Merge, reader: "_Reader") -> None:
    """Reads the archive once more, one member in memory at a time."""
    known = dict(archive.externals)
    known |= {f"predictions/{run_id}.jsonl": digest for run_id, digest in archive.predictions.items()}
    chosen = merge.externals | {f"predictions/{run_id}.jsonl" for run_id in merge.predictions}
    for name, data in reader.members():
        if name in chosen:
            if _sha256(data) != known[name]:
                raise ResultsError(f"{folder.root / name}: the archive changed while it was read: import again")
            write_atomically(folder.root / name, data)


def _write(folder: StudyFolder, merge: Merge) -> None:
    """Choices before records: records without them could be taken for a study that has yet to choose."""
    if merge.frozen is not None:
        write_frozen(folder, merge.frozen)
    if merge.plan is not None:
        write_plan(folder, merge.plan)
    if merge.append:
        RecordStore(folder).extend(Record.model_validate_json(record.line) for record in merge.append)


@contextmanager
def _locked(folder: StudyFolder) -> Iterator[None]:
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


# Small things


def _refuse(path: Path, where: str | None, reason: str) -> NoReturn:
    """Refuses the archive at `path`; `where` is the member, None where the archive itself is meant."""
    raise ArchiveError(": ".join(part for part in (str(path), where, reason) if part is not None))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Every error inside is a refusal of the archive at `path`, told in one short line."""
    try:
        yield
    except ResultsError as error:
        raise ArchiveError(f"{path}: {shortened(one_line(str(error)), _REASON_CHARACTERS)}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
