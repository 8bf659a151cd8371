"""How long a large store takes to open and to plan, and how much memory: simulated records, a real resume decision.

python -m tests.benchmarks.store_scale [RUNS ...]
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.flow import planned_run
from harness.progress import parted
from harness.specs import Specs
from results.layout import StudyFolder
from results.schema import Choice, Frozen, Record
from results.store import RecordStore, read_frozen, read_records, write_frozen
from study.datasets import SPLITS
from study.grid import Grid, load_grid
from study.runs import RunSpec, SplitData, plain
from tests.unit.reports.records import Arm, Card, Study, record

SIZES = (100, 1_000, 10_000)
ARMS, TRIALS, REPEATS = 10, 4, 5
# Losses of one record: as many as a training has steps.
STEPS = (100, 800)
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "tokenizers", "datasets", "optuna", "numpy")


def grid_text(runs: int) -> str:
    """A grid of ten arms whose matrix has so many runs: four trials an arm, and the seeds that fill it."""
    arms = [
        f"  - {{name: arm-{number}, precision: {('bf16', 'int8', 'nf4')[number % 3]}, dropout: {number / 100}}}"
        for number in range(ARMS)
    ]
    seeds = list(range(100, 100 + runs // ARMS - TRIALS))
    return "\n".join(
        (
            "study: large",
            "model: {id: embedded/smollm2-135m-instruct}",
            "data: {source: generated, limits: {train: 128, validation: 16, test: 48}}",
            "prompt: {template: summarize}",
            "arms:",
            *arms,
            "space: {rank: [8, 16], alpha: [16, 32], learning_rate: {low: 1.0e-4, high: 5.0e-3}}",
            f"tune: {{trials: {TRIALS}, reselect: 0}}",
            f"seeds: {seeds}",
            "training: {steps: 800}",
        )
    )


def frozen_choices(grid: Grid) -> Frozen:
    """A freeze that gives every arm the first set of its block."""
    sets = {arm.name: grid.block(arm)[0] for arm in grid.trained_arms}
    choices = [
        Choice(
            arm=name,
            rank=chosen.rank,
            alpha=chosen.alpha,
            learning_rate=chosen.learning_rate,
            run_id=None,
            score=30.0,
            trials=TRIALS,
            completed_trials=TRIALS,
            edges=(),
            ranking=(),
            reason="simulated",
        )
        for name, chosen in sets.items()
    ]
    fields: dict[str, Any] = {
        "study": grid.study,
        "protocol": grid.protocol,
        "model": {"id": grid.model.id, "revision": None, "weights": "pretrained"},
        "select_by": "rougeL",
        "arms": (),
        "choices": choices,
        "claims": (),
        "seeds": grid.seeds,
        "data": {},
        "prompt_hash": "00" * 8,
        "frozen_at": "2026-01-01T00:00:00+00:00",
    }
    return Frozen.model_validate(fields)


def specs_of(grid: Grid) -> Specs:
    """The grid on data that are named but not there."""
    return Specs(grid, {split: SplitData(split, 48, f"{split:0>64}") for split in SPLITS})


def planned(specs: Specs, frozen: Frozen) -> list[RunSpec]:
    """The whole matrix, as a study that goes on asks the store for it."""
    blocks = [spec for arm in specs.grid.trained_arms for spec in specs.block(arm)]
    return [*specs.baselines("validation"), *blocks, *specs.baselines("test"), *specs.confirms(frozen)]


def recorded(specs: list[RunSpec]) -> Iterator[Record]:
    """A whole record for each run: every phase measured on a card, and the loss of every step."""
    rng = random.Random(0)
    study = Study(name="large")
    for spec in specs:
        arm = Arm(spec.arm.name, str(spec.arm.precision), card=Card(forecast=9.5, forecast_seconds=100.0))
        run = planned_run(spec)
        losses = [round(rng.uniform(1.0, 3.0), 5) for _ in range(rng.randint(*STEPS))]
        yield record(study, arm, run, "completed").model_copy(
            update={
                "training": plain(spec.training),
                "generation": plain(spec.generation),
                "checks": {
                    "dtypes": {"base": {"bfloat16": 134_515_008}, "adapter": {"float32": 2_442_240}},
                    "warm_worker": False,
                    "lora_b_moved": 1.0,
                    "first_step_s": rng.random(),
                    "losses": losses,
                },
                "environment": {
                    "python": "3.11.7",
                    "system": "Linux",
                    "cpu": "Test CPU",
                    "packages": {name: "1.23.4" for name in PACKAGES},
                    "settings": {},
                    "commit": f"{rng.getrandbits(160):040x}",
                    "dirty": False,
                    "gpu": "NVIDIA Test 80GB",
                    "driver": "580.65",
                },
            }
        )


def prepare(runs: int, root: Path) -> StudyFolder:
    """A study of so many runs, all of them recorded."""
    folder = StudyFolder.of(root, "large")
    folder.root.mkdir(parents=True)
    text = grid_text(runs)
    (folder.root / "grid.yaml").write_text(text)
    grid = load_grid(text)
    frozen = frozen_choices(grid)
    write_frozen(folder, frozen)
    RecordStore(folder).extend(recorded(planned(specs_of(grid), frozen)))
    return folder


def measure(root: Path) -> dict[str, float]:
    """Seconds and memory of one process that opens the store and decides what is still to do."""
    folder = StudyFolder.of(root, "large")
    grid = load_grid((folder.root / "grid.yaml").read_text())
    before = _peak_mib()
    start = time.perf_counter()
    records = read_records(folder)
    last = records.last
    opened = time.perf_counter()
    frozen = read_frozen(folder)
    if frozen is None:
        raise SystemExit("the study is not frozen")
    specs = planned(specs_of(grid), frozen)
    split = parted(specs, last, retry_failed=False)
    done = time.perf_counter()
    if records.damaged or len(split.done) != len(specs) or len(last) != len(specs):
        raise SystemExit("the store does not hold what was written")
    return {"runs": len(specs), "open": opened - start, "plan": done - opened, "before": before, "peak": _peak_mib()}


def _peak_mib() -> float:
    # VmHWM, since ru_maxrss of a process that was just started is its parent's.
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def _measured_apart(root: Path) -> dict[str, float]:
    """`measure` in a process of its own, whose peak of memory is then its own."""
    command = [sys.executable, "-m", "tests.benchmarks.store_scale", "--measure", str(root)]
    measured: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return measured


def main() -> None:
    """Prints one row a size: the best of five processes, each of which opens and plans once."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]))))
        return
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    print(f"| records | file, MB | open, s | plan, s | peak memory, MiB | before opening, MiB |\n|{'---:|' * 6}")
    for runs in sizes:
        with tempfile.TemporaryDirectory() as folder:
            size = prepare(runs, Path(folder)).records.stat().st_size
            tries = [_measured_apart(Path(folder)) for _ in range(REPEATS)]
        best = {key: min(each[key] for each in tries) for key in tries[0]}
        print(
            f"| {best['runs']:.0f} | {size / 1e6:.1f} | {best['open']:.2f} | {best['plan']:.2f} "
            f"| {best['peak']:.0f} | {best['before']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
