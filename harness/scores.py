"""What a run is scored by: ROUGE (`study.rouge`) per dialogue and reference, and every metric of the table."""

from collections.abc import Mapping, Sequence

from study.metrics import METRICS
from study.rouge import Rouge, Rule, Scores, Triple, by_sentence, means, reduced

__all__ = ["Rouge", "Rule", "Scores", "Triple", "by_sentence", "means", "quality", "reduced"]


def quality(scored: Sequence[Mapping[str, Sequence[Triple]]], validation_loss: float) -> dict[str, float]:
    """Every metric of the table for one run, in the table's units."""
    by_rule: dict[Rule, dict[str, float]] = {rule: means(scored, rule) for rule in ("mean", "max", "first")}
    values = {"validation_loss": validation_loss}
    for key, metric in METRICS.items():
        if metric.rule is not None:
            values[key] = by_rule[metric.rule][key.removesuffix("_max")]
    return {key: values[key] for key in METRICS}
