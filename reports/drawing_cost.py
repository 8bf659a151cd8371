"""The drawing of time and energy against ROUGE: it takes the figure's numbers and nothing else."""

from reports.drawing_scatter import Mark, ScatterPanel, draw_scatter
from reports.drawing_style import looks
from reports.figure_cost import CostFigure, CostPanel
from study.metrics import METRICS


def draw_cost(figure: CostFigure) -> dict[str, bytes]:
    """The figure as PDF, PNG and SVG: the same value gives the same bytes."""
    metric = METRICS[figure.metric]
    panels = [_panel(panel, f"{metric.label}, {metric.unit}") for panel in figure.panels]
    return draw_scatter(panels, looks(figure.arms), share_y=True)


def _panel(panel: CostPanel, y_label: str) -> ScatterPanel:
    marks = tuple(
        Mark(
            name=point.name,
            hollow=False,
            x=point.cost,
            y=point.score,
            x_range=(point.cost_low, point.cost_high),
            y_range=(point.low, point.high),
        )
        for point in panel.points
    )
    return ScatterPanel(panel.label, y_label, marks)
