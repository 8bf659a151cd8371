"""Runs side by side: a thread for each seat takes what is waiting, until nothing is left or somebody asks to stop."""

import queue
import threading
from collections.abc import Callable, Sequence

from harness.desk import Halted, Seat, warm_key
from results.schema import Record
from study.runs import RunSpec


def side_by_side(
    seats: Sequence[Seat],
    specs: Sequence[RunSpec],
    work: Callable[[Seat, RunSpec], Record],
    keep: Callable[[Record], None],
    turn: Callable[[RunSpec], object | None] = lambda _: None,
) -> None:
    """Has every run made in one of the seats, and hands over each record, in this thread, as runs end.

    Threads, because what a worker says of its phases must be heard at once: the GPU's readings are parted there. What
    one of them raises, or this one (Interrupted), halts the other seats; all threads have ended then, and every run
    that was under way has its record. Runs of the same `turn` are made one after another, in their order; those
    without one (None) at any time.
    """
    waiting = _Waiting(specs, turn)
    said: queue.SimpleQueue[Record | BaseException | None] = queue.SimpleQueue()

    def serve(seat: Seat) -> None:
        try:
            while (spec := waiting.next_for(seat)) is not None:
                said.put(work(seat, spec))
        except Halted:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that asked
            said.put(error)
        said.put(None)

    # They end with this process, should it be told to stop a second time.
    threads = [threading.Thread(target=serve, args=(seat,), daemon=True) for seat in seats[: len(specs)]]
    for thread in threads:
        thread.start()
    try:
        _collect(said, len(threads), keep)
    except BaseException:
        waiting.clear()
        for seat in seats:
            seat.halt()
        raise
    finally:
        for thread in threads:
            thread.join()


def _collect(
    said: "queue.SimpleQueue[Record | BaseException | None]", working: int, keep: Callable[[Record], None]
) -> None:
    while working:
        match said.get():
            case None:
                working -= 1
            case BaseException() as error:
                raise error
            case record:
                keep(record)


class _Waiting:
    """Runs that wait for a seat."""

    def __init__(self, specs: Sequence[RunSpec], turn: Callable[[RunSpec], object | None]) -> None:
        self._specs = list(specs)
        self._turn = turn
        # What each seat works on, by the seat's identity.
        self._taken: dict[int, RunSpec] = {}
        self._lock = threading.Lock()

    def next_for(self, seat: Seat) -> RunSpec | None:
        """The run that costs a seat least: one whose base is loaded there, else one whose base nobody else works with,
        else the first; None where nothing is left for this seat.

        What waits for its turn is left to the seats that hold the turns: they come back, and take it."""
        with self._lock:
            self._taken.pop(id(seat), None)
            ready = self._ready()
            if not ready:
                return None
            here = None if seat.desk is None else seat.desk.key
            elsewhere = {warm_key(spec) for spec in self._taken.values()}

            def cost(spec: RunSpec) -> int:
                key = warm_key(spec)
                if key is None:
                    return 0
                return 0 if key == here else 1 + (key in elsewhere)

            chosen = min(ready, key=cost)
            self._specs.remove(chosen)
            self._taken[id(seat)] = chosen
            return chosen

    def _ready(self) -> list[RunSpec]:
        """What waits for no turn, and the first of every turn that no seat holds."""
        ready, held = [], {self._turn(spec) for spec in self._taken.values()}
        for spec in self._specs:
            turn = self._turn(spec)
            if turn is None or turn not in held:
                ready.append(spec)
            held.add(turn)
        return ready

    def clear(self) -> None:
        """Nothing waits any more."""
        with self._lock:
            self._specs.clear()
