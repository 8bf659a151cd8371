"""Where a warm worker keeps what its last training was made with, for the next training of the same kind.

What is kept stays reserved while the trial is evaluated, which may need most of the card. It is kept only where both
fit by what was measured: the evaluation's need, in an earlier trial that had all of the card.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from harness.engine.adapting import detach
from harness.engine.rigging import Rig

# The allocator's blocks do not fit each other exactly, and answers are not equally long.
MARGIN = 0.1


def fits(resting: int, need: int, room: int) -> bool:
    """Whether something may stay reserved while what follows has its memory beside it; all in bytes.

    Args:
        resting: what is reserved now, that something with it.
        need: the most that what follows takes beyond.
        room: what this process may have.
    """
    return (1.0 + MARGIN) * (resting + need) <= room


def room() -> int:
    """Bytes that this process may come to reserve: as many as are free now beside what it has, up to its cap."""
    free, total = torch.cuda.mem_get_info()
    cap = int(torch.cuda.get_per_process_memory_fraction() * total)
    return min(cap, free + torch.cuda.memory_reserved())


class Shelf:
    """Keeps the rig of a worker's last training, or none: two would hold two pools of memory."""

    def __init__(self) -> None:
        self._kept: tuple[object, Rig] | None = None
        # Bytes that evaluations took beyond what was reserved before them, by what decides them.
        self._needs: dict[object, int] = {}

    def taken(self, key: object) -> Rig | None:
        """The rig that was kept, if it is of this key and what it reads is where it was. Otherwise there is none, and
        the base is as it was loaded."""
        if self._kept is not None and self._kept[0] == key and self._kept[1].in_place():
            (_, rig), self._kept = self._kept, None
            return rig
        self.clear()
        return None

    def keep(self, key: object, rig: Rig, evaluation: object | None) -> bool:
        """Keeps the rig of a training that has just ended, if it may; what is not kept is still the caller's.

        Args:
            evaluation: what decides the memory of the evaluation that comes before the next training; None where none
                comes.
        """
        if not rig.reusable or not (evaluation is None or evaluation in self._needs):
            return False
        # Since the phase began: what the next first step, which is made outside graphs, will take beside their pool.
        step = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
        # The first step's memory was reserved for the rig's own stream, and serves no evaluation.
        torch.cuda.empty_cache()
        if not fits(torch.cuda.memory_reserved(), max(step, self._needs.get(evaluation, 0)), room()):
            return False
        rig.lay_by()
        self._kept = key, rig
        return True

    def clear(self) -> None:
        """Takes the adapter that was kept off its base, and gives back what it and its graphs held."""
        if self._kept is None:
            return
        detach(self._kept[1].adapter)
        self._kept = None
        gc.collect()
        torch.cuda.empty_cache()

    @contextmanager
    def evaluating(self, evaluation: object) -> Iterator[None]:
        """Measures on the GPU what the block reserves, where that is not known. Nothing is kept then."""
        if evaluation in self._needs:
            yield
            return
        gc.collect()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
        yield
        self._needs[evaluation] = torch.cuda.max_memory_reserved() - before
