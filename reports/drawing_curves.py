"""The drawing of training losses: it takes the figure's numbers and nothing else."""

import matplotlib as mpl
import seaborn as sns
from matplotlib.lines import Line2D

from reports.drawing_facets import facets, finished
from reports.drawing_style import SETTINGS, looks, spaced, taken
from reports.figure_curves import CurveFigure

_OTHERS = "0.82"


def draw_curves(figure: CurveFigure) -> dict[str, bytes]:
    """The figure as PDF, PNG and SVG, one panel an arm: the same value gives the same bytes."""
    with mpl.rc_context(SETTINGS), sns.axes_style("ticks"):
        canvas, axes = facets([panel.arm for panel in figure.panels], "optimizer step")
        chosen = looks(figure.arms)
        losses = [loss for panel in figure.panels for run in panel.runs for loss in run.losses]
        last = max(run.steps[-1] for panel in figure.panels for run in panel.runs)
        axes[0].set_xlim(0, 1.02 * last)
        axes[0].set_ylim(*spaced(min(losses), max(losses), 0.05))
        for axis, panel in zip(axes, figure.panels, strict=True):
            for other in figure.panels:
                if other is not panel:
                    axis.plot(other.steps, other.mean, color=_OTHERS, linewidth=0.8, zorder=1)
            colour, _ = taken(chosen, panel.arm)
            for run in panel.runs:
                axis.plot(run.steps, run.losses, color=colour, alpha=0.45, linewidth=0.4, zorder=2)
            axis.plot(panel.steps, panel.mean, color=colour, linewidth=1.3, zorder=3)
        return finished(canvas, axes, "training loss, nats/token", _handles(figure))


def _handles(figure: CurveFigure) -> list[Line2D]:
    handles = [
        Line2D([], [], color="0.3", linewidth=1.3, label="mean over runs"),
        Line2D([], [], color="0.3", alpha=0.6, linewidth=0.4, label="one run"),
    ]
    if len(figure.panels) > 1:
        handles.append(Line2D([], [], color=_OTHERS, linewidth=0.8, label="means of the other arms"))
    return handles
