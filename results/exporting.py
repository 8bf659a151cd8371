"""Writes a study to one file: an archive, as archive_format describes it."""

import gzip
import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from results.archive_format import (
    FROZEN,
    LIMITS,
    MANIFEST,
    PLAN,
    PREDICTIONS_NAME,
    RECORDS,
    ArchiveError,
    Limits,
    Manifest,
)
from results.archive_members import check_predictions, hold_to_study, read_file, sha256_of
from results.external import checked_external, external_names
from results.layout import StudyFolder
from results.schema import Part, Record
from results.store import Records, ResultsError, read_frozen, read_plan, read_records, write_atomically
from study.problems import shown


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
            left.append(f"{self.left_lines} damaged lines of {RECORDS}")
        if self.left_predictions:
            left.append(f"{self.left_predictions} prediction files (damaged, or of a run without a record)")
        if self.left_externals:
            left.append(f"{self.left_externals} damaged files of systems from elsewhere")
        named = f"; python -m results verify {self.study} names them"
        return f"left behind: {', '.join(left)}{named}" if left else None


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
    if not {RECORDS, PLAN} & texts.keys():
        raise ArchiveError(f"{folder.root}: nothing to export: it has neither {RECORDS} nor {PLAN}")
    predictions, left = _whole_predictions(folder, records.last, limits)
    externals, left_externals = _whole_externals(folder)
    digests = {name: sha256_of(data) for name, data in texts.items()} | predictions | externals
    manifest = _manifest_of(folder, records, digests, len(predictions))
    texts[MANIFEST] = _written(manifest)
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
    hold_to_study(folder.root, folder.root.name, records, frozen, plan)
    texts: dict[str, bytes] = {}
    if folder.records.exists():
        lines = [record.model_dump_json().encode() + b"\n" for record in records]
        if lines and max(map(len, lines)) > limits.line_bytes:
            raise ArchiveError(f"{folder.records}: a record is longer than {limits.line_bytes} bytes")
        texts[RECORDS] = b"".join(lines)
    if frozen is not None:
        texts[FROZEN] = _written(frozen)
    if plan is not None:
        texts[PLAN] = _written(plan)
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
        match = PREDICTIONS_NAME.fullmatch(name)
        data = read_file(folder.root / name) if match is not None and match[1] in recorded else None
        if data is not None and _are_predictions(name, data, limits):
            found[name] = sha256_of(data)
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
        check_predictions(name, data, limits)
    except ResultsError:
        return False
    return True


def _whole_externals(folder: StudyFolder) -> tuple[dict[str, str], int]:
    """The sha256 of each whole system from elsewhere, by member, and how many other files there are."""
    found: dict[str, str] = {}
    left = 0
    for file_name in external_names(folder):
        name = f"external/{file_name}"
        data = read_file(folder.root / name)
        try:
            checked_external(data, file_name, folder.root.name, name)
        except ResultsError:
            left += 1
        else:
            found[name] = sha256_of(data)
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
        data = read_file(folder.root / name)
        if sha256_of(data) != predictions[name]:
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
                if len(data) > limits.of_member(name) or number > limits.members:
                    most = f"{limits.members} members of {limits.of_member(name)} bytes"
                    raise ArchiveError(f"{folder.root / name}: more than an archive may hold, {most}")
                # What is not set here is the same everywhere: mode 644, no owner, time 0.
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        size = stream.tell()
    if size > limits.total_bytes:
        raise ArchiveError(f"{folder.root}: more than an archive may hold, {limits.total_bytes} bytes")
    if limits.is_bomb(size, packed.tell()):
        raise ArchiveError(f"{folder.root}: {size} bytes that shrink to {packed.tell()}: no import would take them")
    return packed.getvalue()
