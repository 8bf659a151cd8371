"""How a run ended, as a union: only a completed one has anything to score."""

from dataclasses import dataclass
from typing import Literal

from harness.messages import Phase


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
