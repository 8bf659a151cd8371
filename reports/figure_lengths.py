"""How long the summaries are, as values: `reports.drawing_lengths` draws them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reports.evidence import ArmEvidence, Evidence
from reports.figure_curves import read_losses
from results.schema import Record
from study.problems import one_line


@dataclass(frozen=True, slots=True)
class LengthRow:
    """One arm: words written over words of the references, run by run and on average; and, in percent of the
    dialogues on average over runs, outputs that are empty and outputs that were cut at `max_new_tokens`."""

    arm: str
    trained: bool
    ratios: tuple[float, ...]
    mean: float
    empty: float | None
    cut: float | None
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LengthFigure:
    """The numbers of the figure, the first arm on top; `arms` are all that train, in the plan's order."""

    arms: tuple[str, ...]
    rows: tuple[LengthRow, ...]
    caption: str


def length_figure(evidence: Evidence) -> LengthFigure | None:
    """Lengths of the outputs of every arm on the test split; None where no run kept them, or the weights are random."""
    if evidence.random_weights:
        return None
    rows = tuple(row for arm in evidence.arms if (row := _row(arm)) is not None)
    if not rows:
        return None
    arms = tuple(one_line(arm.part.name) for arm in evidence.arms if arm.trains)
    return LengthFigure(arms, rows, _caption(rows))


def _row(arm: ArmEvidence) -> LengthRow | None:
    known = {
        record.run_id: ratio for record in arm.runs if (ratio := _number(record.checks.get("length_ratio"))) is not None
    }
    if not known:
        return None
    counted = [record for record in arm.runs if record.run_id in known]
    return LengthRow(
        arm=one_line(arm.part.name),
        trained=arm.trains,
        ratios=tuple(known.values()),
        mean=sum(known.values()) / len(known),
        empty=_mean(_percent(record, "empty_outputs") for record in counted),
        cut=_mean(_percent(record, "hit_max_new_tokens") for record in counted),
        run_ids=tuple(known),
    )


def _number(value: Any) -> float | None:
    found = read_losses([value])
    return found[0] if found and found[0] >= 0.0 else None


def _percent(record: Record, check: str) -> float | None:
    count, size = _number(record.checks.get(check)), record.data.evaluated_size
    return 100 * count / size if count is not None and size else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _caption(rows: Sequence[LengthRow]) -> str:
    caption = (
        "Length of the summaries on the test split: words written over words of the references (their mean where a "
        "dialogue has several). Strokes are runs, the marker is their mean; at 1 outputs are as long as "
        "references."
    )
    if any(row.empty is not None or row.cut is not None for row in rows):
        caption += (
            " Right: share of outputs that are empty, and that were cut at the limit of new tokens, means over runs."
        )
    return caption + ("" if all(row.trained for row in rows) else " Hollow markers are models without training.")
