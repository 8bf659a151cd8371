"""The table of metrics: label, unit and better direction stand here and nowhere else."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """How one figure of quality is named, printed and compared.

    `rule` says how several references of a dialogue become one score; it is None where there are none to reduce.
    """

    key: str
    label: str
    unit: str
    better: Literal["higher", "lower"]
    decimals: int
    rule: Literal["mean", "max", "first"] | None
    source: str

    @property
    def sign(self) -> float:
        """1 where a higher value is better, else -1: what a value is multiplied by so that the best is the highest."""
        return 1.0 if self.better == "higher" else -1.0


_ROUGE = "Lin 2004; rouge_score 0.1.2, stemmed, F measure"
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_LABELS = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}

METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        *(Metric(key, _LABELS[key], "points", "higher", 2, "mean", _ROUGE) for key in ROUGE_TYPES),
        *(
            Metric(f"{key}_max", f"{_LABELS[key]} (best reference)", "points", "higher", 2, "max", _ROUGE)
            for key in ROUGE_TYPES
        ),
        Metric("validation_loss", "validation loss", "nats/token", "lower", 4, None, "cross-entropy of the completion"),
    )
}

# What a claim may be about: scores that exist per dialogue, on the primary rule (mean over references).
CLAIMABLE = ROUGE_TYPES
# What tuning may select by.
SELECTABLE = (*ROUGE_TYPES, "validation_loss")
