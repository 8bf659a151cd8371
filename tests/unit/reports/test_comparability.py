"""Which records may stand beside each other: one test a key, and nothing joined or dropped silently."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports.comparability import largest_group
from reports.evidence import gather
from reports.report import write_report
from results.schema import Record
from results.store import RecordStore, read_records
from tests.unit.reports.records import GPU, PACKAGES, SEEDS, tuned_id, write_study

OTHER = tuned_id("qlora", 13)


def environment(**changes: Any) -> Callable[[Record], dict[str, Any]]:
    return lambda record: {"environment": record.environment | changes}


def package(name: str, version: str | None) -> Callable[[Record], dict[str, Any]]:
    packages = {key: value for key, value in (PACKAGES | {name: version}).items() if value is not None}
    return environment(packages=packages)


def data(**changes: str) -> Callable[[Record], dict[str, Any]]:
    return lambda record: {"data": record.data.model_copy(update=changes)}


KEYS = [
    pytest.param(environment(gpu="Other GPU"), f"device Other GPU (not {GPU})", id="gpu"),
    pytest.param(environment(gpu=None), f"device Test CPU (not {GPU})", id="no-gpu"),
    pytest.param(environment(driver="570.10"), "driver 570 (not 580)", id="driver-major"),
    pytest.param(environment(driver=None), "driver none (not 580)", id="no-driver"),
    pytest.param(package("torch", "2.8.0"), "torch 2.8.0 (not 2.11.0)", id="torch"),
    pytest.param(package("transformers", "5.0.0"), "transformers 5.0.0 (not 5.17.0)", id="transformers"),
    pytest.param(package("peft", "0.19.0"), "peft 0.19.0 (not 0.21.0)", id="peft"),
    pytest.param(package("bitsandbytes", "0.49.0"), "bitsandbytes 0.49.0 (not 0.50.0)", id="bitsandbytes"),
    pytest.param(package("peft", None), "peft None (not 0.21.0)", id="version-not-told"),
    pytest.param(package("rouge_score", "0.0.4"), "rouge_score 0.0.4 (not None)", id="rouge-score"),
    pytest.param(environment(packages="?"), "torch None (not 2.11.0)", id="no-packages"),
    pytest.param(data(evaluated_hash="99" * 32), "test data 999999999999 (not abababababab)", id="test-data"),
    pytest.param(data(train_hash="77" * 32), "training data 777777777777 (not efefefefefef)", id="training-data"),
    pytest.param(lambda record: {"prompt_hash": "11" * 8}, f"prompt {'11' * 8} (not {'00' * 8})", id="prompt"),
]


@pytest.mark.parametrize(("change", "named"), KEYS)
def test_a_record_that_differs_is_left_out_with_what_differs(
    tmp_path: Path, change: Callable[[Record], dict[str, Any]], named: str
) -> None:
    folder = write_study(tmp_path)
    record = read_records(folder).last[OTHER]
    RecordStore(folder).append(record.model_copy(update=change(record)))
    evidence = gather(folder)
    (left_out,) = evidence.left_out
    assert named in left_out.reason
    assert left_out.run_ids == (OTHER,)
    scored = evidence.arms[2].scored
    assert scored is not None
    assert scored.seeds == tuple(seed for seed in SEEDS if seed != 13)
    assert OTHER not in evidence.arms[2].run_ids


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(environment(driver="580.99.1"), id="minor-driver"),
        pytest.param(environment(commit="f00", dirty=True), id="commit"),
        pytest.param(package("optuna", "4.5"), id="a-package-that-moves-no-score"),
    ],
)
def test_a_record_that_differs_in_what_moves_nothing_stays(
    tmp_path: Path, change: Callable[[Record], dict[str, Any]]
) -> None:
    folder = write_study(tmp_path)
    record = read_records(folder).last[OTHER]
    RecordStore(folder).append(record.model_copy(update=change(record)))
    assert gather(folder).left_out == ()


def test_a_zero_shot_run_stands_beside_runs_of_any_training_data(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    for arm in ("lora", "qlora"):
        for seed in SEEDS[:4]:
            record = read_records(folder).last[tuned_id(arm, seed)]
            RecordStore(folder).append(record.model_copy(update=data(train_hash="77" * 32)(record)))
    evidence = gather(folder)
    (left_out,) = evidence.left_out
    assert left_out.run_ids == (tuned_id("lora", 15), tuned_id("qlora", 15))
    assert evidence.arms[0].scored is not None


def test_zero_shot_runs_alone_are_one_group(tmp_path: Path) -> None:
    records = [item for item in read_records(write_study(tmp_path)).last.values() if item.training is None]
    test = [item for item in records if item.split == "test"]
    assert largest_group(test) == (test, [])
    assert largest_group([]) == ([], [])


def test_of_groups_of_one_size_the_latest_counts(tmp_path: Path) -> None:
    records = read_records(write_study(tmp_path)).last
    old, new = records[tuned_id("lora", 11)], records[tuned_id("qlora", 11)]
    new = new.model_copy(update=environment(gpu="Newer GPU")(new))
    assert largest_group([old, new])[0] == [new]
    assert largest_group([new, old])[0] == [old]


def test_the_report_tells_what_was_left_out_and_how_many(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "results")
    for seed in (13, 14):
        record = read_records(folder).last[tuned_id("qlora", seed)]
        RecordStore(folder).append(record.model_copy(update=package("torch", "2.8.0")(record)))
    report = write_report(tmp_path / "results", "study", tmp_path / "out")
    said = "not comparable with the rest: torch 2.8.0 (not 2.11.0)"
    assert f"  left out: 2 runs: {said}" in report.summary
    assert said in report.index.read_text()
    assert "planned seeds without a score: 13 (completed, but left out), 14 (completed, but left out)" in "\n".join(
        report.summary
    )
