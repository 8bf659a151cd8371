"""Every figure of a report: what it is called, and how it is computed and drawn. Their order is the report's."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from reports.claiming import ClaimResult
from reports.drawing import draw
from reports.drawing_cost import draw_cost
from reports.drawing_curves import draw_curves
from reports.drawing_differences import draw_differences
from reports.drawing_expected import draw_expected
from reports.drawing_forecast import draw_forecast
from reports.drawing_importances import draw_importances
from reports.drawing_lengths import draw_lengths
from reports.drawing_memory import draw_bars
from reports.drawing_style import FORMATS
from reports.drawing_trials import draw_trials
from reports.evidence import Evidence
from reports.figure_cost import cost_figure
from reports.figure_curves import curve_figure
from reports.figure_differences import differences
from reports.figure_expected import expected_figure
from reports.figure_forecast import forecast_figure
from reports.figure_importances import importance_figure
from reports.figure_lengths import length_figure
from reports.figure_trials import trial_figure
from reports.figures import MemoryFigure, memory_bars, memory_figure


class _Captioned(Protocol):
    """A figure as a value."""

    @property
    def caption(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One kind of figure: `name` is that of its files; `value` gives None where a study has nothing to show in it."""

    name: str
    title: str
    value: Callable[[Evidence, Sequence[ClaimResult]], _Captioned | None]
    # Takes what `value` gives.
    draw: Callable[[Any], dict[str, bytes]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure of one study: its numbers, and its files by format."""

    name: str
    title: str
    value: _Captioned
    files: dict[str, bytes]


def _memory(evidence: Evidence) -> MemoryFigure | None:
    """Random weights have no score to draw memory against, and before the freeze there may be nothing at all."""
    figure = None if evidence.random_weights else memory_figure(evidence)
    return (
        figure if figure is not None and (figure.did_not_fit or any(panel.points for panel in figure.panels)) else None
    )


EXHIBITS: tuple[Exhibit, ...] = (
    Exhibit("differences", "Differences from the reference", lambda _, claims: differences(claims), draw_differences),
    Exhibit("memory_vs_rouge", "Memory against ROUGE", lambda evidence, _: _memory(evidence), draw),
    Exhibit("memory_by_arm", "Memory by arm", lambda evidence, _: memory_bars(evidence), draw_bars),
    Exhibit(
        "forecast_vs_measured",
        "Forecast against measured memory",
        lambda evidence, _: forecast_figure(evidence),
        draw_forecast,
    ),
    Exhibit("cost_vs_rouge", "Time and energy against ROUGE", lambda evidence, _: cost_figure(evidence), draw_cost),
    Exhibit("learning_rate", "Trials by learning rate", lambda evidence, _: trial_figure(evidence), draw_trials),
    Exhibit(
        "expected_performance",
        "Expected validation performance",
        lambda evidence, _: expected_figure(evidence),
        draw_expected,
    ),
    Exhibit(
        "importances", "Hyperparameter importances", lambda evidence, _: importance_figure(evidence), draw_importances
    ),
    Exhibit("training_curves", "Training curves", lambda evidence, _: curve_figure(evidence), draw_curves),
    Exhibit("lengths", "Length of the summaries", lambda evidence, _: length_figure(evidence), draw_lengths),
)
# Every file that any figure of a report may have, inside the report's folder.
FILES = tuple(f"figures/{exhibit.name}.{kind}" for exhibit in EXHIBITS for kind in (*FORMATS, "txt"))


def drawn(evidence: Evidence, claims: Sequence[ClaimResult]) -> Iterator[Drawn]:
    """The figures that this study has anything to show in, in the report's order."""
    for exhibit in EXHIBITS:
        value = exhibit.value(evidence, claims)
        if value is not None:
            yield Drawn(exhibit.name, exhibit.title, value, exhibit.draw(value))
