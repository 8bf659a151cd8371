"""What the conductor and a worker say to each other: one JSON object a message."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from study.arms import Arm
from study.prompts import Prompts
from study.runs import RunSpec
from study.settings import Training

Phase = Literal["load", "prepare", "train", "evaluate"]
PHASES: tuple[Phase, ...] = ("load", "prepare", "train", "evaluate")
Device = Literal["cuda", "cpu"]


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """A smaller card to be played, in bytes: its size, and what this one holds before the worker has a context.

    `free_before` and `driver_reserve` are the device's free memory and the driver's own share of it.
    """

    limit_bytes: int
    free_before: int
    driver_reserve: int


@dataclass(frozen=True, slots=True)
class Waypoint:
    """Where a trial is looked at: a share of its steps, and the loss above which it ends there, as `among` earlier
    trials set it; None where they are too few."""

    share: float
    bar: float | None
    among: int


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where a training keeps its checkpoint, and after how many optimizer steps each."""

    folder: str
    every: int


@dataclass(frozen=True, slots=True)
class Job:
    """One run for a worker: what to do, where its examples lie, and on which device.

    `model_folder` is the folder with weights and tokenizer; `train_file` is None for a zero-shot run. `measured` says
    that the figures of this run may be quoted: then the peak of its training is broken down. The adapter is saved to
    `adapter_folder`, where one is given, once the run is over. A trial that may be pruned has `waypoints`. With
    `checkpoints` a training keeps some, and goes on from the last one that an earlier start left. A trial with a
    `padded_rank`, the largest of its arm's space, may be trained in an adapter of that rank, to share captured steps
    with the others; one that may be `unpacked`, on 4-bit weights that are kept unpacked.
    """

    spec: RunSpec
    model_folder: str
    train_file: str | None
    evaluated_file: str
    device: Device
    measured: bool = False
    memory_limit: MemoryLimit | None = None
    adapter_folder: str | None = None
    waypoints: tuple[Waypoint, ...] = ()
    checkpoints: Checkpoints | None = None
    padded_rank: int | None = None
    unpacked: bool = False
    kind: Literal["job"] = "job"


@dataclass(frozen=True, slots=True)
class Prepare:
    """Do of a run what needs no memory of the GPU, before the run itself is asked for: another one has the GPU still.

    Files and folder are those of the `Job` to come; where there is no folder yet the examples are left alone.
    """

    spec: RunSpec
    model_folder: str | None
    train_file: str | None
    evaluated_file: str
    device: Device
    kind: Literal["prepare"] = "prepare"


@dataclass(frozen=True, slots=True)
class RehearsalCase:
    """An arm whose peaks are asked for; `training` and `rank` are None for a zero-shot arm.

    `batch` (dialogues, padded tokens, logit positions) stands for the longest training batch where there are no
    examples to find it in; `evaluated` (dialogues, prompt tokens, new tokens, reference tokens) is the longest batch of
    evaluation, or None where only the training counts; `static_cache` says how its keys and values are kept.
    """

    arm: Arm
    rank: int | None
    training: Training | None
    seed: int
    batch: tuple[int, int, int] | None = None
    evaluated: tuple[int, int, int, int] | None = None
    static_cache: bool = True


@dataclass(frozen=True, slots=True)
class Rehearse:
    """Compute a training step of each case on the meta device: no weights, no GPU.

    `model_folder` is None where the model is not here; then its configuration must be known or cached. `train_file` is
    None where the examples are not.
    """

    model_id: str
    revision: str | None
    model_folder: str | None
    prompts: Prompts
    train_file: str | None
    cases: tuple[RehearsalCase, ...]
    kind: Literal["rehearse"] = "rehearse"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What came of one case: bytes at the training peak by category, the batch that decides it, bytes at the peak of
    evaluation, parameters, and the real tokens that the training will see; `error` says why there is nothing else."""

    case: int
    parts: dict[str, int] | None = None
    evaluate_bytes: int | None = None
    batch: tuple[int, int, int] | None = None
    trainable: int | None = None
    total: int | None = None
    tokens: int | None = None
    error: str | None = None
    kind: Literal["rehearsal"] = "rehearsal"


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
class Prepared:
    """What could be done in advance is done, and there is no context on the GPU."""

    kind: Literal["prepared"] = "prepared"


@dataclass(frozen=True, slots=True)
class PhaseStarted:
    """A phase begins; its peaks were reset."""

    phase: Phase
    kind: Literal["phase_started"] = "phase_started"


@dataclass(frozen=True, slots=True)
class PhaseEnded:
    """A phase is over: seconds on a monotonic clock (device synchronised) and the peaks the worker itself can read.

    `failed`: by an exception, so that the peaks are of what it got to."""

    phase: Phase
    seconds: float
    allocated_bytes: int | None
    reserved_bytes: int | None
    host_rss_bytes: int | None
    failed: bool = False
    kind: Literal["phase_ended"] = "phase_ended"


@dataclass(frozen=True, slots=True)
class Resumed:
    """The training goes on after `step` of `steps`: the seconds that these took, in however many parts, and the highest
    peaks that the worker itself could read."""

    step: int
    steps: int
    seconds: float
    allocated_bytes: int | None
    reserved_bytes: int | None
    host_rss_bytes: int | None
    kind: Literal["resumed"] = "resumed"


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

    section: Literal["parameters", "tokens", "checks", "data", "adapter", "breakdown"]
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
class Alive:
    """A sign of life, whatever else the worker is doing."""

    kind: Literal["alive"] = "alive"


@dataclass(frozen=True, slots=True)
class Finished:
    """The run is complete; `validation_loss` in nats per token of the first reference."""

    validation_loss: float
    kind: Literal["finished"] = "finished"


@dataclass(frozen=True, slots=True)
class Raised:
    """The run ended early; `outcome` is the worker's own reading of why. Where the worker has not `begun`, no run is to
    blame."""

    outcome: Literal["out_of_memory", "diverged", "pruned", "failed"]
    type: str
    message: str
    phase: Phase | None
    begun: bool = True
    kind: Literal["raised"] = "raised"


Command = Job | Prepare | ModelRequest | TryPrecisions | Rehearse
Event = (
    Hello
    | Prepared
    | PhaseStarted
    | PhaseEnded
    | Resumed
    | Progress
    | Facts
    | Answers
    | Alive
    | Finished
    | Raised
    | ModelReady
    | PrecisionsTried
    | Rehearsal
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
