"""Faults of a run: each becomes an outcome of its own, the study goes on, and what is not done is listed."""

import signal
import time
from pathlib import Path

import pytest

from results.store import read_records
from tests.faults.outcomes import (
    HUNG_AFTER_S,
    IN_STEP,
    LORA,
    MINUTES,
    POINT,
    SEEDS,
    SITE,
    Faulty,
    diverging,
    first_on_path,
    grid_text,
    in_steps,
    in_warm_workers,
    outcomes,
    spoiled,
    stopped,
    without,
)
from tests.faults.starts import Place, Start
from tests.faults.starts import hit as hit_all

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Faulty:
    """Every fault inside a training step."""
    return in_steps(tmp_path_factory.mktemp("steps"))


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Faulty:
    """Faults in the second trial of warm workers."""
    return in_warm_workers(tmp_path_factory.mktemp("warm"), again=False)


def hit(found: Faulty, fault: str) -> str:
    """The run that a fault hit."""
    return next(run_id for run_id, name in found.hit.items() if name == IN_STEP[fault])


# The status, the type of the error, a part of its message, and how many records there are after each of the three
# starts: with the faults, without them, and with --retry-failed.
EXPECTED = {
    "sigkill": ("killed", "WorkerDied", "ended by SIGKILL", [1, 2, 2]),
    "sigstop": ("timeout", "Timeout", "no end after 12 s", [1, 1, 2]),
    "hang": ("timeout", "Timeout", "no end after 12 s", [1, 1, 2]),
    "cuda_error": ("failed", "AcceleratorError", "illegal memory access", [1, 1, 2]),
    "cuda_oom": ("out_of_memory", "OutOfMemoryError", "CUDA out of memory", [1, 1, 1]),
    "host_oom": ("out_of_memory", "MemoryError", "the host has no memory left", [1, 1, 1]),
    "segfault": ("failed", "WorkerDied", "ended by SIGSEGV", [1, 1, 2]),
}


@pytest.mark.parametrize("fault", IN_STEP)
def test_a_fault_in_a_step_is_an_outcome_of_its_own(steps: Faulty, fault: str) -> None:
    status, kind, message, tries = EXPECTED[fault]
    run_id = hit(steps, fault)
    record = steps.of(run_id)
    assert record.error is not None
    assert (record.status, record.error.phase, record.quality) == (status, "train", None)
    # Before torch 2.9 a CUDA error has no type of its own.
    assert record.error.type in (kind, "RuntimeError" if fault == "cuda_error" else kind)
    assert message in record.error.message
    assert steps.tries(run_id) == tries
    name = "finding" if status == "out_of_memory" else "not done"
    assert f"  {name}: confirm lora · seed {record.seed}: {status} ({record.error.message})" in steps.starts[0].said


@pytest.mark.parametrize("fault", ["sigstop", "hang", "segfault", "cuda_error"])
def test_the_log_says_where_it_was(steps: Faulty, fault: str) -> None:
    log = steps.log(hit(steps, fault))
    # Into the step, from the run.
    assert all(f"{name}.py" in log for name in ("sitecustomize", "harness/engine/stepping", "harness/engine/session"))
    assert ("most recent call last" in log) == (fault == "cuda_error")


def test_a_worker_without_a_sign_of_life_is_no_end_of_a_study_without_limits(tmp_path: Path) -> None:
    found = stopped(tmp_path, again=False)
    (run_id,) = found.hit
    record = found.of(run_id)
    assert record.error is not None
    assert (record.status, record.error.type, record.error.phase) == ("timeout", "Hung", "train")
    assert record.error.message == f"no sign of life for 6 s: see {run_id}.log"
    assert [other.status for other in found.others()] == ["completed"]
    assert found.starts[0].code == 1
    # Where it was stopped.
    assert "sitecustomize.py" in found.log(run_id)


def test_a_study_that_is_stopped_as_a_whole_goes_on_where_it_was(tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(grid_text(LORA + POINT, steps=40))
    place = Place(grid, tmp_path)
    start = Start(place, variables=first_on_path(SITE) | {"QLORA_HUNG_AFTER_S": str(HUNG_AFTER_S)})
    assert start.under_way(place)
    assert hit_all(start.processes(), signal.SIGSTOP) >= 3
    # Longer than a run may take, and than a worker may be silent.
    time.sleep(max(HUNG_AFTER_S, 60 * MINUTES) + 1.0)
    hit_all(start.processes(), signal.SIGCONT)
    assert start.finish() == 0, start.said
    assert [record.status for record in read_records(place.folder).all] == ["completed"]


def test_a_study_goes_on_through_all_of_them(steps: Faulty) -> None:
    first, second, third = steps.starts
    assert len(first.records) == len(SEEDS)
    assert [record.status for record in steps.others()] == ["completed"] * (len(SEEDS) - len(IN_STEP))
    assert "Traceback" not in first.said
    # A run that did not fit is over, and still a hole in the matrix.
    assert [told.code for told in steps.starts] == [1, 1, 1]
    assert first.said.count("  not done: ") == 5
    assert first.said.count("  finding: ") == 2
    assert [told.said.count("  finding: ") for told in (second, third)] == [2, 2]
    last = {record.run_id: record.status for record in third.records}
    assert sorted(last.values()) == ["completed"] * (len(SEEDS) - 2) + ["out_of_memory"] * 2


def test_a_process_that_met_a_cuda_error_runs_nothing_more(warm: Faulty) -> None:
    trials = {
        record.trial: record for record in warm.starts[0].records if (record.arm, record.stage) == ("lora", "tune")
    }
    assert [trials[number].status for number in range(4)] == ["completed", "failed", "completed", "completed"]
    assert [trials[number].checks["warm_worker"] for number in range(4)] == [False, True, False, True]
    error = trials[1].error
    assert error is not None
    assert "CUDA error" in error.message
    # Of what was chosen from the other trials the confirm run follows.
    assert [record.status for record in warm.starts[0].records if record.stage == "confirm"] == ["completed"] * 2
    assert warm.starts[0].code == 1
    assert warm.starts[0].said.count("  not done: tune lora · trial 1: failed (CUDA error") == 1
    assert warm.tries(trials[1].run_id) == [1]


def test_a_warm_worker_without_memory_is_replaced_once_and_the_record_says_so(warm: Faulty) -> None:
    trials = {
        record.trial: record for record in warm.starts[0].records if (record.arm, record.stage) == ("qlora", "tune")
    }
    assert [trials[number].status for number in range(4)] == ["completed"] * 4
    assert [trials[number].checks["warm_worker"] for number in range(4)] == [False, False, True, True]
    before = trials[1].checks["retried_after"]
    assert (before["status"], before["type"], before["phase"]) == ("out_of_memory", "OutOfMemoryError", "train")
    assert all("retried_after" not in trials[number].checks for number in (0, 2, 3))
    assert warm.tries(trials[1].run_id) == [1]


def test_a_library_that_cannot_be_imported_fails_each_run_that_needs_it(tmp_path: Path) -> None:
    found = without(tmp_path, "bitsandbytes")
    for run_id in found.hit:
        record = found.of(run_id)
        assert record.error is not None
        assert (record.status, record.error.type) == ("failed", "ImportError")
        assert record.error.message == "bitsandbytes.so: cannot open shared object file"
        assert "Traceback" in found.log(run_id)
        assert found.tries(run_id) == [1, 1, 2]
    assert [told.code for told in found.starts] == [1, 1, 0]
    # A run without an adapter needs no bitsandbytes.
    assert {record.status for record in found.others()} == {"completed"}
    assert found.starts[0].said.count("  not done: ") == 2


def test_where_no_worker_can_begin_the_study_stops_and_blames_no_run(tmp_path: Path) -> None:
    found = without(tmp_path, "peft")
    first, second, _ = found.starts
    assert [told.code for told in found.starts] == [1, 0, 0]
    assert first.records == ()
    assert "no worker can begin: ImportError: peft.so: cannot open shared object file (see " in first.said
    assert "Traceback" not in first.said
    # What was decided meanwhile was decided on nothing: the next start finds a study that has not begun.
    assert {record.status for record in second.records} == {"completed"}
    assert [row.outcome for row in outcomes(found)] == ["no record: the study stops in one line"]


def test_a_loss_that_is_no_number_is_a_finding_and_no_score(tmp_path: Path) -> None:
    found = diverging(tmp_path)
    (run_id,) = found.hit
    record = found.of(run_id)
    assert record.error is not None
    assert (record.status, record.error.phase, record.quality) == ("diverged", "train", None)
    assert [other.status for other in found.others()] == ["completed"]
    assert f"  finding: confirm hot · seed 11: diverged ({record.error.message})" in found.starts[0].said
    assert [told.code for told in found.starts] == [1, 1, 1]
    assert found.tries(run_id) == [1, 1, 1]


def test_weights_that_are_no_numbers_are_found_in_the_evaluation_too(tmp_path: Path) -> None:
    found = spoiled(tmp_path, again=False)
    assert "Traceback" not in found.starts[0].said
    assert {(record.arm, record.split) for record in found.starts[0].records} == {
        ("zero-shot", "validation"),
        ("zero-shot", "test"),
        ("lora", "test"),
    }
    for record in found.starts[0].records:
        assert record.error is not None
        assert (record.status, record.quality) == ("diverged", None)
        assert record.error.phase == ("evaluate" if record.arm == "zero-shot" else "train")
    assert found.starts[0].said.count("  finding: ") == 3


def test_a_row_tells_what_was_seen(steps: Faulty) -> None:
    rows = {row.fault: row for row in outcomes(steps)}
    told = {
        name: (rows[IN_STEP[name]].outcome, rows[IN_STEP[name]].retries, rows[IN_STEP[name]].code) for name in IN_STEP
    }
    assert told["sigkill"] == ("killed, WorkerDied", "by the next start", "1")
    assert told["hang"] == ("timeout, Timeout", "by `--retry-failed` alone", "1")
    assert told["host_oom"] == ("out_of_memory, MemoryError", "none", "1, listed as a finding")
    assert {row.others for row in rows.values()} == {"1 of 1 other runs completed"}
