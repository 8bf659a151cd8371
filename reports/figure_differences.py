"""The differences that claims are about, as values: `reports.drawing_differences` draws them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.claiming import ClaimResult, MetricResult
from reports.stats import TOST_CONFIDENCE, Comparison
from reports.verdict import DETECTION_CONFIDENCE
from study.metrics import METRICS
from study.problems import one_line


@dataclass(frozen=True, slots=True)
class Estimate:
    """Candidate − reference in points, with (low, high) of its 90% and its 95% interval."""

    difference: float
    inner: tuple[float, float]
    outer: tuple[float, float]

    @classmethod
    def of(cls, comparison: Comparison) -> "Estimate":
        """What a comparison says, whatever confidence it was made to print."""
        return cls(
            comparison.difference, comparison.interval(TOST_CONFIDENCE), comparison.interval(DETECTION_CONFIDENCE)
        )


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """One metric of a claim. `estimate` is None where there was nothing to compare; `verdict` is the metric's own, and
    None for a drop-in row, which is secondary and never judged."""

    label: str
    estimate: Estimate | None
    verdict: str | None
    drop_in: bool = False


@dataclass(frozen=True, slots=True)
class DifferenceGroup:
    """One claim: its name, its arms, its margin Δ in points, its verdict, its rows and its runs."""

    name: str
    candidate: str
    reference: str
    margin: float
    verdict: str
    rows: tuple[DifferenceRow, ...]
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Differences:
    """The numbers of the forest plot, the first claim on top."""

    label: str
    groups: tuple[DifferenceGroup, ...]
    caption: str


def differences(results: Sequence[ClaimResult]) -> Differences | None:
    """Every claim of a frozen study, metric by metric; None where nothing at all could be compared."""
    groups = tuple(group for result in results if (group := _group(result)) is not None)
    if not any(row.estimate is not None for group in groups for row in group.rows):
        return None
    return Differences("difference of mean scores, candidate − reference, points", groups, _caption(groups))


def _group(result: ClaimResult) -> DifferenceGroup | None:
    if result.claim is None or not result.metrics:
        return None
    return DifferenceGroup(
        name=one_line(result.name),
        candidate=one_line(result.claim.candidate),
        reference=one_line(result.claim.reference),
        margin=result.claim.margin,
        verdict=_word(result.judgement.verdict),
        rows=(*map(_row, result.metrics), *_drop_in(result.drop_in)),
        run_ids=result.run_ids,
    )


def _row(found: MetricResult) -> DifferenceRow:
    estimate = None if found.comparison is None else Estimate.of(found.comparison)
    return DifferenceRow(_label(found.metric), estimate, _word(found.judgement.verdict))


def _drop_in(found: Mapping[str, Comparison | str]) -> list[DifferenceRow]:
    return [
        DifferenceRow(f"{_label(metric)}, drop-in", Estimate.of(comparison), None, drop_in=True)
        for metric, comparison in found.items()
        if isinstance(comparison, Comparison)
    ]


def _label(metric: str) -> str:
    return METRICS[metric].label if metric in METRICS else one_line(metric)


def _word(verdict: str) -> str:
    return str(verdict).replace("_", " ")


def _caption(groups: Sequence[DifferenceGroup]) -> str:
    caption = (
        "Differences of mean scores on the test split, candidate − reference, in points: the marker is the estimate, "
        "the thick line its 90% interval, the thin line its 95% interval, for new seeds and new dialogues alike. The "
        "band is ±Δ, the margin fixed beforehand: a claim is supported where the whole 90% interval lies inside it"
        f"{' (and Holm adjustment over the arms agrees)' if len(groups) > 1 else ''}, refuted where all of it lies "
        "outside, and inconclusive otherwise."
    )
    if any(len([row for row in group.rows if not row.drop_in]) > 1 for group in groups):
        caption += " A claim about several metrics needs every one of them."
    if any(row.drop_in for group in groups for row in group.rows):
        caption += " Grey rows are secondary: the candidate at the reference's hyperparameters."
    return caption
