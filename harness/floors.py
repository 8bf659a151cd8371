"""Floors: what systems that learn nothing score on a split. A trained arm near one has learned little."""

from collections.abc import Sequence

from harness.scores import Rouge, Scores, means
from study.examples import Example

CONSTANT = "One person asks the other for help and they agree on what to do."
LEAD_TURNS = 3


def floors(examples: Sequence[Example], rouge: Rouge) -> dict[str, dict[str, float]]:
    """ROUGE (mean over references, points) of one constant sentence, of the first three turns, and, where dialogues
    have several references, of each reference against the others."""
    found = {
        "constant summary": means([rouge.score(CONSTANT, example.references) for example in examples], "mean"),
        f"first {LEAD_TURNS} turns": means(
            [rouge.score(_lead(example), example.references) for example in examples], "mean"
        ),
    }
    human = [scores for example in examples for scores in _against_each_other(example, rouge)]
    if human:
        found["reference against reference"] = means(human, "mean")
    return {name: {kind: round(value, 6) for kind, value in values.items()} for name, values in found.items()}


def _lead(example: Example) -> str:
    return " ".join(example.dialogue.split("\n")[:LEAD_TURNS])


def _against_each_other(example: Example, rouge: Rouge) -> list[Scores]:
    references = example.references
    if len(references) < 2:
        return []
    return [
        rouge.score(reference, [other for position, other in enumerate(references) if position != index])
        for index, reference in enumerate(references)
    ]
