"""Damaged inputs of a study that goes on: each is named, nothing of the rest is lost, and nothing torn is used."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import run_study
from harness.adapters.sources import load
from harness.engine import sources
from harness.engine.sources import ModelError, cache_root, model_folder, present_folder
from harness.engine.wholeness import damage
from results.store import read_records
from results.verify import verify
from study.grid import load_grid
from tests.faults.starts import STUDY, Place, Start, Undisturbed, completed, grid_text
from tests.faults.test_flow import GRID, study
from tests.integration.commands import ROOT, environment, run

WEIGHTS = "model.safetensors"


def copied(reference: Undisturbed, root: Path) -> Place:
    """A study at its end that may be written to."""
    place = Place(reference.place.grid, root)
    shutil.copytree(reference.place.folder.root, place.folder.root)
    return place


def edit(place: Place, number: int, change: Callable[[bytes], bytes]) -> None:
    """Changes a line of the records, counted from 1."""
    lines = place.folder.records.read_bytes().split(b"\n")
    lines[number - 1] = change(lines[number - 1])
    place.folder.records.write_bytes(b"\n".join(lines))


def newer(line: bytes) -> bytes:
    """The record as a program of another time might write it."""
    return json.dumps({**json.loads(line), "schema_version": 99, "invented_later": True}).encode()


def test_damaged_and_newer_records_are_named_set_apart_and_their_runs_alone_made_again(
    reference: Undisturbed, tmp_path: Path
) -> None:
    place = copied(reference, tmp_path)
    edit(place, 3, lambda line: line[: len(line) // 2])
    edit(place, 5, newer)
    before = place.folder.records.read_bytes()
    torn = "line 3{}: not a JSON object: torn or damaged"
    later = "line 5{}: schema_version 99 is newer than this program's 2: update the program"

    done = run("-m", "results", "verify", STUDY, "--results", str(tmp_path / "results"))
    assert done.returncode == 1
    for told in (torn, later):
        assert f"records.jsonl, {told.format('')}" in done.stdout

    start = Start(place)
    assert start.finish() == 0, start.said
    for told in (torn, later):
        assert f"records.jsonl, {told.format(' is left out')}" in start.said
    assert "2 runs made, 6 found recorded, 0 not done" in start.said
    # The lines stay as they are, for whoever can read them.
    assert place.folder.records.read_bytes().startswith(before)
    lost = {reference.records[2].run_id, reference.records[4].run_id}
    made = read_records(place.folder).all[len(reference.records) - 2 :]
    assert {record.run_id for record in made} == lost
    assert {record.run_id: record.quality for record in made} == {
        record.run_id: record.quality for record in reference.records if record.run_id in lost
    }


def test_a_prediction_file_that_was_cut_off_is_named_and_no_verdict_is_made_of_it(
    reference: Undisturbed, tmp_path: Path
) -> None:
    place = copied(reference, tmp_path)
    record = next(record for record in reference.records if record.stage == "confirm")
    path = place.folder.predictions(record.run_id)
    os.truncate(path, path.stat().st_size * 2 // 3)
    faults = [fault for fault in verify(place.folder).faults if record.run_id in fault]
    assert any("torn or damaged" in fault for fault in faults), faults
    before = place.folder.records.read_bytes()
    places = ("--results", str(tmp_path / "results"), "--out", str(tmp_path / "out"))
    done = run("-m", "reports", STUDY, *places)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "  left out: 1 runs: their predictions are missing or damaged\n" in said
    assert "planned seeds without a score: 11 (completed, but left out)" in said
    assert place.folder.records.read_bytes() == before


def test_a_grid_that_changes_between_two_starts_adds_runs_and_changes_no_record(tmp_path: Path) -> None:
    grid = load_grid(GRID)
    loaded = load(grid.data)
    made, folder = study(tmp_path, grid, loaded)
    kept = folder.records.read_bytes()
    before = {record.run_id: record for record in read_records(folder).all}
    wider = GRID.replace("seeds: [11, 12]", "seeds: [12, 13]").replace(
        "space:", "  - {name: new, precision: int8}\nspace:"
    )
    added, _ = study(tmp_path, load_grid(wider), loaded)
    assert folder.records.read_bytes().startswith(kept)
    after = read_records(folder).last
    assert {run_id: after[run_id] for run_id in before} == before
    assert len(after) == made + added
    assert {after[run_id].arm for run_id in set(after) - set(before)} == {"lora", "qlora", "new"}
    # A seed that the grid no longer asks for keeps its records, and those of an arm keep their name.
    assert {record.seed for record in after.values() if record.stage == "confirm"} == {11, 12, 13}


@pytest.mark.faults
def test_a_grid_that_changes_under_way_adds_runs_and_changes_no_record(tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(grid_text(whole=False))
    place = Place(grid, tmp_path)
    first = Start(place, "--only", "lora")
    assert first.until(lambda: len(read_records(place.folder).all) >= 1), first.said
    grid.write_text(grid_text(whole=False).replace("seeds: [11, 12, 13]", "seeds: [11, 13, 14, 15]"))
    # With an arm left out, the study is not at its end; the running start keeps to the grid that it read.
    assert first.finish() == 1, first.said
    before = read_records(place.folder).all
    kept = place.folder.records.read_bytes()
    seeds = {record.seed for record in before if record.stage == "confirm"}
    assert seeds <= {11, 12, 13}
    second = Start(place, "--only", "lora")
    assert second.finish() == 1, second.said
    assert place.folder.records.read_bytes().startswith(kept)
    added = read_records(place.folder).all[len(before) :]
    assert not {record.run_id for record in added} & {record.run_id for record in before}
    assert {record.seed for record in added if record.stage == "confirm"} <= {11, 13, 14, 15} - seeds or not seeds
    assert set(completed(place.folder).values()) == {1}


def test_data_that_changed_are_refused_unless_that_is_told(
    reference: Undisturbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copied(reference, tmp_path)
    before = place.folder.records.read_bytes()
    frozen = place.folder.frozen.read_bytes()
    changed = ("--set", "data.generated.seed=4", "--only", "lora")
    assert run_study.main([*place.line(*changed)[2:]]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("data: the train split is not the one that the recorded runs of 'killed' used (digest ")
    assert said.err.endswith("or add --new-data, which makes its runs again and keeps the old ones\n")
    assert said.err.count("\n") == 1
    assert (place.folder.records.read_bytes(), place.folder.frozen.read_bytes()) == (before, frozen)
    told = Start(place, *changed, "--new-data")
    assert told.until(lambda: len(read_records(place.folder).all) > len(reference.records)), told.said
    told.process.send_signal(signal.SIGINT)
    assert told.finish() == 130
    assert place.folder.records.read_bytes().startswith(before)
    records = read_records(place.folder).all
    old = {record.data.evaluated_hash for record in reference.records}
    assert not old & {record.data.evaluated_hash for record in records[len(reference.records) :]}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, with the tiny model in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Path(model_folder("random/tiny-phi", None, "cpu").folder)


def halve(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size // 2)


def empty(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, 0)


def tear_the_tokenizer(folder: Path) -> None:
    os.truncate(folder / "tokenizer.json", 1000)


def lose_the_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def lose_the_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize("tear", [halve, empty, tear_the_tokenizer, lose_the_weights, lose_the_config])
def test_a_model_that_is_half_written_in_the_cache_is_made_again(cache: Path, tear: Callable[[Path], None]) -> None:
    contents = {path.name: path.read_bytes() for path in cache.iterdir()}
    tear(cache)
    assert damage(cache) is not None
    assert present_folder("random/tiny-phi", None) is None
    assert model_folder("random/tiny-phi", None, "cpu").folder == str(cache)
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == contents
    assert [path.name for path in cache.parent.iterdir() if path.is_dir()] == [cache.name]


@pytest.mark.parametrize("tear", [halve, empty, tear_the_tokenizer])
def test_a_torn_model_in_a_folder_of_somebody_s_own_is_refused_and_left_alone(
    cache: Path, tear: Callable[[Path], None]
) -> None:
    tear(cache)
    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    with pytest.raises(ModelError, match=r"^model\.id '.+': (model\.safetensors|tokenizer\.json) is torn or damaged$"):
        model_folder(str(cache), None, "cpu")
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == before


def test_a_maker_that_is_killed_leaves_nothing_that_the_next_would_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL in the middle of making a model; the next maker removes what is left and makes the whole."""
    slow = (
        "import sys, time; from harness.engine import sources; from pathlib import Path\n"
        "def make(into):\n"
        "    (into / 'config.json').write_text('{}'); print('half', flush=True); time.sleep(60)\n"
        "sources._cached('random-tiny-phi', make)"
    )
    env = {**environment(), "XDG_CACHE_HOME": str(tmp_path)}
    maker = subprocess.Popen([sys.executable, "-c", slow], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    with maker.stdout:
        assert maker.stdout.readline() == "half\n"
        maker.kill()
        maker.wait()
    root = tmp_path / "qlora-ablation"
    assert len([path for path in root.iterdir() if path.is_dir()]) == 1
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = Path(model_folder("random/tiny-phi", None, "cpu").folder)
    assert [path for path in root.iterdir() if path.is_dir()] == [made]
    assert damage(made) is None


def test_a_full_disk_is_told_in_one_line_and_leaves_no_half_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def full(into: Path) -> None:
        (into / "config.json").write_text("{}")
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")

    with pytest.raises(ModelError, match=r"cannot be written: No space left on device$"):
        sources._cached("full", full)
    assert [path for path in cache_root().iterdir() if path.is_dir()] == []


@pytest.mark.faults
@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("kind", ["torn", "newer", "empty object"])
def test_each_record_may_be_damaged_and_costs_its_own_run_alone(
    reference: Undisturbed, tmp_path: Path, number: int, kind: str
) -> None:
    place = copied(reference, tmp_path)
    changes = {"torn": lambda line: line[:200], "newer": newer, "empty object": lambda _: b"{}"}
    edit(place, number, changes[kind])
    start = Start(place)
    assert start.finish() == 0, start.said
    assert f"records.jsonl, line {number} is left out: " in start.said
    made = read_records(place.folder).all[len(reference.records) - 1 :]
    assert [record.run_id for record in made] == [reference.records[number - 1].run_id]
