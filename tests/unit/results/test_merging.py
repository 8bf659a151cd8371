"""Imports: a merge loses nothing, hides nothing, and is done by one at a time."""

import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from results.archive_format import ArchiveError
from results.exporting import export_study
from results.layout import StudyFolder
from results.locking import StudyBusy, locked
from results.merging import Imported, import_study, plan_merge
from results.schema import Plan, Record
from results.store import (
    RecordStore,
    ResultsError,
    read_frozen,
    read_plan,
    read_records,
    write_frozen,
    write_plan,
    write_predictions,
)
from results.verify import verify
from tests.unit.results.archives import (
    INTERRUPTED,
    OTHER,
    OUT_OF_MEMORY,
    PREDICTIONS,
    QUALITY,
    RUN,
    TRIAL,
    append,
    archive_of,
    contents,
    signed,
    tree,
)
from tests.unit.results.records import FAILED, confirm, frozen, plan, trial


def test_a_fresh_study_is_what_it_was(folder: StudyFolder, file: Path, there: Path) -> None:
    done = import_study(file, there)
    assert done == Imported("small", records=4, runs=3, there=0, kept=0, predictions=2)
    taken = tree(there / "small")
    assert taken.pop(".lock") == b""
    mine = tree(folder.root)
    assert taken == {name: mine[name] for name in mine if name.split("/")[0] not in ("examples", "logs", ".lock")}
    assert verify(StudyFolder.of(there, "small")).faults == ()


def test_a_second_import_changes_nothing(file: Path, there: Path) -> None:
    import_study(file, there)
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*") if path.is_file() and path.name != ".lock"}
    content = tree(there)
    assert import_study(file, there) == Imported("small", records=0, runs=0, there=4, kept=0, predictions=0)
    assert tree(there) == content
    assert {path: path.stat().st_mtime_ns for path in before} == before


STATUSES: list[dict[str, Any]] = [FAILED, INTERRUPTED, {**FAILED, "status": "timeout"}]


def history(rng: random.Random, run_id: str) -> list[Record]:
    """What a machine may have seen of one run: attempts without an end, and perhaps one."""
    seen = [rng.choice(STATUSES) for _ in range(rng.randrange(3))]
    if rng.random() < 0.5:
        seen.append(rng.choice([{"quality": QUALITY}, OUT_OF_MEMORY]))
    return [confirm(run_id=run_id, started_at=f"machine {rng.randrange(3)}", **each) for each in seen]


@pytest.mark.parametrize("seed", range(25))
def test_a_merge_is_a_union_in_which_the_better_record_counts(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    here, there = StudyFolder.of(tmp_path / "here", "small"), StudyFolder.of(tmp_path / "there", "small")
    runs = [f"{number:016x}" for number in range(8)]
    mine = [record for run_id in runs for record in history(rng, run_id)]
    theirs = [record for run_id in runs for record in history(rng, run_id)]
    # Some were copied by hand before.
    theirs = [*mine[: rng.randrange(4)], *theirs]
    write_plan(there, plan())
    append(here, *mine)
    file = archive_of(there, tmp_path / "file.tar.gz", *theirs)
    before, archived = read_records(here), read_records(there)

    done = import_study(file, here.root.parent)
    after = read_records(here)
    assert after.all[: len(before.all)] == before.all
    added = list(after.all[len(before.all) :])
    assert len(added) == done.records
    assert done.records + done.there + done.kept == len(archived.all)
    assert all(record in archived.all and record not in before.all for record in added)
    for run_id in before.last.keys() | archived.last.keys():
        mine_last, their_last, last = (each.last.get(run_id) for each in (before, archived, after))
        assert last is not None
        if mine_last is not None and mine_last.is_final:
            assert last == mine_last
        elif their_last is not None and their_last not in before.all:
            assert last == their_last
            assert all(record in after.all for record in archived.all if record.run_id == run_id)
        else:
            assert last == mine_last

    content = tree(here.root)
    again = import_study(file, here.root.parent)
    assert (again.records, again.predictions) == (0, 0)
    assert again.kept == done.kept
    assert tree(here.root) == content


@pytest.mark.parametrize("seed", range(5))
def test_two_machines_that_exchange_their_runs_agree(seed: int, tmp_path: Path) -> None:
    """Where no run was done twice, the order of exchange does not matter."""
    rng = random.Random(seed)
    here, there = StudyFolder.of(tmp_path / "here", "small"), StudyFolder.of(tmp_path / "there", "small")
    for number in range(12):
        append(rng.choice([here, there]), *history(rng, f"{number:016x}"))
    for folder in (here, there):
        write_plan(folder, plan())
    for sender, receiver in ((here, there), (there, here), (here, there)):
        export_study(sender, tmp_path / "file.tar.gz")
        import_study(tmp_path / "file.tar.gz", receiver.root.parent)
    assert read_records(here).last == read_records(there).last
    assert all(record in read_records(there).all for record in read_records(here).all)
    assert all(record in read_records(here).all for record in read_records(there).all)


def local(there: Path, *records: Record) -> StudyFolder:
    folder = StudyFolder.of(there, "small")
    append(folder, *records)
    return folder


def test_a_final_record_of_ones_own_is_never_hidden(tmp_path: Path, there: Path) -> None:
    mine = local(there, confirm())
    file = archive_of(StudyFolder.of(tmp_path, "small"), tmp_path / "file.tar.gz", confirm(**FAILED))
    assert import_study(file, there) == Imported("small", records=0, runs=0, there=0, kept=1, predictions=0)
    assert read_records(mine).all == (confirm(),)


def test_of_two_final_records_ones_own_is_kept_with_its_predictions(
    folder: StudyFolder, file: Path, there: Path
) -> None:
    mine = local(there, confirm(started_at="before"), trial(run_id=TRIAL, **OUT_OF_MEMORY))
    write_predictions(mine, RUN, PREDICTIONS[:1])
    before = mine.predictions(RUN).read_bytes()
    # Of the run: a failed attempt and another result; of the trial: a result.
    assert import_study(file, there) == Imported("small", records=1, runs=1, there=0, kept=3, predictions=0)
    assert mine.predictions(RUN).read_bytes() == before
    # Predictions of the archive's record are no evidence for another.
    assert not mine.predictions(TRIAL).exists()


def test_a_result_follows_a_failure_with_its_predictions(folder: StudyFolder, file: Path, there: Path) -> None:
    mine = local(there, confirm(**INTERRUPTED))
    write_predictions(mine, RUN, PREDICTIONS[:1])
    assert import_study(file, there) == Imported("small", records=4, runs=3, there=0, kept=0, predictions=2)
    assert read_records(mine).last[RUN].status == "completed"
    assert mine.predictions(RUN).read_bytes() == folder.predictions(RUN).read_bytes()


def test_predictions_that_were_lost_come_back(folder: StudyFolder, file: Path, there: Path) -> None:
    import_study(file, there)
    mine = StudyFolder.of(there, "small")
    mine.predictions(RUN).unlink()
    write_predictions(mine, TRIAL, PREDICTIONS[:1])
    kept = mine.predictions(TRIAL).read_bytes()
    assert import_study(file, there) == Imported("small", records=0, runs=0, there=4, kept=0, predictions=1)
    assert mine.predictions(RUN).read_bytes() == folder.predictions(RUN).read_bytes()
    assert mine.predictions(TRIAL).read_bytes() == kept


def test_what_came_later_here_is_not_followed_by_what_came_before(tmp_path: Path, there: Path) -> None:
    """Machine A has an attempt of its own, then takes over B's; what B gets back is older than what B has."""
    earlier, later = confirm(**INTERRUPTED), confirm(**FAILED)
    mine = local(there, later)
    file = archive_of(StudyFolder.of(tmp_path, "small"), tmp_path / "file.tar.gz", earlier, later)
    assert import_study(file, there) == Imported("small", records=0, runs=0, there=1, kept=1, predictions=0)
    assert read_records(mine).last[RUN] == later


def test_a_record_that_stands_twice_is_taken_once_where_it_counts(tmp_path: Path, there: Path) -> None:
    twice, between = confirm(**FAILED), confirm(**INTERRUPTED)
    file = archive_of(StudyFolder.of(tmp_path, "small"), tmp_path / "file.tar.gz", twice, between, twice)
    assert import_study(file, there) == Imported("small", records=2, runs=1, there=1, kept=0, predictions=0)
    assert read_records(StudyFolder.of(there, "small")).all == (between, twice)
    assert import_study(file, there).records == 0


def test_records_are_equal_whatever_the_order_of_a_mapping(tmp_path: Path, there: Path) -> None:
    local(there, confirm(environment={"gpu": None, "driver": "1", "load": 1.5}))
    turned = confirm(environment={"load": 1.5, "driver": "1", "gpu": None})
    file = archive_of(StudyFolder.of(tmp_path, "small"), tmp_path / "file.tar.gz", turned)
    assert import_study(file, there) == Imported("small", records=0, runs=0, there=1, kept=0, predictions=0)


def test_a_number_that_json_does_not_know_is_still_the_same_record(file: Path, there: Path) -> None:
    members = contents(file)
    members["records.jsonl"] = members["records.jsonl"].replace(b'{"gpu":null}', b'{"gpu":NaN}')
    assert b"NaN" in members["records.jsonl"]
    file.write_bytes(signed(members))
    assert import_study(file, there).records == 4
    assert import_study(file, there).there == 4


def test_damaged_lines_of_ones_own_stay_as_they_are(file: Path, there: Path) -> None:
    mine = local(there, confirm(quality=QUALITY))
    damaged = mine.records.read_bytes() + b'{"damaged\n'
    mine.records.write_bytes(damaged + b'{"torn')
    import_study(file, there)
    assert mine.records.read_bytes().startswith(damaged + b'{"schema_version"')
    assert len(read_records(mine).damaged) == 1
    # The end of a line that a crash left behind is set apart.
    assert mine.torn.read_bytes() == b'{"torn\n'


def test_other_choices_are_refused_before_anything_is_written(folder: StudyFolder, file: Path, there: Path) -> None:
    mine = local(there, confirm())
    write_frozen(mine, frozen(seeds=[1, 2]))
    before = tree(there)
    with pytest.raises(ArchiveError, match=r"small\.tar\.gz: frozen\.json: differs from .*frozen\.json: the choices"):
        import_study(file, there)
    assert tree(there) == before


def test_choices_are_taken_where_there_are_none(file: Path, there: Path) -> None:
    mine = local(there, confirm())
    import_study(file, there)
    assert read_frozen(mine) == frozen()
    assert import_study(file, there).records == 0


def planned(*run_ids: str) -> Plan:
    return plan().model_copy(
        update={"runs": tuple(plan().runs[0].model_copy(update={"run_id": each}) for each in run_ids)}
    )


@pytest.mark.parametrize(
    ("mine", "theirs", "taken"),
    [
        ((RUN,), (RUN, TRIAL), True),
        ((RUN, TRIAL), (RUN,), False),
        ((RUN,), (RUN,), False),
        ((RUN,), (TRIAL, OTHER), False),
        ((), (RUN,), True),
    ],
)
def test_a_plan_is_taken_that_covers_more(
    mine: tuple[str, ...], theirs: tuple[str, ...], taken: bool, folder: StudyFolder, file: Path, there: Path
) -> None:
    write_plan(folder, planned(*theirs))
    export_study(folder, file)
    here = StudyFolder.of(there, "small")
    write_plan(here, planned(*mine))
    import_study(file, there)
    assert read_plan(here) == planned(*(theirs if taken else mine))


# The lock


def test_an_import_waits_for_nobody_who_works_on_the_study(file: Path, there: Path) -> None:
    mine = StudyFolder.of(there, "small")
    with locked(mine):
        before = tree(there)
        with pytest.raises(ResultsError, match=r"small: another process works on this study: host "):
            import_study(file, there)
        assert tree(there) == before
    assert import_study(file, there).records == 4


def test_a_conductor_cannot_start_while_an_import_writes(
    file: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = StudyFolder.of(there, "small")
    told: list[str] = []
    real = RecordStore.extend

    def meanwhile(self: RecordStore, records: Iterable[Record]) -> None:
        with pytest.raises(StudyBusy) as caught, locked(mine):
            pass
        told.append(str(caught.value))
        real(self, records)

    monkeypatch.setattr(RecordStore, "extend", meanwhile)
    import_study(file, there)
    assert len(told) == 1
    assert all("another process works on this study: host " in each for each in told)
    assert mine.lock.read_bytes() == b""
    with locked(mine):
        assert mine.lock.read_bytes() != b""


def test_an_import_that_breaks_off_is_completed_by_the_next(
    file: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RecordStore.extend

    def failing(self: RecordStore, records: Iterable[Record]) -> None:
        real(self, list(records)[:2])
        raise ResultsError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(RecordStore, "extend", failing)
        with pytest.raises(ResultsError, match="the disk is full"):
            import_study(file, there)
    mine = StudyFolder.of(there, "small")
    assert mine.lock.read_bytes() == b""
    assert import_study(file, there) == Imported("small", records=2, runs=2, there=2, kept=0, predictions=0)
    assert verify(mine).faults == ()


def test_ten_thousand_records_take_seconds(tmp_path: Path, there: Path) -> None:
    folder = StudyFolder.of(tmp_path / "here", "small")
    line = confirm().model_dump_json()
    folder.root.mkdir(parents=True)
    folder.records.write_text("".join(line.replace(RUN, f"{number:016x}") + "\n" for number in range(10_000)))
    export_study(folder, tmp_path / "file.tar.gz")
    began = time.monotonic()
    assert import_study(tmp_path / "file.tar.gz", there).records == 10_000
    # A wait for the disk after each record would take a minute.
    assert time.monotonic() - began < 30
    assert (there / "small" / "records.jsonl").read_bytes() == folder.records.read_bytes()


def test_an_archive_that_changes_meanwhile_brings_nothing_unchecked(
    file: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = contents(file)
    name = f"predictions/{RUN}.jsonl"

    def meanwhile(*arguments: Any) -> Any:
        # In place: another file of that name would not be the one that is open.
        file.write_bytes(signed({**members, name: members[name].replace(b"meet", b"part")}))
        return plan_merge(*arguments)

    monkeypatch.setattr("results.merging.plan_merge", meanwhile)
    with pytest.raises(ResultsError, match=r"0{16}\.jsonl: the archive changed while it was read"):
        import_study(file, there)
    assert set(tree(there)) == {"small/.lock"}
