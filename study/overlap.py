"""Dialogues that two splits share: exactly, or nearly.

Exact: equal after NFKC, casefolding, and every run of punctuation and whitespace taken as one space.
Near: Jaccard similarity of the sets of word 3-grams at or above a threshold. Three words are long enough that two
dialogues about the same subject share few of them, and short enough that one changed name touches only three; the
similarity is symmetric, so a short dialogue inside a long one is not near.

Not all pairs are compared. With the shingles of every dialogue ordered from rare to frequent, two sets x and y of
Jaccard t or more share at least one of the first |x| - ceil(t|x|) + 1 shingles of x and the first |y| - ceil(t|y|) + 1
of y (Chaudhuri, Ganti and Kaushik 2006, "A primitive operator for similarity joins in data cleaning"; Bayardo, Ma and
Srikant 2007, "Scaling up all pairs similarity search"). Indexing these prefixes alone therefore misses no pair.
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from study.examples import Example

SHINGLE_WORDS = 3
SPLIT_ORDER = ("train", "validation", "test")

# t * n in floating point can land a hair above an integer, and ceil would then cut a prefix one shingle short.
_ROUNDING = 1e-9

_SEPARATORS = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two dialogues of different splits, split_a before split_b as given; similarity: Jaccard, 0 to 1."""

    split_a: str
    id_a: str
    split_b: str
    id_b: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Repeats:
    """How many dialogues of one split repeat an earlier one of the same split: exactly, or (else) nearly."""

    split: str
    exact: int
    near: int


@dataclass(frozen=True, slots=True)
class Overlaps:
    """What the splits share. A pair is in `exact` or in `near`, never in both; `inside` has one entry a split."""

    threshold: float
    exact: tuple[Pair, ...]
    near: tuple[Pair, ...]
    inside: tuple[Repeats, ...]


@dataclass(frozen=True, slots=True)
class _Document:
    split: str
    id: str
    text: str
    shingles: tuple[int, ...]  # rarest first; the number is the rank in the common order
    members: frozenset[int]


def normalised(text: str) -> str:
    """Give the text after NFKC and casefolding, with each run of punctuation and whitespace as one space."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _SEPARATORS.sub(" ", folded).strip()


def shingles(text: str) -> frozenset[str]:
    """Give the word 3-grams of a normalised text; a text of one or two words is one shingle, an empty one has none."""
    words = text.split()
    if not words:
        return frozenset()
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    return frozenset(" ".join(words[start : start + SHINGLE_WORDS]) for start in range(last))


def find_overlaps(splits: Mapping[str, Sequence[Example]], *, near: float = 0.8) -> Overlaps:
    """Find the dialogues that are equal or nearly equal between different splits, and count those inside a split.

    near: Jaccard similarity of word 3-grams from which a pair counts as near, above 0 and at most 1. References play
    no part. Pairs come in the order of the splits as given, then of their examples.

    Raises:
        ValueError: `near` is out of range, or an id occurs twice in a split.
    """
    if not 0.0 < near <= 1.0:
        raise ValueError(f"near {near!r}: choose a number above 0 and at most 1")
    _refuse_repeated_ids(splits)
    documents = _documents(splits)
    exact: list[tuple[int, int, float]] = []
    close: list[tuple[int, int, float]] = []
    exact_repeats: dict[str, set[int]] = defaultdict(set)
    near_repeats: dict[str, set[int]] = defaultdict(set)
    for first, second, similarity in _similar(documents, near):
        one, other = documents[first], documents[second]
        equal = one.text == other.text
        if one.split == other.split:
            (exact_repeats if equal else near_repeats)[one.split].add(second)
        else:
            (exact if equal else close).append((first, second, similarity))
    return Overlaps(
        threshold=near,
        exact=_pairs(documents, exact),
        near=_pairs(documents, close),
        inside=tuple(
            Repeats(split, len(exact_repeats[split]), len(near_repeats[split] - exact_repeats[split]))
            for split in splits
        ),
    )


def drop_overlapping(
    splits: Mapping[str, Sequence[Example]], overlaps: Overlaps, *, order: Sequence[str] = SPLIT_ORDER
) -> tuple[dict[str, tuple[Example, ...]], dict[str, int]]:
    """Take out of every split what overlaps, exactly or nearly, with a split later in `order`.

    Gives the splits (in the order given) and how many examples each lost. The last split is never touched, so that
    scores stay comparable with published ones. A train dialogue goes also when its partner in validation goes itself:
    the result then does not depend on the order in which pairs are looked at.

    Raises:
        ValueError: a split is not in `order`, or the overlaps name an example that the splits do not hold.
    """
    for split in splits:
        if split not in order:
            raise ValueError(f"split {split!r}: choose from {', '.join(order)}")
    known = {(split, example.id) for split, examples in splits.items() for example in examples}
    doomed: set[tuple[str, str]] = set()
    for pair in (*overlaps.exact, *overlaps.near):
        ends = ((pair.split_a, pair.id_a), (pair.split_b, pair.id_b))
        for split, example_id in ends:
            if (split, example_id) not in known:
                raise ValueError(f"overlap names example {example_id!r} of split {split!r}, which is not there")
        doomed.add(min(ends, key=lambda end: order.index(end[0])))
    kept = {
        split: tuple(example for example in examples if (split, example.id) not in doomed)
        for split, examples in splits.items()
    }
    return kept, {split: len(examples) - len(kept[split]) for split, examples in splits.items()}


def _refuse_repeated_ids(splits: Mapping[str, Sequence[Example]]) -> None:
    for split, examples in splits.items():
        for example_id, times in Counter(example.id for example in examples).items():
            if times > 1:
                raise ValueError(f"split {split!r}: id {example_id!r} occurs {times} times")


def _documents(splits: Mapping[str, Sequence[Example]]) -> list[_Document]:
    """Normalise and shingle all dialogues, and number the shingles from rare to frequent over all splits."""
    texts = [(split, example.id, normalised(example.dialogue)) for split in splits for example in splits[split]]
    sets = [shingles(text) for _, _, text in texts]
    frequency = Counter(shingle for members in sets for shingle in members)
    # Ties by first occurrence would depend on set order, hence on the hash seed; the text itself does not.
    rank = {shingle: place for place, shingle in enumerate(sorted(frequency, key=lambda s: (frequency[s], s)))}
    documents = []
    for (split, example_id, text), members in zip(texts, sets, strict=True):
        ranks = sorted(rank[shingle] for shingle in members)
        documents.append(_Document(split, example_id, text, tuple(ranks), frozenset(ranks)))
    return documents


def _similar(documents: Sequence[_Document], near: float) -> Iterator[tuple[int, int, float]]:
    """Give every pair (earlier, later, similarity) of documents that is equal in text, or similar by `near` or more."""
    index: dict[int, list[int]] = defaultdict(list)
    blanks: list[int] = []
    for later, document in enumerate(documents):
        if not document.shingles:
            yield from ((earlier, later, 1.0) for earlier in blanks)
            blanks.append(later)
            continue
        prefix = document.shingles[: _prefix_length(len(document.shingles), near)]
        for earlier in {candidate for shingle in prefix for candidate in index[shingle]}:
            similarity = _jaccard(documents[earlier].members, document.members, near)
            if similarity >= near:
                yield earlier, later, similarity
        for shingle in prefix:
            index[shingle].append(later)


def _prefix_length(size: int, near: float) -> int:
    return size - max(1, math.ceil(near * size - _ROUNDING)) + 1


def _jaccard(one: frozenset[int], other: frozenset[int], near: float) -> float:
    """Give the Jaccard similarity, or 0 where the sizes alone keep it below `near`."""
    small, large = sorted((len(one), len(other)))
    if small / large < near:
        return 0.0
    shared = len(one & other)
    return shared / (small + large - shared)


def _pairs(documents: Sequence[_Document], found: list[tuple[int, int, float]]) -> tuple[Pair, ...]:
    return tuple(
        Pair(documents[a].split, documents[a].id, documents[b].split, documents[b].id, similarity)
        for a, b, similarity in sorted(found)
    )
