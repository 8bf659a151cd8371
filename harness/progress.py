"""What the store already holds of a planned matrix. Resuming is the ordinary case, not a mode."""

from collections.abc import Iterable
from dataclasses import dataclass

from results.schema import ALWAYS_AGAIN, RETRY_ON_REQUEST, Record
from study.runs import RunSpec


@dataclass(frozen=True, slots=True)
class Split:
    """Planned runs, parted by what the store says: done for good, given up on, and still to do."""

    done: tuple[RunSpec, ...]
    given_up: tuple[RunSpec, ...]
    to_do: tuple[RunSpec, ...]


def parted(specs: Iterable[RunSpec], last: dict[str, Record], *, retry_failed: bool) -> Split:
    """Parts planned runs: final outcomes are never repeated, `failed` and `timeout` only on request, `interrupted`
    and `killed` always. A run planned twice is done once."""
    done: list[RunSpec] = []
    given_up: list[RunSpec] = []
    to_do: dict[str, RunSpec] = {}
    for spec in specs:
        run_id = spec.run_id
        record = last.get(run_id)
        if record is None or record.status in ALWAYS_AGAIN:
            to_do.setdefault(run_id, spec)
        elif record.status in RETRY_ON_REQUEST:
            if retry_failed:
                to_do.setdefault(run_id, spec)
            else:
                given_up.append(spec)
        else:
            done.append(spec)
    return Split(tuple(done), tuple(given_up), tuple(to_do.values()))
