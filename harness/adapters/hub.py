"""The Hub's edge: what it refused, in one line that says what to do, and whether what lies in its cache is whole.

No message of the library is passed on: they run over many lines, and an address in them may hold a key.
"""

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Kind = Literal["model", "dataset"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
# As the cache names its files: by sha256 where the Hub keeps them apart from git, else by git's own digest.
_SHA256, _GIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


def is_commit(revision: str | None) -> bool:
    """Whether a revision is the full name of a commit, which never moves."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def refusal(error: BaseException, kind: Kind) -> str:
    """Why something of the Hub cannot be had and what to do about it, to be put after its name."""
    for cause in _chain(error):
        if (told := _told(cause, kind)) is not None:
            return told
    return f"cannot be had: {type(error).__name__}: {_elsewhere(kind)}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from, the last first: each library tells the one below it in its own words."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _told(error: BaseException, kind: Kind) -> str | None:  # noqa: PLR0911 - one return a kind of refusal
    from huggingface_hub import errors

    # Each is a kind of the ones below it.
    if isinstance(error, errors.GatedRepoError):
        return (
            f"is gated: accept its terms at the {kind}'s page on the Hub, and set HF_TOKEN to a token of that account"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return "is not there: the Hub knows it, but no such revision; check the revision"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"is not there: the Hub has no such {kind}, or it is private; check the name, or set HF_TOKEN"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"is not whole in the local cache, and HF_HUB_OFFLINE is set: unset it, or {_elsewhere(kind)}"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return f"is refused by the Hub (HTTP {status}): the token in HF_TOKEN is not valid or may not read it"
        return f"cannot be had: the Hub answers HTTP {status}; try again later, or {_elsewhere(kind)}"
    if _is_broken_connection(error):
        return f"cannot be downloaded: the connection broke off ({type(error).__name__}); start again when it is stable"
    if _is_unreachable(error):
        return (
            f"is not whole in the local cache, and the Hub cannot be reached: check the network, or {_elsewhere(kind)}"
        )
    # Errors of files that the libraries turn into others of their own.
    if isinstance(error, OSError) and type(error) is not FileNotFoundError and error.strerror and error.errno:
        return f"cannot be downloaded: {error.strerror}"
    return None


def _elsewhere(kind: Kind) -> str:
    local = "model.id to a folder" if kind == "model" else "data.source to local and data.local.* to files"
    return f"download it first on a machine with a network (or set {local})"


def _names(error: BaseException) -> set[str]:
    """The names of an error's classes: the library changes the package that speaks HTTP for it from time to time."""
    return {each.__name__ for each in type(error).__mro__ if each.__module__.partition(".")[0].startswith("http")}


def _is_broken_connection(error: BaseException) -> bool:
    return bool(_names(error) & {"RemoteProtocolError", "ReadError", "WriteError", "ReadTimeout", "StreamError"})


def _is_unreachable(error: BaseException) -> bool:
    return isinstance(error, ConnectionError | TimeoutError) or bool(_names(error) & {"TransportError", "InvalidURL"})


def is_torn(path: Path) -> bool:
    """Whether a file of the cache is not what the Hub named: its name there is its digest. Unknown names pass."""
    try:
        # One step only: what it leads to may be a link again, into a store with names of its own.
        name = os.path.basename(os.readlink(path))
    except OSError:
        # A copy, where links cannot be made; or nothing at all.
        return not path.is_file()
    try:
        with path.open("rb") as file:
            if _SHA256.fullmatch(name):
                return hashlib.file_digest(file, "sha256").hexdigest() != name
            if _GIT.fullmatch(name):
                digest = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
                while part := file.read(1 << 20):
                    digest.update(part)
                return digest.hexdigest() != name
    except OSError:
        return True
    return False


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' warnings: each trouble is told once, in a line of ours, and theirs hold addresses."""
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "datasets", "fsspec")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
