"""The parsers of what comes from outside, on random and on damaged input: a value or the house's own error, in time.

300 inputs a parser with the other tests; 10,000 with `make faults`.
"""

import gzip
import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import strategies as st

from results.archive_format import ArchiveError
from results.archive_reading import read_archive
from results.exporting import export_study
from results.external import ExternalRun, quality_of, write_external
from results.layout import StudyFolder
from results.schema import Prediction, Record
from results.store import (
    RecordStore,
    ResultsError,
    read_frozen,
    read_plan,
    read_predictions,
    read_records,
    write_frozen,
    write_plan,
    write_predictions,
)
from results.verify import verify
from study.grid import Grid, load_grid
from study.problems import GridError
from tests.faults.mutations import Damage, damaged, damages, on_inputs, replacements
from tests.unit.results.archives import PREDICTIONS, QUALITY, RUN, contents, packed, plain, signed
from tests.unit.results.records import EXAMPLES, FAILED, TEST_HASH, confirm, frozen, plan
from tests.unit.study.small_grid import SMALL

T = TypeVar("T")
LONG = pytest.param(10_000, marks=[pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3600)])
INPUTS = pytest.mark.parametrize("count", [300, LONG], ids=str)


def outcome(parse: Callable[[], T], error: type[Exception]) -> T | str:
    """What a parser gives, or what its error says: printable lines of a sane length. Any other error is the test's."""
    try:
        return parse()
    except error as refusal:
        said = str(refusal)
    assert all(line.isprintable() and 0 < len(line) < 2000 for line in said.split("\n"))
    return said


@INPUTS
def test_a_text_is_a_grid_or_a_grid_error(count: int) -> None:
    def check(data: bytes, way: str) -> None:
        # Half characters may come from a command line; a file that is not UTF-8 is refused before.
        text = data.decode("utf-8", "surrogateescape")
        overrides = {"file": (), "setting": (text,), "value": (f"training.steps={text}",)}[way]
        found = outcome(lambda: load_grid(text if way == "file" else SMALL, overrides), GridError)
        assert isinstance(found, Grid | str)

    whole = st.tuples(damaged(SMALL.encode(), structured=False), st.just("file"))
    part = st.tuples(damaged(b"training.steps=100", structured=False), st.sampled_from(["setting", "value"]))
    on_inputs(lambda chosen: check(*chosen), whole | whole | part, count)


@INPUTS
def test_a_line_is_a_record_or_damage(count: int, tmp_path: Path) -> None:
    folder, copy = StudyFolder(tmp_path / "small"), StudyFolder(tmp_path / "copy")
    folder.root.mkdir()
    valid = confirm(quality=QUALITY).model_dump_json().encode()

    def check(data: bytes) -> None:
        folder.records.write_bytes(valid + b"\n" + data + b"\n" + valid)
        found = read_records(folder)
        assert found.all[0] == found.all[-1]
        assert all(damage.reason.isprintable() for damage in found.damaged)
        # What was read can be written and read again: an import does so.
        for record in found.all[1:-1]:
            copy.records.unlink(missing_ok=True)
            RecordStore(copy).append(record)
            again = read_records(copy)
            assert (len(again.all), again.damaged) == (1, ())

    on_inputs(check, damaged(valid, structured=True), count)


@INPUTS
def test_a_file_is_predictions_or_a_results_error(count: int, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "small")
    write_predictions(folder, RUN, PREDICTIONS[:1])
    path = folder.predictions(RUN)
    valid = path.read_bytes()

    def check(data: bytes) -> None:
        path.write_bytes(data)
        found = outcome(lambda: read_predictions(folder, RUN), ResultsError)
        if not isinstance(found, str):
            assert all(isinstance(item, Prediction) for item in found)
            write_predictions(StudyFolder(tmp_path / "copy"), RUN, found)

    on_inputs(check, damaged(valid, structured=True), count)


def external() -> ExternalRun:
    """A system from elsewhere, on the dialogues of these records."""
    scores = PREDICTIONS[0].scores or {}
    items = [{"example_id": item.id, "prediction": "They meet.", "scores": scores} for item in EXAMPLES]
    return ExternalRun.model_validate(
        {
            "study": "small",
            "name": "other",
            "label": "what it is",
            "seed": 3,
            "test_hash": TEST_HASH,
            "quality": quality_of([scores] * len(EXAMPLES)),
            "predictions": items,
        }
    )


@pytest.fixture
def whole(tmp_path: Path) -> StudyFolder:
    """A study with one of everything."""
    folder = StudyFolder(tmp_path / "here" / "small")
    RecordStore(folder).extend((confirm(**FAILED), confirm(quality=QUALITY)))
    write_predictions(folder, RUN, PREDICTIONS)
    write_frozen(folder, frozen())
    write_plan(folder, plan())
    write_external(folder, external())
    path = folder.examples("test", TEST_HASH)
    path.parent.mkdir()
    rows = [{"id": item.id, "dialogue": item.dialogue, "references": list(item.references)} for item in EXAMPLES]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def archives(folder: StudyFolder, path: Path) -> st.SearchStrategy[bytes]:
    """Damage to the file, to the tar in it, and to a member whose digest is right again."""
    export_study(folder, path)
    file, members = path.read_bytes(), contents(path)
    lines = {name for name in members if name.endswith(".jsonl")}

    def with_member(name: str, damage: Damage, on_a_line: bool) -> bytes:
        first, *rest = members[name].split(b"\n") if name in lines else [members[name]]
        data = b"\n".join([damage(first), *rest]) if on_a_line else damage(members[name])
        changed = {**members, name: data}
        return packed(*plain(changed)) if name == "manifest.json" else signed(changed)

    names = st.sampled_from(sorted(members))
    return (
        damages().map(lambda damage: damage(file))
        | damages().map(lambda damage: gzip.compress(damage(gzip.decompress(file)), 1))
        | st.builds(with_member, names, damages(), st.just(False))
        | st.builds(with_member, names, replacements(), st.just(True))
    )


@INPUTS
def test_a_file_is_an_archive_or_an_archive_error(count: int, whole: StudyFolder, tmp_path: Path) -> None:
    path = tmp_path / "small.tar.gz"

    def check(data: bytes) -> None:
        found = outcome(lambda: read_archive(io.BytesIO(data), path), ArchiveError)
        if isinstance(found, str):
            assert found.startswith(str(path))
        else:
            for record in found.records:
                Record.model_validate_json(record.line)

    on_inputs(check, archives(whole, path), count)


def files(folder: StudyFolder) -> Iterator[Path]:
    """The files of a study that a check reads."""
    yield from (
        path for path in sorted(folder.root.rglob("*")) if path.is_file() and path.suffix in (".json", ".jsonl")
    )


@INPUTS
def test_a_study_with_a_damaged_file_is_checked_to_its_end(count: int, whole: StudyFolder) -> None:
    valid = {path: path.read_bytes() for path in files(whole)}

    def check(name: Path, damage: Damage) -> None:
        first, *rest = valid[name].split(b"\n") if name.suffix == ".jsonl" else [valid[name]]
        name.write_bytes(b"\n".join([damage(first), *rest]))
        try:
            for read in (verify, read_frozen, read_plan):
                outcome(partial(read, whole), ResultsError)
        finally:
            name.write_bytes(valid[name])

    inputs = st.tuples(st.sampled_from(sorted(valid)), damages() | replacements())
    on_inputs(lambda chosen: check(*chosen), inputs, count)
