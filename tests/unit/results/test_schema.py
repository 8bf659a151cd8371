"""Records: what cannot be recorded, and what a record says when it is read again."""

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from results.schema import ALWAYS_AGAIN, FINAL, RETRY_ON_REQUEST, SCHEMA_VERSION, Record, Status
from tests.unit.results.records import FAILED, MODEL, baseline, confirm, plan, trial

ERROR = FAILED["error"]
RANDOM = {**MODEL.model_dump(), "weights": "random"}


def test_a_record_is_the_same_when_it_is_read_again() -> None:
    for record in (confirm(), trial(), baseline(), confirm(**FAILED)):
        assert Record.model_validate_json(record.model_dump_json()) == record


def test_a_record_begins_with_its_format_and_is_one_line() -> None:
    line = confirm(**{**FAILED, "error": {"type": "E", "message": "two\nlines\u2028", "phase": None}}).model_dump_json()
    assert line.startswith(f'{{"schema_version":{SCHEMA_VERSION},"run_id":')
    assert "\n" not in line


def test_a_record_of_the_first_version_is_read_as_it_was() -> None:
    line = json.loads(confirm().model_dump_json())
    later = ("breakdown", "energy", "energy_window_s", "gpu", "memory_limit_bytes")
    old = {key: value for key, value in line.items() if key not in later} | {"schema_version": 1}
    old["forecast"] = {"train_allocated_bytes": None, "train_seconds": None}
    record = Record.model_validate(old)
    assert record.schema_version == 1
    assert (record.breakdown, record.gpu, record.energy) == (None, None, {})


def test_what_is_missing_is_null_and_never_zero() -> None:
    record = json.loads(confirm().model_dump_json())
    assert record["energy_j"] is None
    assert record["memory"]["load"] is None
    assert record["memory"]["train"]["reserved_bytes"] is None
    assert set(record["forecast"].values()) == {None}
    assert [record[key] for key in ("breakdown", "gpu", "energy_window_s", "memory_limit_bytes")] == [None] * 4


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "completed with an error": ({"error": ERROR}, "a completed run has no error"),
    "completed without quality": ({"quality": None}, "a completed run has quality"),
    "random weights with quality": ({"model": RANDOM}, "none where its weights are random"),
    "failed with quality": ({"status": "failed", "error": ERROR}, "a run that is failed has no quality"),
    "out of memory without a word": ({"status": "out_of_memory", "quality": None}, "out_of_memory says why"),
    "killed without a word": ({"status": "killed", "quality": None}, "a run that is killed says why"),
    "confirm without a purpose": ({"purpose": None}, "a confirm run has a purpose"),
    "confirm on validation": ({"split": "validation"}, "a confirm run is scored on the test split"),
    "confirm with a trial": ({"trial": 1}, "a trial has a number"),
    "confirm without training": ({"training": None}, "are null in a baseline"),
    "confirm without a rate": ({"learning_rate": None}, "are null in a baseline"),
}
TRIAL_CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "a trial with a purpose": ({"purpose": "tuned"}, "a confirm run has a purpose"),
    "a trial on test": ({"split": "test"}, "a trial is scored on the validation split"),
    "a trial without a number": ({"trial": None}, "a trial has a number"),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_a_contradiction_cannot_be_recorded(kind: str) -> None:
    changes, told = CONTRADICTIONS[kind]
    with pytest.raises(ValidationError, match=told):
        confirm(**changes)


@pytest.mark.parametrize("kind", TRIAL_CONTRADICTIONS)
def test_a_trial_cannot_contradict_its_stage(kind: str) -> None:
    changes, told = TRIAL_CONTRADICTIONS[kind]
    with pytest.raises(ValidationError, match=told):
        trial(**changes)


def test_a_baseline_was_not_trained() -> None:
    with pytest.raises(ValidationError, match="are null in a baseline"):
        baseline(learning_rate=1e-3)


@pytest.mark.parametrize("status", ["pruned", "interrupted"])
def test_a_run_that_was_stopped_on_purpose_needs_no_error(status: str) -> None:
    assert confirm(status=status, quality=None).error is None


def test_random_weights_complete_without_quality() -> None:
    record = confirm(model=RANDOM, quality=None)
    assert record.is_final
    assert record.quality is None


@pytest.mark.parametrize(
    "changes",
    [
        {"quality": {"rouge1": math.nan}},
        {"quality": {"rouge1": math.inf}},
        {"learning_rate": math.nan},
        {"seconds": {"train": -1.0}},
        {"memory": {"train": {"allocated_bytes": -1}}},
        {"memory": {"train": {"allocated_mb": 1}}},
        {"run_id": "0" * 15},
        {"run_id": "../../etc/passwd"},
        {"run_id": "0" * 16 + "\n"},
        {"status": "done"},
        {"schema_version": SCHEMA_VERSION + 1},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_value_out_of_its_range_cannot_be_recorded(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        confirm(**changes)


def test_a_record_cannot_be_changed() -> None:
    record = confirm()
    with pytest.raises(ValidationError, match="frozen"):
        record.status = "failed"  # type: ignore[misc]


def test_an_error_that_quotes_an_undecodable_path_can_be_written() -> None:
    record = confirm(**{**FAILED, "error": {"type": "E", "message": "no file 'a\udcff'", "phase": None}})
    assert record.error is not None
    assert record.error.message == "no file 'a\\udcff'"
    assert Record.model_validate_json(record.model_dump_json()) == record


def test_every_status_belongs_to_one_kind_of_ending() -> None:
    kinds = (FINAL, RETRY_ON_REQUEST, ALWAYS_AGAIN)
    every = Record.model_json_schema()["properties"]["status"]["enum"]
    assert sorted(status for kind in kinds for status in kind) == sorted(every)


@pytest.mark.parametrize(
    ("status", "final"), [("completed", True), ("out_of_memory", True), ("failed", False), ("killed", False)]
)
def test_a_final_run_is_never_repeated(status: Status, final: bool) -> None:
    record = confirm() if status == "completed" else confirm(**{**FAILED, "status": status})
    assert record.is_final is final


def test_a_plan_is_the_same_when_it_is_read_again() -> None:
    assert type(plan()).model_validate_json(plan().model_dump_json()) == plan()
