"""Claims: what a study sets out to test, fixed before any test score is seen."""

from dataclasses import dataclass

# The margin that the `retain` rule chooses is kept between these, in points (docs: README, "How to read the verdict").
RETAIN_BOUNDS = (0.5, 1.0)
# How a claim names a system that the project did not train: `external/NAME`, as `results add-predictions` added it.
EXTERNAL_PREFIX = "external/"


@dataclass(frozen=True, slots=True)
class FixedMargin:
    """An equivalence margin stated in points."""

    points: float


@dataclass(frozen=True, slots=True)
class RetainMargin:
    """A margin that keeps a share of the reference arm's gain over its own zero-shot model."""

    share: float

    def points(self, reference: float, zero_shot: float) -> float:
        """Δ = clip((1 − share) · (reference − zero-shot), 0.5, 1.0), both scores in points on validation."""
        low, high = RETAIN_BOUNDS
        return min(max((1.0 - self.share) * (reference - zero_shot), low), high)


Margin = FixedMargin | RetainMargin


@dataclass(frozen=True, slots=True)
class Claim:
    """`candidate` matches `reference` on every metric within the margin: arm names after expansion, or `external/NAME`.

    `confidence` is that of the equivalence interval: 0.90 is two one-sided tests at 5%. `drop_in` asks for the
    candidate at the reference's hyperparameters as well.
    """

    name: str
    candidate: str
    reference: str
    metrics: tuple[str, ...]
    margin: Margin
    confidence: float
    drop_in: bool
