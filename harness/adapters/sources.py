"""Dialogues with references, from wherever a study takes them: generated, local files or the Hub."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.adapters.hub_data import NoRows, hub_rows
from study.datasets import SPLITS, DataSpec, GeneratedData, HubData, LocalData, Slice, parse_slice
from study.dialogues import generate
from study.examples import Example
from study.overlap import drop_overlapping, find_overlaps
from study.rows import RowError, examples_of, merged, summary_fields

__all__ = ["DataError", "Loaded", "distinct", "load", "merged", "read_references", "summary_fields"]


class DataError(RuntimeError):
    """The dialogues cannot be had or cannot be used; one line that names the source and what to do."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The examples of every split, and what a reader should know about them."""

    splits: dict[str, tuple[Example, ...]]
    notes: tuple[str, ...]
    description: str


def load(spec: DataSpec) -> Loaded:
    """The examples of every split, limited, and checked for dialogues that splits share.

    Raises:
        DataError: they cannot be had, or splits overlap and the study refuses that.
    """
    source = spec.source
    if isinstance(source, GeneratedData):
        counts: dict[str, int] = {split: spec.limit(split) or 0 for split in SPLITS}
        splits = generate(source.seed, counts, scenes=source.scenes, turns=source.turns, references=source.references)
        loaded: dict[str, tuple[Example, ...]] = {split: tuple(splits[split]) for split in SPLITS}
        description = f"generated dialogues (seed {source.seed}, {source.turns[0]} to {source.turns[1]} turns)"
    else:
        loaded = {split: _split(source, split, name)[: spec.limit(split)] for split, name in source.splits}
        description = source.id if isinstance(source, HubData) else "local files"
    return _checked(loaded, spec, description)


def _checked(splits: dict[str, tuple[Example, ...]], spec: DataSpec, description: str) -> Loaded:
    for split, examples in splits.items():
        if not examples:
            raise DataError(f"data: the {split} split is empty")
    notes: list[str] = []
    overlaps = find_overlaps(splits)
    if overlaps.exact or overlaps.near:
        first = next(iter((*overlaps.exact, *overlaps.near)))
        counted = f"{len(overlaps.exact)} equal and {len(overlaps.near)} nearly equal dialogues between splits"
        if spec.overlap == "refuse":
            raise DataError(
                f"data: {counted} (such as {first.id_a} of {first.split_a} and {first.id_b} of {first.split_b}): "
                "set data.overlap to drop to leave them out of the earlier split"
            )
        dropped_splits, dropped = drop_overlapping(splits, overlaps)
        splits = {split: tuple(examples) for split, examples in dropped_splits.items()}
        left_out = ", ".join(f"{count} from {split}" for split, count in dropped.items() if count)
        notes.append(f"{counted}: left out {left_out}")
    repeated = sum(
        len(set(example.references)) < len(example.references) for examples in splits.values() for example in examples
    )
    if repeated:
        notes.append(f"{repeated} dialogues list one reference twice; each listed reference counts once")
    return Loaded(splits, tuple(notes), description)


def _split(source: LocalData | HubData, split: str, text: str) -> tuple[Example, ...]:
    wanted = parse_slice(text)
    rows = _hub_rows(source, wanted) if isinstance(source, HubData) else _local_rows(wanted, split)
    chosen = [rows[number] for number in wanted.of(len(rows))]
    examples = list(_examples(chosen, source, f"data ({split}, {wanted.name})"))
    return distinct(examples if split == "train" else merged(examples))


def distinct(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Examples with ids that are theirs alone: predictions are joined to dialogues by id."""
    seen: dict[str, int] = {}
    result: list[Example] = []
    for example in examples:
        count = seen[example.id] = seen.get(example.id, 0) + 1
        identity = example.id if count == 1 else f"{example.id}#{count}"
        result.append(Example(identity, example.dialogue, example.references))
    return tuple(result)


def _local_rows(wanted: Slice, split: str) -> Sequence[Mapping[str, Any]]:
    import datasets

    path = Path(wanted.name).expanduser()
    if not os.path.isfile(path):
        raise DataError(f"data ({split}): there is no file {wanted.name!r}")
    builder = "csv" if path.suffix == ".csv" else "json"
    with _quiet():
        try:
            return list(datasets.load_dataset(builder, data_files=str(path), split="train", trust_remote_code=False))
        except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise DataError(f"data ({split}): {wanted.name!r} cannot be read: {reason}") from error


def _hub_rows(source: HubData, wanted: Slice) -> Sequence[Mapping[str, Any]]:
    with _quiet():
        try:
            return hub_rows(source, wanted.name)
        except NoRows as error:
            raise DataError(f"data.hub.id {source.id!r} at revision {source.revision!r} {error}") from error


class _quiet:
    """Without the library's progress bars: they would tear the live view."""

    def __enter__(self) -> None:
        import datasets

        self._shown = datasets.is_progress_bar_enabled()
        datasets.disable_progress_bars()

    def __exit__(self, *_: object) -> None:
        import datasets

        if self._shown:
            datasets.enable_progress_bars()


def _examples(rows: Iterable[Mapping[str, Any]], source: LocalData | HubData, where: str) -> Iterable[Example]:
    try:
        yield from examples_of(rows, source.dialogue_field, source.summary_fields, where)
    except RowError as error:
        raise DataError(str(error)) from error


def read_references(path: Path) -> list[tuple[str, ...]]:
    """The references of every row of a local data file, in its order and without merging equal dialogues.

    Raises:
        DataError: the file cannot be read, or a row has no dialogue or no reference.
    """
    source = LocalData((), "dialogue", None)
    rows = _local_rows(Slice(str(path), None, None), path.name)
    return [example.references for example in _examples(rows, source, path.name)]
