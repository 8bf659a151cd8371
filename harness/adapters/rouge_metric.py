"""The project's ROUGE as an `evaluate.Metric`: exact means, no download, no resampling."""

from typing import Any

import datasets
import evaluate

from harness.scores import Rouge, means

_DESCRIPTION = (
    "ROUGE (rouge_score 0.1.2, stemmed) of predictions against one or more references: exact means, in points."
)


class ExactRouge(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """`compute(predictions=[...], references=[[...], ...])` gives F in points for each ROUGE type and rule.

    `evaluate.load("rouge")` needs the network, and its aggregate is the median of an unseeded bootstrap.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": datasets.List(text)})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation="Lin 2004", inputs_description="", features=features
        )

    def _compute(self, *, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        rouge = Rouge()
        scored = [rouge.score(text, expected) for text, expected in zip(predictions, references, strict=True)]
        return {
            f"{kind}_{rule}": value for rule in ("mean", "max", "first") for kind, value in means(scored, rule).items()
        }
