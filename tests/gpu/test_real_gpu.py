"""What only a GPU can show: peaks of real runs, in real worker processes."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.adapters.nvml import open_gpus
from harness.conductor import Conductor
from harness.specs import Specs
from results.schema import Record
from study.grid import Grid
from study.runs import Purpose, RunSpec, Stage
from tests.gpu.bench import bench, tiny_grid

pytestmark = pytest.mark.gpu
# Large enough that weights and activations, not the context, decide.
LARGER = ("model.id=embedded/smollm2-135m-instruct", "training.batch_size=4")
# Sixteen dialogues at once in the plainest engine, on a card of 2 GiB: about twice what fits.
TOO_LARGE = (*LARGER, "training.batch_size=16", "training.engine={fused: false, cuda_graphs: false}")
HOLDER = """
import sys, torch
held = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def grid() -> Grid:
    return tiny_grid()


@pytest.fixture
def tiny(grid: Grid, tmp_path: Path) -> Iterator[tuple[Conductor, Specs]]:
    with bench(grid, tmp_path) as made:
        yield made


def confirm(grid: Grid, specs: Specs, arm: str) -> RunSpec:
    """The first confirm run of an arm."""
    spec = specs.trial(grid.arm(arm), 0, grid.block(grid.arm(arm))[0])
    return replace(
        spec,
        stage=Stage.CONFIRM,
        purpose=Purpose.TUNED,
        trial=None,
        evaluated=specs.splits["test"],
        seed=11,
        # A trial has none.
        memory_limit_bytes=grid.memory_limit_bytes,
    )


@pytest.mark.parametrize("arm", ["lora", "int8-lora", "qlora"])
def test_a_warm_worker_s_allocated_peak_is_that_of_a_fresh_process(
    grid: Grid, tiny: tuple[Conductor, Specs], arm: str
) -> None:
    conductor, specs = tiny
    chosen = grid.block(grid.arm(arm))
    runs = [conductor.run(specs.trial(grid.arm(arm), seed, chosen[0], seed=seed)) for seed in (5, 6, 7)]
    warm = runs[-1].memory.train
    assert runs[-1].checks["warm_worker"] is True
    conductor.leave_desk()
    fresh = conductor.run(specs.trial(grid.arm(arm), 8, chosen[0], seed=7))
    assert fresh.checks["warm_worker"] is False
    assert warm is not None
    assert fresh.memory.train is not None
    assert warm.allocated_bytes == pytest.approx(fresh.memory.train.allocated_bytes, rel=0.002)
    assert warm.reserved_bytes is None


def test_every_phase_has_its_four_numbers_and_nvml_sees_what_the_allocator_took(
    grid: Grid, tiny: tuple[Conductor, Specs]
) -> None:
    conductor, specs = tiny
    record = conductor.run(confirm(grid, specs, "lora"))
    assert record.status == "completed"
    for phase in (record.memory.load, record.memory.prepare, record.memory.train, record.memory.evaluate):
        assert phase is not None
        assert None not in (phase.allocated_bytes, phase.reserved_bytes, phase.device_bytes, phase.host_rss_bytes)
        assert phase.source is not None
        assert phase.source.startswith("NVML")
        assert (phase.process_bytes or 0) >= (phase.reserved_bytes or 0) >= (phase.allocated_bytes or 0) > 0
    assert record.environment["gpu"]
    assert record.environment["driver"]


def test_a_run_tells_of_its_card_its_energy_and_who_else_was_there(grid: Grid, tiny: tuple[Conductor, Specs]) -> None:
    conductor, specs = tiny
    record = conductor.run(confirm(grid, specs, "lora"))
    assert record.gpu is not None
    assert record.gpu.foreign_before == ()
    assert record.gpu.foreign_during == 0
    assert (record.gpu.samples_per_second or 0) >= 20
    assert record.gpu.before.sm_clock_mhz is not None
    assert record.gpu.after is not None
    if record.energy_j is None:
        pytest.skip("this board has no energy counter")
    assert set(record.energy) == {"load", "prepare", "train", "evaluate"}
    assert record.energy_window_s is not None
    assert sum(part.seconds for part in record.energy.values()) < record.energy_window_s
    assert sum(part.joules for part in record.energy.values()) <= record.energy_j
    # Between a card that idles and one that draws more than any board may.
    assert 5 < record.energy_j / record.energy_window_s < 2000


@pytest.mark.parametrize(
    ("arm", "checkpointing"), [("lora", False), ("int8-lora", False), ("qlora", False), ("int8-lora", True)]
)
def test_the_breakdown_sums_to_the_measured_peak_and_the_forecast_comes_near_it(
    tmp_path: Path, arm: str, checkpointing: bool
) -> None:
    grid = tiny_grid(*LARGER, f"training.checkpointing={str(checkpointing).lower()}")
    with bench(grid, tmp_path) as (conductor, specs):
        record = conductor.run(confirm(grid, specs, arm))
    train, parts, forecast = record.memory.train, record.breakdown, record.forecast.breakdown
    assert train is not None
    assert train.allocated_bytes is not None
    assert parts is not None
    assert forecast is not None
    assert parts.total == pytest.approx(train.allocated_bytes, rel=0.005)
    assert min(parts.base_weights, parts.adapters, parts.optimizer, parts.activations) > 0
    assert (parts.quantisation > 0) == (arm != "lora")
    # The moments are two fp32 numbers for each fp32 weight of the adapter.
    assert parts.optimizer == pytest.approx(2 * parts.adapters, rel=0.05)
    # Steps are captured: gradients have their places before the first.
    assert parts.gradients == pytest.approx(parts.adapters, rel=0.05)
    assert record.forecast.train_allocated_bytes == pytest.approx(train.allocated_bytes, rel=0.10)
    assert forecast.base_weights == pytest.approx(parts.base_weights, rel=0.02)
    assert forecast.activations == pytest.approx(parts.activations, rel=0.10)


def test_a_run_that_does_not_fit_a_smaller_card_is_a_finding_with_its_phase_and_memory(tmp_path: Path) -> None:
    grid = tiny_grid(*TOO_LARGE, "training.memory_limit=2GiB")
    with bench(grid, tmp_path) as (conductor, specs):
        record = conductor.run(confirm(grid, specs, "lora"))
        after = conductor.run(replace(confirm(grid, specs, "lora"), memory_limit_bytes=None))
    assert record.status == "out_of_memory"
    assert record.memory_limit_bytes == 2 * 1024**3
    assert record.error is not None
    assert record.error.phase == "train"
    train = record.memory.train
    assert train is not None
    assert train.until_failure
    assert train.process_bytes is not None
    assert record.gpu is not None
    assert (train.reserved_bytes or 0) < 2 * 1024**3
    # What the process held, with the driver's share, is about the card that was played: kernels loaded later add some
    # (32 MB in a run of 8 GiB on an H100), on any card about as much.
    held = train.process_bytes + (record.gpu.driver_reserved_bytes or 0)
    assert held < 2 * 1024**3 + 384 * 1024**2
    assert after.status == "completed"


def test_a_trial_that_a_warm_worker_cannot_hold_is_tried_in_a_fresh_process(tmp_path: Path) -> None:
    grid = tiny_grid(*TOO_LARGE)
    limit = 2 * 1024**3
    with bench(grid, tmp_path) as (conductor, specs):
        zero_shot = conductor.run(replace(specs.baselines("validation")[0], memory_limit_bytes=limit))
        trial = specs.trial(grid.arm("lora"), 0, grid.block(grid.arm("lora"))[0])
        record = conductor.run(replace(trial, memory_limit_bytes=limit))
    assert zero_shot.status == "completed"
    assert record.status == "out_of_memory"
    assert record.checks["warm_worker"] is False


def test_the_process_s_memory_is_what_nvidia_smi_says() -> None:
    gpus = open_gpus()
    assert gpus is not None
    device = gpus.devices()[0]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline().strip() == "ready"
            query = ["nvidia-smi", "--query-compute-apps=used_memory", "--format=csv,noheader,nounits"]
            said = sorted(int(text) for text in re.findall(r"\d+", subprocess.check_output(query, text=True)))
            read = sorted((process.used_bytes or 0) // 1024**2 for process in gpus.read(device.uuid).processes)
        finally:
            child.kill()
    assert said == read
    assert max(read) > 1024


def _train_peak(record: Record) -> int:
    assert record.memory.train is not None
    assert record.memory.train.allocated_bytes is not None
    return record.memory.train.allocated_bytes


def test_the_same_run_twice_has_the_same_allocated_peak(grid: Grid, tiny: tuple[Conductor, Specs]) -> None:
    conductor, specs = tiny
    peaks = []
    for repeat in range(2):
        peaks.append(_train_peak(conductor.run(replace(confirm(grid, specs, "int8-lora"), repeat=repeat))))
    assert peaks[0] == pytest.approx(peaks[1], rel=0.005)
