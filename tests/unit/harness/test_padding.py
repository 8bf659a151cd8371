"""A training in an adapter that is padded to a larger rank is the training in one of its own rank."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import pytest
import torch
from rich.console import Console

from harness.conductor import Conductor, Machine
from harness.engine.adapting import Adapter, attach, detach, moved
from harness.engine.loading import Base, dtype_census
from harness.engine.padding import own_census, own_parameters, put, start_of, unpaddable
from harness.engine.rigging import Rig, rig_key
from harness.engine.training import Levers, Recipe, Trained, rig_for, train, train_with, validation_loss
from harness.engine.trying import probe_arm
from harness.forecast import Rates
from harness.gpu import GpuPeak
from harness.messages import Job, ModelReady, PhaseEnded, decode_command, encode
from harness.outcomes import Completed, Stopped
from harness.planning import make_plan, print_plan
from harness.runlog import RunLog
from harness.scores import Scorer
from harness.specs import Specs
from harness.view import PlainView
from reports.page_runs import record_parts
from results.layout import StudyFolder
from results.schema import EnergyPart, MemoryPart, Phases, Record, Seconds
from study.arms import Arm, Method, Precision
from study.examples import Example
from study.grid import Grid, load_grid
from study.runs import Purpose, RunSpec, Stage
from study.settings import EngineSettings, Training
from study.space import Hyperparameters
from tests.unit.harness.conftest import encode as encoded_by
from tests.unit.harness.conftest import training
from tests.unit.harness.test_pruning import EXAMPLES
from tests.unit.study.small_grid import SMALL

Load = Callable[[Precision], Base]
LARGEST = 12
SEED = 7
# No alpha / rank of the sixth is a power of two: it is rounded where it is multiplied.
SETS = [(4, 8), (12, 4), (1, 16), (12, 24), (4, 8), (3, 16), (6, 16)]
STEPS = 6
# Where gradients are all but zero AdamW makes much of what is rounded, as much as the rate allows.
RATE = 1e-3


def chosen(rank: int, alpha: int) -> Hyperparameters:
    return Hyperparameters(rank, alpha, RATE)


def arm_of(precision: Precision, method: Method = Method.LORA, **changes: Any) -> Arm:
    return replace(probe_arm(precision, method), **changes)


def padded(base: Base, arm: Arm, settings: Training) -> Adapter:
    return attach(base, arm, chosen(4, 8), settings, SEED, padded_rank=LARGEST)


def layers(adapter: Adapter) -> list[Any]:
    return [module for module in adapter.model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]


def weights(adapter: Adapter, rank: int) -> list[torch.Tensor]:
    """A and B of each layer, as far as the rank goes."""
    pairs = [(layer.lora_A["default"].weight, layer.lora_B["default"].weight) for layer in layers(adapter)]
    return [tensor.detach().clone() for down, up in pairs for tensor in (down[:rank], up[:, :rank])]


def beyond(adapter: Adapter, rank: int) -> list[torch.Tensor]:
    """What is padded."""
    pairs = [(layer.lora_A["default"].weight, layer.lora_B["default"].weight) for layer in layers(adapter)]
    return [tensor.detach() for down, up in pairs for tensor in (down[rank:], up[:, rank:])]


CASES = {
    "fp32": (Precision.FP32, Method.LORA, training()),
    "fp32, rslora": (Precision.FP32, Method.RSLORA, training()),
    "bf16": (Precision.BF16, Method.LORA, training()),
    "bf16, adapter too": (Precision.BF16, Method.RSLORA, training(adapter_dtype="compute")),
    "int8": (Precision.INT8, Method.LORA, training()),
    "nf4": (Precision.NF4, Method.RSLORA, training()),
}


@pytest.mark.parametrize("case", CASES)
def test_a_start_has_the_weights_and_the_scaling_of_an_adapter_of_its_own_rank(load: Load, case: str) -> None:
    precision, method, settings = CASES[case]
    arm = arm_of(precision, method)
    base = load(precision)
    own: dict[tuple[int, int], tuple[list[torch.Tensor], list[float], dict[str, int], object]] = {}
    for rank, alpha in SETS:
        adapter = attach(base, arm, chosen(rank, alpha), settings, SEED)
        scalings = [layer.scaling["default"] for layer in layers(adapter)]
        own[rank, alpha] = weights(adapter, rank), scalings, adapter.parameters, dtype_census(adapter.model)
        assert own_parameters(adapter, rank) == adapter.parameters
        detach(adapter)
    adapter = padded(base, arm, settings)
    for rank, alpha in SETS:
        # Whatever was drawn meanwhile.
        torch.manual_seed(99)
        put(adapter, start_of(adapter, chosen(rank, alpha), SEED))
        matrices, scalings, parameters, census = own[rank, alpha]
        assert all(torch.equal(one, other) for one, other in zip(weights(adapter, rank), matrices, strict=True))
        assert [layer.scaling["default"] for layer in layers(adapter)] == scalings
        assert not any(part.any() for part in beyond(adapter, rank))
        assert own_parameters(adapter, rank) == parameters
        assert own_census(adapter, dtype_census(adapter.model), rank) == census
    assert adapter.parameters == own[12, 4][2]
    other = start_of(adapter, chosen(4, 8), SEED + 1)
    assert not torch.equal(other.downs[0], own[4, 8][0][0])


def test_an_adapter_holds_no_larger_rank_and_one_that_is_not_padded_no_other(load: Load) -> None:
    base = load(Precision.FP32)
    adapter = padded(base, arm_of(Precision.FP32), training())
    with pytest.raises(ValueError, match="padded to rank 12 does not hold one of rank 13"):
        start_of(adapter, chosen(13, 8), SEED)
    detach(adapter)
    adapter = attach(base, arm_of(Precision.FP32), chosen(4, 8), training(), SEED)
    with pytest.raises(ValueError, match="padded to rank None"):
        start_of(adapter, chosen(4, 8), SEED)


TRAININGS = {
    "lora": (Method.LORA, {}, 0.0),
    "rslora, dropout": (Method.RSLORA, {}, 0.2),
    "micro-batches, weight decay, cosine, clipping": (
        Method.LORA,
        {"micro_batch_size": 2, "weight_decay": 0.1, "schedule": "cosine", "max_grad_norm": 0.05},
        0.0,
    ),
}


@pytest.mark.parametrize("held", [False, True], ids=["gradients come and go", "gradients have their places"])
@pytest.mark.parametrize("case", TRAININGS)
def test_trainings_of_any_rank_and_alpha_in_one_rig_are_those_in_adapters_of_their_own(
    load: Load, examples: tuple[Example, ...], case: str, held: bool
) -> None:
    method, changes, dropout = TRAININGS[case]
    arm, settings = arm_of(Precision.FP32, method, dropout=dropout), training(steps=STEPS, **changes)
    base = load(Precision.FP32)
    encoded = encoded_by(base, examples)
    own: dict[tuple[int, int], tuple[Trained, list[torch.Tensor], list[float], float]] = {}
    for rank, alpha in SETS:
        adapter = attach(base, arm, chosen(rank, alpha), settings, SEED)
        trained = train(base, adapter, encoded, Recipe(settings, RATE, SEED), lambda *_: None)
        loss = validation_loss(base, encoded, [range(12)], settings.engine)
        own[rank, alpha] = (
            trained,
            weights(adapter, rank),
            [layer.scaling["default"] for layer in layers(adapter)],
            loss,
        )
        detach(adapter)
    assert len({trained.losses for trained, *_ in own.values()}) == len(own)
    adapter = padded(base, arm, settings)
    recipes = [Recipe(settings, RATE, SEED, start=start_of(adapter, chosen(*one), SEED)) for one in SETS]
    rig: Rig = rig_for(base, adapter, encoded, recipes[0], again=True)
    if held:
        # As where steps are captured.
        rig.stepper.hold_gradients()
    for (rank, alpha), recipe in zip(SETS, recipes, strict=True):
        trained = train_with(rig, encoded, recipe, lambda *_: None)
        alone, matrices, scalings, loss = own[rank, alpha]
        assert trained.losses == pytest.approx(alone.losses, rel=1e-5)
        for one, other in zip(weights(adapter, rank), matrices, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        states = (state[key] for state in rig.optimizer.state.values() for key in ("exp_avg", "exp_avg_sq"))
        moments = [value[rank:] if value.shape[0] == LARGEST else value[:, rank:] for value in states]
        assert len(moments) == 4 * len(layers(adapter))
        assert not any(part.any() for part in (*beyond(adapter, rank), *moments))
        # As PEFT computes it.
        assert [layer.scaling["default"] for layer in layers(adapter)] == scalings
        assert validation_loss(base, encoded, [range(12)], settings.engine) == pytest.approx(loss, rel=1e-5)
        assert moved(adapter) == 1.0
        assert trained.levers.facts()["padded_rank"] == LARGEST


def test_a_rig_is_told_where_to_start_where_its_adapter_is_padded_and_nowhere_else(
    load: Load, examples: tuple[Example, ...]
) -> None:
    base = load(Precision.FP32)
    encoded, settings = encoded_by(base, examples), training()
    recipe = Recipe(settings, RATE, SEED)
    adapter = padded(base, arm_of(Precision.FP32), settings)
    start = start_of(adapter, chosen(4, 8), SEED)
    with pytest.raises(ValueError, match="in a padded adapter"):
        rig_for(base, adapter, encoded, recipe, again=True).begin(1e-2)
    detach(adapter)
    adapter = attach(base, arm_of(Precision.FP32), chosen(4, 8), settings, SEED)
    with pytest.raises(ValueError, match="in no other"):
        rig_for(base, adapter, encoded, recipe, again=True).begin(1e-2, start)


@pytest.mark.parametrize("method", [Method.DORA, Method.LORA])
def test_a_padded_adapter_is_trained_in_fused_form_only(
    load: Load, examples: tuple[Example, ...], method: Method
) -> None:
    base = load(Precision.FP32)
    engine = EngineSettings(fused=True if method is Method.DORA else None, cuda_graphs=None)
    settings = training(engine=engine)
    adapter = padded(base, arm_of(Precision.FP32, method), settings)
    with pytest.raises(ValueError, match=r"in fused form only: (DoRA is no plain sum|switched off)"):
        rig_for(base, adapter, encoded_by(base, examples), Recipe(settings, RATE, SEED))


def test_arms_whose_steps_are_not_captured_in_fused_form_share_none(load: Load) -> None:
    on_gpu = replace(load(Precision.BF16), device="cuda")
    arm, settings = arm_of(Precision.BF16), training(engine=EngineSettings())
    assert unpaddable(on_gpu, arm, settings) is None
    assert unpaddable(on_gpu, replace(arm, checkpointing=True), settings) is None
    dropping = "checkpointing repeats dropout from a state that only the host knows"
    reasons = [
        (on_gpu, replace(arm, method=Method.DORA), settings, "DoRA is no plain sum"),
        (on_gpu, arm, training(engine=EngineSettings(fused=None)), "layers are not fused"),
        (on_gpu, arm, training(engine=EngineSettings(cuda_graphs=None)), "switched off"),
        (load(Precision.BF16), arm, settings, "no GPU"),
        (on_gpu, arm, replace(settings, optimizer="paged_adamw_8bit"), "the optimizer pages its state"),
        (on_gpu, replace(arm, checkpointing=True, dropout=0.1), settings, dropping),
        (on_gpu, replace(arm, checkpointing=True), replace(settings, model_dropout=True), dropping),
    ]
    assert [unpaddable(base, one, other) for base, one, other, _ in reasons] == [reason for *_, reason in reasons]


def test_levers_tell_a_padded_rank_where_there_is_one() -> None:
    assert Levers(None, None, None, 7, padded_rank=64).facts()["padded_rank"] == 64
    assert "padded_rank" not in Levers(None, None, None, 7).facts()


# --- from the grid to the worker ---


def grid_of(*overrides: str) -> Grid:
    return load_grid(SMALL, ["tune.share_graphs=true", *overrides])


@pytest.fixture
def conductor_of(tmp_path: Path) -> Callable[[Grid], Conductor]:
    def made(grid: Grid) -> Conductor:
        view = PlainView(Console(file=io.StringIO()), 1)
        return Conductor(grid, StudyFolder.of(tmp_path, grid.study), Machine("cpu", None, {}), EXAMPLES, view)

    return made


def test_trials_are_told_the_largest_rank_of_their_arm_and_no_other_run_is(
    conductor_of: Callable[[Grid], Conductor],
) -> None:
    def told(grid: Grid, spec: RunSpec) -> int | None:
        return conductor_of(grid)._padded_rank(spec)

    grid = grid_of()
    specs = Specs.of(grid, EXAMPLES)
    trials = specs.block(grid.arm("lora"))
    assert {told(grid, spec) for spec in trials} == {8}
    further = replace(trials[0], seed=5)
    others = [further, *specs.baselines("validation"), *specs.baselines("test"), *specs.possible_confirms()]
    assert {told(grid, spec) for spec in others} == {None}
    assert told(load_grid(SMALL), trials[0]) is None
    # An arm may fix its rank, and where alpha is fixed too trials differ in the learning rate alone.
    fixed = replace(trials[0], arm=replace(trials[0].arm, rank=2))
    assert told(grid, fixed) == 2
    assert told(grid, replace(fixed, arm=replace(fixed.arm, alpha=16))) is None


def test_a_job_carries_the_rank() -> None:
    grid = grid_of()
    job = Job(Specs.of(grid, EXAMPLES).block(grid.arm("lora"))[0], "m", "t", "e", "cuda", padded_rank=64)
    decoded = decode_command(encode(job))
    assert isinstance(decoded, Job)
    assert decoded.padded_rank == 64


def test_the_setting_names_no_run_anew() -> None:
    names = [
        [spec.run_id for spec in Specs.of(grid, EXAMPLES).block(grid.arm("lora"))]
        for grid in (grid_of(), load_grid(SMALL))
    ]
    assert names[0] == names[1]


def test_a_plan_says_that_trials_share_their_steps() -> None:
    texts = []
    for grid in (grid_of(), load_grid(SMALL)):
        out = io.StringIO()
        print_plan(make_plan(grid, 0, None), Console(file=out))
        texts.append(out.getvalue())
    (line,) = set(texts[0].splitlines()) - set(texts[1].splitlines())
    assert line.startswith("captured steps: on a GPU trials of an arm share them")


def test_only_trials_of_four_bit_arms_may_have_an_unpacked_base(
    conductor_of: Callable[[Grid], Conductor],
) -> None:
    grid = load_grid(SMALL, ["tune.unpacked_base=true"])
    specs = Specs.of(grid, EXAMPLES)
    trial = specs.block(grid.arm("lora"))[0]
    four_bit = replace(trial, arm=replace(trial.arm, precision=Precision.NF4))
    confirm = replace(four_bit, stage=Stage.CONFIRM, purpose=Purpose.TUNED, trial=None)

    def told(of: Grid, spec: RunSpec) -> bool:
        conductor = conductor_of(of)
        desk = SimpleNamespace(used=True, outsets=())
        return conductor._job(spec, ModelReady("m", None), desk).unpacked  # type: ignore[arg-type]

    assert told(grid, four_bit)
    others = [trial, confirm, *specs.baselines("validation")]
    assert not any(told(grid, spec) for spec in others)
    assert not told(load_grid(SMALL), four_bit)
    job = Job(four_bit, "m", "t", "e", "cuda", unpacked=True)
    decoded = decode_command(encode(job))
    assert isinstance(decoded, Job)
    assert decoded.unpacked
    assert rig_key(trial, "t") != rig_key(trial, "t", unpacked=True)
    # Numbers are the same, and so is the name.
    plain = Specs.of(load_grid(SMALL), EXAMPLES).block(grid.arm("lora"))[0]
    assert plain.run_id == trial.run_id


# --- what is told of it ---


def record_of(engine: dict[str, Any], ended: Completed | Stopped) -> Record:
    grid = grid_of()
    spec = Specs.of(grid, EXAMPLES).block(grid.arm("lora"))[0]
    log = RunLog(spec, "paper", {}, Scorer(), warm=True, energy_of_run=EnergyPart(joules=9.0, seconds=3.0))
    log.facts = {"checks": {"engine": engine}, "tokens": {"trained": 1000, "steps": 40}}
    log.facts["parameters"] = {"trainable": 4, "total": 9, "adapter_bytes": 16}
    peak, energy = GpuPeak(1_900, 1_950, 40, 0, "process"), EnergyPart(joules=1.0, seconds=1.0)
    log.add_phase(PhaseEnded("prepare", 1.0, 300, 310, 900), peak, energy)
    log.add_phase(PhaseEnded("train", 5.0, 700, 900, 950, failed=isinstance(ended, Stopped)), peak, energy)
    return log.record(ended, {"gpu": "H100"}, 8.0)


def test_a_padded_trial_tells_no_memory_time_or_energy() -> None:
    own, padded = (record_of(engine, Completed(1.0)) for engine in ({}, {"padded_rank": 64}))
    assert own.memory.train is not None
    assert (own.memory.train.allocated_bytes, own.seconds.train, own.energy_j) == (700, 5.0, 9.0)
    why = MemoryPart(source="not told: its adapter was padded to rank 64, to share captured steps")
    assert padded.memory == Phases(prepare=why, train=why)
    assert padded.seconds == Seconds(total=8.0)
    assert (padded.energy_j, padded.energy_window_s, padded.energy, padded.breakdown) == (None, None, {}, None)
    assert padded.checks["engine"]["padded_rank"] == 64
    assert (padded.parameters, padded.adapter, padded.quality) == (own.parameters, own.adapter, own.quality)
    # What the next forecasts are made from.
    rates = [len(Rates.of([record]).records) for record in (own, padded)]
    assert rates == [1, 0]


@pytest.mark.parametrize("status", ["pruned", "out_of_memory"])
def test_a_padded_trial_that_ends_early_tells_none_either(status: Any) -> None:
    record = record_of({"padded_rank": 64}, Stopped(status, "Pruned", "it lagged", "train"))
    assert record.memory.train is not None
    assert record.memory.train.until_failure
    assert (record.memory.train.allocated_bytes, record.memory.train.host_rss_bytes) == (None, None)
    assert record.seconds == Seconds(total=8.0)


def test_a_report_shows_why_there_are_none() -> None:
    parts = {part.title: part.rows for part in record_parts(record_of({"padded_rank": 64}, Completed(1.0)))}
    why = "not told: its adapter was padded to rank 64, to share captured steps"
    assert parts["Memory by phase"] == (("prepare", why), ("train", why))
    assert parts["Seconds"] == (("total", "8"),)
    assert "Energy" not in parts
