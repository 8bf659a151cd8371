"""An archive read to its end and checked in every part, and against itself."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from results.archive_format import (
    EXTERNAL_NAME,
    FROZEN,
    LIMITS,
    MANIFEST,
    PLAN,
    PREDICTIONS_NAME,
    RECORDS,
    ArchiveError,
    Limits,
    Manifest,
    parsed_manifest,
    refuse,
)
from results.archive_members import (
    ArchivedRecord,
    archived_record,
    check_predictions,
    external_study,
    hold_to_study,
    lines_of,
    sha256_of,
)
from results.archive_tar import TarReader
from results.schema import Frozen, Plan
from results.store import ResultsError, parsed
from study.problems import one_line, shortened, shown

_REASON_CHARACTERS = 300


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


def read_archive(file: BinaryIO, path: Path, limits: Limits = LIMITS) -> Archive:
    """The archive in `file`, read to its end and checked in every part; `path` is its name in messages.

    Raises:
        ArchiveError: it is refused.
        ResultsError: it cannot be read.
    """
    found = _Contents(path, limits)
    for name, data in TarReader(file, path, limits).members():
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
            if name == MANIFEST:
                self._manifest = parsed_manifest(data)
                return
            self._digests[name] = sha256_of(data)
            if name == RECORDS:
                self._records = tuple(
                    archived_record(number, line) for number, line in lines_of(name, data, self._limits)
                )
            elif name == FROZEN:
                self._frozen = parsed(Frozen, data, name)
            elif name == PLAN:
                self._plan = parsed(Plan, data, name)
            elif EXTERNAL_NAME.fullmatch(name):
                self._systems[name] = external_study(name, data)
            else:
                check_predictions(name, data, self._limits)

    def archive(self) -> Archive:
        """The whole, once every member was taken: checks what no member says alone."""
        if self._manifest is None:
            refuse(self._path, MANIFEST, "missing")
        self._check_digests(self._manifest)
        if not {RECORDS, PLAN} & set(self._digests):
            refuse(self._path, RECORDS, f"missing, and there is no {PLAN}: nothing to import")
        recorded = {record.run_id for record in self._records}
        predictions: dict[str, str] = {}
        for name, digest in self._digests.items():
            if match := PREDICTIONS_NAME.fullmatch(name):
                predictions[match[1]] = digest
                if match[1] not in recorded:
                    refuse(self._path, name, "predictions of a run that has no record in the archive")
        self._check_counts(self._manifest, len(recorded), len(predictions))
        with _naming(self._path):
            hold_to_study(None, self._manifest.study, self._records, self._frozen, self._plan)
            for name, study in self._systems.items():
                if study != self._manifest.study:
                    raise ArchiveError(f"{name}: of study {shown(study)}, not {self._manifest.study}")
        externals = {name: self._digests[name] for name in self._systems}
        return Archive(self._manifest.study, self._records, self._frozen, self._plan, predictions, externals)

    def _check_digests(self, manifest: Manifest) -> None:
        for name in sorted(manifest.sha256.keys() - self._digests.keys()):
            refuse(self._path, shown(name), f"missing, though {MANIFEST} lists it")
        for name, digest in self._digests.items():
            listed = manifest.sha256.get(name)
            if listed is None:
                refuse(self._path, name, f"not listed in {MANIFEST}")
            if listed != digest:
                refuse(self._path, name, f"damaged: its sha256 is {digest[:16]}…, in {MANIFEST} {listed[:16]}…")

    def _check_counts(self, manifest: Manifest, runs: int, predictions: int) -> None:
        said = (manifest.records, manifest.runs, manifest.predictions)
        found = (len(self._records), runs, predictions)
        if said != found:
            words = "{} records of {} runs and {} prediction files"
            refuse(self._path, MANIFEST, f"tells of {words.format(*said)}; there are {words.format(*found)}")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Every error inside is a refusal of the archive at `path`, told in one short line."""
    try:
        yield
    except ResultsError as error:
        raise ArchiveError(f"{path}: {shortened(one_line(str(error)), _REASON_CHARACTERS)}") from error
