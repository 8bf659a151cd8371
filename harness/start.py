"""From a command line's options to a study under way, and every expected failure to one clear line."""

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from harness.adapters.host import environment
from harness.adapters.nvml import open_gpus
from harness.adapters.sources import DataError, Loaded, load
from harness.conductor import Conductor, Machine, ModelUnavailable
from harness.flow import Finish, Options, Study, examples_text
from harness.forecast import CPU, Rates
from harness.gpu import GpuError, GpuReader, visible
from harness.messages import Device
from harness.planning import StudyPlan, make_plan, print_plan
from harness.prospects import Workload, foresee, known_records
from harness.prospects_view import print_prospects
from harness.resuming import no_checkpoints
from harness.signals import Interrupted, interruptible
from harness.specs import Specs
from harness.unchanged import same_data
from harness.view import make_view
from harness.watching import usable_device
from harness.workers import NoWorkers, Template
from results.layout import StudyFolder
from results.locking import locked
from results.store import ResultsError, read_frozen, read_records, remove_unfinished
from study.bytesize import memory_bytes
from study.datasets import SPLITS, GeneratedData, LocalData
from study.grid import Grid, load_grid
from study.problems import GridError, choices, one_line
from study.space import Interval
from study.yaml_text import MAX_CHARACTERS

# Steps of a calibration, the first of which is slow, and dialogues that it evaluates.
CALIBRATION_STEPS = 6
CALIBRATION_DIALOGUES = 8
GRIDS = Path(__file__).resolve().parent.parent / "study" / "grids"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line asked for."""

    grid: str
    overrides: tuple[str, ...]
    only: tuple[str, ...]
    results: Path
    retry_failed: bool
    allow_cpu: bool
    # The card that --plan asks about, as written.
    card: str | None = None
    # A short run of every arm instead of the study.
    calibrate: bool = False
    # Runs at a time, each on a GPU of its own; None: as many as there are GPUs.
    gpus: int | None = 1
    # Runs at a time where a study runs on the CPU, which share its cores; None: two on two cores, at most four.
    cpu_workers: int | None = 1
    # Optimizer steps between two checkpoints of a training; None: no checkpoints.
    checkpoint_every: int | None = None
    # Go on although a split is not the one that the recorded runs used.
    new_data: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """How a start ended; `study` is None where nothing ran and there is nothing to report."""

    exit_code: int
    study: str | None


class Refused(RuntimeError):
    """A start that is refused, in one line."""


def _refuse(text: str) -> NoReturn:
    raise Refused(text)


def read_grid(options: RunOptions) -> Grid:
    """The grid that was named: a path, or a name in study/grids/.

    Raises:
        Refused: there is no such file.
        GridError: it is no grid.
    """
    named = Path(options.grid)
    candidates = [named, GRIDS / named.name, GRIDS / f"{named.name}.yaml"]
    # Unlike Path.is_file, a name that is too long for any file is no error here.
    path = next((candidate for candidate in candidates if os.path.isfile(candidate)), None)
    if path is None:
        _refuse(f"--grid {options.grid!r}: no such file; {choices(sorted(item.name for item in GRIDS.glob('*.yaml')))}")
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        _refuse(f"--grid {options.grid!r} cannot be read: {error}")
    if len(text) > MAX_CHARACTERS:
        _refuse(f"--grid {options.grid!r}: longer than the {MAX_CHARACTERS} characters that a grid may have")
    grid = load_grid(text, options.overrides)
    names = {arm.name for arm in grid.arms} | {arm.family for arm in grid.arms}
    unknown = [name for name in options.only if name not in names]
    if unknown:
        _refuse(f"--only {unknown[0]!r}: {choices(arm.name for arm in grid.arms)}")
    return grid


def plan_only(options: RunOptions, console: Console) -> int:
    """`--plan`: prints the matrix; runs and downloads nothing. Returns the exit code."""
    try:
        grid = read_grid(options)
        gpus = open_gpus()
        card = _card(options.card, gpus)
        loaded = _at_hand(grid)
        plan = make_plan(grid, _confirm_count(grid), _recorded(grid, loaded, options))
        print_plan(plan, console)
        train = None if loaded is None else examples_text(loaded.splits["train"])
        with interruptible():
            prospects = foresee(
                grid, _workload(grid, plan, loaded), train, options.results, _machine(grid, gpus, options.card)
            )
        print_prospects(prospects, console, card)
    except (GridError, GpuError, Refused, ResultsError) as error:
        return _say(console, error)
    except Interrupted as error:
        return error.exit_code
    return 0


def _workload(grid: Grid, plan: StudyPlan, loaded: Loaded | None) -> Workload:
    """Every training that the plan leads to: trials and their repetition on further seeds, confirm and drop-in runs."""
    again = grid.tune.reselect * len(grid.tune.reselect_seeds)
    pairs = {(claim.candidate, claim.reference) for claim in grid.claims if claim.drop_in}
    runs = {}
    for row in plan.arms:
        drop_ins = sum(candidate == row.arm.name for candidate, _ in pairs)
        tuned = row.trials + again if row.trials else 0
        runs[row.arm.name] = (tuned, row.confirm * (1 + drop_ins)) if row.arm.trains else (0, 0)
    sizes: dict[str, int | None] = {
        split: grid.data.limit(split) if loaded is None else len(loaded.splits[split]) for split in SPLITS
    }
    return Workload(runs, sizes)


def calibration(options: RunOptions) -> RunOptions:
    """The same study in small, under a name of its own: one short run of every arm, for --plan to tell times from.

    Raises:
        Refused, GridError: as for any start.
    """
    grid = read_grid(options)
    small = [
        f"study={grid.study[:50]}-calibration",
        "tune={trials: 0}",
        f"seeds=[{grid.seeds[0]}]",
        "claims=[]",
        "training.epochs=null",
        f"training.steps={CALIBRATION_STEPS}",
        "training.repeats=1",
        *(f"data.limits.{split}={CALIBRATION_DIALOGUES}" for split in ("validation", "test")),
    ]
    if grid.space is not None:
        rate = grid.space.learning_rate
        lowest = rate.low if isinstance(rate, Interval) else rate[0]
        small.append(f"space={{rank: {max(grid.space.rank)}, alpha: {grid.space.alpha[0]}, learning_rate: {lowest}}}")
    return replace(options, overrides=(*options.overrides, *small))


def _card(asked: str | None, gpus: GpuReader | None) -> tuple[str, int] | None:
    """The card that a plan is held against: the one that was named, or the first one here."""
    if asked is not None:
        try:
            return asked, memory_bytes(asked)
        except ValueError as error:
            _refuse(f"--gpu {asked!r}: {error}")
    here = () if gpus is None else visible(gpus.devices(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    return (here[0].name, here[0].total_bytes) if here else None


def _machine(grid: Grid, gpus: GpuReader | None, asked: str | None) -> str | None:
    """Whose times a plan is made of: this GPU's, this CPU's, or any GPU's where it runs elsewhere."""
    if asked is None and gpus is not None and grid.device != "cpu" and usable_device(gpus) == "cuda":
        return visible(gpus.devices(), os.environ.get("CUDA_VISIBLE_DEVICES"))[0].name
    return None if asked is not None or grid.device == "gpu" else CPU


def _confirm_count(grid: Grid) -> int:
    return Specs(grid, {}).confirm_count()


def _at_hand(grid: Grid) -> Loaded | None:
    """The examples, None where they would have to be downloaded or cannot be read."""
    if not isinstance(grid.data.source, GeneratedData | LocalData):
        return None
    try:
        return load(grid.data)
    except DataError:
        return None


def _recorded(grid: Grid, loaded: Loaded | None, options: RunOptions) -> dict[str, int] | None:
    """Recorded runs of the planned matrix by status; None where the examples are not here."""
    if loaded is None:
        return None
    specs = Specs.of(grid, loaded.splits)
    folder = StudyFolder.of(options.results, grid.study)
    frozen = read_frozen(folder)
    planned = {
        spec.run_id
        for spec in (
            *specs.baselines("validation"),
            *specs.baselines("test"),
            *(spec for arm in grid.trained_arms for spec in specs.block(arm)),
            *(specs.confirms(frozen) if frozen else ()),
        )
    }
    last = read_records(folder).last
    return dict(Counter(record.status for run_id, record in last.items() if run_id in planned))


def run_grid(options: RunOptions, console: Console) -> Done:
    """Runs a study as far as it goes."""
    try:
        if options.calibrate:
            options = calibration(options)
        grid = read_grid(options)
        gpus = open_gpus()
        device = _device(grid, gpus, allow_cpu=options.allow_cpu)
        folder = StudyFolder.of(options.results, grid.study)
        with interruptible(), locked(folder):
            remove_unfinished(folder)
            seats = _seats(options.gpus, device, gpus) if device == "cuda" else _cpu_seats(options)
            every = _checkpoint_every(options, grid, device, console)
            machine = Machine(device, gpus if device == "cuda" else None, environment(), seats, every)
            return _run(grid, folder, machine, options, console)
    except (GridError, Refused, DataError, ModelUnavailable) as error:
        return Done(_say(console, error), None)
    except (GpuError, NoWorkers, ResultsError) as error:
        _say(console, error)
        return Done(1, None)
    except Interrupted as error:
        console.print(f"stopped by {error}; the same command goes on from here", markup=False, highlight=False)
        return Done(error.exit_code, None)


def _device(grid: Grid, gpus: GpuReader | None, *, allow_cpu: bool) -> Device:
    device: Device = "cpu" if grid.device == "cpu" else usable_device(gpus)
    if grid.device == "gpu" and device == "cpu" and not allow_cpu:
        hidden = "" if gpus is None else f" that CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')!r} shows"
        _refuse(f"training.device 'gpu': no NVIDIA GPU here{hidden}; --allow-cpu runs the study on the CPU")
    if grid.memory_limit_bytes is not None and device == "cpu":
        _refuse("training.memory_limit: only a GPU's memory can be limited, and this study would run on the CPU")
    return device


def _seats(wanted: int | None, device: Device, gpus: GpuReader | None) -> tuple[str | None, ...]:
    """The GPUs that runs are made on side by side, by UUID; one seat is pinned to nothing, and takes the first."""
    seen = () if gpus is None or device == "cpu" else visible(gpus.devices(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    count = max(len(seen), 1) if wanted is None else wanted
    if count > max(len(seen), 1):
        _refuse(f"--gpus {count}: {len(seen)} in sight here" + (", and the study runs on the CPU" if not seen else ""))
    return tuple(each.uuid for each in seen[:count]) if count > 1 else (None,)


def _cpu_seats(options: RunOptions) -> tuple[None, ...]:
    """Places for runs that share the cores: each has its part of them, through the variable that torch reads."""
    if options.gpus != 1:
        wanted = "all" if options.gpus is None else options.gpus
        _refuse(
            f"--gpus {wanted}: the study runs on the CPU; there --cpu-workers says how many runs are made at a time"
        )
    cores = len(os.sched_getaffinity(0))
    count = min(cores, 4) if options.cpu_workers is None else options.cpu_workers
    if count > cores:
        _refuse(f"--cpu-workers {count}: there are {cores} cores")
    if count > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(cores // count))
    return (None,) * count


def _checkpoint_every(options: RunOptions, grid: Grid, device: Device, console: Console) -> int | None:
    every = options.checkpoint_every
    reason = None if every is None else no_checkpoints(grid.training, device)
    if reason is not None:
        line = f"--checkpoint-every {every}: no checkpoints are kept: {reason}"
        console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
    return every if reason is None else None


def _run(grid: Grid, folder: StudyFolder, machine: Machine, options: RunOptions, console: Console) -> Done:
    if not folder.records.exists():
        # A study that has no run yet needs workers: their libraries are imported while the data are loaded.
        Template().prepare()
    loaded = load(grid.data)
    _notes(loaded, console)
    specs = Specs.of(grid, loaded.splits)
    if not options.new_data:
        same_data(grid.study, specs, read_records(folder).last.values())
    total = make_plan(grid, specs.confirm_count(), None).runs
    view = make_view(console, total)
    rates = Rates.of(known_records(options.results))
    if len(machine.seats) > 1:
        where = "each on a GPU of its own: their times share one host" if machine.device == "cuda" else "on one CPU"
        view.note(f"{len(machine.seats)} runs at a time, {where}")
    conductor = Conductor(grid, folder, machine, loaded.splits, view, rates)
    study = Study(grid, folder, loaded, conductor, view, Options(options.only, options.retry_failed))
    try:
        finish = study.run()
    finally:
        conductor.close()
        view.close()
    _closing(finish, console)
    return Done(finish.exit_code, grid.study)


def _notes(loaded: Loaded, console: Console) -> None:
    sizes = ", ".join(f"{len(examples)} {split}" for split, examples in loaded.splits.items())
    for line in (f"data: {loaded.description}: {sizes}", *(f"data: {note}" for note in loaded.notes)):
        console.print(one_line(line), markup=False, highlight=False, emoji=False, soft_wrap=True)


def _closing(finish: Finish, console: Console) -> None:
    def say(text: str) -> None:
        console.print(one_line(text), markup=False, highlight=False, emoji=False, soft_wrap=True)

    if finish.made == 0 and not finish.undone:
        say(f"nothing to run: all {finish.found} planned runs are recorded")
    else:
        say(f"{finish.made} runs made, {finish.found} found recorded, {len(finish.undone)} not done")
    for name, lines in (("not done", finish.undone), ("finding", finish.findings)):
        for line in lines[:20]:
            say(f"  {name}: {line}")
        if len(lines) > 20:
            say(f"  … and {len(lines) - 20} more")


def _say(console: Console, error: Exception) -> int:
    problems = error.problems if isinstance(error, GridError) else (str(error),)
    for problem in problems:
        # One line each, whatever a value holds.
        text = one_line(str(problem))
        Console(stderr=True, file=None).print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
    return 2
