"""A whole study, its archive, and a place for it on another machine."""

from pathlib import Path

import pytest

from results.exporting import export_study
from results.layout import StudyFolder
from results.store import write_frozen, write_plan, write_predictions
from tests.unit.results.archives import OTHER, PREDICTIONS, QUALITY, RUN, TRIAL, append
from tests.unit.results.records import FAILED, confirm, frozen, plan, trial


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A whole study, with a text of the data set, a log and a lock beside it."""
    folder = StudyFolder.of(tmp_path / "here", "small")
    append(
        folder,
        confirm(**FAILED),
        confirm(quality=QUALITY),
        trial(run_id=TRIAL, quality=QUALITY),
        trial(run_id=OTHER, **FAILED),
    )
    for run_id in (RUN, TRIAL):
        write_predictions(folder, run_id, PREDICTIONS)
    write_frozen(folder, frozen())
    write_plan(folder, plan())
    for path in (folder.examples("test", "ab" * 32), folder.logs / "worker.log"):
        path.parent.mkdir()
        path.write_text("a dialogue that is not ours to give")
    folder.lock.write_text("{}")
    return folder


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The results of another machine: not there yet."""
    return tmp_path / "there"


@pytest.fixture
def file(folder: StudyFolder, tmp_path: Path) -> Path:
    """The archive of that study."""
    path = tmp_path / "small.tar.gz"
    export_study(folder, path)
    return path
