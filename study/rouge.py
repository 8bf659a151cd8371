"""ROUGE of one prediction against its references: the one scorer, of runs and of systems from elsewhere."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from study.metrics import ROUGE_TYPES

Rule = Literal["mean", "max", "first"]
# Precision, recall and F of one prediction against one reference, in points (0–100).
Triple = tuple[float, float, float]
# ROUGE type to one triple a reference.
Scores = dict[str, tuple[Triple, ...]]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class Rouge:
    """rouge_score 0.1.2, stemmed; ROUGE-Lsum with one sentence a line (without the split it equals ROUGE-L)."""

    def __init__(self) -> None:
        # A second of imports, which those who only read scores do without.
        from rouge_score.rouge_scorer import RougeScorer

        self._scorer = RougeScorer(list(ROUGE_TYPES), use_stemmer=True)

    def score(self, prediction: str, references: Sequence[str]) -> Scores:
        """Scores of one prediction against each of its references, in their order; points, six decimals."""
        split = by_sentence(prediction)
        results = [self._scorer.score(by_sentence(reference), split) for reference in references]
        return {kind: tuple(_triple(result[kind]) for result in results) for kind in ROUGE_TYPES}


def by_sentence(text: str) -> str:
    """A text with one sentence a line, as ROUGE-Lsum wants it (Lin 2004, section 3.2)."""
    return "\n".join(_SENTENCE_END.split(text.strip()))


def _triple(score: Any) -> Triple:
    return round(100 * score.precision, 6), round(100 * score.recall, 6), round(100 * score.fmeasure, 6)


def reduced(triples: Sequence[Triple], rule: Rule) -> float:
    """One F of a dialogue: mean, best or first over its references, in points."""
    values = [triple[2] for triple in triples]
    if rule == "mean":
        return sum(values) / len(values)
    return max(values) if rule == "max" else values[0]


def means(scored: Sequence[Mapping[str, Sequence[Triple]]], rule: Rule) -> dict[str, float]:
    """The exact mean over dialogues of each ROUGE type under `rule`, in points."""
    return {kind: sum(reduced(item[kind], rule) for item in scored) / len(scored) for kind in ROUGE_TYPES}
