"""Archives with one thing wrong: each is refused in one line before anything is written."""

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results.__main__ import main
from results.archive_format import LIMITS
from results.schema import SCHEMA_VERSION
from tests.unit.results.archives import OTHER, RUN, TRIAL, contents, entry, header_of, packed, plain, signed


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
