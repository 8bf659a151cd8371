"""Dataset definitions: where dialogues with reference summaries come from."""

import re
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
# What a local file's name ends in.
FILE_TYPES = (".jsonl", ".json", ".csv")

_BOUND = r"-?[0-9]{1,12}"
_SLICE = re.compile(rf"(?P<name>.+?)(?:\[(?P<low>{_BOUND})?:(?P<high>{_BOUND})?\])?")
# As the datasets library names splits; anything else there would be an expression of its own.
_HUB_SPLIT = re.compile(r"\w+(?:\.\w+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Slice:
    """A named source (a file or a Hub split) and which of its rows: `dev.jsonl[-100:]` as Python slices."""

    name: str
    low: int | None
    high: int | None

    def of(self, count: int) -> range:
        """The row numbers meant, of `count` rows."""
        return range(count)[self.low : self.high]


def parse_slice(text: str) -> Slice:
    """`name`, `name[:400]`, `name[-100:]` or `name[10:20]`.

    Raises:
        ValueError: no name, a bracket that is no slice, or a slice without rows; the message does not repeat the text.
    """
    match = _SLICE.fullmatch(text.strip())
    if match is None or match["name"].endswith("]"):
        raise ValueError("no name with an optional slice such as dev.jsonl[:400]")
    low, high = (None if match[bound] is None else int(match[bound]) for bound in ("low", "high"))
    start = 0 if low is None else low
    if high is not None and (start < 0) == (high < 0) and start >= high:
        raise ValueError("the slice holds no rows")
    return Slice(match["name"], low, high)


def is_hub_split(name: str) -> bool:
    """Whether `name` is the plain name of a split on the Hub."""
    return _HUB_SPLIT.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class GeneratedData:
    """Dialogues that the project writes itself from a seed."""

    seed: int
    scenes: tuple[str, ...]
    turns: tuple[int, int]
    references: tuple[int, int]


@dataclass(frozen=True, slots=True)
class LocalData:
    """JSONL or CSV files with a dialogue column and one or more reference columns."""

    splits: tuple[tuple[str, str], ...]
    dialogue_field: str
    summary_fields: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class HubData:
    """A dataset on the Hugging Face Hub at a revision."""

    id: str
    revision: str
    splits: tuple[tuple[str, str], ...]
    dialogue_field: str
    summary_fields: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class DataSpec:
    """A source, how many examples of each split are used (None: all), and what happens to overlapping splits."""

    source: GeneratedData | LocalData | HubData
    limits: tuple[tuple[str, int | None], ...]
    overlap: Literal["refuse", "drop"]

    def limit(self, split: str) -> int | None:
        """How many examples of `split` are used at most."""
        return dict(self.limits)[split]
