"""From dialogues to token ids: prompt and completion apart, so that training and evaluation share every prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.engine.examples import read_examples
from study.examples import Example
from study.prompts import PromptTemplate


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token ids; `completion` ends with the end-of-sequence token."""

    example_id: str
    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    truncated: bool

    @property
    def length(self) -> int:
        """Tokens of prompt and completion."""
        return len(self.prompt) + len(self.completion)


class Encoder:
    """Encodes examples with one tokenizer and one template.

    A dialogue that does not fit loses turns from its end, never part of the template: the model always sees a whole
    instruction.
    """

    def __init__(self, tokenizer: Any, template: PromptTemplate, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._max_tokens = max_tokens

    def encode(self, examples: Sequence[Example], reserve: int = 0) -> tuple[Encoded, ...]:
        """Every example with its first reference as completion.

        Args:
            reserve: tokens kept free for an answer, where that is more than the reference needs.
        """
        return tuple(self._one(example, reserve) for example in examples)

    def _one(self, example: Example, reserve: int) -> Encoded:
        completion = (*self._ids(self._template.completion(example.references[0])), self._tokenizer.eos_token_id)
        completion = completion[: self._max_tokens // 2]
        room = self._max_tokens - max(len(completion), reserve)
        prompt, truncated = self._fitted(example.dialogue, room)
        return Encoded(example.id, prompt, completion, truncated)

    def _fitted(self, dialogue: str, room: int) -> tuple[tuple[int, ...], bool]:
        prompt = self._prompt(dialogue)
        if len(prompt) <= room:
            return prompt, False
        turns = dialogue.split("\n")
        low, high = 0, len(turns)
        # The longest run of turns that fits, by bisection: a longer text never has fewer tokens here.
        while low < high:
            middle = (low + high + 1) // 2
            if len(self._prompt("\n".join(turns[:middle]))) <= room:
                low = middle
            else:
                high = middle - 1
        prompt = self._prompt("\n".join(turns[:low]))
        return (prompt if low else prompt[-room:]), True

    def _prompt(self, dialogue: str) -> tuple[int, ...]:
        return self._ids(self._template.prompt(dialogue))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])


class Encodings:
    """Files of examples as token ids, each encoded once for each template and length: a warm worker's trials all have
    the same. One tokenizer in all: a worker loads one base only."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, PromptTemplate, int, int], tuple[Encoded, ...]] = {}

    def of(
        self, tokenizer: Any, file: str, template: PromptTemplate, max_tokens: int, reserve: int = 0
    ) -> tuple[Encoded, ...]:
        """Every example of a file, as `Encoder` has it; a study never changes a file of examples, which its digest
        names."""
        key = (file, template, max_tokens, reserve)
        if key not in self._known:
            self._known[key] = Encoder(tokenizer, template, max_tokens).encode(read_examples(Path(file)), reserve)
        return self._known[key]
