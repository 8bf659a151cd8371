"""Archives: one study gives one file, a bad file is refused before anything is written, a merge loses nothing."""

import gzip
import hashlib
import io
import json
import random
import tarfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.lock import StudyBusy, held
from results.__main__ import main
from results.archive import LIMITS, ArchiveError, Imported, Limits, export_study, import_study
from results.layout import StudyFolder
from results.schema import SCHEMA_VERSION, Plan, Record
from results.store import (
    RecordStore,
    ResultsError,
    read_frozen,
    read_plan,
    read_records,
    write_frozen,
    write_plan,
    write_predictions,
)
from results.verify import verify
from tests.unit.results.records import FAILED, confirm, frozen, plan, prediction, quality, trial

RUN, TRIAL, OTHER = "0" * 16, "1" * 16, "2" * 16
PREDICTIONS = [prediction(number) for number in range(3)]
QUALITY = quality(45.0, 50.0)
OUT_OF_MEMORY = {**FAILED, "status": "out_of_memory"}
INTERRUPTED = {"status": "interrupted", "quality": None}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A whole study, with a text of the data set, a log and a lock beside it."""
    folder = StudyFolder.of(tmp_path / "here", "small")
    append(
        folder,
        confirm(**FAILED),
        confirm(quality=QUALITY),
        trial(run_id=TRIAL, quality=QUALITY),
        trial(run_id=OTHER, **FAILED),
    )
    for run_id in (RUN, TRIAL):
        write_predictions(folder, run_id, PREDICTIONS)
    write_frozen(folder, frozen())
    write_plan(folder, plan())
    for path in (folder.examples("test", "ab" * 32), folder.logs / "worker.log"):
        path.parent.mkdir()
        path.write_text("a dialogue that is not ours to give")
    folder.lock.write_text("{}")
    return folder


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The results of another machine: not there yet."""
    return tmp_path / "there"


@pytest.fixture
def file(folder: StudyFolder, tmp_path: Path) -> Path:
    """The archive of that study."""
    path = tmp_path / "small.tar.gz"
    export_study(folder, path)
    return path


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


# Export


def test_an_archive_holds_what_was_seen_and_nothing_else(file: Path) -> None:
    with tarfile.open(file) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [
        "frozen.json",
        "manifest.json",
        "plan.json",
        f"predictions/{RUN}.jsonl",
        f"predictions/{TRIAL}.jsonl",
        "records.jsonl",
    ]
    assert {(member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode) for member in members} == {
        (0, 0, 0, "", "", 0o644)
    }
    assert b"not ours to give" not in gzip.decompress(file.read_bytes())


def test_the_manifest_tells_of_every_other_member(file: Path) -> None:
    members = contents(file)
    said = json.loads(members.pop("manifest.json"))
    assert said == {
        "format": "qlora-ablation-study",
        "format_version": 1,
        "study": "small",
        "records": 4,
        "runs": 3,
        "predictions": 2,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }


def test_the_same_study_gives_the_same_bytes(folder: StudyFolder, file: Path, tmp_path: Path) -> None:
    again = tmp_path / "deeper" / "another-name.tar.gz"
    for path in folder.root.rglob("*"):
        path.touch()
    export_study(folder, again)
    assert again.read_bytes() == file.read_bytes()


def test_a_study_that_travelled_gives_the_same_bytes(file: Path, there: Path, tmp_path: Path) -> None:
    import_study(file, there)
    export_study(StudyFolder.of(there, "small"), tmp_path / "back.tar.gz")
    assert (tmp_path / "back.tar.gz").read_bytes() == file.read_bytes()


def test_what_is_not_whole_is_left_behind_and_counted(folder: StudyFolder, file: Path, there: Path) -> None:
    folder.records.write_bytes(folder.records.read_bytes() + b'{"torn\n{"torn')
    write_predictions(folder, "e" * 16, PREDICTIONS)
    path = folder.predictions(TRIAL)
    path.write_bytes(path.read_bytes()[:-20])
    done = export_study(folder, file)
    assert (done.records, done.runs, done.predictions) == (4, 3, 1)
    assert (done.left_lines, done.left_predictions) == (2, 2)
    assert import_study(file, there).records == 4


def test_a_study_with_a_plan_alone_can_travel(tmp_path: Path, there: Path) -> None:
    folder = StudyFolder.of(tmp_path / "here", "small")
    write_plan(folder, plan())
    export_study(folder, tmp_path / "file.tar.gz")
    assert import_study(tmp_path / "file.tar.gz", there) == Imported("small", 0, 0, 0, 0, 0)
    assert read_plan(StudyFolder.of(there, "small")) == plan()


def test_a_study_with_an_empty_record_file_can_travel(tmp_path: Path, there: Path) -> None:
    folder = StudyFolder.of(tmp_path / "here", "small")
    folder.root.mkdir(parents=True)
    folder.records.touch()
    export_study(folder, tmp_path / "file.tar.gz")
    assert import_study(tmp_path / "file.tar.gz", there).records == 0


def test_there_must_be_something_to_export(folder: StudyFolder, file: Path) -> None:
    before = file.read_bytes()
    folder.records.unlink()
    folder.plan.unlink()
    with pytest.raises(ArchiveError, match=r"small: nothing to export: it has neither records\.jsonl nor plan\.json"):
        export_study(folder, file)
    assert file.read_bytes() == before


def test_a_study_with_parts_of_another_is_not_exported(folder: StudyFolder, tmp_path: Path) -> None:
    renamed = StudyFolder(folder.root.rename(folder.root.with_name("other")))
    with pytest.raises(ArchiveError, match=r"other/frozen\.json: of study 'small', not other"):
        export_study(renamed, tmp_path / "file.tar.gz")
    renamed.frozen.unlink()
    renamed.plan.unlink()
    with pytest.raises(ArchiveError, match=r"other/records\.jsonl: run 0{16} is of study 'small', not other"):
        export_study(renamed, tmp_path / "file.tar.gz")


def test_a_folder_that_no_grid_could_name_is_not_exported(tmp_path: Path) -> None:
    folder = StudyFolder.of(tmp_path, "a study")
    append(folder, confirm(study="a study"))
    with pytest.raises(ArchiveError, match="STUDY 'a study': no name for a study: use letters"):
        export_study(folder, tmp_path / "file.tar.gz")


def test_choices_that_cannot_be_read_are_not_left_behind(folder: StudyFolder, tmp_path: Path) -> None:
    folder.frozen.write_text("{")
    with pytest.raises(ResultsError, match=r"frozen\.json: not a JSON object"):
        export_study(folder, tmp_path / "file.tar.gz")
    assert not (tmp_path / "file.tar.gz").exists()


def test_a_prediction_file_that_changes_meanwhile_stops_the_export(
    folder: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from results.archive import _manifest_of

    def meanwhile(*arguments: Any) -> Any:
        write_predictions(folder, RUN, PREDICTIONS[:1])
        return _manifest_of(*arguments)

    monkeypatch.setattr("results.archive._manifest_of", meanwhile)
    with pytest.raises(ResultsError, match=r"0{16}\.jsonl: changed while it was exported"):
        export_study(folder, tmp_path / "file.tar.gz")
    assert not (tmp_path / "file.tar.gz").exists()


@pytest.mark.parametrize(
    "limits",
    [
        replace(LIMITS, member_bytes=100),
        replace(LIMITS, total_bytes=5000),
        replace(LIMITS, members=5),
        replace(LIMITS, line_bytes=100),
    ],
    ids=str,
)
def test_nothing_is_exported_that_no_import_would_take(folder: StudyFolder, file: Path, limits: Limits) -> None:
    before = file.read_bytes()
    with pytest.raises(ArchiveError):
        export_study(folder, file, limits)
    assert file.read_bytes() == before


def test_an_export_never_writes_into_the_study_or_over_a_folder(folder: StudyFolder, tmp_path: Path) -> None:
    before = tree(folder.root)
    (tmp_path / "link").symlink_to(folder.root)
    for path in (folder.records, folder.root / "new.tar.gz", tmp_path / "link" / "frozen.json", tmp_path):
        with pytest.raises(ArchiveError, match="a folder, or a place inside of the study's own"):
            export_study(folder, path)
    assert tree(folder.root) == before


# Refusals


def plain(members: dict[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [entry(*each) for each in members.items()]


def with_one_more(name: str, data: bytes = b"x", **changes: Any) -> Callable[[dict[str, bytes]], bytes]:
    return lambda members: packed(*plain(members), entry(name, data, **changes))


def without(*names: str) -> Callable[[dict[str, bytes]], bytes]:
    return lambda members: packed(*plain({name: members[name] for name in members if name not in names}))


def resigned(name: str, old: bytes, new: bytes, **changes: Any) -> Callable[[dict[str, bytes]], bytes]:
    def made(members: dict[str, bytes]) -> bytes:
        assert old in members[name]
        return signed({**members, name: members[name].replace(old, new)}, **changes)

    return made


def told_by_manifest(**changes: Any) -> Callable[[dict[str, bytes]], bytes]:
    return lambda members: signed(members, **changes)


def changed(name: str) -> Callable[[dict[str, bytes]], bytes]:
    return lambda members: packed(*plain({**members, name: members[name].replace(b"}", b"} ", 1)}))


def lying_size(size: int) -> Callable[[dict[str, bytes]], bytes]:
    """A header that promises `size` bytes; none follow."""

    def made(members: dict[str, bytes]) -> bytes:
        info = tarfile.TarInfo("records.jsonl")
        info.size = size
        return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))

    return made


def unpacked(members: dict[str, bytes]) -> bytes:
    return gzip.decompress(packed(*plain(members)))


def header_of(name: str) -> bytes:
    return entry(name)[0].tobuf(tarfile.USTAR_FORMAT)


def long_name(members: dict[str, bytes]) -> bytes:
    return packed(entry("predictions/" + "a" * 200))


def second_study(members: dict[str, bytes]) -> bytes:
    """One record of another study among those of this one."""
    lines = members["records.jsonl"].splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"study":"small"', b'"study":"large"')
    return signed({**members, "records.jsonl": b"".join(lines)})


def orphan(members: dict[str, bytes]) -> bytes:
    name = f"predictions/{'e' * 16}.jsonl"
    return signed({**members, name: members[f"predictions/{RUN}.jsonl"]}, predictions=3)


def nothing_but_choices(members: dict[str, bytes]) -> bytes:
    kept = {name: members[name] for name in ("manifest.json", "frozen.json")}
    return signed(kept, records=0, runs=0, predictions=0)


REFUSALS: dict[str, tuple[Callable[[dict[str, bytes]], bytes], str]] = {
    "no bytes": (lambda _: b"", "empty: not a tar.gz"),
    "text": (lambda _: b"not an archive", "not a tar.gz, or damaged"),
    "a gzip of text": (lambda _: gzip.compress(b"text " * 500), "not a tar.gz"),
    "a gzip of a little text": (lambda _: gzip.compress(b"text"), "truncated"),
    "a tar without gzip": (unpacked, "not a tar.gz, or damaged"),
    "a gzip that ends early": (lambda members: packed(*plain(members))[:-200], "truncated"),
    "a gzip without its checksum": (lambda members: packed(*plain(members))[:-8], "truncated"),
    "a gzip with a wrong checksum": (
        lambda members: packed(*plain(members))[:-8] + bytes(8),
        "damaged: CRC check failed",
    ),
    "bytes after the gzip": (lambda members: packed(*plain(members)) + b"more", "damaged: Not a gzipped file"),
    "a tar without an end": (lambda members: gzip.compress(header_of(f"predictions/{RUN}.jsonl")), "truncated"),
    "a tar that ends in a member": (
        lambda members: gzip.compress(entry("plan.json", b"x" * 600)[0].tobuf() + b"x" * 512),
        "plan.json: truncated",
    ),
    "a damaged header": (
        lambda members: gzip.compress(header_of(f"predictions/{RUN}.jsonl") + b"x" * 512 + bytes(1024)),
        "damaged: no header where one should be",
    ),
    "bytes after the end": (
        lambda members: gzip.compress(unpacked(members) + header_of("more")),
        "something follows the end of the archive",
    ),
    "a symbolic link": (
        with_one_more("records.jsonl", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "'records.jsonl': a symbolic link, and only plain files are allowed",
    ),
    "a hard link": (
        with_one_more("plan.json", b"", type=tarfile.LNKTYPE, linkname="../../plan.json"),
        "'plan.json': a hard link, and only",
    ),
    "a folder": (with_one_more("predictions/", b"", type=tarfile.DIRTYPE), "'predictions': a folder, and only"),
    "a folder of the old kind": (
        with_one_more("predictions/", b"", type=tarfile.AREGTYPE),
        "'predictions': a folder, and only",
    ),
    "a character device": (with_one_more("plan.json", b"", type=tarfile.CHRTYPE), "'plan.json': a device, and only"),
    "a block device": (with_one_more("plan.json", b"", type=tarfile.BLKTYPE), "'plan.json': a device, and only"),
    "a pipe": (with_one_more("plan.json", b"", type=tarfile.FIFOTYPE), "'plan.json': a pipe, and only"),
    "a contiguous file": (with_one_more("plan.json", type=tarfile.CONTTYPE), "'plan.json': of type b'7', and only"),
    "a sparse file": (with_one_more("plan.json", type=tarfile.GNUTYPE_SPARSE), "'plan.json': of type b'S', and only"),
    "an extended header": (
        lambda members: packed(entry("plán.json"), form=tarfile.PAX_FORMAT),
        "'././@PaxHeader': of type b'x', and only",
    ),
    "a long name": (long_name, "'././@LongLink': of type b'L', and only"),
    "an absolute path": (with_one_more("/records.jsonl"), "'/records.jsonl': an absolute path"),
    "a path upwards": (with_one_more("predictions/../../x"), "'predictions/../../x': a path with '..' or a backslash"),
    "a backslash": (with_one_more("predictions\\x"), "'predictions\\\\x': a path with '..' or a backslash"),
    "a name of no member": (with_one_more("examples/test.jsonl"), "'examples/test.jsonl': no file that an archive"),
    "an empty name": (with_one_more(""), "'': no file that an archive"),
    "a lock": (with_one_more(".lock"), "'.lock': no file that an archive"),
    "a dot before the name": (with_one_more("./records.jsonl"), "'./records.jsonl': no file that an archive"),
    "an escape in a name": (with_one_more("\x1b[2J\n"), "'\\x1b[2J\\n': no file that an archive"),
    "bytes that are no text in a name": (with_one_more("\udcff"), "'\\udcff': no file that an archive"),
    "predictions of no run's name": (
        with_one_more(f"predictions/{'A' * 16}.jsonl"),
        f"'predictions/{'A' * 16}.jsonl': no file that an archive",
    ),
    "digits of another script": (
        with_one_more(f"predictions/{'٣' * 16}.jsonl"),
        f"'predictions/{'٣' * 16}.jsonl': no file that an archive",
    ),
    "a member twice": (with_one_more("records.jsonl"), "records.jsonl: twice in the archive"),
    "a header that promises too much": (
        lying_size(LIMITS.member_bytes + 1),
        f"records.jsonl: its size is {LIMITS.member_bytes + 1} bytes; the limit is {LIMITS.member_bytes}",
    ),
    "a header that promises more than follows": (lying_size(LIMITS.member_bytes), "records.jsonl: truncated"),
    "a size below zero": (lying_size(-512), "records.jsonl: its size is -512 bytes"),
    "no members": (lambda _: packed(), "manifest.json: missing"),
    "no manifest": (without("manifest.json"), "manifest.json: missing"),
    "a member less than the manifest lists": (
        without("records.jsonl"),
        "'records.jsonl': missing, though manifest.json lists it",
    ),
    "a member more than the manifest lists": (
        with_one_more(f"predictions/{OTHER}.jsonl", b""),
        f"predictions/{OTHER}.jsonl: not listed in manifest.json",
    ),
    "a listed name with an escape": (
        told_by_manifest(sha256={"\x1b[2J": "0" * 64}),
        "'\\x1b[2J': missing, though manifest.json lists it",
    ),
    "a changed record": (changed("records.jsonl"), "records.jsonl: damaged: its sha256 is "),
    "changed choices": (changed("frozen.json"), "frozen.json: damaged: its sha256 is "),
    "a changed plan": (changed("plan.json"), "plan.json: damaged: its sha256 is "),
    "changed predictions": (changed(f"predictions/{RUN}.jsonl"), f"predictions/{RUN}.jsonl: damaged: its sha256 is "),
    "a manifest that is none": (
        lambda members: packed(*plain({**members, "manifest.json": b"["})),
        "manifest.json: content: Invalid JSON",
    ),
    "another format": (told_by_manifest(format="zip"), "manifest.json: format: Input should be 'qlora-ablation-study'"),
    "a newer format": (
        told_by_manifest(format_version=2, more=1),
        "manifest.json: format_version 2 is newer than this program's 1: update the program",
    ),
    "a study with a path": (told_by_manifest(study="../small"), "manifest.json: study: use letters, digits, - and _"),
    "a study without a name": (told_by_manifest(study=""), "manifest.json: study: use letters, digits, - and _"),
    "a study with a long name": (told_by_manifest(study="a" * 65), "manifest.json: study: use letters"),
    "a study with a hidden name": (told_by_manifest(study="_small"), "manifest.json: study: use letters"),
    "a study with a line break": (told_by_manifest(study="small\n"), "manifest.json: study: use letters"),
    "wrong counts": (
        told_by_manifest(records=5),
        "manifest.json: tells of 5 records of 3 runs and 2 prediction files; there are 4 records of 3 runs and 2 ",
    ),
    "another study's manifest": (
        told_by_manifest(study="large"),
        "frozen.json: of study 'small', not large",
    ),
    "another study's plan": (
        resigned("plan.json", b'"study": "small"', b'"study": "large"'),
        "plan.json: of study 'large', not small",
    ),
    "another study's record": (second_study, f"records.jsonl, line 3: run {TRIAL} is of study 'large', not small"),
    "a record that is none": (
        resigned("records.jsonl", b'"status":"failed"', b'"status":"done"'),
        "records.jsonl, line 1: status: Input should be 'completed', ",
    ),
    "a torn record": (
        resigned("records.jsonl", b'{"schema_version":', b""),
        "records.jsonl, line 1: not a JSON object",
    ),
    "a record from a newer program": (
        resigned("records.jsonl", b'"schema_version":', b'"schema_version":99'),
        f"records.jsonl, line 1: schema_version 99{SCHEMA_VERSION} is newer than this program's {SCHEMA_VERSION}: ",
    ),
    "a record that contradicts itself": (
        resigned("records.jsonl", b'"error":null', b'"error":{"type":"E","message":"m","phase":null}'),
        "records.jsonl, line 2: content: Value error, a completed run has no error",
    ),
    "choices that are none": (
        resigned("frozen.json", b'"seeds": [', b'"seeds": ["x",'),
        "frozen.json: seeds.0: Input should be a valid integer",
    ),
    "a plan that is none": (resigned("plan.json", b"{", b"["), "plan.json: not a JSON object"),
    "predictions that are none": (
        resigned(f"predictions/{RUN}.jsonl", b'"tokens":4', b'"tokens":"x"'),
        f"predictions/{RUN}.jsonl, line 1: tokens: Input should be a valid integer",
    ),
    "predictions of no run": (
        orphan,
        f"predictions/{'e' * 16}.jsonl: predictions of a run that has no record in the archive",
    ),
    "nothing to import": (nothing_but_choices, "records.jsonl: missing, and there is no plan.json"),
    "nesting without end": (
        lambda members: signed({**members, "records.jsonl": b"[" * 100_000}),
        "records.jsonl, line 1: not a JSON object",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_bad_archive_is_refused_in_one_line_and_nothing_is_written(
    kind: str, file: Path, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, told = REFUSALS[kind]
    file.write_bytes(make(contents(file)))
    assert main(["import", str(file), "--results", str(there)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"import: {file}: {told}")
    assert captured.err.count("\n") == 1
    assert captured.err[:-1].isprintable()
    assert len(captured.err) < len(str(file)) + 400
    assert not there.exists()


def test_an_archive_from_another_tar_is_taken(file: Path, there: Path) -> None:
    """Order, owners and times are nobody's business; so are blocks of zeros at the end."""
    members = contents(file)
    entries = [entry(*each, mtime=7, uid=1000, uname="me", mode=0o600) for each in reversed(members.items())]
    file.write_bytes(gzip.compress(gzip.decompress(packed(*entries)) + bytes(20_480)))
    assert import_study(file, there).records == 4


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (replace(LIMITS, member_bytes=100), r"frozen\.json: its size is \d+ bytes; the limit is 100"),
        (replace(LIMITS, total_bytes=6000), "larger than 6000 bytes when unpacked"),
        (replace(LIMITS, members=3), f"predictions/{RUN}.jsonl: one more than the 3 members"),
        (replace(LIMITS, line_bytes=200), f"predictions/{RUN}.jsonl, line 1: longer than 200 bytes"),
    ],
    ids=str,
)
def test_what_is_larger_than_a_limit_is_refused(file: Path, there: Path, limits: Limits, told: str) -> None:
    with pytest.raises(ArchiveError, match=told):
        import_study(file, there, limits)
    assert not there.exists()


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(lambda: bytes(1024) + bytes(64 * 1024**2), id="zeros after the end"),
        pytest.param(lambda: entry("plan.json", bytes(64 * 1024**2))[0].tobuf() + bytes(64 * 1024**2), id="a member"),
        pytest.param(lambda: header_of("plan.json") * 200_000, id="headers"),
    ],
)
def test_a_bomb_is_not_unpacked(
    bomb: Callable[[], bytes], file: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(gzip.compress(bomb(), 1))
    taken = 0
    read = gzip.GzipFile.read

    def counting(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        nonlocal taken
        piece = read(self, size)
        taken += len(piece)
        return piece

    monkeypatch.setattr(gzip.GzipFile, "read", counting)
    with pytest.raises(ArchiveError):
        import_study(file, there, Limits(member_bytes=10**9, total_bytes=4 * 1024**2, members=10**6, line_bytes=1000))
    assert taken <= 5 * 1024**2
    assert not there.exists()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, there: Path) -> None:
    with pytest.raises(ArchiveError, match=r"FILE '.*none\.tar\.gz': no such file"):
        import_study(tmp_path / "none.tar.gz", there)
    with pytest.raises(ArchiveError, match=r"FILE '.*': not a plain file"):
        import_study(tmp_path, there)


def mutated(rng: random.Random, data: bytes) -> bytes:
    """`data` with a byte changed, a piece overwritten, cut out or doubled, or cut short."""
    at, length = rng.randrange(len(data)), rng.randrange(1, 64)
    several = [
        data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
        data[:at] + rng.randbytes(length) + data[at + length :],
        data[:at] + data[at + length :],
        data[: at + length] + data[at:],
        data[:at],
    ]
    return rng.choice(several)


def with_mutated_header(rng: random.Random, tar: bytes) -> bytes:
    """A tar.gz with some bytes of one header changed, and often its type or size."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as whole:
        at = rng.choice([member.offset for member in whole.getmembers()])
    header = bytearray(tar[at : at + 512])
    header[rng.randrange(512)] = rng.randrange(256)
    if rng.random() < 0.5:
        header[156] = rng.choice(b"0123456789gxLKSDVN\0")
    else:
        sizes = [b"\x80" + rng.randbytes(11), b"\xff" * 12, b"1_0".ljust(12, b"\0"), bytes(12), b"-1".ljust(12)]
        header[124:136] = rng.choice(sizes)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return gzip.compress(tar[:at] + header + tar[at + 512 :], 1)


def mutant(rng: random.Random, whole: bytes, members: dict[str, bytes]) -> bytes:
    """A mutation of the file, of the tar in it, of a header or of a member, its checksum or digest being right."""
    kind = rng.randrange(5)
    if kind == 0:
        return mutated(rng, whole)
    if kind == 1:
        return gzip.compress(mutated(rng, gzip.decompress(whole)), 1)
    if kind == 4:
        return with_mutated_header(rng, gzip.decompress(whole))
    name = rng.choice(sorted(members))
    changed = {**members, name: mutated(rng, members[name])}
    return signed(changed) if kind == 2 and name != "manifest.json" else packed(*plain(changed))


def refusal(file: Path, results: Path) -> str | None:
    """How an import is refused, or None where it is not; any other error is the test's."""
    try:
        import_study(file, results)
    except ArchiveError as error:
        return str(error)
    return None


def test_a_mutation_of_an_archive_is_refused_or_taken_whole(file: Path, tmp_path: Path) -> None:
    whole, members = file.read_bytes(), contents(file)
    rng = random.Random(20)
    refused = 0
    for number in range(300):
        there = tmp_path / f"there-{number}"
        file.write_bytes(mutant(rng, whole, members))
        told = refusal(file, there)
        if told is not None:
            refused += 1
            assert told.startswith(f"{file}: ")
            assert not there.exists()
        else:
            # What no check can know to be wrong, such as a letter of a prediction, is taken.
            found = read_records(StudyFolder.of(there, "small"))
            assert (len(found.all), found.damaged) == (4, ())
    assert 200 < refused < 300


# Merging


def test_a_fresh_study_is_what_it_was(folder: StudyFolder, file: Path, there: Path) -> None:
    done = import_study(file, there)
    assert done == Imported("small", records=4, runs=3, there=0, kept=0, predictions=2)
    taken = tree(there / "small")
    assert taken.pop(".lock") == b""
    mine = tree(folder.root)
    assert taken == {name: mine[name] for name in mine if name.split("/")[0] not in ("examples", "logs", ".lock")}
    assert verify(StudyFolder.of(there, "small")).faults == ()


def test_a_second_import_changes_nothing(file: Path, there: Path) -> None:
    import_study(file, there)
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*") if path.is_file() and path.name != ".lock"}
    content = tree(there)
    assert import_study(file, there) == Imported("small", records=0, runs=0, there=4, kept=0, predictions=0)
    assert tree(there) == content
    assert {path: path.stat().st_mtime_ns for path in before} == before


STATUSES: list[dict[str, Any]] = [FAILED, INTERRUPTED, {**FAILED, "status": "timeout"}]


def history(rng: random.Random, run_id: str) -> list[Record]:
    """What a machine may have seen of one run: attempts without an end, and perhaps one."""
    seen = [rng.choice(STATUSES) for _ in range(rng.randrange(3))]
    if rng.random() < 0.5:
        seen.append(rng.choice([{"quality": QUALITY}, OUT_OF_MEMORY]))
    return [confirm(run_id=run_id, started_at=f"machine {rng.randrange(3)}", **each) for each in seen]


@pytest.mark.parametrize("seed", range(25))
def test_a_merge_is_a_union_in_which_the_better_record_counts(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    here, there = StudyFolder.of(tmp_path / "here", "small"), StudyFolder.of(tmp_path / "there", "small")
    runs = [f"{number:016x}" for number in range(8)]
    mine = [record for run_id in runs for record in history(rng, run_id)]
    theirs = [record for run_id in runs for record in history(rng, run_id)]
    # Some were copied by hand before.
    theirs = [*mine[: rng.randrange(4)], *theirs]
    write_plan(there, plan())
    append(here, *mine)
    file = archive_of(there, tmp_path / "file.tar.gz", *theirs)
    before, archived = read_records(here), read_records(there)

    done = import_study(file, here.root.parent)
    after = read_records(here)
    assert after.all[: len(before.all)] == before.all
    added = list(after.all[len(before.all) :])
    assert len(added) == done.records
    assert done.records + done.there + done.kept == len(archived.all)
    assert all(record in archived.all and record not in before.all for record in added)
    for run_id in before.last.keys() | archived.last.keys():
        mine_last, their_last, last = (each.last.get(run_id) for each in (before, archived, after))
        assert last is not None
        if mine_last is not None and mine_last.is_final:
            assert last == mine_last
        elif their_last is not None and their_last not in before.all:
            assert last == their_last
            assert all(record in after.all for record in archived.all if record.run_id == run_id)
        else:
            assert last == mine_last

    content = tree(here.root)
    again = import_study(file, here.root.parent)
    assert (again.records, again.predictions) == (0, 0)
    assert again.kept == done.kept
    assert tree(here.root) == content


@pytest.mark.parametrize("seed", range(5))
def test_two_machines_that_exchange_their_runs_agree(seed: int, tmp_path: Path) -> None:
    """Where no run was done twice, the order of exchange does not matter."""
    rng = random.Random(seed)
    here, there = StudyFolder.of(tmp_path / "here", "small"), StudyFolder.of(tmp_path / "there", "small")
    for number in range(12):
        append(rng.choice([here, there]), *history(rng, f"{number:016x}"))
    for folder in (here, there):
        write_plan(folder, plan())
    for sender, receiver in ((here, there), (there, here), (here, there)):
        export_study(sender, tmp_path / "file.tar.gz")
        import_study(tmp_path / "file.tar.gz", receiver.root.parent)
    assert read_records(here).last == read_records(there).last
    assert all(record in read_records(there).all for record in read_records(here).all)
    assert all(record in read_records(here).all for record in read_records(there).all)


def local(there: Path, *records: Record) -> StudyFolder:
    folder = StudyFolder.of(there, "small")
    append(folder, *records)
    return folder


def test_a_final_record_of_ones_own_is_never_hidden(tmp_path: Path, there: Path) -> None:
    mine = local(there, confirm())
    file = archive_of(StudyFolder.of(tmp_path, "small"), tmp_path / "file.tar.gz", confirm(**FAILED))
    assert import_study(file, there) == Imported("small", records=0, runs=0, there=0, kept=1, predictions=0)
    assert read_records(mine).all == (confirm(),)


def test_of_two_final_records_ones_own_is_kept_with_its_predictions(
    folder: StudyFolder, file: Path, there: Path
) -> None:
    mine = local(there, confirm(started_at="before"), trial(run_id=TRIAL, **OUT_OF_MEMORY))
    write_predictions(mine, RUN, PREDICTIONS[:1])
    before = mine.predictions(RUN).read_bytes()
    # Of the run: a failed attempt and another result; of the trial: a result.
    assert import_study(file, there) == Imported("small", records=1, runs=1, there=0, kept=3, predictions=0)
    assert mine.predictions(RUN).read_bytes() == before
    # Predictions of the archive's record are no evidence for another.
    assert not mine.predictions(TRIAL).exists()


def test_a_result_follows_a_failure_with_its_predictions(folder: StudyFolder, file: Path, there: Path) -> None:
    mine = local(there, confirm(**INTERRUPTED))
    write_predictions(mine, RUN, PREDICTIONS[:1])
    assert import_study(file, there) == Imported("small", records=4, runs=3, there=0, kept=0, predictions=2)
    assert read_records(mine).last[RUN].status == "completed"
    assert mine.predictions(RUN).read_bytes() == folder.predictions(RUN).read_bytes()


def test_predictions_that_were_lost_come_back(folder: StudyFolder, file: Path, there: Path) -> None:
    import_study(file, there)
    mine = StudyFolder.of(there, "small")
    mine.predictions(RUN).unlink()
    write_predictions(mine, TRIAL, PREDICTIONS[:1])
    kept = mine.predictions(TRIAL).read_bytes()
    assert import_study(file, there) == Imported("small", records=0, runs=0, there=4, kept=0, predictions=1)
    assert mine.predictions(RUN).read_bytes() == folder.predictions(RUN).read_bytes()
    assert mine.predictions(TRIAL).read_bytes() == kept


def test_what_came_later_here_is_not_followed_by_what_came_before(tmp_path: Path, there: Path) -> None:
    """Machine A has an attempt of its own, then takes over B's; what B gets back is older than what B has."""
    earlier, later = confirm(**INTERRUPTED), confirm(**FAILED)
    mine = local(there, later)
    file = archive_of(StudyFolder.of(tmp_path, "small"), tmp_path / "file.tar.gz", earlier, later)
    assert import_study(file, there) == Imported("small", records=0, runs=0, there=1, kept=1, predictions=0)
    assert read_records(mine).last[RUN] == later


def test_a_record_that_stands_twice_is_taken_once_where_it_counts(tmp_path: Path, there: Path) -> None:
    twice, between = confirm(**FAILED), confirm(**INTERRUPTED)
    file = archive_of(StudyFolder.of(tmp_path, "small"), tmp_path / "file.tar.gz", twice, between, twice)
    assert import_study(file, there) == Imported("small", records=2, runs=1, there=1, kept=0, predictions=0)
    assert read_records(StudyFolder.of(there, "small")).all == (between, twice)
    assert import_study(file, there).records == 0


def test_records_are_equal_whatever_the_order_of_a_mapping(tmp_path: Path, there: Path) -> None:
    local(there, confirm(environment={"gpu": None, "driver": "1", "load": 1.5}))
    turned = confirm(environment={"load": 1.5, "driver": "1", "gpu": None})
    file = archive_of(StudyFolder.of(tmp_path, "small"), tmp_path / "file.tar.gz", turned)
    assert import_study(file, there) == Imported("small", records=0, runs=0, there=1, kept=0, predictions=0)


def test_a_number_that_json_does_not_know_is_still_the_same_record(file: Path, there: Path) -> None:
    members = contents(file)
    members["records.jsonl"] = members["records.jsonl"].replace(b'{"gpu":null}', b'{"gpu":NaN}')
    assert b"NaN" in members["records.jsonl"]
    file.write_bytes(signed(members))
    assert import_study(file, there).records == 4
    assert import_study(file, there).there == 4


def test_damaged_lines_of_ones_own_stay_as_they_are(file: Path, there: Path) -> None:
    mine = local(there, confirm(quality=QUALITY))
    torn = mine.records.read_bytes() + b'{"torn'
    mine.records.write_bytes(torn)
    import_study(file, there)
    assert mine.records.read_bytes().startswith(torn + b"\n")
    assert len(read_records(mine).damaged) == 1


def test_other_choices_are_refused_before_anything_is_written(folder: StudyFolder, file: Path, there: Path) -> None:
    mine = local(there, confirm())
    write_frozen(mine, frozen(seeds=[1, 2]))
    before = tree(there)
    with pytest.raises(ArchiveError, match=r"small\.tar\.gz: frozen\.json: differs from .*frozen\.json: the choices"):
        import_study(file, there)
    assert tree(there) == before


def test_choices_are_taken_where_there_are_none(file: Path, there: Path) -> None:
    mine = local(there, confirm())
    import_study(file, there)
    assert read_frozen(mine) == frozen()
    assert import_study(file, there).records == 0


def planned(*run_ids: str) -> Plan:
    return plan().model_copy(
        update={"runs": tuple(plan().runs[0].model_copy(update={"run_id": each}) for each in run_ids)}
    )


@pytest.mark.parametrize(
    ("mine", "theirs", "taken"),
    [
        ((RUN,), (RUN, TRIAL), True),
        ((RUN, TRIAL), (RUN,), False),
        ((RUN,), (RUN,), False),
        ((RUN,), (TRIAL, OTHER), False),
        ((), (RUN,), True),
    ],
)
def test_a_plan_is_taken_that_covers_more(
    mine: tuple[str, ...], theirs: tuple[str, ...], taken: bool, folder: StudyFolder, file: Path, there: Path
) -> None:
    write_plan(folder, planned(*theirs))
    export_study(folder, file)
    here = StudyFolder.of(there, "small")
    write_plan(here, planned(*mine))
    import_study(file, there)
    assert read_plan(here) == planned(*(theirs if taken else mine))


# The lock


def test_an_import_waits_for_nobody_who_works_on_the_study(file: Path, there: Path) -> None:
    mine = StudyFolder.of(there, "small")
    with held(mine):
        before = tree(there)
        with pytest.raises(ResultsError, match=r"small: another process works on this study; .*\.lock says which"):
            import_study(file, there)
        assert tree(there) == before
    assert import_study(file, there).records == 4


def test_a_conductor_cannot_start_while_an_import_writes(
    file: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = StudyFolder.of(there, "small")
    told: list[str] = []
    real = RecordStore.extend

    def meanwhile(self: RecordStore, records: Iterable[Record]) -> None:
        with pytest.raises(StudyBusy) as caught, held(mine):
            pass
        told.append(str(caught.value))
        real(self, records)

    monkeypatch.setattr(RecordStore, "extend", meanwhile)
    import_study(file, there)
    assert len(told) == 1
    assert all("another process works on this study: host " in each for each in told)
    assert mine.lock.read_bytes() == b""
    with held(mine):
        assert mine.lock.read_bytes() != b""


def test_an_import_that_breaks_off_is_completed_by_the_next(
    file: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RecordStore.extend

    def failing(self: RecordStore, records: Iterable[Record]) -> None:
        real(self, list(records)[:2])
        raise ResultsError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(RecordStore, "extend", failing)
        with pytest.raises(ResultsError, match="the disk is full"):
            import_study(file, there)
    mine = StudyFolder.of(there, "small")
    assert mine.lock.read_bytes() == b""
    assert import_study(file, there) == Imported("small", records=2, runs=2, there=2, kept=0, predictions=0)
    assert verify(mine).faults == ()


def test_ten_thousand_records_take_seconds(tmp_path: Path, there: Path) -> None:
    folder = StudyFolder.of(tmp_path / "here", "small")
    line = confirm().model_dump_json()
    folder.root.mkdir(parents=True)
    folder.records.write_text("".join(line.replace(RUN, f"{number:016x}") + "\n" for number in range(10_000)))
    export_study(folder, tmp_path / "file.tar.gz")
    began = time.monotonic()
    assert import_study(tmp_path / "file.tar.gz", there).records == 10_000
    # A wait for the disk after each record would take a minute.
    assert time.monotonic() - began < 30
    assert (there / "small" / "records.jsonl").read_bytes() == folder.records.read_bytes()


def test_an_archive_that_changes_meanwhile_brings_nothing_unchecked(
    file: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from results.archive import plan_merge

    members = contents(file)
    name = f"predictions/{RUN}.jsonl"

    def meanwhile(*arguments: Any) -> Any:
        # In place: another file of that name would not be the one that is open.
        file.write_bytes(signed({**members, name: members[name].replace(b"meet", b"part")}))
        return plan_merge(*arguments)

    monkeypatch.setattr("results.archive.plan_merge", meanwhile)
    with pytest.raises(ResultsError, match=r"0{16}\.jsonl: the archive changed while it was read"):
        import_study(file, there)
    assert set(tree(there)) == {"small/.lock"}


# The command


def test_the_command_moves_a_study(
    folder: StudyFolder, there: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file.tar.gz"
    assert main(["export", "small", str(file), "--results", str(folder.root.parent)]) == 0
    assert capsys.readouterr() == (f"exported 4 records of 3 runs of small (2 prediction files) to {file}\n", "")
    assert main(["import", str(file), "--results", str(there)]) == 0
    assert capsys.readouterr() == (
        "imported 4 records of 3 runs into small (0 already there, 0 kept, 2 prediction files)\n",
        "",
    )
    assert main(["verify", "small", "--results", str(there)]) == 0


def test_the_command_says_what_it_left_behind(
    folder: StudyFolder, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.records.write_bytes(folder.records.read_bytes() + b'{"torn')
    assert main(["export", "small", str(file), "--results", str(folder.root.parent)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("exported 4 records of 3 runs of small ")
    told = "left behind: 1 damaged lines of records.jsonl; python -m results verify small names them"
    assert captured.err == f"export: {told}\n"


def test_the_command_refuses_to_export_nothing(
    folder: StudyFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = folder.root.parent
    (results / "empty").mkdir()
    file = str(tmp_path / "file.tar.gz")
    assert main(["export", "empty", file, "--results", str(results)]) == 2
    assert capsys.readouterr() == (
        "",
        f"export: {results / 'empty'}: nothing to export: it has neither records.jsonl nor plan.json\n",
    )
    assert main(["export", "none", file, "--results", str(results)]) == 2
    assert capsys.readouterr().err == f"STUDY 'none': no such study in {results}; there are: empty, small\n"
    assert not (tmp_path / "file.tar.gz").exists()


def test_the_command_fails_where_the_study_is_busy_or_cannot_be_written(
    file: Path, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(StudyFolder.of(there, "small")):
        assert main(["import", str(file), "--results", str(there)]) == 1
    assert capsys.readouterr().err.startswith(f"import: {there / 'small'}: another process works on this study; ")
    assert main(["import", str(file), "--results", str(file)]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"import: {file}/small/frozen.json cannot be read: Not a directory\n"
    assert captured.out == ""
