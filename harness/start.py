"""From a command line's options to a study under way, and every expected failure to one clear line."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from harness.adapters.host import environment
from harness.adapters.nvml import open_gpus
from harness.adapters.sources import DataError, Loaded, load
from harness.conductor import Conductor, Machine, ModelUnavailable
from harness.flow import Finish, Options, Study
from harness.gpu import GpuReader
from harness.lock import StudyBusy, held
from harness.messages import Device
from harness.planning import make_plan, print_plan
from harness.signals import Interrupted, interruptible
from harness.specs import Specs
from harness.view import make_view
from results.layout import StudyFolder
from results.store import ResultsError, read_frozen, read_records
from study.datasets import GeneratedData, LocalData
from study.grid import Grid, load_grid
from study.problems import GridError, choices

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
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        _refuse(f"--grid {options.grid!r}: no such file; {choices(sorted(item.name for item in GRIDS.glob('*.yaml')))}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        _refuse(f"--grid {options.grid!r} cannot be read: {error}")
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
        print_plan(make_plan(grid, _confirm_count(grid), _recorded(grid, options)), console)
    except (GridError, Refused, ResultsError) as error:
        return _say(console, error)
    return 0


def _confirm_count(grid: Grid) -> int:
    return Specs(grid, {}).confirm_count()


def _recorded(grid: Grid, options: RunOptions) -> dict[str, int] | None:
    """Recorded runs of the planned matrix by status; None where the data would have to be downloaded."""
    if not isinstance(grid.data.source, GeneratedData | LocalData):
        return None
    try:
        specs = Specs.of(grid, load(grid.data).splits)
    except DataError:
        return None
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
        grid = read_grid(options)
        gpus = open_gpus()
        device = _device(grid, gpus, allow_cpu=options.allow_cpu)
        folder = StudyFolder.of(options.results, grid.study)
        with interruptible(), held(folder):
            return _run(
                grid, folder, Machine(device, gpus if device == "cuda" else None, environment()), options, console
            )
    except (GridError, Refused, DataError) as error:
        return Done(_say(console, error), None)
    except (ModelUnavailable, ResultsError, StudyBusy) as error:
        _say(console, error)
        return Done(1, None)
    except Interrupted as error:
        console.print(f"stopped by {error}; the same command goes on from here", markup=False, highlight=False)
        return Done(error.exit_code, None)


def _device(grid: Grid, gpus: GpuReader | None, *, allow_cpu: bool) -> Device:
    if grid.device == "gpu" and gpus is None and not allow_cpu:
        _refuse("training.device 'gpu': no NVIDIA GPU here; --allow-cpu runs the study on the CPU")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "cuda" if gpus is not None and grid.device != "cpu" and hidden != "" else "cpu"


def _run(grid: Grid, folder: StudyFolder, machine: Machine, options: RunOptions, console: Console) -> Done:
    loaded = load(grid.data)
    _notes(loaded, console)
    specs = Specs.of(grid, loaded.splits)
    total = make_plan(grid, specs.confirm_count(), None).runs
    view = make_view(console, total)
    conductor = Conductor(grid, folder, machine, loaded.splits, view)
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
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _closing(finish: Finish, console: Console) -> None:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if finish.made == 0 and not finish.undone:
        say(f"nothing to run: all {finish.found} planned runs are recorded")
    else:
        say(f"{finish.made} runs made, {finish.found} found recorded, {len(finish.undone)} not done")
    for line in finish.undone[:20]:
        say(f"  not done: {line}")
    if len(finish.undone) > 20:
        say(f"  … and {len(finish.undone) - 20} more")


def _say(console: Console, error: Exception) -> int:
    problems = error.problems if isinstance(error, GridError) else (str(error),)
    for problem in problems:
        # One line each, whatever a value holds.
        text = str(problem).replace("\n", "\\n").replace("\r", "\\r").replace("\x1b", "\\x1b")
        Console(stderr=True, file=None).print(text, markup=False, highlight=False, soft_wrap=True)
    return 2
