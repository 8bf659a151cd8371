"""The drawing of memory against ROUGE: it takes the figure's numbers and nothing else."""

from reports.drawing_scatter import Mark, ScatterPanel, draw_scatter
from reports.drawing_style import COLOURS, DPI, FORMATS, GREY, MARKERS, SETTINGS, Style, as_files
from reports.figures import MemoryFigure, MemoryPanel
from study.metrics import METRICS

__all__ = ["DPI", "FORMATS", "SETTINGS", "as_files", "draw", "styles"]


def draw(figure: MemoryFigure) -> dict[str, bytes]:
    """The figure as PDF, PNG and SVG: the same value gives the same bytes."""
    panels = [_panel(panel, figure.memory_label) for panel in figure.panels]
    return draw_scatter(panels, styles(figure), did_not_fit=figure.did_not_fit)


def _panel(panel: MemoryPanel, label: str) -> ScatterPanel:
    metric = METRICS[panel.metric]
    marks = tuple(
        Mark(
            name=point.name,
            hollow=point.kind == "zero-shot",
            x=point.memory,
            y=point.score,
            x_range=(point.memory_low, point.memory_high),
            y_range=(point.low, point.high),
        )
        for point in panel.points
    )
    return ScatterPanel(label, f"{metric.label}, {metric.unit}", marks, panel.floors, panel.front)


def styles(figure: MemoryFigure) -> dict[str, Style]:
    """Colour and marker of every arm by name. A zero-shot model looks like the one arm trained on it, but hollow; where
    several arms are, or none, it is grey."""
    points = {point.name: point for panel in figure.panels for point in panel.points}
    trained = [name for name, point in points.items() if point.kind == "trained"]
    trained += [name for name in figure.did_not_fit if name not in points]
    # In the plan's order, so that an arm looks alike in every figure of a report.
    named = list(dict.fromkeys((*figure.arms, *trained)))
    chosen = {name: (COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]) for index, name in enumerate(named)}
    alone = 0
    for name in (name for name, point in points.items() if point.kind == "zero-shot"):
        children = [child for child in trained if child in points and points[child].base == name]
        if len(children) == 1:
            chosen[name] = chosen[children[0]]
        else:
            chosen[name] = (GREY, MARKERS[alone % len(MARKERS)])
            alone += 1
    return chosen
