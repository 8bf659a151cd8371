"""Examples that cannot be built wrong, and a digest that notices every change."""

import dataclasses

import pytest

from study.examples import Example, digest

ONE = Example("a-1", "Maya: Hi.\nOmar: Hello.", ("Maya greets Omar.",))
TWO = Example("a-2", "Omar: Bye.\nMaya: Ciao.", ("Omar leaves.", "They part."))


@pytest.mark.parametrize("dialogue", ["", "  \n\t"])
def test_an_empty_dialogue_is_refused_by_its_id(dialogue: str) -> None:
    with pytest.raises(ValueError, match=r"'x-9'.*dialogue"):
        Example("x-9", dialogue, ("A summary.",))


def test_an_example_without_a_reference_is_refused_by_its_id() -> None:
    with pytest.raises(ValueError, match=r"'x-9'.*no reference"):
        Example("x-9", "Maya: Hi.", ())


def test_a_blank_reference_is_refused_with_its_place() -> None:
    with pytest.raises(ValueError, match=r"'x-9'.*reference 1"):
        Example("x-9", "Maya: Hi.", ("Fine.", " "))


def test_an_example_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ONE.dialogue = "other"  # type: ignore[misc]


def test_the_digest_of_known_examples_is_known() -> None:
    assert digest([ONE, TWO]) == "48084382d96e9c2a2a95b6f65afe1a4443ced68e44af6b6ad597f0ed29672d48"


def test_the_digest_takes_any_iterable() -> None:
    assert digest(iter((ONE, TWO))) == digest([ONE, TWO])


@pytest.mark.parametrize(
    "other",
    [
        [TWO, ONE],
        [ONE],
        [ONE, TWO, TWO],
        [dataclasses.replace(ONE, id="a-3"), TWO],
        [dataclasses.replace(ONE, dialogue=ONE.dialogue + " "), TWO],
        [dataclasses.replace(ONE, references=("Maya greets Omar!",)), TWO],
        [ONE, dataclasses.replace(TWO, references=TWO.references[::-1])],
        [ONE, dataclasses.replace(TWO, references=("Omar leaves. They part.",))],
    ],
    ids=["order", "fewer", "more", "id", "dialogue", "reference", "order of references", "joined references"],
)
def test_the_digest_changes_with(other: list[Example]) -> None:
    assert digest(other) != digest([ONE, TWO])


def test_the_digest_takes_text_of_any_script() -> None:
    assert digest([Example("u", "José: ¿Qué?\n李: 好。", ("Sie grüßen.",))]) != digest([ONE])
