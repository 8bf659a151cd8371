"""Arithmetic over shapes, against figures that were measured; times and energies, from earlier records."""

from dataclasses import replace
from typing import Any

import pytest

from harness.engine.ledger import CATEGORIES
from harness.engine.trying import PROBE, probe_arm
from harness.forecast import Overhead, Pace, Rates, forecast_arm, forecast_run, machine_of
from harness.messages import Rehearsal
from results.schema import ForecastPart, Record
from study.arms import Arm, Method, Precision
from study.models import KNOWN_SHAPES
from tests.unit.results.records import FAILED, baseline, confirm
from tests.unit.study.test_runs import RUN, ZERO_SHOT

PHI_2 = KNOWN_SHAPES["microsoft/phi-2"]
MIB = 1024**2


@pytest.mark.parametrize(
    ("precision", "measured_mib"),
    # Allocated after loading, as this project's own loading code measured it on an H100 (tests/grids/phi2_shape.yaml).
    [(Precision.BF16, 5302), (Precision.INT8, 2982 - 73), (Precision.NF4, 1781)],
)
def test_weights_of_phi_2_are_forecast_within_three_percent(precision: Precision, measured_mib: int) -> None:
    forecast = forecast_arm(probe_arm(precision), PHI_2, rank=16)
    assert forecast.weight_bytes / MIB == pytest.approx(measured_mib, rel=0.03)


def test_trainable_parameters_are_lora_s() -> None:
    assert forecast_arm(probe_arm(Precision.BF16), PHI_2, rank=16).trainable == 1_474_560 * 16


ARM = probe_arm(Precision.BF16)
BASE = 1_000
MODEL = ("microsoft/phi-2", BASE)
CARD = "H100"
RANK = 8
TRAINING = replace(PROBE, batch_size=4, micro_batch_size=4)


def run(
    tokens: int | None = 1_000,
    *,
    arm: Arm = ARM,
    rank: int = RANK,
    micro: int | None = 4,
    machine: str | None = CARD,
    model: tuple[str, int] = MODEL,
    **changes: Any,
) -> Record:
    """A record of a completed run that trained for 4 s."""
    model_id, base = model
    fields: dict[str, Any] = {
        "model": {"id": model_id, "revision": None, "weights": "pretrained"},
        "precision": {"base": arm.precision, "compute_dtype": arm.compute_dtype, "double_quant": arm.double_quant},
        "adapter": {
            "method": arm.method,
            "rank": rank,
            "alpha": 16,
            "dropout": 0.0,
            "targets": list(arm.targets),
            "target_modules": None,
        },
        "training": {"micro_batch_size": micro, "checkpointing": arm.checkpointing},
        "parameters": {"trainable": 10 * rank, "total": base + 10 * rank, "adapter_bytes": 0},
        "tokens": {"trained": tokens},
        "seconds": {"train": 4.0, "total": 4.0},
        "environment": {"gpu": machine},
    }
    return confirm(**{**fields, **changes})


def pace(
    *records: Record,
    arm: Arm = ARM,
    rank: int = RANK,
    micro: int = 4,
    model: tuple[str, int] = MODEL,
    machine: str | None = CARD,
) -> Pace | None:
    return Rates.of(records).pace(arm, rank, replace(TRAINING, micro_batch_size=micro), model, machine)


def known(*records: Record, **asked: Any) -> Pace:
    found = pace(*records, **asked)
    assert found is not None
    return found


def test_a_run_like_an_earlier_one_is_as_fast_as_that() -> None:
    found = known(run())
    assert found == Pace(
        tokens_per_second=250.0,
        first_step_s=0.0,
        start_s=0.0,
        evaluate_s_per_dialogue=0.0,
        watts=None,
        train_watts=None,
        runs=1,
        machine=CARD,
        exact=True,
    )
    assert found.train_s(500) == 2.0


def test_what_a_run_to_come_must_do_itself_is_not_learned_from_runs_that_found_it_done() -> None:
    first = {"first_step_s": 2.0, "first_step_tokens": 100}
    own = run(1_000, checks=first, seconds={"train": 4.0, "load": 1.0, "total": 9.0})
    # It replayed what another trial had captured, and its worker had been started before it.
    reused = {"first_step_s": 0.1, "first_step_tokens": 100, "engine": {"graphs_reused": 5}, "started_ahead": True}
    found = run(1_000, checks=reused, seconds={"train": 2.1, "load": 1.0, "total": 5.0})
    alone, both = known(own), known(own, found, found)
    assert alone.first_step_s > 1.0
    assert (both.first_step_s, both.start_s) == (alone.first_step_s, alone.start_s)
    assert (known(found).first_step_s, known(found).start_s) == (0.0, 0.0)


UNLIKE: dict[str, dict[str, Any]] = {
    "a base of another size": {"model": (MODEL[0], BASE + 1)},
    "another precision": {"arm": probe_arm(Precision.INT8)},
    "another compute dtype": {"precision": {"base": "bf16", "compute_dtype": "fp16", "double_quant": None}},
    "another method": {"arm": probe_arm(Precision.BF16, Method.DORA)},
    "checkpointing": {"arm": replace(ARM, checkpointing=True)},
    "another GPU": {"machine": "H200"},
    "no GPU": {"machine": None},
}


@pytest.mark.parametrize("difference", UNLIKE)
def test_a_run_of_another_kind_tells_nothing(difference: str) -> None:
    assert pace(run(**UNLIKE[difference])) is None
    assert known(run(**UNLIKE[difference]), run(2_000)).tokens_per_second == 500.0


def test_nothing_is_known_before_any_run() -> None:
    assert pace() is None
    assert pace(machine=None) is None


NEAR: dict[str, dict[str, Any]] = {
    "targets": {"arm": replace(ARM, targets=("attention",))},
    "batch": {"micro": 8},
    "an unknown batch": {"micro": None},
    "rank": {"rank": 16},
    "model": {"model": ("other/phi", BASE)},
}


@pytest.mark.parametrize("difference", NEAR)
def test_a_run_that_differs_a_little_is_told_to_be_not_of_just_this_kind(difference: str) -> None:
    found = known(run(**NEAR[difference]))
    assert (found.tokens_per_second, found.exact) == (250.0, False)
    both = known(run(**NEAR[difference]), run(2_000))
    assert (both.tokens_per_second, both.runs, both.exact) == (500.0, 1, True)


def test_single_and_double_quantisation_are_near_each_other() -> None:
    single, double = (replace(probe_arm(Precision.NF4), double_quant=each) for each in (False, True))
    assert known(run(arm=single), arm=single).exact
    assert not known(run(arm=single), arm=double).exact


@pytest.mark.parametrize(
    ("nearer", "farther"),
    [
        pytest.param({"rank": 16}, {"rank": 64}, id="rank"),
        pytest.param({"rank": 16}, {"rank": 2}, id="rank by ratio"),
        pytest.param({"micro": 8}, {"micro": 16}, id="batch"),
        pytest.param({"micro": 16}, {"micro": None}, id="a known batch"),
        pytest.param({"model": ("other/phi", BASE)}, {"rank": 16}, id="the model's name before rank"),
        pytest.param({"rank": 64}, {"micro": 8}, id="rank before batch"),
        pytest.param({"micro": 64}, {"arm": replace(ARM, targets=("mlp",))}, id="batch before targets"),
    ],
)
def test_the_nearest_run_is_the_one_that_tells(nearer: dict[str, Any], farther: dict[str, Any]) -> None:
    for records in ((run(2_000, **nearer), run(**farther)), (run(**farther), run(2_000, **nearer))):
        found = known(*records)
        assert (found.tokens_per_second, found.runs) == (500.0, 1)


def test_of_equally_near_runs_the_median_counts() -> None:
    found = known(run(1_000), run(9_000), run(2_000), run(50_000, rank=16))
    assert (found.tokens_per_second, found.runs) == (500.0, 3)


def test_without_a_machine_the_gpu_of_most_runs_counts_and_never_the_cpu() -> None:
    cpu, one, more = run(4, machine=None), run(1_000, machine="A"), run(2_000, machine="B")
    assert known(cpu, cpu, cpu, one, more, more, machine=None).machine == "B"
    assert known(cpu, cpu, cpu, one, more, more, machine=None).tokens_per_second == 500.0
    assert pace(cpu, machine=None) is None
    assert known(cpu, one, machine="cpu").tokens_per_second == 1.0
    assert [machine_of(record) for record in (cpu, one)] == ["cpu", "A"]


USELESS = {
    "a run that failed": run(status="failed", error=FAILED["error"], quality=None),
    "a run without tokens": run(None),
    "a run without seconds": run(seconds={"total": 3.0}),
    "a run of no time": run(seconds={"train": 0.0, "total": 3.0}),
    "a run without parameters": run(parameters=None),
    "a training made in parts": run(checks={"resumed_from_step": 6}),
    "a zero-shot run": baseline(seconds={"evaluate": 3.0, "total": 3.0}, tokens={}),
}


@pytest.mark.parametrize("kind", USELESS)
def test_what_tells_of_no_time_is_not_kept(kind: str) -> None:
    rates = Rates()
    rates.add(USELESS[kind])
    assert rates.records == []


def test_a_run_s_seconds_are_its_start_its_tokens_and_its_dialogues() -> None:
    timed = {"load": 2.0, "prepare": 1.0, "train": 4.0, "evaluate": 6.0, "total": 18.0}
    found = known(run(seconds=timed))
    # Three dialogues were evaluated in 6 s; what is neither training nor evaluation took 8 s.
    assert (found.start_s, found.evaluate_s_per_dialogue) == (8.0, 2.0)
    assert found.run_s(tokens=500, dialogues=10) == 8.0 + 2.0 + 20.0


def test_a_warm_worker_s_run_tells_nothing_of_starts() -> None:
    warm = run(seconds={"train": 4.0, "evaluate": 6.0, "total": 11.0})
    fresh = run(seconds={"load": 2.0, "train": 4.0, "evaluate": 6.0, "total": 18.0})
    assert known(warm).start_s == 0.0
    assert known(warm, warm, fresh).start_s == 8.0


def of_steps(count: int, record: Record) -> Record:
    """The same run with so many steps."""
    return record.model_copy(update={"tokens": record.tokens.model_copy(update={"steps": count})})


def test_the_first_step_is_told_apart_and_a_short_training_without_it_tells_nothing() -> None:
    told = {"first_step_s": 2.5, "first_step_tokens": 200}
    # 800 tokens in the 1.5 seconds after the first step; at that pace the first would have taken 0.375 seconds.
    found = known(of_steps(5, run(seconds={"train": 4.0, "total": 5.0}, checks=told)))
    assert found.tokens_per_second == pytest.approx(800 / 1.5)
    assert found.first_step_s == pytest.approx(2.5 - 0.375)
    assert found.train_s(1_000) == pytest.approx(4.0)
    assert pace(of_steps(5, run())) is None
    assert known(of_steps(20, run())).tokens_per_second == 250.0


def test_watts_are_those_of_whole_runs_and_unknown_where_no_energy_was_counted() -> None:
    counted = [run(energy_j=joules, energy_window_s=10.0) for joules in (2_000.0, 3_000.0, 9_000.0)]
    assert known(*counted).watts == 300.0
    assert known(run(), *counted).watts == 300.0
    assert known(run()).watts is None
    assert known(run(energy_j=300.0)).watts is None
    assert known(run(energy_j=300.0, energy_window_s=0.0)).watts is None


def test_the_watts_of_training_are_those_of_its_own_window() -> None:
    counted = run(energy_j=2_000.0, energy_window_s=10.0, energy={"train": {"joules": 1_600.0, "seconds": 4.0}})
    found = known(counted)
    assert (found.watts, found.train_watts) == (200.0, 400.0)


def test_a_record_of_the_first_version_tells_of_times_and_of_no_energy() -> None:
    old = run().model_dump(mode="json")
    for later in ("breakdown", "energy", "energy_window_s", "gpu", "memory_limit_bytes"):
        del old[later]
    found = known(Record.model_validate({**old, "schema_version": 1, "energy_j": 300.0}))
    assert (found.tokens_per_second, found.watts) == (250.0, None)


MEMORY = {"allocated_bytes": 1_000, "reserved_bytes": 1_100, "process_bytes": 1_600}


def held(gpu_reserve: int | None = None, **memory: int | None) -> Record:
    state: dict[str, Any] = {
        "uuid": "GPU-1",
        "total_bytes": 10_000,
        "baseline_bytes": 0,
        "driver_reserved_bytes": gpu_reserve,
        "before": {},
        "after": None,
        "foreign_before": [],
        "foreign_during": 0,
        "samples_per_second": 25.0,
    }
    return confirm(memory={"train": {**MEMORY, **memory}}, gpu=None if gpu_reserve is None else state)


def test_what_a_card_holds_besides_is_the_median_of_earlier_records() -> None:
    records = [
        held(70),
        held(80, reserved_bytes=1_200, process_bytes=1_900),
        held(900, reserved_bytes=2_000, process_bytes=9_000),
    ]
    overhead = Overhead.of(records)
    assert overhead.reserved_share == pytest.approx(0.2)
    assert (overhead.context_bytes, overhead.driver_bytes) == (700, 80)
    assert overhead.card_bytes(10_000) == 12_000 + 700 + 80


def test_a_process_that_is_told_to_hold_less_than_its_allocator_has_no_context_below_zero() -> None:
    assert Overhead.of([held(process_bytes=900)]).context_bytes == 0


@pytest.mark.parametrize("missing", sorted(MEMORY))
def test_a_record_without_one_of_the_figures_tells_nothing(missing: str) -> None:
    assert Overhead.of([held(**{missing: None})]) == Overhead()
    assert Overhead.of([held(**{missing: None}), held(70)]) == Overhead.of([held(70)])


def test_where_nothing_is_known_defaults_stand_in_one_by_one() -> None:
    assert Overhead.of([]) == Overhead()
    assert Overhead.of([confirm(memory={})]) == Overhead()
    silent = Overhead.of([held()])
    assert silent == Overhead(silent.reserved_share, 500, Overhead().driver_bytes)
    assert silent.reserved_share == pytest.approx(0.1)


PARTS: dict[str, int] = {category: 100 + number for number, category in enumerate(CATEGORIES)}
REHEARSED = Rehearsal(0, PARTS, 5_000, (4, 64, 20), trainable=80, total=BASE + 80, tokens=500)


def like_the_run(**changes: Any) -> Record:
    assert RUN.training is not None
    return run(arm=RUN.arm, rank=8, micro=RUN.training.micro_batch_size, model=(RUN.model.id, BASE), **changes)


def test_a_run_s_forecast_has_its_peak_its_batch_its_time_and_its_energy() -> None:
    rates = Rates.of([like_the_run(energy={"train": {"joules": 1_200.0, "seconds": 4.0}})])
    forecast = forecast_run(RUN, REHEARSED, rates, CARD)
    assert forecast.breakdown is not None
    assert forecast.breakdown.model_dump() == PARTS
    assert forecast.train_allocated_bytes == sum(PARTS.values()) == forecast.breakdown.total
    assert forecast.batch is not None
    assert forecast.batch.model_dump() == {"dialogues": 4, "width": 64, "logits": 20}
    assert (forecast.train_seconds, forecast.train_energy_j) == (2.0, 600.0)


def test_a_run_of_which_only_the_memory_is_known_has_that_forecast() -> None:
    unknown = forecast_run(RUN, REHEARSED, Rates(), CARD)
    assert (unknown.train_seconds, unknown.train_energy_j) == (None, None)
    assert unknown.train_allocated_bytes == sum(PARTS.values())
    assert forecast_run(RUN, REHEARSED, Rates.of([like_the_run()]), "another") == unknown
    no_tokens = forecast_run(RUN, replace(REHEARSED, tokens=None), Rates.of([like_the_run()]), CARD)
    assert no_tokens == unknown
    no_energy = forecast_run(RUN, REHEARSED, Rates.of([like_the_run()]), CARD)
    assert (no_energy.train_seconds, no_energy.train_energy_j) == (2.0, None)
    assert forecast_run(RUN, replace(REHEARSED, batch=None), Rates(), CARD).batch is None


def test_a_run_that_was_not_rehearsed_has_no_forecast() -> None:
    rates = Rates.of([like_the_run()])
    for answer in (None, Rehearsal(0, error="no configuration")):
        assert forecast_run(RUN, answer, rates, CARD) == ForecastPart()
    assert forecast_run(ZERO_SHOT, REHEARSED, rates, CARD) == ForecastPart()
