"""How a run ended, as a union: only a completed one has anything to score."""

import signal
from dataclasses import dataclass
from typing import Literal

from harness.messages import Phase

# What a process brings upon itself; any other signal comes from outside.
_OWN_SIGNALS = frozenset(
    {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP}
)
# What multiprocessing says where the template died, and nobody can tell how the worker ended.
_UNKNOWN = 255


@dataclass(frozen=True, slots=True)
class Completed:
    """The run did all it was asked; `validation_loss` in nats per token."""

    validation_loss: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run ended early, and why."""

    status: Literal["out_of_memory", "diverged", "pruned", "failed", "timeout", "interrupted", "killed"]
    type: str
    message: str
    phase: Phase | None


Outcome = Completed | Stopped


def of_death(exit_code: int | None) -> Literal["killed", "failed"]:
    """How a run ended whose worker is gone without a last word: `killed` where somebody ended it, as the kernel does
    when memory runs out, which says nothing about the run; `failed` where it crashed, and would again."""
    if exit_code is None or exit_code in (0, _UNKNOWN):
        return "killed"
    return "failed" if exit_code > 0 or -exit_code in _OWN_SIGNALS else "killed"
