"""The published reference studies: their records are whole, and their tables are what the records say."""

from pathlib import Path

import pytest

from reports.report import write_report
from results.layout import DEFAULT_RESULTS, StudyFolder
from results.store import read_records
from results.verify import verify

ROOT = Path(__file__).parents[2]
STUDIES = sorted(path.parent.name for path in (ROOT / DEFAULT_RESULTS).glob("reference-*/plan.json"))


def test_there_is_a_reference_study() -> None:
    assert "reference-phi2-shape" in STUDIES


@pytest.mark.parametrize("study", STUDIES)
def test_the_records_of_a_reference_study_are_whole_and_hold_no_dialogue(study: str) -> None:
    folder = StudyFolder.of(ROOT / DEFAULT_RESULTS, study)
    assert verify(folder).faults == ()
    assert not folder.examples("test", "0" * 16).parent.exists()
    assert not folder.logs.exists()


@pytest.mark.parametrize("study", STUDIES)
def test_the_tables_beside_a_reference_study_are_what_its_records_give(study: str, tmp_path: Path) -> None:
    write_report(ROOT / DEFAULT_RESULTS, study, tmp_path)
    published = sorted((ROOT / DEFAULT_RESULTS / study / "tables").iterdir())
    assert published
    for path in published:
        assert path.read_bytes() == (tmp_path / study / "tables" / path.name).read_bytes(), f"make reference: {path}"


def test_forecasts_of_the_phi_2_matrix_lie_within_what_is_promised() -> None:
    """Within 10% of the measured peak in nine of ten runs, and within 5% at the median."""
    records = read_records(StudyFolder.of(ROOT / DEFAULT_RESULTS, "reference-phi2-shape")).last.values()
    errors = []
    for record in records:
        train, forecast = record.memory.train, record.forecast.train_allocated_bytes
        if record.status == "completed" and train is not None and train.allocated_bytes and forecast:
            errors.append(abs(forecast / train.allocated_bytes - 1))
    assert len(errors) >= 40
    assert sorted(errors)[len(errors) // 2] <= 0.05
    assert sum(error <= 0.10 for error in errors) >= 0.9 * len(errors)


def test_the_driver_saw_at_least_what_the_allocator_held_in_every_run_of_the_matrix() -> None:
    records = read_records(StudyFolder.of(ROOT / DEFAULT_RESULTS, "reference-phi2-shape")).last.values()
    for record in records:
        for phase in (record.memory.load, record.memory.prepare, record.memory.train, record.memory.evaluate):
            if phase is not None:
                assert (phase.process_bytes or 0) >= (phase.reserved_bytes or 0) >= (phase.allocated_bytes or 0) > 0
