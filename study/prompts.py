"""Prompt templates: one object writes the prompt, writes the completion and cuts the answer."""

import hashlib
import json
from dataclasses import dataclass

PLACEHOLDER = "{dialogue}"


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """The text around a dialogue.

    `text` holds `{dialogue}` exactly once; `lead` and `tail` surround the summary in a completion; an answer is cut
    at the first of `stops`. The end-of-sequence token is added and learned as a token, not as text.
    """

    name: str
    text: str
    lead: str = " "
    tail: str = ""
    stops: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.text.count(PLACEHOLDER) != 1:
            raise ValueError(f"prompt text of {self.name!r} must hold {PLACEHOLDER} exactly once")

    def prompt(self, dialogue: str) -> str:
        """The model's input for one dialogue, the same in training and in evaluation."""
        # A dialogue may itself hold braces, so it is put in by position and never by str.format.
        before, after = self.text.split(PLACEHOLDER)
        return before + dialogue + after

    def completion(self, summary: str) -> str:
        """What the model learns to write after the prompt."""
        return self.lead + summary + self.tail

    def answer(self, generated: str) -> str:
        """The summary in what the model wrote: cut at the first stop, white space trimmed."""
        ends = [position for stop in self.stops if (position := generated.find(stop)) >= 0]
        return generated[: min(ends)].strip() if ends else generated.strip()

    @property
    def hash(self) -> str:
        """Digest of everything that the template writes or cuts (first 16 hex digits of sha256)."""
        content = json.dumps([self.text, self.lead, self.tail, list(self.stops)], ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Prompts:
    """The template of a study; an evaluation template of its own exists only where an old protocol is re-run."""

    training: PromptTemplate
    evaluation: PromptTemplate


TEMPLATES: dict[str, PromptTemplate] = {
    template.name: template
    for template in (
        PromptTemplate("summarize", "Summarize the following conversation.\n\n{dialogue}\n\nSummary:"),
        PromptTemplate("instruct", "Instruct: Summarize the following conversation.\n{dialogue}\nOutput:"),
        # The seed notebook trained on one text, asked with another and cut at a mark that its model never wrote.
        PromptTemplate(
            "seed-train",
            "Below is an instruction that describes a task. Write a response that appropriately completes the request."
            "\n\n### Instruct: Summarize the below conversation.\n\n{dialogue}\n\n### Output:",
            lead="\n",
            tail="\n\n### End",
        ),
        PromptTemplate(
            "seed-test",
            "Instruct: Summarize the following conversation.\n{dialogue}\nOutput:\n",
            lead="",
            stops=("#End",),
        ),
    )
}
