"""Forecasts beside the runs, by a real worker process on the CPU."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness import foreseeing
from harness.engine.rehearsing import rehearse_all
from harness.flow import examples_text
from harness.forecast import Rates
from harness.foreseeing import Foreseer
from harness.messages import Event, ModelReady, Rehearsal, RehearsalCase, Rehearse
from harness.specs import Specs
from harness.workers import Template
from results.layout import StudyFolder
from results.schema import ForecastPart, Record
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


def run_of(specs: Specs, arm: str, rank: int = 4) -> RunSpec:
    return specs.trial(specs.grid.arm(arm), 0, Hyperparameters(rank, 16, 1e-3))


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


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next_one(
    foreseer: Foreseer, specs: Specs, folder: StudyFolder, model: ModelReady
) -> None:
    small, large = run_of(specs, "lora", rank=4), run_of(specs, "lora", rank=64)
    foreseer.ask(small, model)
    foreseer.ask(large, model)
    forecast = foreseer.forecast(large, Rates(), "Fake 24")
    assert forecast.breakdown is not None
    assert forecast.breakdown.model_dump() == rehearsed_here(large, folder, model).parts
    assert foreseer.forecast(small, Rates(), "Fake 24") == ForecastPart()


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
    with monkeypatch.context() as patch:
        patch.setattr(foreseeing, "PATIENCE_S", 1.0)
        foreseer.ask(spec, model)
    assert foreseer.forecast(spec, Rates(), "Fake 24") == ForecastPart()
    foreseer.ask(spec, model)
    assert foreseer.forecast(spec, Rates(), "Fake 24").breakdown is not None


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
