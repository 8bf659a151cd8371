"""Merges an archive into the study of its name."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from results.archive_format import FROZEN, LIMITS, ArchiveError, Limits, refuse
from results.archive_members import ArchivedRecord, read_file, record_key, sha256_of
from results.archive_reading import Archive, read_archive
from results.archive_tar import TarReader
from results.layout import StudyFolder
from results.locking import StudyBusy, locked
from results.schema import Frozen, Plan, Record
from results.store import (
    RecordStore,
    ResultsError,
    read_frozen,
    read_plan,
    read_records,
    write_atomically,
    write_frozen,
    write_plan,
)


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
        try:
            with locked(folder):
                merge = plan_merge(folder, archive, path)
                if merge.predictions or merge.externals:
                    file.seek(0)
                    _write_predictions(folder, archive, merge, TarReader(file, path, limits))
                _write(folder, merge)
        except StudyBusy as error:
            raise ResultsError(f"{folder.root}: {error}") from error
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
    there = {record_key(record) for record in local}
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
        missing = local is None and run_id not in appended and record_key(last[run_id]) == archived[run_id].key
        if missing or (run_id in appended and local != digest):
            chosen.add(run_id)
    return frozenset(chosen)


def _digest_of(path: Path) -> str | None:
    return sha256_of(read_file(path)) if os.path.lexists(path) else None


def _frozen_to_write(folder: StudyFolder, archive: Archive, path: Path) -> Frozen | None:
    local = read_frozen(folder)
    if local is not None and archive.frozen is not None and local != archive.frozen:
        refuse(path, FROZEN, f"differs from {folder.frozen}: the choices of one study cannot be two")
    return archive.frozen if local is None else None


def _plan_to_write(folder: StudyFolder, archive: Archive) -> Plan | None:
    local = read_plan(folder)
    if local is None or archive.plan is None:
        return archive.plan
    more = {run.run_id for run in archive.plan.runs} > {run.run_id for run in local.runs}
    return archive.plan if more else None


def _write_predictions(folder: StudyFolder, archive: Archive, merge: Merge, reader: TarReader) -> None:
    """Reads the archive once more, one member in memory at a time."""
    known = dict(archive.externals)
    known |= {f"predictions/{run_id}.jsonl": digest for run_id, digest in archive.predictions.items()}
    chosen = merge.externals | {f"predictions/{run_id}.jsonl" for run_id in merge.predictions}
    for name, data in reader.members():
        if name in chosen:
            if sha256_of(data) != known[name]:
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
