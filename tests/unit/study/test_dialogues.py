"""The generated dialogues are reproducible, disjoint, grammatical, and not to be summarised by rote or by copying."""

import random
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from itertools import combinations, pairwise
from statistics import mean

import pytest
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from study.dialogues import GENERATOR_VERSION, SCENES, engine, generate, generator, small_talk
from study.dialogues.engine import MAX_TURNS
from study.dialogues.names import PEOPLE
from study.dialogues.scenes import ALL_SCENES
from study.dialogues.template import CORE_LINES, Plot, Told
from study.examples import Example, digest
from study.overlap import find_overlaps

PLOTS = [plot for scene in ALL_SCENES for plot in scene.plots]
SHORT = (4, 6)
Splits = dict[str, tuple[Example, ...]]
Score = Callable[[str, str], float]


class _Tokenizer:
    """The stemming tokenizer of rouge_score, with its answers kept: the same texts are scored thousands of times."""

    def __init__(self) -> None:
        self.tokenize = cache(DefaultTokenizer(use_stemmer=True).tokenize)


@pytest.fixture(scope="module", params=[SHORT, (4, 14)], ids=["4-6 turns", "4-14 turns"])
def splits(request: pytest.FixtureRequest) -> Splits:
    return generate(11, {"train": 100, "validation": 100, "test": 300}, turns=request.param, references=(1, 3))


@pytest.fixture(scope="module")
def rouge1() -> Score:
    scorer = RougeScorer(["rouge1"], tokenizer=_Tokenizer())
    return lambda reference, prediction: 100 * float(scorer.score(reference, prediction)["rouge1"].fmeasure)


def _mean_score(rouge1: Score, predictions: Sequence[str], examples: Sequence[Example]) -> float:
    """Give the mean over dialogues of the mean over references, in points."""
    return mean(
        mean(rouge1(reference, prediction) for reference in example.references)
        for prediction, example in zip(predictions, examples, strict=True)
    )


def _fields(*templates: str) -> set[str]:
    """Give the fields of templates as they are written: "a", "a.his", "price"."""
    return {name for template in templates for _, name, _, _ in string.Formatter().parse(template) if name}


def _slot_names(plot: Plot) -> set[str]:
    return {name for names in plot.slots for name in names.split()}


# Reproducible


def test_a_seed_means_the_same_examples_until_the_version_is_raised() -> None:
    examples = [e for split in generate(1, {"train": 40, "test": 20}).values() for e in split]
    assert (GENERATOR_VERSION, digest(examples)) == (
        1,
        "59569735b6a9f547c8a0a80cf91fdf7a9fe2c71e32a937294d45ee7148cab2ac",
    )


def test_another_seed_gives_other_dialogues() -> None:
    one, other = ({e.dialogue for e in generate(seed, {"train": 60})["train"]} for seed in (1, 2))
    assert not one & other


def test_a_split_does_not_change_with_the_counts_of_others() -> None:
    few = generate(5, {"train": 30, "validation": 0, "test": 1})
    many = generate(5, {"test": 80, "train": 30, "validation": 50})
    assert few["train"] == many["train"]
    assert few["test"] == many["test"][:1]
    assert few["validation"] == ()


def test_asking_for_more_only_appends() -> None:
    assert generate(5, {"train": 120})["train"][:45] == generate(5, {"train": 45})["train"]


def test_the_number_of_references_does_not_change_the_dialogues() -> None:
    one = generate(5, {"train": 40}, references=(1, 1))["train"]
    three = generate(5, {"train": 40}, references=(3, 3))["train"]
    assert [e.dialogue for e in one] == [e.dialogue for e in three]


# Disjoint


def test_splits_share_no_pair_of_speakers(splits: Splits) -> None:
    pairs = {
        split: {frozenset(turn.split(":")[0] for turn in e.dialogue.split("\n")) for e in examples}
        for split, examples in splits.items()
    }
    assert not pairs["train"] & pairs["test"]
    assert not pairs["train"] & pairs["validation"]
    assert not pairs["validation"] & pairs["test"]


def test_no_dialogues_are_equal_or_nearly_equal(splits: Splits) -> None:
    found = find_overlaps(splits, near=0.6)
    assert found.exact == found.near == ()
    assert [(repeats.exact, repeats.near) for repeats in found.inside] == [(0, 0)] * 3


def test_one_scene_alone_yields_hundreds_of_different_dialogues() -> None:
    for scene in SCENES:
        splits = generate(2, {"train": 300, "test": 100}, scenes=[scene], turns=SHORT)
        found = find_overlaps(splits)
        assert found.exact == found.near == ()
        assert {e.id.rsplit("-", 1)[1] for e in splits["train"]} == {scene}
        assert len({e.dialogue for e in splits["train"]}) == 300


def test_a_dialogue_that_a_split_holds_already_is_drawn_again_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "dialogue", lambda filling, turns, stream: f"Maya: {turns}.")
    monkeypatch.setattr(generator, "_MAX_ATTEMPTS", 300)
    assert len({e.dialogue for e in generate(1, {"train": 11})["train"]}) == 11
    with pytest.raises(ValueError, match=r"'train'.*example 11"):
        generate(1, {"train": 12})


def test_ids_are_unique_and_name_split_and_scene(splits: Splits) -> None:
    ids = [example.id for examples in splits.values() for example in examples]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(rf"(train|validation|test)-\d{{5}}-({'|'.join(SCENES)})", example_id) for example_id in ids)


def test_scenes_are_spread_evenly() -> None:
    drawn = Counter(e.id.rsplit("-", 1)[1] for e in generate(3, {"train": 5 * len(SCENES)})["train"])
    assert drawn == dict.fromkeys(SCENES, 5)


# In the asked ranges


@pytest.mark.parametrize("turns", [(4, 14), (4, 6), (7, 7), (14, 14), (4, 4)])
def test_every_number_of_turns_asked_for_occurs_and_no_other(turns: tuple[int, int]) -> None:
    examples = generate(4, {"train": 200}, turns=turns)["train"]
    assert {len(e.dialogue.split("\n")) for e in examples} == set(range(turns[0], turns[1] + 1))


@pytest.mark.parametrize("references", [(1, 3), (2, 2), (3, 3)])
def test_every_number_of_references_asked_for_occurs_and_no_other(references: tuple[int, int]) -> None:
    examples = generate(4, {"train": 100}, references=references)["train"]
    assert {len(e.references) for e in examples} == set(range(references[0], references[1] + 1))
    assert all(len(set(e.references)) == len(e.references) for e in examples)


def test_two_speakers_take_turns(splits: Splits) -> None:
    for example in splits["test"]:
        labels = [re.fullmatch(r"([A-Z][a-z]+(?: [a-z]+)?): \S.*", turn) for turn in example.dialogue.split("\n")]
        names = [label[1] for label in labels if label]
        assert len(names) == len(labels)
        assert len(set(names[0::2])) == len(set(names[1::2])) == 1
        assert names[0] != names[1]


def test_some_speakers_go_by_their_role(splits: Splits) -> None:
    roles = {title.capitalize() for plot in PLOTS for title in plot.roles}
    share = mean(e.dialogue.split("\n")[1].split(":")[0] in roles for e in splits["test"])
    assert 0.1 < share < 0.4


def test_short_dialogues_are_short() -> None:
    words = [len(e.dialogue.split()) for e in generate(4, {"train": 400}, turns=SHORT)["train"]]
    assert 60 <= mean(words) <= 80
    assert min(words) >= 40
    assert max(words) <= 100


def test_references_have_10_to_35_words() -> None:
    examples = generate(6, {"train": 1500}, references=(3, 3))["train"]
    lengths = [len(reference.split()) for e in examples for reference in e.references]
    assert min(lengths) >= 10
    assert max(lengths) <= 35


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"counts": {"train": -1}}, "'train'"),
        ({"scenes": ["zoo"]}, r"'zoo'.*appointment"),
        ({"scenes": []}, "scenes"),
        ({"scenes": ["work", "work"]}, "scenes"),
        ({"turns": (3, 6)}, r"turns \(3, 6\).*4 and 14"),
        ({"turns": (4, 15)}, "turns"),
        ({"turns": (8, 6)}, "turns"),
        ({"references": (0, 2)}, "references"),
        ({"references": (1, 9)}, "references"),
    ],
)
def test_what_cannot_be_generated_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(1, **{"counts": {"train": 1}, **arguments})  # type: ignore[arg-type]


# Summaries carry the facts, and only these


def test_every_number_of_a_summary_stands_in_its_dialogue(splits: Splits) -> None:
    checked = 0
    for example in splits["test"]:
        held = set(re.findall(r"\$?\d+(?::\d+)?", example.dialogue))
        for reference in example.references:
            told = set(re.findall(r"\$?\d+(?::\d+)?", reference))
            assert told <= held
            checked += len(told)
    assert checked > 300


def test_every_name_of_a_summary_stands_in_its_dialogue(splits: Splits) -> None:
    names = {person.name for person in PEOPLE}
    for example in splits["test"]:
        held = set(re.findall(r"\w+", example.dialogue))
        for reference in example.references:
            assert set(re.findall(r"\w+", reference)) & names <= held


def test_most_dialogues_hold_days_times_or_prices_that_belong_in_no_summary() -> None:
    pattern = r"\$\d+|\d+:\d+|\w+day\b"
    examples = generate(9, {"test": 200}, references=(3, 3))["test"]
    distracted = [
        bool(set(re.findall(pattern, e.dialogue)) - set(re.findall(pattern, " ".join(e.references)))) for e in examples
    ]
    assert mean(distracted) > 0.5


def test_references_of_one_dialogue_are_paraphrases(rouge1: Score) -> None:
    examples = generate(9, {"test": 200}, references=(2, 2))["test"]
    own = mean(rouge1(*e.references) for e in examples)
    foreign = mean(rouge1(one.references[0], two.references[1]) for one, two in pairwise(examples))
    assert 40 < own < 75
    assert foreign < own / 2


# Neither rote nor copying scores


def test_no_constant_summary_scores_30_rouge1(splits: Splits, rouge1: Score) -> None:
    constants = {reference for e in splits["train"] for reference in e.references}
    best = max(_mean_score(rouge1, [constant] * 300, splits["test"]) for constant in constants)
    assert best < 25
    assert best > 10


def test_no_list_of_the_commonest_words_scores_30_rouge1(splits: Splits, rouge1: Score) -> None:
    words = [
        w for e in splits["train"] for reference in e.references for w in re.findall(r"[a-z0-9]+", reference.lower())
    ]
    common = [word for word, _ in Counter(words).most_common(30)]
    best = max(
        _mean_score(rouge1, [" ".join([*common[:size], *common[:doubled]])] * 300, splits["test"])
        for size in range(2, 31, 2)
        for doubled in (0, 1, 2, 3)
    )
    assert best < 30
    assert best > 15


def test_the_first_three_turns_are_no_good_summary(splits: Splits, rouge1: Score) -> None:
    leads = ["\n".join(e.dialogue.split("\n")[:3]) for e in splits["test"]]
    assert 20 < _mean_score(rouge1, leads, splits["test"]) < 38


# Prose

_SEAMS = {
    "an unfilled field": r"[{}]",
    "a wrong article": r"\b[Aa] [aeiouAEIOU]|\b[Aa]n [b-df-gj-np-tv-z]",
    "two articles": r"\b(?:a|an|the|my|your|his|its) (?:a|an|the|my|your|his|its)\b",
    "a repeated word": r"\b(\w+) \1\b",
    "a small letter at a start": r"^[a-z]|[.!?] [a-z]",
    "odd spacing": r"  |^\s|\s$|\s[.,;:!?]",
    "odd punctuation": r"\.\.|,\.|\?\.|!\.",
    "no full stop": r"[^.!?]$",
}


@pytest.mark.parametrize("pattern", _SEAMS.values(), ids=_SEAMS.keys())
def test_no_sentence_shows(pattern: str) -> None:
    examples = generate(13, {"train": 1200}, references=(3, 3))["train"]
    texts = [turn.split(": ", 1)[1] for e in examples for turn in e.dialogue.split("\n")]
    texts += [reference for e in examples for reference in e.references]
    assert [text for text in texts if re.search(pattern, text)] == []


# The templates themselves


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_what_a_summary_tells_is_said_in_every_wording_of_some_core_line(plot: Plot) -> None:
    told = _fields(*plot.summaries) & _slot_names(plot)
    assert told <= _said_always(plot)
    assert len(told) >= 5


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_every_summary_tells_four_facts_or_more(plot: Plot) -> None:
    for summary in plot.summaries:
        assert len(_fields(summary) & _slot_names(plot)) >= 4


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_asides_carry_nothing_that_a_summary_tells(plot: Plot) -> None:
    talk = small_talk.AT_THE_COUNTER if plot.roles else small_talk.AMONG_FRIENDS
    for aside in (*plot.asides, *talk.openings, *talk.afterthoughts):
        assert not _fields(aside.ask, aside.answer) & _fields(*plot.summaries) & _slot_names(plot)


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_every_slot_of_a_plot_is_used(plot: Plot) -> None:
    asides = [text for aside in plot.asides for text in (aside.ask, aside.answer)]
    lines = [wording for wordings in plot.lines for wording in wordings]
    assert _slot_names(plot) <= _fields(*lines, *asides)
    assert not _slot_names(plot) & set(small_talk.SLOTS)


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_a_plot_has_the_turns_for_the_longest_dialogue(plot: Plot) -> None:
    assert len(plot.lines) == CORE_LINES
    assert min(len(wordings) for wordings in plot.lines) >= 2
    assert CORE_LINES + 2 * (1 + len(plot.asides) + 2) >= MAX_TURNS
    assert {aside.after for aside in plot.asides} <= set(range(CORE_LINES))


@pytest.mark.parametrize("plot", [plot for plot in PLOTS if plot.roles], ids=lambda plot: plot.name)
def test_someone_known_by_a_role_is_never_addressed_and_has_no_pronoun(plot: Plot) -> None:
    lines = [wording for wordings in plot.lines for wording in wordings]
    facts = [
        fact for pool in plot.slots.values() for row in pool for fact in (row if isinstance(row, tuple) else (row,))
    ]
    told = [text for fact in facts for text in ((fact.said, fact.told) if isinstance(fact, Told) else (fact,))]
    talk = small_talk.AT_THE_COUNTER
    asides = [text for a in (*plot.asides, *talk.openings, *talk.afterthoughts) for text in (a.ask, a.answer)]
    assert "b" not in _fields(*lines, *asides, *talk.greetings, *talk.closings)
    assert not {"b.he", "b.him", "b.his"} & _fields(*lines, *asides, *plot.summaries, *told)


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_slots_of_one_pool_never_hold_the_same_fact(plot: Plot) -> None:
    stream = random.Random(1)
    same_pool = [
        (one, other)
        for one, other in combinations({**plot.slots, **small_talk.SLOTS}.items(), 2)
        if one[1] is other[1] and " " not in one[0]
    ]
    assert same_pool
    for _ in range(60):
        facts = engine.fill(plot, stream).told
        assert all(facts[one[0]] != facts[other[0]] for one, other in same_pool)


def test_names_are_unique() -> None:
    assert len({person.name for person in PEOPLE}) == len(PEOPLE) >= 100


def _said_always(plot: Plot) -> set[str]:
    """Give the fields that a dialogue of the plot holds whatever wordings are drawn."""
    return {field for line in plot.lines for field in set.intersection(*(_fields(wording) for wording in line))}
