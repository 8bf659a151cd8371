"""Archives that are too large, unusual or damaged at random: refused, or taken whole."""

import gzip
import io
import random
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from results.archive_format import LIMITS, ArchiveError, Limits
from results.layout import StudyFolder
from results.merging import import_study
from results.store import read_records
from tests.unit.results.archives import RUN, contents, entry, header_of, packed, plain, signed


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
        (replace(LIMITS, document_bytes=100), r"frozen\.json: its size is \d+ bytes; the limit is 100"),
        (replace(LIMITS, ratio=2, ratio_from_bytes=1000), "unpacks to more than 2 times its size"),
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
