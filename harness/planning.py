"""`--plan`: the matrix, what is already there, and what it will take; nothing is run and nothing downloaded."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from harness.forecast import forecast_arm
from study.arms import Arm
from study.grid import Grid
from study.models import KNOWN_SHAPES
from study.power import PILOT, tost_power
from study.problems import one_line
from study.space import Interval

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class ArmPlan:
    """One row of the plan; None where the model's shape is not known without loading it."""

    arm: Arm
    trials: int
    confirm: int
    weight_gib: float | None
    trainable: tuple[int, int] | None
    total: int | None


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """The planned matrix of a grid."""

    grid: Grid
    arms: tuple[ArmPlan, ...]
    runs: int
    # Recorded runs by status, or None where the data are not here and no run can be named.
    recorded: Mapping[str, int] | None


def make_plan(grid: Grid, confirm_count: int, recorded: Mapping[str, int] | None) -> StudyPlan:
    """The plan of a grid."""
    rows = tuple(_row(grid, arm) for arm in grid.arms)
    baselines = sum(not arm.trains for arm in grid.arms)
    reselect = grid.tune.reselect * len(grid.tune.reselect_seeds)
    trials = sum(row.trials + reselect for row in rows if row.arm.trains)
    runs = baselines + trials + confirm_count
    return StudyPlan(grid, rows, runs, recorded)


def _row(grid: Grid, arm: Arm) -> ArmPlan:
    shape = KNOWN_SHAPES.get(grid.model.id)
    # A small space may hold fewer distinct sets than the block was asked for.
    block = len(grid.block(arm)) if arm.trains and grid.tune.trials else 0
    trials = block + grid.tune.tpe_trials if arm.trains else 0
    confirm = len(grid.seeds) * grid.repeats_for(arm) if arm.trains else 1
    if shape is None:
        return ArmPlan(arm, trials, confirm, None, None, None)
    ranks = grid.space_of(arm).rank if arm.trains else (1,)
    low, high = (forecast_arm(arm, shape, rank) for rank in (min(ranks), max(ranks)))
    trainable = (low.trainable, high.trainable) if arm.trains else None
    return ArmPlan(arm, trials, confirm, low.weight_bytes / GIB, trainable, shape.parameters)


def print_plan(plan: StudyPlan, console: Console) -> None:
    """The plan as a person reads it."""
    grid = plan.grid
    if not console.is_terminal:
        # Captured output has no width of its own; arm names must not be broken up.
        console = Console(file=console.file, width=160)
    console.print(
        f"study {grid.study} ({grid.protocol} protocol): {plan.runs} runs of {len(grid.arms)} arms",
        highlight=False,
        markup=False,
    )
    model = f"model {grid.model.id}" + (f" at {grid.model.revision}" if grid.model.revision else "")
    console.print(one_line(model), highlight=False, markup=False, emoji=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header, justify in (
        ("arm", "left"),
        ("precision", "left"),
        ("method", "left"),
        ("trials", "right"),
        ("confirm", "right"),
        ("weights GiB", "right"),
        ("trainable", "right"),
        ("of all", "right"),
    ):
        table.add_column(header, justify="right" if justify == "right" else "left", overflow="fold")
    for row in plan.arms:
        precision = f"{row.arm.precision}" + ("+dq" if row.arm.double_quant else "")
        weights = "—" if row.weight_gib is None else f"{row.weight_gib:.3f}"
        table.add_row(
            row.arm.name, precision, str(row.arm.method), str(row.trials), str(row.confirm), weights, *_trainable(row)
        )
    console.print(table)
    for line in _notes(plan):
        console.print(one_line(line), highlight=False, markup=False, emoji=False, soft_wrap=True)


def _trainable(row: ArmPlan) -> tuple[str, str]:
    if row.trainable is None or row.total is None:
        return "—", "—"
    low, high = row.trainable
    shares = [f"{100 * count / (row.total + count):.3f}%" for count in (low, high)]
    if low == high:
        return f"{low:,}", shares[0]
    return f"{low:,} to {high:,}", f"{shares[0]} to {shares[1]}"


def _notes(plan: StudyPlan) -> list[str]:
    grid = plan.grid
    lines = []
    if grid.space is not None and grid.trained_arms:
        rate = grid.space.learning_rate
        shown = f"{rate.low:g} to {rate.high:g} ({rate.scale})" if isinstance(rate, Interval) else list(rate)
        lines.append(f"space: rank {list(grid.space.rank)}, alpha {list(grid.space.alpha)}, learning rate {shown}")
    lines.append(f"seeds: {list(grid.seeds)}; tuning seed {grid.tune.seed}, select by {grid.tune.select_by}")
    if (rule := grid.tune.pruning) is not None:
        points = " and ".join(f"{share:.3g}" for share in rule.at)
        lines.append(
            f"pruning: at {points} of its steps a trial ends unless its loss is among the best {rule.keep:.3g} of its "
            f"arm's earlier trials, once {rule.startup} of them have got so far; trials of an arm are made in order"
        )
    if grid.tune.share_graphs:
        lines.append(
            "captured steps: on a GPU trials of an arm share them, in adapters padded to its largest rank; of such a "
            "trial neither memory nor energy is told, and of its time the total"
        )
    if grid.tune.unpacked_base:
        lines.append(
            "unpacked base: on a GPU trials of 4-bit arms are made on weights that are kept unpacked, where 20 steps "
            "give the same bits; of such a trial neither memory nor energy is told, and of its time the total"
        )
    limit = grid.data.limit("test")
    for claim in grid.claims:
        lines.append(f"claim {claim.name}: {claim.candidate} against {claim.reference} on {', '.join(claim.metrics)}")
    if grid.claims and limit is not None and len(grid.seeds) > 1:
        for margin in (0.5, 1.0):
            power = tost_power(
                len(grid.seeds),
                limit,
                margin,
                sigma_seed=PILOT.sigma_seed,
                sigma_residual=PILOT.sigma_residual,
                sigma_item=PILOT.sigma_item,
            )
            lines.append(
                f"power to support a true match at a margin of {margin:g} points: {100 * power:.0f}% "
                f"({len(grid.seeds)} seeds, {limit} dialogues, the pilot's variances)"
            )
    if plan.recorded is None:
        lines.append("already recorded: unknown until the data are loaded")
    else:
        counted = ", ".join(f"{count} {status}" for status, count in sorted(plan.recorded.items()))
        lines.append(f"already recorded: {counted or 'nothing'}")
    return lines
