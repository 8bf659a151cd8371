"""Prompt templates: one object writes the prompt, writes the completion and cuts the answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.prompts import TEMPLATES, PromptTemplate

OWN = PromptTemplate("own", "Sum up:\n{dialogue}\nSummary:", lead=" ", tail="\n###", stops=("\n###", "\n\n"))


def test_the_dialogue_stands_where_the_template_says() -> None:
    assert OWN.prompt("A: hi\nB: {x}") == "Sum up:\nA: hi\nB: {x}\nSummary:"


@given(st.text())
def test_a_dialogue_of_any_signs_is_put_in_unchanged(dialogue: str) -> None:
    assert OWN.prompt(dialogue) == "Sum up:\n" + dialogue + "\nSummary:"


def test_a_completion_has_lead_and_tail() -> None:
    assert OWN.completion("They met.") == " They met.\n###"


@pytest.mark.parametrize(
    ("generated", "answer"),
    [
        (" They met.\n### and on", "They met."),
        (" They met.\n\nThen\n###", "They met."),
        ("They met.", "They met."),
        ("\n### nothing", ""),
        ("", ""),
    ],
)
def test_an_answer_is_cut_at_the_first_stop(generated: str, answer: str) -> None:
    assert OWN.answer(generated) == answer


@given(st.text(st.characters(exclude_characters="\n#", exclude_categories=["Cs"])))
def test_what_is_learned_is_read_back(summary: str) -> None:
    assert OWN.answer(OWN.completion(summary)) == summary.strip()


@pytest.mark.parametrize("name", [name for name in TEMPLATES if not name.startswith("seed-")])
def test_what_a_studys_own_template_teaches_is_what_it_reads(name: str) -> None:
    template = TEMPLATES[name]
    assert template.answer(template.completion("They met.")) == "They met."


def test_the_seeds_templates_differ_and_cut_at_a_mark_that_was_never_taught() -> None:
    train, test = TEMPLATES["seed-train"], TEMPLATES["seed-test"]
    assert train.prompt("A: hi") != test.prompt("A: hi")
    assert test.answer(train.completion("They met.")) == "They met.\n\n### End"


@pytest.mark.parametrize("text", ["no place", "{dialogue} and {dialogue}", "{Dialogue}"])
def test_a_template_needs_one_place_for_the_dialogue(text: str) -> None:
    with pytest.raises(ValueError, match=r"must hold \{dialogue\} exactly once"):
        PromptTemplate("own", text)


def test_the_digest_follows_the_text_and_not_the_name() -> None:
    same = PromptTemplate("another", OWN.text, OWN.lead, OWN.tail, OWN.stops)
    assert same.hash == OWN.hash
    others = [
        PromptTemplate("own", OWN.text + " ", OWN.lead, OWN.tail, OWN.stops),
        PromptTemplate("own", OWN.text, "", OWN.tail, OWN.stops),
        PromptTemplate("own", OWN.text, OWN.lead, "", OWN.stops),
        PromptTemplate("own", OWN.text, OWN.lead, OWN.tail, ("\n\n", "\n###")),
    ]
    assert len({OWN.hash, *(other.hash for other in others)}) == 5


def test_the_digest_of_a_template_does_not_change_by_accident() -> None:
    assert TEMPLATES["summarize"].hash == "0023455e08ecdc74"
