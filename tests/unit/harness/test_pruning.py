"""The rule of pruning: what a trial is held against, and that nothing but the records decides."""

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from harness.engine.loading import Base
from harness.engine.training import Recipe, train
from harness.messages import Job, Waypoint, decode_command, encode
from harness.outcomes import Completed, Stopped
from harness.progress import parted
from harness.pruning import WAYPOINTS, Pruned, Pruner, Watch
from harness.runlog import RunLog
from harness.scores import Scorer
from harness.specs import Specs
from results.schema import Record
from study.arms import Precision
from study.dialogues import generate
from study.examples import Example
from study.grid import Grid, load_grid
from study.runs import RunSpec
from tests.unit.harness.conftest import encode as encoded
from tests.unit.harness.conftest import training
from tests.unit.harness.test_training import adapted
from tests.unit.study.small_grid import SMALL

EXAMPLES = generate(0, {"train": 8, "validation": 4, "test": 4}, turns=(4, 5))
STEPS = 40


def grid_of(pruning: str = "{startup: 2, at: [0.25, 0.5]}", trials: int = 16) -> Grid:
    rates = "space.learning_rate={low: 1e-4, high: 1e-2}"
    return load_grid(SMALL, [f"tune.pruning={pruning}", f"tune.trials={trials}", rates])


def block(grid: Grid, arm: str = "lora") -> tuple[RunSpec, ...]:
    return Specs.of(grid, EXAMPLES).block(grid.arm(arm))


def record_of(spec: RunSpec, status: str, waypoints: object) -> Record:
    log = RunLog(spec, "paper", {}, Scorer(), warm=True)
    log.facts["checks"] = {WAYPOINTS: waypoints}
    stopped = Stopped("pruned", "Pruned", "it lagged", "train")
    record = log.record(Completed(1.0) if status == "completed" else stopped, {}, 1.0)
    error = None if status == "completed" else record.error
    return record.model_copy(update={"status": status, "error": error})


def pruner_of(grid: Grid, found: Iterable[tuple[RunSpec, Record]]) -> Pruner:
    pruner = Pruner(grid.tune)
    for spec, record in found:
        pruner.add(spec, record)
    return pruner


def test_a_bar_is_the_quantile_of_earlier_trials_of_the_arm_that_completed_or_were_pruned() -> None:
    grid = grid_of("{startup: 3, at: [0.25, 0.5]}")
    specs, others = block(grid), block(grid, "qlora@double_quant=true")
    found = [
        (specs[0], record_of(specs[0], "completed", {"0.25": 3.0, "0.5": 2.0})),
        (specs[1], record_of(specs[1], "pruned", {"0.25": 5.0})),
        (specs[2], record_of(specs[2], "diverged", {"0.25": 9.0, "0.5": 9.0})),
        (specs[3], record_of(specs[3], "completed", {"0.25": 2.0, "0.5": 1.0})),
        # Later trials, other arms and whatever else a record may hold say nothing.
        (specs[9], record_of(specs[9], "completed", {"0.25": 0.0, "0.5": 0.0})),
        (others[0], record_of(others[0], "completed", {"0.25": 0.0, "0.5": 0.0})),
        (specs[4], record_of(specs[4], "completed", "none")),
    ]
    assert pruner_of(grid, found).waypoints(specs[5]) == (Waypoint(0.25, 3.0, 3), Waypoint(0.5, None, 2))
    assert pruner_of(grid, found).waypoints(specs[3]) == (Waypoint(0.25, None, 2), Waypoint(0.5, None, 1))
    strict = grid_of("{startup: 1, at: [0.25], keep: 0.1}")
    assert pruner_of(strict, found).waypoints(specs[5]) == (Waypoint(0.25, 2.2, 3),)


def test_baselines_confirm_runs_and_further_seeds_are_never_pruned() -> None:
    grid = grid_of()
    specs = Specs.of(grid, EXAMPLES)
    trial = block(grid)[5]
    pruner = Pruner(grid.tune)
    others = [*specs.baselines("validation"), *specs.possible_confirms(), replace(trial, seed=99)]
    assert {pruner.turn(spec) for spec in others} == {None}
    assert not any(pruner.waypoints(spec) for spec in others)
    assert (pruner.turn(trial), len(pruner.waypoints(trial))) == ("lora", 2)
    off = Pruner(grid_of("null").tune)
    assert (off.turn(trial), off.waypoints(trial)) == (None, ())


def test_the_setting_names_no_run_anew() -> None:
    assert [spec.run_id for spec in block(grid_of())] == [spec.run_id for spec in block(grid_of("null"))]


def test_a_pruned_trial_is_done() -> None:
    specs = block(grid_of())
    last = {specs[0].run_id: record_of(specs[0], "pruned", {})}
    assert specs[0] in parted(specs, last, retry_failed=True).done


def made(pruner: Pruner, spec: RunSpec) -> Record:
    """A trial whose losses follow from its number, from start to end or to where it is pruned."""
    watch, level = Watch(pruner.waypoints(spec)), random.Random(spec.trial).uniform(1.0, 3.0)
    status = "completed"
    try:
        for step in range(1, STEPS + 1):
            watch.step(step, STEPS, level + random.Random(step).random() / step)
    except Pruned:
        status = "pruned"
    return record_of(spec, status, watch.values)


@pytest.mark.parametrize("piece", [1, 3, 5, 16])
def test_a_study_made_in_pieces_prunes_the_same_trials(piece: int) -> None:
    grid = grid_of()
    specs, found = block(grid), list[tuple[RunSpec, Record]]()
    for start in range(0, len(specs), piece):
        # Another process: it knows what the records say, in whatever order.
        pruner = pruner_of(grid, random.Random(piece).sample(found, len(found)))
        for spec in specs[start : start + piece]:
            found.append((spec, record := made(pruner, spec)))
            pruner.add(spec, record)
    whole, expected = Pruner(grid.tune), []
    for spec in specs:
        expected.append(made(whole, spec))
        whole.add(spec, expected[-1])
    assert [(r.status, r.checks) for _, r in found] == [(r.status, r.checks) for r in expected]
    statuses = [record.status for record in expected]
    assert statuses[:2] == ["completed"] * 2
    assert 3 <= statuses.count("pruned") <= 12


def test_a_point_is_the_mean_over_the_last_tenth_of_the_steps() -> None:
    watch = Watch([Waypoint(0.25, None, 0), Waypoint(0.5, 10.0, 4), Waypoint(0.75, 28.4, 4)])
    for step in range(1, 20):
        watch.step(step, STEPS, float(step))
    with pytest.raises(Pruned) as caught:
        watch.step(20, STEPS, 20.0)
    assert watch.values == {"0.25": 8.5, "0.5": 18.5}
    assert str(caught.value) == ("at step 20 of 40 (0.5) its loss of 18.5 is above 10, the bar set by 4 earlier trials")
    at_the_bar = Watch([Waypoint(0.5, 18.5, 4)])
    for step in range(1, STEPS + 1):
        at_the_bar.step(step, STEPS, float(step))


def test_the_last_step_prunes_nothing() -> None:
    watch = Watch([Waypoint(0.25, 0.0, 4), Waypoint(0.9, 0.0, 4)])
    watch.step(1, 1, 5.0)
    assert watch.values == {}


def test_a_job_carries_its_waypoints() -> None:
    job = Job(block(grid_of())[3], "m", "t", "e", "cpu", waypoints=(Waypoint(0.25, 1.5, 4), Waypoint(0.5, None, 2)))
    decoded = decode_command(encode(job))
    assert isinstance(decoded, Job)
    assert decoded.waypoints == job.waypoints


def test_watching_moves_no_number(load: Callable[[Precision], Base], examples: tuple[Example, ...]) -> None:
    losses, settings = [], training(steps=8)
    for watch in (Watch(()), Watch([Waypoint(0.25, None, 1), Waypoint(0.5, 1e9, 4)])):
        base = load(Precision.BF16)
        adapter = adapted(base, Precision.BF16, settings)

        def on_step(step: int, steps: int, loss: float, _: float, watch: Watch = watch) -> None:
            watch.step(step, steps, loss)

        losses.append(train(base, adapter, encoded(base, examples), Recipe(settings, 1e-2, seed=7), on_step).losses)
    assert losses[0] == losses[1]
    assert watch.values == {"0.25": round(losses[0][1], 5), "0.5": round(losses[0][3], 5)}
