"""A study as one file: written on one machine, checked and merged on another.

The file is a tar.gz of `manifest.json`, `records.jsonl`, `frozen.json`, `plan.json`, `predictions/<run_id>.jsonl` and
`external/<name>.<seed>.json` (systems from elsewhere; an archive with one is refused by programs before 0.2.0).
Dialogues, logs and the lock never travel. The same study gives the same bytes.

Here are the names in it, its limits, its manifest, and how one is refused.

Format history (`format_version`):

1. First version (0.1.0).
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from pydantic import Field, ValidationError

from results.external import FILE_NAME
from results.schema import Part
from results.store import ResultsError
from study.schema import Name

FORMAT: Literal["qlora-ablation-study"] = "qlora-ablation-study"
FORMAT_VERSION: Literal[1] = 1

MAX_MEMBER_BYTES = 256 * 1024**2
MAX_TOTAL_BYTES = 2 * 1024**3
# A member that is parsed as a whole (all but records and predictions) becomes objects many times its size.
MAX_DOCUMENT_BYTES = 64 * 1024**2
# A study shrinks to a tenth or a twentieth (the published reference study to a thirteenth), a bomb to a thousandth.
MAX_RATIO = 200
RATIO_FROM_BYTES = 64 * 1024**2
MAX_MEMBERS = 200_000
# A line becomes objects that take some twenty times its bytes.
MAX_LINE_BYTES = 4 * 1024**2

MANIFEST, RECORDS, FROZEN, PLAN = "manifest.json", "records.jsonl", "frozen.json", "plan.json"
PREDICTIONS_NAME = re.compile(r"predictions/([0-9a-f]{16})\.jsonl", re.ASCII)
EXTERNAL_NAME = re.compile("external/" + FILE_NAME.pattern, re.ASCII)


class ArchiveError(ResultsError):
    """An archive that is refused, or a study that cannot be one: names file, member and reason in one line."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may hold at most, in uncompressed bytes: what goes beyond is taken for an attack.

    `ratio` bounds uncompressed by compressed bytes, once there are more than `ratio_from_bytes` of the former.
    """

    member_bytes: int = MAX_MEMBER_BYTES
    document_bytes: int = MAX_DOCUMENT_BYTES
    total_bytes: int = MAX_TOTAL_BYTES
    members: int = MAX_MEMBERS
    line_bytes: int = MAX_LINE_BYTES
    ratio: int = MAX_RATIO
    ratio_from_bytes: int = RATIO_FROM_BYTES

    def of_member(self, name: str) -> int:
        """The most bytes that the member of that name may have."""
        in_lines = name == RECORDS or PREDICTIONS_NAME.fullmatch(name) is not None
        return self.member_bytes if in_lines else min(self.member_bytes, self.document_bytes)

    def is_bomb(self, unpacked: int, packed: int) -> bool:
        """Whether so many bytes cannot come of so few but by intent."""
        return unpacked > self.ratio_from_bytes and unpacked > self.ratio * packed


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


def parsed_manifest(data: bytes) -> Manifest:
    """The manifest in `data`.

    Raises:
        ArchiveError: it is none, or from a newer program.
    """
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        version = _written_version(data)
        if version is not None and version > FORMAT_VERSION:
            newer = f"format_version {version} is newer than this program's {FORMAT_VERSION}: update the program"
            raise ArchiveError(f"{MANIFEST}: {newer}") from error
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "content"
        raise ArchiveError(f"{MANIFEST}: {place}: {first['msg']}") from error


def _written_version(data: bytes) -> int | None:
    try:
        version = json.loads(data).get("format_version")
    except (ValueError, AttributeError, RecursionError):
        return None
    return version if isinstance(version, int) else None


def refuse(path: Path, where: str | None, reason: str) -> NoReturn:
    """Refuses the archive at `path`; `where` is the member, None where the archive itself is meant.

    Raises:
        ArchiveError: always.
    """
    raise ArchiveError(": ".join(part for part in (str(path), where, reason) if part is not None))
