"""Prompt and completion as tokens."""

from pathlib import Path

import pytest

from harness.engine.encoding import Encoder, Encodings
from harness.engine.loading import Base, load_base
from harness.engine.trying import probe_arm
from harness.flow import examples_text
from study.arms import Precision
from study.examples import Example
from study.prompts import TEMPLATES

TEMPLATE = TEMPLATES["summarize"]


@pytest.fixture(scope="module")
def base(tiny_folder: str) -> Base:
    return load_base(tiny_folder, probe_arm(Precision.FP32), "cpu", model_dropout=False)


def test_the_prompt_is_the_same_with_and_without_a_summary(base: Base, examples: tuple[Example, ...]) -> None:
    encoder = Encoder(base.tokenizer, TEMPLATE, 512)
    asked = encoder.encode(examples[:1], reserve=40)[0]
    assert asked.prompt == encoder.encode(examples[:1])[0].prompt
    assert base.tokenizer.decode(list(asked.prompt)) == TEMPLATE.prompt(examples[0].dialogue)


def test_a_completion_is_the_first_reference_and_the_end_of_sequence(base: Base, examples: tuple[Example, ...]) -> None:
    completion = Encoder(base.tokenizer, TEMPLATE, 512).encode(examples[:1])[0].completion
    assert completion[-1] == base.tokenizer.eos_token_id
    assert base.tokenizer.decode(list(completion[:-1])) == " " + examples[0].references[0]


def test_a_dialogue_that_is_too_long_loses_turns_and_never_the_instruction(base: Base) -> None:
    turns = [f"Speaker {number}: this is turn number {number} of a long dialogue." for number in range(60)]
    example = Example("long", "\n".join(turns), ("A long dialogue.",))
    encoded = Encoder(base.tokenizer, TEMPLATE, 256).encode([example])[0]
    text = base.tokenizer.decode(list(encoded.prompt))
    assert encoded.truncated
    assert encoded.length <= 256
    assert text.startswith("Summarize the following conversation.")
    assert text.endswith("Summary:")
    kept = text.split("\n\n")[1].split("\n")
    assert kept == turns[: len(kept)]
    assert len(kept) > 3


def test_a_single_endless_turn_is_cut_to_what_fits(base: Base) -> None:
    example = Example("endless", "A: " + "word " * 2000, ("Words.",))
    encoded = Encoder(base.tokenizer, TEMPLATE, 128).encode([example])[0]
    assert encoded.truncated
    assert encoded.length <= 128


def test_room_is_kept_for_the_answer(base: Base, examples: tuple[Example, ...]) -> None:
    encoded = Encoder(base.tokenizer, TEMPLATE, 200).encode(examples, reserve=100)
    assert all(len(item.prompt) <= 100 for item in encoded)
    assert any(item.truncated for item in encoded)


def test_a_file_is_encoded_once_for_each_template_and_length(
    base: Base, examples: tuple[Example, ...], tmp_path: Path
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(examples_text(examples), encoding="utf-8")
    encodings = Encodings()
    first = encodings.of(base.tokenizer, str(path), TEMPLATE, 512)
    assert first == Encoder(base.tokenizer, TEMPLATE, 512).encode(examples)
    assert encodings.of(base.tokenizer, str(path), TEMPLATE, 512) is first
    shorter = encodings.of(base.tokenizer, str(path), TEMPLATE, 64)
    assert shorter == Encoder(base.tokenizer, TEMPLATE, 64).encode(examples)
    reserved = encodings.of(base.tokenizer, str(path), TEMPLATE, 64, 40)
    assert reserved == Encoder(base.tokenizer, TEMPLATE, 64).encode(examples, reserve=40)
    assert reserved != shorter
