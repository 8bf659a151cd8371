"""What the conductor and a worker say to each other: one JSON object a message."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from study.runs import RunSpec

Phase = Literal["load", "prepare", "train", "evaluate"]
PHASES: tuple[Phase, ...] = ("load", "prepare", "train", "evaluate")
Device = Literal["cuda", "cpu"]


@dataclass(frozen=True, slots=True)
class Job:
    """One run for a worker: what to do, where its examples lie, and on which device.

    `model_folder` is the folder with weights and tokenizer; `train_file` is None for a zero-shot run.
    """

    spec: RunSpec
    model_folder: str
    train_file: str | None
    evaluated_file: str
    device: Device
    kind: Literal["job"] = "job"


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Make the folder with a model's weights and tokenizer: download, dequantise, or build it."""

    model_id: str
    revision: str | None
    device: Device
    kind: Literal["model"] = "model"


@dataclass(frozen=True, slots=True)
class ModelReady:
    """The folder that was asked for, and the revision that it holds."""

    folder: str
    revision: str | None
    kind: Literal["model_ready"] = "model_ready"


@dataclass(frozen=True, slots=True)
class TryPrecisions:
    """Load and train a tiny model in each of these precisions."""

    precisions: tuple[str, ...]
    device: Device
    kind: Literal["try_precisions"] = "try_precisions"


@dataclass(frozen=True, slots=True)
class PrecisionTrial:
    """What came of one precision: seconds, and why it does not work, if it does not."""

    precision: str
    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class PrecisionsTried:
    """What came of every precision."""

    trials: tuple[PrecisionTrial, ...]
    kind: Literal["precisions_tried"] = "precisions_tried"


@dataclass(frozen=True, slots=True)
class Hello:
    """The first word of a worker: its process, its GPU (UUID) and the versions that it runs on."""

    pid: int
    gpu_uuid: str | None
    gpu_name: str | None
    facts: dict[str, Any]
    kind: Literal["hello"] = "hello"


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase begins; its peaks were reset."""

    phase: Phase
    kind: Literal["phase_started"] = "phase_started"


@dataclass(frozen=True, slots=True)
class PhaseEnded:
    """A phase is over: seconds on a monotonic clock (device synchronised) and the peaks the worker itself can read."""

    phase: Phase
    seconds: float
    allocated_bytes: int | None
    reserved_bytes: int | None
    host_rss_bytes: int | None
    kind: Literal["phase_ended"] = "phase_ended"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a phase stands; `loss` in nats per token, `tokens_per_second` of real tokens."""

    phase: Phase
    done: int
    total: int
    loss: float | None = None
    tokens_per_second: float | None = None
    kind: Literal["progress"] = "progress"


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of a run as soon as they are known, merged into its record by name (`parameters`, `tokens`, `checks`)."""

    section: Literal["parameters", "tokens", "checks", "data", "adapter"]
    values: dict[str, Any]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model wrote for one dialogue, already cut by the prompt template."""

    example_id: str
    text: str
    tokens: int
    hit_limit: bool
    truncated: bool


@dataclass(frozen=True, slots=True)
class Answers:
    """A batch of answers."""

    answers: tuple[Answer, ...]
    kind: Literal["answers"] = "answers"


@dataclass(frozen=True, slots=True)
class Finished:
    """The run is complete; `validation_loss` in nats per token of the first reference."""

    validation_loss: float
    kind: Literal["finished"] = "finished"


@dataclass(frozen=True, slots=True)
class Raised:
    """The run ended early; `outcome` is the worker's own reading of why."""

    outcome: Literal["out_of_memory", "diverged", "failed"]
    type: str
    message: str
    phase: Phase | None
    # What the worker could still read when it failed: bytes allocated, for an out-of-memory.
    details: dict[str, Any] = field(default_factory=dict)
    kind: Literal["raised"] = "raised"


Command = Job | ModelRequest | TryPrecisions
Event = (
    Hello | PhaseStarted | PhaseEnded | Progress | Facts | Answers | Finished | Raised | ModelReady | PrecisionsTried
)

_COMMANDS: TypeAdapter[Command] = TypeAdapter(Command)
_EVENTS: TypeAdapter[Event] = TypeAdapter(Event)


class ProtocolError(RuntimeError):
    """A message that neither side can have sent."""


def encode(message: Command | Event) -> bytes:
    """One message as JSON."""
    return TypeAdapter(type(message)).dump_json(message)


def decode_command(data: bytes) -> Command:
    """The command that a message holds.

    Raises:
        ProtocolError: it holds none.
    """
    try:
        return _COMMANDS.validate_json(data)
    except ValidationError as error:
        raise ProtocolError(f"no command: {error}") from error


def decode_event(data: bytes) -> Event:
    """The event that a message holds.

    Raises:
        ProtocolError: it holds none.
    """
    try:
        return _EVENTS.validate_json(data)
    except ValidationError as error:
        raise ProtocolError(f"no event: {error}") from error
