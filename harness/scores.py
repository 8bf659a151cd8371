"""What a run is scored by: ROUGE (`study.rouge`) per dialogue and reference, and every metric of the table."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from study.metrics import METRICS
from study.rouge import Rouge, Rule, Scores, Triple, by_sentence, means, reduced

__all__ = ["Rouge", "Rule", "Scorer", "Scores", "Triple", "by_sentence", "means", "quality", "reduced"]


class Scorer:
    """Scores in a thread of its own, so that who asks can go on listening."""

    def __init__(self) -> None:
        self._rouge = Rouge()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scorer")

    def score(self, prediction: str, references: Sequence[str]) -> Future[Scores]:
        """The scores of one prediction, when they are there."""
        return self._thread.submit(self._rouge.score, prediction, references)

    def close(self) -> None:
        """Drops what is not scored yet."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def quality(scored: Sequence[Mapping[str, Sequence[Triple]]], validation_loss: float) -> dict[str, float]:
    """Every metric of the table for one run, in the table's units."""
    by_rule: dict[Rule, dict[str, float]] = {rule: means(scored, rule) for rule in ("mean", "max", "first")}
    values = {"validation_loss": validation_loss}
    for key, metric in METRICS.items():
        if metric.rule is not None:
            values[key] = by_rule[metric.rule][key.removesuffix("_max")]
    return {key: values[key] for key in METRICS}
