"""Forecasts beside the runs, by a real worker process on the CPU."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from harness import foreseeing
from harness.engine.rehearsing import rehearse_all
from harness.flow import examples_text
from harness.forecast import Rates
from harness.foreseeing import Foreseer
from harness.messages import Command, Device, Event, ModelReady, Rehearsal, RehearsalCase, Rehearse
from harness.specs import Specs
from harness.workers import Template, Worker, WorkerDied
from results.layout import StudyFolder
from results.schema import Breakdown, ForecastPart, Record
from study.arms import Precision
from study.dialogues import generate
from study.grid import Grid, load_grid
from study.runs import RunSpec
from study.space import Hyperparameters
from tests.unit.results.records import confirm
from tests.unit.study.small_grid import SMALL

EXAMPLES = generate(0, {"train": 8, "validation": 4, "test": 4}, turns=(4, 5))


@pytest.fixture
def grid() -> Grid:
    return load_grid(SMALL)


@pytest.fixture
def specs(grid: Grid) -> Specs:
    return Specs.of(grid, EXAMPLES)


@pytest.fixture
def model(tiny_folder: str) -> ModelReady:
    return ModelReady(tiny_folder, None)


@pytest.fixture
def folder(specs: Specs, tmp_path: Path) -> StudyFolder:
    """A study's folder with its training examples."""
    folder = StudyFolder.of(tmp_path, "small")
    train = specs.splits["train"]
    path = folder.examples("train", train.hash)
    path.parent.mkdir(parents=True)
    path.write_text(examples_text(EXAMPLES["train"]), encoding="utf-8")
    return folder


@pytest.fixture
def foreseer(grid: Grid, folder: StudyFolder) -> Iterator[Foreseer]:
    foreseer = Foreseer(Template(), folder, grid.prompts)
    yield foreseer
    foreseer.close()


class Rehearser:
    """A worker, and the template it comes from, that remembers what it is asked and answers when it may."""

    def __init__(self) -> None:
        self.asked: list[tuple[int | None, int]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.gone = False
        self.starts = 0

    def start(self, device: Device, log: Path) -> Worker:
        self.starts += 1
        return cast(Worker, self)

    def send(self, command: Command) -> None:
        assert isinstance(command, Rehearse)
        (case,) = command.cases
        self.asked.append((case.rank, case.seed))

    def next_event(self, deadline: float | None = None) -> Event:
        while not self.may_answer.wait(0.01):
            if self.gone:
                raise WorkerDied(-9)
        parts = dict.fromkeys(Breakdown.model_fields, 0) | {"base_weights": len(self.asked)}
        return Rehearsal(0, parts, batch=(1, 8, 8), trainable=1, total=2, tokens=3)

    def dismiss(self) -> None:
        self.gone = True

    end = dismiss


@pytest.fixture
def rehearser() -> Rehearser:
    return Rehearser()


@pytest.fixture
def foreseer_with(grid: Grid, folder: StudyFolder, rehearser: Rehearser) -> Iterator[Callable[[int], Foreseer]]:
    """Makes a foreseer whose worker is the rehearser, on a machine with so many cores."""
    made: list[Foreseer] = []

    def make(cores: int) -> Foreseer:
        made.append(Foreseer(cast(Template, rehearser), folder, grid.prompts, cores))
        return made[-1]

    yield make
    for foreseer in made:
        foreseer.close()


def run_of(specs: Specs, arm: str, rank: int = 4) -> RunSpec:
    return specs.trial(specs.grid.arm(arm), 0, Hyperparameters(rank, 16, 1e-3))


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread does."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def rehearsed_here(spec: RunSpec, folder: StudyFolder, model: ModelReady) -> Rehearsal:
    """The same question, answered in this process."""
    assert spec.train is not None
    assert spec.hyperparameters is not None
    case = RehearsalCase(spec.arm, spec.hyperparameters.rank, spec.training, spec.seed)
    train_file = str(folder.examples("train", spec.train.hash))
    answers: list[Event] = []
    rehearse_all(Rehearse(spec.model.id, None, model.folder, spec.prompts, train_file, (case,)), answers.append)
    (answer,) = answers
    assert isinstance(answer, Rehearsal)
    assert answer.parts is not None
    return answer


def like(spec: RunSpec, parameters: tuple[int, int], tokens: int, seconds: float) -> Record:
    """A record of an earlier run of that kind."""
    assert spec.hyperparameters is not None
    assert spec.training is not None
    return confirm(
        model={"id": spec.model.id, "revision": None, "weights": "random"},
        quality=None,
        adapter={
            "method": "lora",
            "rank": spec.hyperparameters.rank,
            "alpha": 16,
            "dropout": 0.0,
            "targets": list(spec.arm.targets),
            "target_modules": None,
        },
        training={"micro_batch_size": spec.training.micro_batch_size, "checkpointing": False},
        parameters={"trainable": parameters[0], "total": parameters[1], "adapter_bytes": 0},
        tokens={"trained": tokens},
        seconds={"train": seconds, "total": seconds},
        environment={"gpu": "Fake 24"},
        energy={"train": {"joules": 300.0, "seconds": 2.0}},
    )


def test_a_worker_s_answer_is_the_forecast_of_its_run(
    foreseer: Foreseer, specs: Specs, folder: StudyFolder, model: ModelReady
) -> None:
    spec = run_of(specs, "lora")
    here = rehearsed_here(spec, folder, model)
    assert here.parts is not None
    assert here.tokens is not None
    rates = Rates.of([like(spec, (here.trainable or 0, here.total or 0), tokens=1_000, seconds=4.0)])
    foreseer.ask(spec, model)
    forecast = foreseer.forecast(spec, rates, "Fake 24")
    assert forecast.breakdown is not None
    assert forecast.breakdown.model_dump() == here.parts
    assert forecast.train_allocated_bytes == forecast.breakdown.total
    assert forecast.batch is not None
    assert tuple(forecast.batch.model_dump().values()) == here.batch
    assert forecast.train_seconds == pytest.approx(here.tokens / 250.0)
    assert forecast.train_energy_j == pytest.approx(here.tokens / 250.0 * 150.0)
    # Another machine's pace says nothing, memory is the same.
    elsewhere = foreseer.forecast(spec, rates, "Fake 80")
    assert elsewhere == forecast.model_copy(update={"train_seconds": None, "train_energy_j": None})


def test_runs_that_differ_in_rate_and_alpha_alone_share_one_rehearsal(
    foreseer_with: Callable[[int], Foreseer], rehearser: Rehearser, specs: Specs, model: ModelReady
) -> None:
    foreseer = foreseer_with(2)
    first = run_of(specs, "lora")
    like = replace(first, trial=1, hyperparameters=Hyperparameters(4, 8, 5e-3))
    other_rank = replace(first, hyperparameters=Hyperparameters(8, 16, 1e-3))
    other_seed = replace(first, seed=first.seed + 1)
    for spec in (first, like, other_rank, other_seed, first):
        foreseer.ask(spec, model)
    assert rehearser.asked == [(4, first.seed), (8, first.seed), (4, first.seed + 1)]
    forecasts = [foreseer.forecast(spec, Rates(), "Fake 24").train_allocated_bytes for spec in (like, other_rank)]
    assert forecasts == [1, 2]


def test_beside_a_trial_its_own_case_is_rehearsed_and_then_what_is_expected(
    foreseer_with: Callable[[int], Foreseer], rehearser: Rehearser, specs: Specs, model: ModelReady
) -> None:
    foreseer = foreseer_with(4)
    now, later = run_of(specs, "lora", rank=8), run_of(specs, "lora", rank=4)
    foreseer.expect([later, now])
    assert rehearser.starts == 0
    with foreseer.around(now, model, measured=False):
        until(lambda: len(rehearser.asked) == 2)
    assert rehearser.asked == [(8, now.seed), (4, later.seed)]
    with foreseer.around(later, model, measured=True):
        assert len(rehearser.asked) == 2
    assert foreseer.forecast(later, Rates(), "Fake 24").breakdown is not None


@pytest.mark.parametrize("cores", [2, 4])
def test_nothing_is_rehearsed_beside_a_measured_run(
    foreseer_with: Callable[[int], Foreseer], rehearser: Rehearser, specs: Specs, model: ModelReady, cores: int
) -> None:
    foreseer = foreseer_with(cores)
    trial, measured = run_of(specs, "lora"), run_of(specs, "lora", rank=16)
    foreseer.expect([trial, run_of(specs, "lora", rank=8), run_of(specs, "lora", rank=32), measured])
    rehearser.may_answer.clear()
    threading.Timer(0.1, rehearser.may_answer.set).start()
    with foreseer.around(trial, model, measured=False):
        until(lambda: len(rehearser.asked) >= 1)
    rehearser.may_answer.clear()
    threading.Timer(0.1, rehearser.may_answer.set).start()
    with foreseer.around(measured, model, measured=True):
        # Its own is over, another one that was under way too, and none begins.
        asked = list(rehearser.asked)
        assert (16, measured.seed) in asked
        assert foreseer.forecast(measured, Rates(), "Fake 24").breakdown is not None
        time.sleep(0.1)
        assert rehearser.asked == asked
        assert not foreseer._asking


def test_on_few_cores_a_trial_too_waits_for_its_rehearsal(
    foreseer_with: Callable[[int], Foreseer], rehearser: Rehearser, specs: Specs, model: ModelReady
) -> None:
    foreseer = foreseer_with(2)
    trial = run_of(specs, "lora")
    foreseer.expect([trial, run_of(specs, "lora", rank=8)])
    with foreseer.around(trial, model, measured=False):
        assert foreseer.forecast(trial, Rates(), "Fake 24").breakdown is not None
        time.sleep(0.05)
        assert rehearser.asked == [(4, trial.seed)]


def test_a_worker_that_always_dies_is_not_asked_for_ever(
    foreseer_with: Callable[[int], Foreseer], rehearser: Rehearser, specs: Specs, model: ModelReady
) -> None:
    foreseer = foreseer_with(2)
    rehearser.may_answer.clear()
    rehearser.gone = True
    for rank in (4, 8, 16, 32, 64):
        foreseer.ask(run_of(specs, "lora", rank=rank), model)
    assert len(rehearser.asked) == foreseeing.MOST_FAILURES


def test_a_study_that_ends_does_not_wait_for_a_rehearsal(
    foreseer_with: Callable[[int], Foreseer], rehearser: Rehearser, specs: Specs, model: ModelReady
) -> None:
    foreseer = foreseer_with(4)
    rehearser.may_answer.clear()

    def interrupted() -> None:
        with foreseer.around(run_of(specs, "lora"), model, measured=False):
            until(lambda: len(rehearser.asked) == 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    start = time.monotonic()
    foreseer.close()
    assert time.monotonic() - start < 5
    assert foreseer._thread is not None
    assert not foreseer._thread.is_alive()


def test_each_run_has_the_answer_to_its_own_question(
    foreseer: Foreseer, specs: Specs, folder: StudyFolder, model: ModelReady
) -> None:
    small, large = run_of(specs, "lora", rank=4), run_of(specs, "lora", rank=64)
    foreseer.ask(small, model)
    foreseer.ask(large, model)
    forecast = foreseer.forecast(large, Rates(), "Fake 24")
    assert forecast.breakdown is not None
    assert forecast.breakdown.model_dump() == rehearsed_here(large, folder, model).parts
    forecast = foreseer.forecast(small, Rates(), "Fake 24")
    assert forecast.breakdown is not None
    assert forecast.breakdown.model_dump() == rehearsed_here(small, folder, model).parts
    assert foreseer.forecast(run_of(specs, "lora", rank=8), Rates(), "Fake 24") == ForecastPart()


def test_a_run_that_cannot_be_rehearsed_has_no_forecast_and_the_next_one_has(
    foreseer: Foreseer, specs: Specs, model: ModelReady
) -> None:
    spec = run_of(specs, "lora")
    assert spec.train is not None
    lost = replace(spec, train=replace(spec.train, hash="f" * 64))
    foreseer.ask(lost, model)
    assert foreseer.forecast(lost, Rates(), "Fake 24") == ForecastPart()
    assert foreseer.forecast(lost, Rates(), "Fake 24") == ForecastPart()
    foreseer.ask(spec, model)
    assert foreseer.forecast(spec, Rates(), "Fake 24").breakdown is not None


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_hangs_costs_its_forecast_and_nothing_else(
    foreseer: Foreseer, specs: Specs, model: ModelReady, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    spec = run_of(specs, "qlora@double_quant=true")
    foreseer.ask(spec, model)
    worker = foreseer._worker
    assert worker is not None
    os.kill(worker.pid, how)
    unlucky = run_of(specs, "qlora@double_quant=true", rank=8)
    with monkeypatch.context() as patch:
        patch.setattr(foreseeing, "PATIENCE_S", 1.0)
        foreseer.ask(unlucky, model)
    assert foreseer.forecast(unlucky, Rates(), "Fake 24") == ForecastPart()
    foreseer.ask(unlucky, model)
    assert foreseer.forecast(unlucky, Rates(), "Fake 24").breakdown is not None


def test_a_zero_shot_run_has_no_forecast_and_starts_no_worker(
    foreseer: Foreseer, specs: Specs, model: ModelReady
) -> None:
    (spec,) = specs.baselines("validation")
    foreseer.ask(spec, model)
    assert foreseer.forecast(spec, Rates(), "Fake 24") == ForecastPart()
    assert foreseer._worker is None


def test_the_worker_writes_its_errors_into_the_study_s_logs(
    foreseer: Foreseer, folder: StudyFolder, specs: Specs, model: ModelReady
) -> None:
    spec = run_of(specs, "lora")
    foreseer.ask(spec, model)
    foreseer.forecast(spec, Rates(), "Fake 24")
    assert (folder.logs / "forecast.log").is_file()
    foreseer.close()
    assert foreseer.forecast(run_of(specs, "lora", rank=8), Rates(), "Fake 24") == ForecastPart()


def test_precisions_differ_in_the_forecast_of_their_weights(
    foreseer: Foreseer, specs: Specs, model: ModelReady
) -> None:
    sizes = {}
    for arm in ("lora", "qlora@double_quant=true"):
        spec = run_of(specs, arm)
        foreseer.ask(spec, model)
        forecast = foreseer.forecast(spec, Rates(), "Fake 24")
        assert forecast.breakdown is not None
        sizes[spec.arm.precision] = forecast.breakdown.base_weights
    assert sizes[Precision.NF4] < sizes[Precision.BF16]
