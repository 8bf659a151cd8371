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
# What runs have in common, with its text in a digest, by the object's address.
_SHARED: dict[int, tuple[object, str]] = {}
_SHARED_MOST = 4096


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
        parts = {
            "digest_version": str(DIGEST_VERSION),
            "stage": _text(self.stage),
            "purpose": _text(self.purpose),
            "arm": _shared_text(self.arm),
            "hyperparameters": _text(self.hyperparameters),
            "seed": _text(self.seed),
            "repeat": _text(self.repeat),
            "model": _shared_text(self.model),
            "train": _shared_text(self.train),
            "evaluated": _shared_text(self.evaluated),
            "prompts": _shared_text(self.prompts),
            "training": _shared_text(self.training),
            "generation": _shared_text(self.generation),
            "memory_limit_bytes": _text(self.memory_limit_bytes),
        }
        # As `_text` would have the whole: what is None is left out, keys are sorted.
        text = ",".join(f'"{key}":{part}' for key, part in sorted(parts.items()) if part != "null")
        return hashlib.sha256(f"{{{text}}}".encode("ascii")).hexdigest()[:16]

    def label(self) -> str:
        """What a person reads of a run: `qlora · trial 3` or `qlora · seed 11`."""
        if self.stage is Stage.BASELINE:
            return f"{self.arm.name} · {self.evaluated.split}"
        if self.stage is Stage.TUNE:
            return f"{self.arm.name} · trial {self.trial}"
        drop_in = " · drop-in" if self.purpose is Purpose.DROP_IN else ""
        return f"{self.arm.name} · seed {self.seed}{drop_in}"


def _text(value: object) -> str:
    """The canonical form of a value as JSON text."""
    if type(value) is int:
        return str(value)
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _shared_text(value: Arm | ModelSpec | SplitData | Prompts | Training | Generation | None) -> str:
    """`_text` of what many runs have in common, made once for each object.

    An object is known by its identity, not by equality: True equals 1, and their texts differ. It is kept with its
    text, so that no other object can come to stand at its address.
    """
    known = _SHARED.get(id(value))
    if known is not None:
        return known[1]
    content: object = value
    if isinstance(value, Arm):
        tuned = {key: part for key, part in value.content().items() if key not in _TUNED}
        content = {"name": value.name, **tuned}
    elif isinstance(value, Prompts):
        content = [value.training.hash, value.evaluation.hash]
    text = _text(content)
    if len(_SHARED) >= _SHARED_MOST:
        _SHARED.clear()
    _SHARED[id(value)] = (value, text)
    return text


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
