"""Faults of runs, injected into studies that are started as a person starts them, and what is recorded of each.

In one study every run of an arm has a fault of its own, inside a training step (`tests/faults/site`), while two runs
are made at a time. In another two warm workers meet theirs between trials. Further ones begin with a library that
cannot be imported, or with weights that are no numbers. Each is then started again without the faults, and once more
with `--retry-failed`: what is repeated, and when, is seen and not believed.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from harness.adapters.sources import load
from harness.engine.sources import model_folder
from harness.specs import Specs
from results.schema import Record
from results.store import read_records
from study.grid import load_grid
from study.runs import RunSpec
from tests.faults.starts import GRID, STUDY, Place, Start
from tests.integration.commands import ROOT

SITE = ROOT / "tests" / "faults" / "site"
# Nothing is left to tune.
POINT = ", rank: 4, alpha: 8, learning_rate: 0.001"
LORA, QLORA = "name: lora, precision: bf16", "name: qlora, precision: nf4"
ZERO_SHOT = "name: zero-shot, precision: bf16, method: none"
# Weights that go out of a 16-bit number's range with the first update.
HOT = "name: hot, precision: fp16, rank: 4, alpha: 4096, learning_rate: 1.0"
# The faults inside a step, one a seed; the last seed has none.
IN_STEP = {
    "sigkill": "SIGKILL to the worker, as the kernel does where memory runs out",
    "sigstop": "SIGSTOP to the worker: it hangs outside Python",
    "hang": "a step that never ends",
    "cuda_error": "CUDA error (raised as torch raises it)",
    "cuda_oom": "CUDA out of memory (raised as torch raises it)",
    "host_oom": "host out of memory (RLIMIT_AS)",
    "segfault": "SIGSEGV in the worker",
}
SEEDS = tuple(range(11, 12 + len(IN_STEP)))
# Far more than a run takes, on a busy machine too.
MINUTES = 0.2
# Far more than a worker is silent for, the same.
HUNG_AFTER_S = 6.0


@dataclass(frozen=True)
class Told:
    """A start that is over: its exit code, what it printed, and all records of the study by then."""

    code: int
    said: str
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Faulty:
    """A study with faults: its starts (with the faults, without them, without them and with `--retry-failed`), and the
    runs that were hit, each by the fault in words."""

    place: Place
    starts: tuple[Told, ...]
    hit: Mapping[str, str]

    def of(self, run_id: str, start: int = 0) -> Record:
        """The last record that a run has at the end of a start."""
        return [record for record in self.starts[start].records if record.run_id == run_id][-1]

    def tries(self, run_id: str) -> list[int]:
        """How many records a run has at the end of each start."""
        return [sum(record.run_id == run_id for record in told.records) for told in self.starts]

    def log(self, run_id: str) -> str:
        """What the worker wrote whose first run this was."""
        return (self.place.folder.logs / f"{run_id}.log").read_text(encoding="utf-8", errors="replace")

    def others(self) -> list[Record]:
        """The last records, at the end of the first start, of runs that were not hit."""
        last = {record.run_id: record for record in self.starts[0].records}
        return [record for run_id, record in last.items() if run_id not in self.hit]


def grid_text(
    *arms: str,
    trials: int = 0,
    seeds: tuple[int, ...] = (11,),
    steps: int = 2,
    model: str = "",
    minutes: float | None = MINUTES,
) -> str:
    """A grid of these arms; a run may take so many minutes, or any."""
    return GRID.format(
        study=STUDY,
        model=model or model_folder("random/tiny-phi", None, "cpu").folder,
        arms="".join(f"  - {{{arm}}}\n" for arm in arms),
        tune=trials,
        seeds=list(seeds),
        steps=steps,
        limit="" if minutes is None else f", timeout_minutes: {minutes}",
    )


def planned(grid: str) -> dict[tuple[str, str, int], RunSpec]:
    """Trials by arm and number, and confirm runs by arm and seed, of a grid."""
    read = load_grid(grid)
    specs = Specs.of(read, load(read.data).splits)
    trials = {
        ("tune", arm.name, number): spec for arm in read.trained_arms for number, spec in enumerate(specs.block(arm))
    }
    return trials | {("confirm", spec.arm.name, spec.seed): spec for spec in specs.possible_confirms()}


def first_on_path(folder: Path) -> dict[str, str]:
    """An environment in which modules of a folder come before all others."""
    return {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}


def started(place: Place, variables: Mapping[str, str], *arguments: str) -> Told:
    """One start to its end."""
    start = Start(place, *arguments, variables=variables)
    code = start.finish()
    if left := start.left_behind():
        raise RuntimeError(f"{left} processes left behind: {start.said}")
    return Told(code, start.said, read_records(place.folder).all)


def faulty(
    root: Path, grid: str, hit: Mapping[str, str], variables: Mapping[str, str], *arguments: str, again: bool = True
) -> Faulty:
    """A study with faults, started once with them and, where `again`, twice without."""
    root.mkdir(parents=True, exist_ok=True)
    file = root / "grid.yaml"
    file.write_text(grid, encoding="utf-8")
    place = Place(file, root)
    starts = [started(place, variables, *arguments)]
    if again:
        starts += [started(place, {}, *arguments, *more) for more in ((), ("--retry-failed",))]
    return Faulty(place, tuple(starts), hit)


def in_steps(root: Path) -> Faulty:
    """Every fault inside a step, each in a confirm run of its own, two runs at a time."""
    grid = grid_text(LORA + POINT, seeds=SEEDS)
    runs = planned(grid)
    ids = {runs["confirm", "lora", seed].run_id: fault for seed, fault in zip(SEEDS, IN_STEP, strict=False)}
    variables = first_on_path(SITE) | {"QLORA_STEP_FAULTS": json.dumps({key: (name, 1) for key, name in ids.items()})}
    hit = {run_id: IN_STEP[fault] for run_id, fault in ids.items()}
    return faulty(root, grid, hit, variables, "--cpu-workers", "2")


def stopped(root: Path, *, again: bool = True) -> Faulty:
    """A worker that gives no sign of life, in a study that sets its runs no limit."""
    grid = grid_text(LORA + POINT, seeds=(11, 12), minutes=None)
    hit = {planned(grid)["confirm", "lora", 11].run_id: "SIGSTOP to the worker, in a study without a limit of time"}
    faults = {run_id: ("sigstop", 1) for run_id in hit}
    variables = {"QLORA_STEP_FAULTS": json.dumps(faults), "QLORA_HUNG_AFTER_S": str(HUNG_AFTER_S)}
    return faulty(root, grid, hit, first_on_path(SITE) | variables, again=again)


def in_warm_workers(root: Path, *, again: bool = True) -> Faulty:
    """A CUDA error, and a card without memory, in the second trial of a warm worker."""
    grid = grid_text(LORA, QLORA, trials=4)
    runs = planned(grid)
    # Two steps a trial: the third backward pass of the process is the second trial's first.
    faults = {runs["tune", "lora", 0].run_id: ("cuda_error", 3), runs["tune", "qlora", 0].run_id: ("cuda_oom", 3)}
    variables = first_on_path(SITE) | {"QLORA_STEP_FAULTS": json.dumps(faults)}
    hit = {
        runs["tune", "lora", 1].run_id: "CUDA error in a warm worker",
        runs["tune", "qlora", 1].run_id: "CUDA out of memory in a warm worker",
    }
    return faulty(root, grid, hit, variables, again=again)


def without(root: Path, library: str, *, again: bool = True) -> Faulty:
    """A library that is there and cannot be imported."""
    shadow = root / "shadow" / library
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text(f'raise ImportError("{library}.so: cannot open shared object file")\n')
    grid = grid_text(ZERO_SHOT, LORA + POINT, QLORA + POINT)
    hit = {spec.run_id: f"{library} cannot be imported" for spec in planned(grid).values()}
    return faulty(root, grid, hit, first_on_path(root / "shadow"), again=again)


def diverging(root: Path, *, again: bool = True) -> Faulty:
    """A loss that is no number from the second step on."""
    grid = grid_text(LORA + POINT, HOT)
    hit = {planned(grid)["confirm", "hot", 11].run_id: "a training loss that is no number"}
    return faulty(root, grid, hit, {}, again=again)


def spoiled(root: Path, *, again: bool = True) -> Faulty:
    """Weights that are no numbers: a run without training finds it in its evaluation alone."""
    model = root / "model"
    shutil.copytree(model_folder("random/tiny-phi", None, "cpu").folder, model)
    for file in model.glob("*.safetensors"):
        weights = load_file(file)
        # A norm at the end: every logit hangs on it.
        name = next(name for name in weights if "final_layernorm.weight" in name)
        save_file({**weights, name: torch.full_like(weights[name], torch.nan)}, file, metadata={"format": "pt"})
    grid = grid_text(ZERO_SHOT, LORA + POINT, model=str(model))
    read = load_grid(grid)
    specs = Specs.of(read, load(read.data).splits)
    zero_shot = [spec for split in ("validation", "test") for spec in specs.baselines(split)]
    hit = {spec.run_id: "weights that are no numbers, without training" for spec in zero_shot}
    hit |= {spec.run_id: "weights that are no numbers, in training" for spec in planned(grid).values()}
    return faulty(root, grid, hit, {}, again=again)


def every_study(root: Path) -> Iterator[Faulty]:
    """Each of the studies above."""
    yield in_steps(root / "steps")
    yield stopped(root / "stopped")
    yield in_warm_workers(root / "warm")
    for library in ("bitsandbytes", "peft"):
        yield without(root / library, library)
    yield diverging(root / "diverging")
    yield spoiled(root / "spoiled")


NO_RECORD = "no record: the study stops in one line"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one fault: a row of the table of outcomes."""

    fault: str
    outcome: str
    retries: str
    others: str
    code: str


def outcomes(found: Faulty) -> list[Outcome]:
    """What came of every fault of a study; of runs that met the same one, the first."""
    rows: dict[str, Outcome] = {}
    done = [record for record in found.others() if record.status == "completed"]
    for run_id, fault in found.hit.items():
        if not any(record.run_id == run_id for record in found.starts[0].records):
            code = f"{found.starts[0].code}, and says why"
            rows.setdefault(fault, Outcome(fault, NO_RECORD, "by the next start", "no: no worker can begin", code))
            continue
        record = found.of(run_id)
        words = [record.status, *([record.error.type] if record.error else [])]
        others = f"{len(done)} of {len(found.others())} other runs completed" if found.others() else "every run met it"
        rows.setdefault(fault, Outcome(fault, ", ".join(words), _retries(found, run_id), others, _code(found, run_id)))
    return list(rows.values())


def _retries(found: Faulty, run_id: str) -> str:
    record = found.of(run_id)
    if "retried_after" in record.checks:
        return "one, at once, in a fresh process; recorded"
    tries = found.tries(run_id)
    if tries[0] != 1:
        return f"{tries[0] - 1} in the same start"
    if tries[1] > tries[0]:
        return "by the next start"
    return "by `--retry-failed` alone" if tries[2] > tries[1] else "none"


def _code(found: Faulty, run_id: str) -> str:
    """Whether a fault makes the exit code 1: it does where the run is listed, as not done or as a finding."""
    record = found.of(run_id)
    if record.status == "completed":
        return "0"
    which = {"confirm": f"seed {record.seed}", "tune": f"trial {record.trial}"}.get(record.stage, record.split)
    told = f" {record.arm} · {which}: {record.status} ("
    lines = [line for line in found.starts[0].said.splitlines() if told in line]
    code = found.starts[0].code
    if any(line.startswith("  not done: ") for line in lines):
        return str(code)
    return f"{code}, listed as a finding" if any(line.startswith("  finding: ") for line in lines) else "not listed"
