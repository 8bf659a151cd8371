"""Shared dialogues are found all, and only they are dropped."""

import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study import overlap
from study.examples import Example
from study.overlap import Overlaps, Pair, Repeats, drop_overlapping, find_overlaps, normalised, shingles

Splits = Mapping[str, Sequence[Example]]
WORDS = [f"word{number}" for number in range(16)]


def _split(name: str, *dialogues: str) -> tuple[Example, ...]:
    return tuple(Example(f"{name}-{place}", text, ("Summary.",)) for place, text in enumerate(dialogues))


def _brute_force(splits: Splits, near: float) -> Overlaps:
    """Compare all pairs; shares only the definitions of normalisation and shingles with the code under test."""
    rows = [
        (split, e.id, normalised(e.dialogue), shingles(normalised(e.dialogue)))
        for split in splits
        for e in splits[split]
    ]
    exact: list[Pair] = []
    close: list[Pair] = []
    repeats: dict[str, dict[str, str]] = {split: {} for split in splits}
    for place, (split_a, id_a, text_a, set_a) in enumerate(rows):
        for split_b, id_b, text_b, set_b in rows[place + 1 :]:
            similarity = len(set_a & set_b) / len(set_a | set_b) if set_a | set_b else 1.0
            if text_a != text_b and similarity < near:
                continue
            if split_a != split_b:
                (exact if text_a == text_b else close).append(Pair(split_a, id_a, split_b, id_b, similarity))
            elif text_a == text_b:
                repeats[split_a][id_b] = "exact"
            else:
                repeats[split_a].setdefault(id_b, "near")
    inside = tuple(
        Repeats(split, list(kinds.values()).count("exact"), list(kinds.values()).count("near"))
        for split, kinds in repeats.items()
    )
    return Overlaps(near, tuple(exact), tuple(close), inside)


def _variants(stream: random.Random, count: int) -> list[str]:
    """Give dialogues of 1 to 40 words; most are an earlier one with some words changed, so that similarities spread."""
    texts: list[str] = []
    for _ in range(count):
        words = stream.choices(WORDS, k=stream.randint(1, 40))
        if texts and stream.random() < 0.7:
            words = stream.choice(texts).split()
            for _ in range(stream.randint(0, 3)):
                words[stream.randrange(len(words))] = stream.choice(WORDS)
        texts.append(" ".join(words))
    return texts


def _dealt(texts: Sequence[str]) -> Splits:
    """Deal texts to three splits in turn, so that variants of one text come to lie in different splits."""
    return {name: _split(name, *texts[place::3]) for place, name in enumerate(("train", "validation", "test"))}


@pytest.mark.parametrize("near", [0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_the_prefix_filter_finds_exactly_what_brute_force_finds(near: float) -> None:
    stream = random.Random(20)
    found = 0
    for _ in range(6):
        splits = _dealt(_variants(stream, 75))
        result = find_overlaps(splits, near=near)
        assert result == _brute_force(splits, near)
        found += len(result.exact) + len(result.near)
    assert found > 0


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(alphabet="ab .!", min_size=1, max_size=14).filter(str.strip), min_size=2, max_size=12),
    near=st.fractions(min_value=0, max_value=1).filter(bool).map(float),
)
def test_any_threshold_and_any_text_agree_with_brute_force(texts: list[str], near: float) -> None:
    splits = {"train": _split("train", *texts[::2]), "test": _split("test", *texts[1::2])}
    assert find_overlaps(splits, near=near) == _brute_force(splits, near)


def test_a_pair_exactly_at_the_threshold_is_near() -> None:
    # Six and six shingles, of which four are shared: 4 / 8.
    one = "a b c d e f g h"
    other = "z b c d e f g y"
    splits = {"train": _split("train", one), "test": _split("test", other)}
    assert len(find_overlaps(splits, near=0.5).near) == 1
    assert find_overlaps(splits, near=0.5000001).near == ()


def test_a_product_that_rounding_lifts_above_an_integer_hides_no_pair() -> None:
    # 0.07 * 100 is 7.000000000000001; a prefix computed from 8 would end just before the seven shared shingles.
    words = [f"w{number}" for number in range(102)]
    splits = {"train": _split("train", " ".join(words)), "test": _split("test", " ".join(words[40:49]))}
    assert [pair.similarity for pair in find_overlaps(splits, near=0.07).near] == [0.07]


def test_case_width_punctuation_and_spacing_do_not_hide_an_equal_dialogue() -> None:
    splits = {
        "train": _split("train", "Maya: It's STRASSE 5, I said!\nOmar:  Fine..."),
        "test": _split("test", "maya\uff1a it\u2019s stra\u00dfe \uff15 \u2014 i said omar fine"),
    }
    assert find_overlaps(splits).exact == (Pair("train", "train-0", "test", "test-0", 1.0),)


def test_an_equal_set_of_shingles_in_another_text_is_near_and_not_exact() -> None:
    splits = {"train": _split("train", "a a a a"), "test": _split("test", "a a a a a")}
    result = find_overlaps(splits)
    assert result.exact == ()
    assert [pair.similarity for pair in result.near] == [1.0]


def test_texts_of_one_or_two_words_are_compared_whole() -> None:
    splits = {"train": _split("train", "yes", "oh no"), "test": _split("test", "Yes!", "no oh")}
    assert [(pair.id_a, pair.id_b) for pair in find_overlaps(splits).exact] == [("train-0", "test-0")]
    assert find_overlaps(splits).near == ()


def test_repeats_inside_a_split_are_counted_and_are_no_pairs() -> None:
    long = "one two three four five six seven eight nine ten eleven twelve"
    splits = {"train": _split("train", long, long + "!", long + " thirteen", "else"), "test": _split("test", "other")}
    result = find_overlaps(splits)
    assert result.exact == result.near == ()
    assert result.inside == (Repeats("train", exact=1, near=1), Repeats("test", exact=0, near=0))


def test_references_play_no_part() -> None:
    splits = {"train": (Example("t", "a b c", ("Same.",)),), "test": (Example("u", "x y z", ("Same.",)),)}
    result = find_overlaps(splits)
    assert result.exact == result.near == ()


@pytest.mark.parametrize("near", [0.0, -0.1, 1.01, float("nan")])
def test_a_threshold_out_of_range_is_refused(near: float) -> None:
    with pytest.raises(ValueError, match="near"):
        find_overlaps({"train": _split("train", "a")}, near=near)


def test_an_id_that_occurs_twice_in_a_split_is_refused() -> None:
    twice = (Example("same", "a b c", ("S.",)), Example("same", "d e f", ("S.",)))
    with pytest.raises(ValueError, match=r"'train'.*'same'"):
        find_overlaps({"train": twice})


def test_few_pairs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = random.Random(3)
    vocabulary = [f"w{place}" for place in range(2000)]
    weights = [1 / (place + 1) for place in range(2000)]
    splits = {
        name: _split(name, *(" ".join(stream.choices(vocabulary, weights, k=100)) for _ in range(count)))
        for name, count in (("train", 600), ("test", 100))
    }
    compared = 0
    real = overlap._jaccard

    def counted(one: frozenset[int], other: frozenset[int], near: float) -> float:
        nonlocal compared
        compared += 1
        return real(one, other, near)

    monkeypatch.setattr(overlap, "_jaccard", counted)
    find_overlaps(splits)
    assert compared < 700 * 699 // 2 // 100


SHARED = {
    "train": _split("train", "in test", "in validation", "alone", "in a dropped one"),
    "validation": _split("validation", "in validation", "in test as well", "in a dropped one", "own"),
    "test": _split("test", "in test", "in test as well", "in a dropped one"),
}


def test_train_and_validation_lose_what_a_later_split_holds_and_test_loses_nothing() -> None:
    kept, dropped = drop_overlapping(SHARED, find_overlaps(SHARED))
    assert {split: [example.dialogue for example in examples] for split, examples in kept.items()} == {
        "train": ["alone"],
        "validation": ["in validation", "own"],
        "test": [example.dialogue for example in SHARED["test"]],
    }
    assert dropped == {"train": 3, "validation": 2, "test": 0}


def test_what_is_dropped_does_not_depend_on_the_order_in_which_splits_are_given() -> None:
    turned = dict(reversed(SHARED.items()))
    kept, dropped = drop_overlapping(turned, find_overlaps(turned))
    straight, counts = drop_overlapping(SHARED, find_overlaps(SHARED))
    assert (kept, dropped) == (straight, counts)


def test_near_duplicates_are_dropped_too() -> None:
    long = " ".join(WORDS)
    splits = {"train": _split("train", long + " end", "else"), "test": _split("test", long)}
    assert drop_overlapping(splits, find_overlaps(splits))[1] == {"train": 1, "test": 0}


def test_after_dropping_nothing_overlaps() -> None:
    stream = random.Random(8)
    splits = _dealt(_variants(stream, 120))
    before = find_overlaps(splits, near=0.5)
    after = find_overlaps(drop_overlapping(splits, before)[0], near=0.5)
    assert before.near
    assert after.exact == after.near == ()


def test_a_split_of_unknown_rank_is_refused_with_the_choices() -> None:
    splits = {"train": _split("train", "a"), "dev": _split("dev", "b")}
    with pytest.raises(ValueError, match=r"'dev'.*train, validation, test"):
        drop_overlapping(splits, find_overlaps(splits))


def test_overlaps_of_other_splits_are_refused() -> None:
    smaller = {**SHARED, "train": SHARED["train"][:1]}
    with pytest.raises(ValueError, match=r"'train-1'.*'train'"):
        drop_overlapping(smaller, find_overlaps(SHARED))
