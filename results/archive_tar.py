"""The members of an archive that may come from anywhere.

Its headers are read here, block by block, and nothing of it is unpacked by name.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from results.archive_format import EXTERNAL_NAME, FROZEN, MANIFEST, PLAN, PREDICTIONS_NAME, RECORDS, Limits, refuse
from results.store import ResultsError
from study.problems import shown

_CHUNK_BYTES = 1024**2
_NOT_A_FILE = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.DIRTYPE: "a folder",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


class TarReader:
    """The members of a tar.gz in their order, every byte counted as it is unpacked.

    `tarfile` would believe headers: a long name or an extended header is read whole before anybody is asked. Here one
    block is a header or the archive is refused, and no header of such a kind is known.
    """

    def __init__(self, file: BinaryIO, path: Path, limits: Limits) -> None:
        self._file = file
        self._stream = gzip.GzipFile(fileobj=file, mode="rb")
        self._path = path
        self._limits = limits
        self._taken = 0

    def members(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of each member; ends when the last byte was seen and the checksum of gzip held.

        Raises:
            ArchiveError: the archive is refused.
            ResultsError: it cannot be read.
        """
        seen: set[str] = set()
        while (info := self._header(is_first=not seen)) is not None:
            name = self._allowed(info)
            if name in seen:
                refuse(self._path, name, "twice in the archive")
            if len(seen) == self._limits.members:
                refuse(self._path, name, f"one more than the {self._limits.members} members that an archive may have")
            seen.add(name)
            yield name, self._content(name, info.size)
        while rest := self._some(_CHUNK_BYTES):
            if rest.count(0) != len(rest):
                refuse(self._path, None, "something follows the end of the archive")

    def _header(self, *, is_first: bool) -> tarfile.TarInfo | None:
        """The next header, or None at the block of zeros that ends an archive."""
        block = self._exactly(tarfile.BLOCKSIZE, None)
        if block.count(0) == len(block):
            return None
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            refuse(self._path, None, "not a tar.gz" if is_first else "damaged: no header where one should be")

    def _allowed(self, info: tarfile.TarInfo) -> str:
        """The member's name, once it is a plain file on the list of what an archive may hold."""
        name, told = info.name, shown(info.name)
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            kind = _NOT_A_FILE.get(info.type, f"of type {info.type!r}")
            refuse(self._path, told, f"{kind}, and only plain files are allowed")
        if name.startswith("/"):
            refuse(self._path, told, "an absolute path")
        if ".." in name.split("/") or "\\" in name:
            refuse(self._path, told, "a path with '..' or a backslash")
        is_known = name in (MANIFEST, RECORDS, FROZEN, PLAN)
        if not (is_known or PREDICTIONS_NAME.fullmatch(name) or EXTERNAL_NAME.fullmatch(name)):
            refuse(self._path, told, "no file that an archive of a study has")
        return name

    def _content(self, name: str, size: int) -> bytes:
        limit = self._limits.of_member(name)
        if not 0 <= size <= limit:
            refuse(self._path, name, f"its size is {size} bytes; the limit is {limit}")
        data = self._exactly(size, name)
        self._exactly(-size % tarfile.BLOCKSIZE, name)
        return data

    def _exactly(self, size: int, member: str | None) -> bytes:
        """The next `size` bytes. Taken in pieces: what a header says is not there until it was seen."""
        data = bytearray()
        while len(data) < size:
            piece = self._some(min(size - len(data), _CHUNK_BYTES))
            if not piece:
                refuse(self._path, member, "truncated" if self._taken else "empty: not a tar.gz")
            data += piece
        return bytes(data)

    def _some(self, size: int) -> bytes:
        """At most `size` of the next bytes; none at the end of the file."""
        try:
            piece = self._stream.read(size)
        except EOFError:
            refuse(self._path, None, "truncated")
        except (gzip.BadGzipFile, zlib.error) as error:
            refuse(self._path, None, f"damaged: {error}" if self._taken else "not a tar.gz, or damaged")
        except OSError as error:
            raise ResultsError(f"{self._path} cannot be read: {error.strerror or error}") from error
        self._taken += len(piece)
        if self._taken > self._limits.total_bytes:
            refuse(self._path, None, f"larger than {self._limits.total_bytes} bytes when unpacked")
        if self._limits.is_bomb(self._taken, self._file.tell()):
            refuse(self._path, None, f"unpacks to more than {self._limits.ratio} times its size")
        return piece
