"""Runs side by side: who gets which, and how all of them stop."""

import threading
import time
from pathlib import Path
from typing import cast

import pytest

from harness.desk import Desk, Halted, Machine, Seat, warm_key
from harness.sidebyside import side_by_side
from harness.signals import Interrupted
from harness.specs import Specs
from harness.workers import Template
from results.schema import Record
from study.dialogues import generate
from study.grid import load_grid
from study.runs import RunSpec
from tests.unit.results.records import confirm
from tests.unit.study.small_grid import SMALL

SPECS = Specs.of(load_grid(SMALL), generate(0, {"train": 8, "validation": 4, "test": 4}, turns=(4, 5)))
ARMS = ("lora", "qlora@double_quant=true")


class Sat:
    """A desk without a worker, which only knows its base and whether it was halted."""

    def __init__(self, key: object) -> None:
        self.key = key
        self.halted = threading.Event()

    def halt(self) -> None:
        self.halted.set()


class Work:
    """What is done in the seats: remembers who made what; in `held` runs it waits until it is halted."""

    def __init__(self, together: int = 1, held: tuple[str, ...] = ()) -> None:
        self.made: list[tuple[Seat, RunSpec]] = []
        self.recorded: list[str] = []
        self._together = threading.Barrier(together)
        self._held = held

    def __call__(self, seat: Seat, spec: RunSpec) -> Record:
        if seat.desk is None or seat.desk.key != warm_key(spec):
            seat.desk = cast(Desk, Sat(warm_key(spec)))
        self.made.append((seat, spec))
        if len(self.made) <= self._together.parties:
            self._together.wait(10)
        if spec.run_id in self._held:
            assert cast(Sat, seat.desk).halted.wait(10)
            self.recorded.append(spec.run_id)
            raise Halted
        return confirm(run_id=spec.run_id)


@pytest.fixture
def seats(tmp_path: Path) -> tuple[Seat, ...]:
    machine = Machine("cpu", None, {}, (None, None))
    return tuple(Seat(Template(), machine, tmp_path, gpu) for gpu in machine.seats)


def trials(*arms: str) -> list[RunSpec]:
    return [spec for arm in arms for spec in SPECS.block(SPECS.grid.arm(arm))]


def test_every_run_is_made_once_and_two_at_a_time(seats: tuple[Seat, ...]) -> None:
    specs, kept, work = trials("lora"), [], Work(together=2)
    side_by_side(seats, specs, work, lambda record: kept.append(record.run_id))
    assert sorted(kept) == sorted(spec.run_id for spec in specs)
    assert {id(seat) for seat, _ in work.made} == {id(seat) for seat in seats}


def test_each_seat_keeps_the_base_it_has_loaded(seats: tuple[Seat, ...]) -> None:
    work = Work(together=2)

    def slowly(seat: Seat, spec: RunSpec) -> Record:
        time.sleep(0.005)
        return work(seat, spec)

    side_by_side(seats, trials(*ARMS), slowly, lambda record: None)
    first = {id(seat): [spec.arm.name for each, spec in work.made if each is seat][:3] for seat in seats}
    assert sorted(first.values()) == [[arm] * 3 for arm in ARMS]


def test_runs_of_one_turn_are_made_in_their_order_and_never_at_once(seats: tuple[Seat, ...]) -> None:
    work, under_way, order = Work(together=2), set[str](), list[tuple[str, int | None]]()

    def slowly(seat: Seat, spec: RunSpec) -> Record:
        assert spec.arm.name not in under_way
        under_way.add(spec.arm.name)
        order.append((spec.arm.name, spec.trial))
        record = work(seat, spec)
        time.sleep(0.01 if spec.arm.name == ARMS[0] else 0.001)
        under_way.remove(spec.arm.name)
        return record

    side_by_side(seats, trials(*ARMS), slowly, lambda record: None, lambda spec: spec.arm.name)
    for arm in ARMS:
        assert [number for name, number in order if name == arm] == [0, 1, 2, 3]


def test_one_turn_keeps_one_seat_busy_and_the_other_ends(seats: tuple[Seat, ...]) -> None:
    work = Work()
    side_by_side(seats, trials("lora"), work, lambda record: None, lambda spec: spec.arm.name)
    assert [spec.trial for _, spec in work.made] == [0, 1, 2, 3]
    assert len({id(seat) for seat, _ in work.made}) == 1


def test_what_one_run_raises_stops_the_others_and_is_raised(seats: tuple[Seat, ...]) -> None:
    held, broken, *rest = trials("lora")
    work = Work(together=2, held=(held.run_id,))

    def fails(seat: Seat, spec: RunSpec) -> Record:
        record = None if spec == broken else work(seat, spec)
        if record is None:
            work._together.wait(10)
            raise OSError("the disk is full")
        return record

    with pytest.raises(OSError, match="full"):
        side_by_side(seats, [held, broken, *rest], fails, lambda record: None)
    # It has had time to leave its record, and nothing new was begun.
    assert work.recorded == [held.run_id]
    assert len(work.made) == 1


def test_who_asks_to_stop_gets_the_answer_when_every_thread_has_ended(seats: tuple[Seat, ...]) -> None:
    held, quick, *rest = trials("lora")
    work = Work(together=2, held=(held.run_id, *(spec.run_id for spec in rest)))

    def stop(record: Record) -> None:
        raise Interrupted(2)

    before = threading.active_count()
    with pytest.raises(Interrupted):
        side_by_side(seats, [held, quick, *rest], work, stop)
    assert threading.active_count() == before
    assert held.run_id in work.recorded


def test_a_seat_that_was_halted_starts_nothing_that_lasts(seats: tuple[Seat, ...]) -> None:
    seat, spec = seats[0], trials("lora")[0]
    sat = Sat(warm_key(spec))
    seat.desk = cast(Desk, sat)
    seat.halt()
    assert sat.halted.is_set()
    sat.halted.clear()
    seat.desk_for(spec)
    assert sat.halted.is_set()
