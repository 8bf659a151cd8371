"""Memory against ROUGE: the figure's numbers as a value, and the one drawing that takes it."""

import io
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.evidence import ArmEvidence, Evidence
from reports.stats import single_arm_interval
from study.metrics import METRICS

GIB = 1024**3
Kind = Literal["trained", "zero-shot"]
FORMATS = ("pdf", "png", "svg")

# Okabe and Ito's colours, told apart by colour-blind readers; markers tell arms apart in grey too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_SETTINGS: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "qlora-ablation",
    "svg.fonttype": "path",
    "path.simplify": False,
}


@dataclass(frozen=True, slots=True)
class Point:
    """One arm: peak memory in GiB with its range, and the mean score with its 95% interval in points."""

    name: str
    kind: Kind
    # Arms on one base share a colour and a marker: their zero-shot model is the hollow one.
    base: str
    memory: float
    memory_low: float
    memory_high: float
    score: float
    low: float
    high: float
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemoryPanel:
    """Memory against one metric. `did_not_fit` are arms without a score because they ran out of memory."""

    metric: str
    points: tuple[Point, ...]
    floors: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class MemoryFigure:
    """The numbers of the figure: one panel a metric."""

    memory_label: str
    panels: tuple[MemoryPanel, ...]
    did_not_fit: tuple[str, ...]
    caption: str


def memory_figure(evidence: Evidence, metrics: tuple[str, ...] = ("rouge1", "rougeL")) -> MemoryFigure:
    """The numbers of memory against ROUGE."""
    memories = [memory for arm in evidence.arms if (memory := arm.memory()) is not None]
    on_gpu = any(memory.on_gpu for memory in memories)
    label = "peak GPU memory allocated, GiB" if on_gpu else "peak host memory (RSS), GiB"
    panels = tuple(
        MemoryPanel(
            metric=metric,
            points=tuple(point for arm in evidence.arms if (point := _point(arm, metric)) is not None),
            floors=tuple((name, scores[metric]) for name, scores in evidence.plan.floors.items() if _is_floor(name)),
        )
        for metric in metrics
    )
    scores = " and ".join(METRICS[metric].label for metric in metrics)
    caption = (
        f"{label[0].upper()}{label[1:]}, against {scores} on the test split ({evidence.plan.data_description}). "
        "Filled markers are trained arms, at the peak of training; hollow ones are the same models zero-shot, at the "
        "peak of evaluation. Bars are 95% intervals over seeds and dialogues, and the range of memory over runs. "
        "Dotted lines are systems that learn nothing."
    )
    unfit = tuple(arm.part.name for arm in evidence.arms if arm.did_not_fit and arm.scored is None)
    if unfit:
        caption += f" Did not fit in memory: {', '.join(unfit)}."
    return MemoryFigure(label, panels, unfit, caption)


def _is_floor(name: str) -> bool:
    return name != "reference against reference"


def _point(arm: ArmEvidence, metric: str) -> Point | None:
    memory = arm.memory()
    if memory is None or arm.scored is None:
        return None
    interval = single_arm_interval(arm.scored.scores[metric], confidence=0.95)
    return Point(
        name=arm.part.name,
        kind="trained" if arm.trains else "zero-shot",
        base=arm.part.zero_shot or arm.part.name,
        memory=memory.median_bytes / GIB,
        memory_low=memory.low_bytes / GIB,
        memory_high=memory.high_bytes / GIB,
        score=interval.mean,
        low=interval.low,
        high=interval.high,
        run_ids=arm.scored.run_ids,
    )


def draw(figure: MemoryFigure) -> dict[str, bytes]:
    """The figure as PDF, PNG and SVG: the same value gives the same bytes."""
    with mpl.rc_context(_SETTINGS), sns.axes_style("ticks"):
        canvas = Figure(figsize=(7.0, 3.1), layout="constrained")
        axes = canvas.subplots(1, len(figure.panels), sharex=True, squeeze=False)[0]
        for axis, panel in zip(axes, figure.panels, strict=True):
            _panel(axis, panel, figure)
        names = [name for panel in figure.panels[:1] for name in _names(panel, figure)]
        handles, labels = axes[0].get_legend_handles_labels()
        if names:
            canvas.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
        return {kind: _bytes(canvas, kind) for kind in FORMATS}


def _names(panel: MemoryPanel, figure: MemoryFigure) -> list[str]:
    return [*(point.name for point in panel.points), *figure.did_not_fit]


def _panel(axis: Axes, panel: MemoryPanel, figure: MemoryFigure) -> None:
    bases = list(dict.fromkeys(point.base for point in panel.points))
    for point in panel.points:
        colour, marker = _style(bases.index(point.base))
        axis.errorbar(
            point.memory,
            point.score,
            xerr=[[point.memory - point.memory_low], [point.memory_high - point.memory]],
            yerr=[[point.score - point.low], [point.high - point.score]],
            fmt=marker,
            markersize=5,
            color=colour,
            markerfacecolor="white" if point.kind == "zero-shot" else colour,
            elinewidth=0.9,
            capsize=2,
            label=point.name,
        )
    for offset, name in enumerate(figure.did_not_fit):
        colour, marker = _style(len(bases) + offset)
        axis.plot(
            1.0 - 0.04 * offset,
            0.04,
            transform=axis.transAxes,
            linestyle="none",
            marker=marker,
            color=colour,
            markerfacecolor="white",
            clip_on=False,
            label=f"{name} (did not fit)",
        )
    for name, value in panel.floors:
        axis.axhline(value, color="0.55", linewidth=0.8, linestyle=":", zorder=0)
        axis.annotate(
            name, (1.0, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=6, color="0.35"
        )
    if not panel.points:
        axis.text(0.5, 0.5, "no arm has a score", transform=axis.transAxes, ha="center", va="center", color="0.35")
    metric = METRICS[panel.metric]
    axis.set_xlabel(figure.memory_label)
    axis.set_ylabel(f"{metric.label}, {metric.unit}")
    axis.margins(x=0.12, y=0.12)
    sns.despine(ax=axis)


def _style(index: int) -> tuple[str, str]:
    return _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]


def _bytes(canvas: Figure, kind: str) -> bytes:
    metadata: dict[str, dict[str, str | None]] = {
        "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
        "svg": {"Date": None, "Creator": None},
        "png": {"Software": None},
    }
    out = io.BytesIO()
    canvas.savefig(out, format=kind, dpi=200, metadata=metadata[kind])
    return out.getvalue()
