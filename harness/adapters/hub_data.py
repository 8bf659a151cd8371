"""Rows of a data set on the Hub, of the revision that was asked for or not at all."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.adapters.hub import is_commit, is_torn, quiet, refusal
from study.datasets import HubData

# Seconds that the Hub may take to say which commit a revision is.
PATIENCE_S = 20.0


class NoRows(RuntimeError):
    """They cannot be had; why, and what to do about it."""


def hub_rows(source: HubData, split: str) -> Sequence[Mapping[str, Any]]:
    """The rows of a split, downloaded where they are not on this machine.

    The library takes whatever revision it has when the Hub refuses; this does not.

    Raises:
        NoRows: as the name says.
    """
    with quiet():
        commit, refused = _resolved(source)
        if commit is None:
            raise NoRows(refused)
        if refused is None:
            _mend(source, commit)
        try:
            rows, found = _load(source, split, offline=refused is not None)
        except Exception as error:
            raise NoRows(refused or _reason(source, error)) from error
    if found is not None and found != commit:
        raise NoRows(refused or f"was not loaded: the library brought revision {found}")
    return rows


def _resolved(source: HubData) -> tuple[str | None, str | None]:
    """The commit that is meant, from the Hub, else from an earlier start here; and why the Hub does not say so."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(source.id, revision=source.revision, timeout=PATIENCE_S)
    except Exception as error:  # noqa: BLE001 - as above
        known = source.revision if is_commit(source.revision) else _noted(source)
        return known, refusal(error, "dataset")
    return info.sha, None


def _cache(source: HubData) -> Path:
    """Where the Hub's library keeps the data set's files."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=source.id, repo_type="dataset")


def _noted(source: HubData) -> str | None:
    """The commit that a branch or tag was when it was last seen here."""
    try:
        return (_cache(source) / "refs" / source.revision).read_text().strip() or None
    except (OSError, ValueError):
        return None


def _mend(source: HubData, commit: str) -> None:
    """Downloads again what a crash left torn: the library takes a file that is there for one that is whole."""
    from huggingface_hub import hf_hub_download

    snapshot = _cache(source) / "snapshots" / commit
    for path in [path for path in sorted(snapshot.rglob("*")) if not path.is_dir() and is_torn(path)]:
        try:
            hf_hub_download(
                source.id,
                str(path.relative_to(snapshot)),
                repo_type="dataset",
                revision=commit,
                force_download=True,
            )
        except Exception as error:
            raise NoRows(refusal(error, "dataset")) from error


def _load(source: HubData, split: str, *, offline: bool) -> tuple[Sequence[Mapping[str, Any]], str | None]:
    """The rows and the commit that they are of, as far as the library's cache tells."""
    import datasets

    with _offline() if offline else contextlib.nullcontext():
        try:
            found = _whole(source, split, datasets.DownloadMode.REUSE_DATASET_IF_EXISTS)
        except _Damaged:
            if offline:
                raise
            # What the library made of the files and keeps beside them was torn.
            found = _whole(source, split, datasets.DownloadMode.FORCE_REDOWNLOAD)
    files = found.cache_files
    return list(found), Path(files[0]["filename"]).parent.name if files else None


class _Damaged(RuntimeError):
    """The library's own copy of the rows cannot be read, or lacks some."""


def _whole(source: HubData, split: str, mode: Any) -> Any:
    import datasets
    import pyarrow

    try:
        found = datasets.load_dataset(
            source.id, revision=source.revision, split=split, download_mode=mode, trust_remote_code=False
        )
        told = (found.info.splits or {}).get(split)
        # Read through once: a file that lacks its end is told by its reader.
        rows = sum(len(batch) for batch in found.with_format("arrow").iter(1000))
    except (pyarrow.ArrowException, EOFError, OSError) as error:
        if isinstance(error, OSError) and not _is_of_arrow(error):
            raise
        raise _Damaged("its copy in the local cache is damaged") from error
    if told is not None and told.num_examples not in (0, rows):
        raise _Damaged("its copy in the local cache lacks rows")
    return found


def _is_of_arrow(error: OSError) -> bool:
    """Whether it is the reader of rows that found too few bytes, in an error without the system's number for one."""
    return error.errno is None and type(error) is OSError and "bytes" in str(error)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Keeps the library from asking a Hub that refused a moment ago: it would try again for half a minute."""
    from datasets import config

    before, config.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _reason(source: HubData, error: Exception) -> str:
    """Why rows that are there cannot be read: of the library's words only those about splits."""
    from huggingface_hub import HfApi

    if isinstance(error, _Damaged):
        return f"cannot be read: {error}"
    try:
        # Of a gated data set everybody may see that it is there, and the library below forgets who refused what.
        HfApi().auth_check(source.id, repo_type="dataset")
    except Exception as refused:  # noqa: BLE001 - as above
        return refusal(refused, "dataset")
    if isinstance(error, ValueError) and "split" in str(error):
        return f"cannot be read: {str(error).splitlines()[0][:200]}"
    return refusal(error, "dataset")
