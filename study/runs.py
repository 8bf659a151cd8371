"""Runs: one training and evaluation, fully specified, and the digest that names it."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import Enum, StrEnum
from typing import Any

from study.arms import Arm
from study.datasets import Split
from study.models import ModelSpec
from study.prompts import Prompts
from study.settings import Generation, Training
from study.space import Hyperparameters

# Raised when the meaning of a setting changes, so that old numbers are not taken for new ones.
DIGEST_VERSION = 1
_TUNED = {field.name for field in fields(Hyperparameters)}


class Stage(StrEnum):
    """Where in a study a run stands."""

    BASELINE = "baseline"
    TUNE = "tune"
    CONFIRM = "confirm"


class Purpose(StrEnum):
    """Which hyperparameters a confirm run has: its own arm's choice, or the reference's (`drop_in`)."""

    TUNED = "tuned"
    DROP_IN = "drop_in"


@dataclass(frozen=True, slots=True)
class SplitData:
    """Which examples of a split are used: how many, and the digest of their text."""

    split: Split
    size: int
    hash: str


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run. `evaluated` is the split that is scored; `train` is None for a zero-shot run; `memory_limit_bytes` the
    size of the card that is played, None for the card that is there."""

    study: str
    stage: Stage
    purpose: Purpose | None
    arm: Arm
    hyperparameters: Hyperparameters | None
    seed: int
    trial: int | None
    repeat: int
    model: ModelSpec
    train: SplitData | None
    evaluated: SplitData
    prompts: Prompts
    training: Training | None
    generation: Generation
    memory_limit_bytes: int | None = None

    @property
    def run_id(self) -> str:
        """Sixteen hex digits over everything that can change the run's numbers.

        The study's name and the trial's number are left out: neither changes a number, and an index would let an
        edited grid re-label what was already seen. So is whether an arm fixed a hyperparameter or had it drawn.
        """
        arm = {key: value for key, value in self.arm.content().items() if key not in _TUNED}
        content = {
            "digest_version": DIGEST_VERSION,
            "stage": self.stage,
            "purpose": self.purpose,
            "arm": {"name": self.arm.name, **arm},
            "hyperparameters": self.hyperparameters,
            "seed": self.seed,
            "repeat": self.repeat,
            "model": self.model,
            "train": self.train,
            "evaluated": self.evaluated,
            "prompts": [self.prompts.training.hash, self.prompts.evaluation.hash],
            "training": self.training,
            "generation": self.generation,
            "memory_limit_bytes": self.memory_limit_bytes,
        }
        text = json.dumps(canonical(content), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]

    def label(self) -> str:
        """What a person reads of a run: `qlora · trial 3` or `qlora · seed 11`."""
        if self.stage is Stage.BASELINE:
            return f"{self.arm.name} · {self.evaluated.split}"
        if self.stage is Stage.TUNE:
            return f"{self.arm.name} · trial {self.trial}"
        drop_in = " · drop-in" if self.purpose is Purpose.DROP_IN else ""
        return f"{self.arm.name} · seed {self.seed}{drop_in}"


def canonical(value: object) -> object:
    """A value as JSON that does not depend on how it came to be written: what is None is left out (a field added later
    then leaves old digests alone), and 1.0 is 1, as -0.0 is 0.

    Raises:
        TypeError: a value that has no such form; guessing one could give equal runs different digests.
    """
    if isinstance(value, Enum):
        return canonical(value.value)
    if is_dataclass(value) and not isinstance(value, type):
        return canonical({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, dict):
        return {str(key): canonical(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return int(value) if value.is_integer() else value
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be part of a digest")


def plain(value: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values."""
    return dict(json.loads(json.dumps(asdict(value), default=str)))
