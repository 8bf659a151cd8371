"""One record: what was seen of one run.

Format history (`schema_version`):

1. First version (0.1.0).
2. Memory at a failure, breakdown of the training peak, forecast parts, energy by phase, the state of the GPU, memory
   limit (0.2.0). Records of version 1 are read as they are.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

SCHEMA_VERSION: Literal[2] = 2
Version = Literal[1, 2]

Status = Literal["completed", "out_of_memory", "diverged", "pruned", "failed", "timeout", "interrupted", "killed"]
Phase = Literal["load", "prepare", "train", "evaluate"]
# Never run again: they say something about the arm. `pruned` counts as done.
FINAL: frozenset[str] = frozenset({"completed", "out_of_memory", "diverged", "pruned"})
# Run again only when asked to (`--retry-failed`).
RETRY_ON_REQUEST: frozenset[str] = frozenset({"failed", "timeout"})
# Always run again: they say nothing about the arm.
ALWAYS_AGAIN: frozenset[str] = frozenset({"interrupted", "killed"})

NonNegative = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]
# A sha256. It names a file of dialogues (layout.StudyFolder.examples), so that it must never be a path.
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Part(BaseModel):
    """A part of a record: frozen, and no key that the format does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelPart(Part):
    """Which weights: Hub id and revision or another source, and whether they were trained at all."""

    id: str
    revision: str | None
    weights: Literal["pretrained", "random"]


class PrecisionPart(Part):
    """The number formats of the base: `double_quant` is null unless 4-bit."""

    base: str
    compute_dtype: str
    double_quant: bool | None


class AdapterPart(Part):
    """What was adapted; `target_modules` are the module names that really were (null before that is known)."""

    method: str
    rank: int | None
    alpha: int | None
    dropout: float
    targets: tuple[str, ...]
    target_modules: tuple[str, ...] | None


def _encodable(text: object) -> object:
    """A text that a file can hold: a path's undecodable bytes arrive as lone surrogates, and are written out."""
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else text


class ErrorPart(Part):
    """Why a run has no result."""

    type: str
    message: Annotated[str, BeforeValidator(_encodable)]
    phase: str | None


class MemoryPart(Part):
    """Peaks of one phase, in bytes; null where nothing could read them. `source` says how process and device bytes
    were read; `until_failure` that the run ended in this phase, so that the peaks are of what it got to."""

    allocated_bytes: Bytes | None = None
    reserved_bytes: Bytes | None = None
    process_bytes: Bytes | None = None
    device_bytes: Bytes | None = None
    host_rss_bytes: Bytes | None = None
    source: str | None = None
    until_failure: bool = False


class Phases(Part):
    """Memory peaks of each phase; null where the run did not get that far, or had no such phase."""

    load: MemoryPart | None = None
    prepare: MemoryPart | None = None
    train: MemoryPart | None = None
    evaluate: MemoryPart | None = None


class Seconds(Part):
    """Seconds on a monotonic clock, the device synchronised before each reading."""

    load: NonNegative | None = None
    prepare: NonNegative | None = None
    train: NonNegative | None = None
    evaluate: NonNegative | None = None
    total: NonNegative | None = None


class Breakdown(Part):
    """What a peak of allocated memory consists of, in bytes. `quantisation` is what unpacking the weights needs (block
    scales, code books), `rest` temporaries, library workspaces and the allocator's rounding."""

    base_weights: Bytes
    quantisation: Bytes
    adapters: Bytes
    gradients: Bytes
    optimizer: Bytes
    activations: Bytes
    logits: Bytes
    rest: Bytes

    @property
    def total(self) -> int:
        """The peak."""
        return sum(int(value) for value in self.model_dump().values())


class BatchShape(Part):
    """The batch that decides the peak: dialogues, padded tokens of each, and positions whose logits are made."""

    dialogues: int
    width: int
    logits: int


class ForecastPart(Part):
    """What was forecast before the run, to be held against what was measured: the peak of allocated memory while
    training and what it consists of, for the batch that decides it; seconds and joules of training from earlier
    records of the same arm on the same GPU."""

    train_allocated_bytes: Bytes | None = None
    train_seconds: NonNegative | None = None
    train_energy_j: NonNegative | None = None
    breakdown: Breakdown | None = None
    batch: BatchShape | None = None


class EnergyPart(Part):
    """Joules that the whole device drew in a phase, from its energy counter, and the seconds between the readings."""

    joules: NonNegative
    seconds: NonNegative


class GpuStatePart(Part):
    """What the GPU was doing: percent of the last sample period, MHz, °C, watts; null where there is no such sensor."""

    utilisation_percent: int | None = None
    memory_utilisation_percent: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None


class GpuPart(Part):
    """The GPU of a run: its state before and after, memory in use before the worker (bytes), and who else was there.

    `foreign_before` are processes on the card before the worker, by the driver's process ids, with their bytes (null
    where not told); `foreign_during` the most others seen at once. A run that was not alone is flagged in reports.
    """

    uuid: str
    total_bytes: Bytes
    baseline_bytes: Bytes
    driver_reserved_bytes: Bytes | None
    before: GpuStatePart
    after: GpuStatePart | None
    foreign_before: tuple[tuple[int, int | None], ...]
    foreign_during: int
    samples_per_second: float | None

    @property
    def alone(self) -> bool:
        """Whether nobody else used the card."""
        return not self.foreign_before and self.foreign_during == 0


class Tokens(Part):
    """Counts of real tokens: padding is counted apart and never in `trained`."""

    trained: int | None = None
    trained_completion: int | None = None
    trained_padding: int | None = None
    steps: int | None = None
    prompt: int | None = None
    generated: int | None = None


class Parameters(Part):
    """Parameter counts with packed 4-bit weights counted as what they stand for; `adapter_bytes` as kept in memory."""

    trainable: int
    total: int
    adapter_bytes: int


class DataPart(Part):
    """Which examples were used: digests of their text, their number, and how many did not fit."""

    train_hash: Digest | None
    train_size: int | None
    evaluated_hash: Digest
    evaluated_size: int
    truncated_train: int | None = None
    truncated_evaluated: int | None = None


class Record(Part):
    """One line of `records.jsonl`. A run may have several; the last counts.

    `quality` holds F measures in points (0–100), mean over references, with `_max` beside, and is null unless the run
    is completed and its weights are pretrained. `environment` holds GPU, driver, packages and code version. `energy_j`
    is what the device drew in the whole run, a window of `energy_window_s`; `breakdown` is that of the training peak;
    `memory_limit_bytes` is the size of the card that was played, if any.
    """

    schema_version: Version = SCHEMA_VERSION
    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    study: str
    stage: Literal["baseline", "tune", "confirm"]
    purpose: Literal["tuned", "drop_in"] | None
    split: Literal["validation", "test"]
    repeat: int
    arm: str
    protocol: Literal["paper", "seed"]
    model: ModelPart
    precision: PrecisionPart
    adapter: AdapterPart
    learning_rate: float | None
    training: dict[str, Any] | None
    generation: dict[str, Any]
    prompt_hash: str
    seed: int
    trial: int | None
    status: Status
    error: ErrorPart | None
    quality: dict[str, float] | None
    memory: Phases
    forecast: ForecastPart
    seconds: Seconds
    tokens: Tokens
    energy_j: NonNegative | None
    parameters: Parameters | None
    # The rest of the measurements has a default: records of version 1 have none of it.
    breakdown: Breakdown | None = None
    energy_window_s: NonNegative | None = None
    energy: dict[Phase, EnergyPart] = {}
    gpu: GpuPart | None = None
    memory_limit_bytes: Bytes | None = None
    checks: dict[str, Any]
    data: DataPart
    environment: dict[str, Any]
    started_at: str

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        for refused, why in (*self._of_the_outcome(), *self._of_the_stage()):
            if refused:
                raise ValueError(why)
        return self

    def _of_the_outcome(self) -> Iterator[tuple[bool, str]]:
        completed, scored = self.status == "completed", self.quality is not None
        random = self.model.weights == "random"
        yield completed and self.error is not None, "a completed run has no error"
        yield completed and scored == random, "a completed run has quality, but none where its weights are random"
        yield not completed and scored, f"a run that is {self.status} has no quality"
        silent = self.error is None and self.status not in ("completed", "pruned", "interrupted")
        yield silent, f"a run that is {self.status} says why"

    def _of_the_stage(self) -> Iterator[tuple[bool, str]]:
        trains = self.stage != "baseline"
        of_training = (self.training, self.learning_rate, self.adapter.rank, self.adapter.alpha, self.data.train_hash)
        yield (self.purpose is None) == (self.stage == "confirm"), "a confirm run has a purpose, and no other has"
        yield (self.trial is None) == (self.stage == "tune"), "a trial has a number, and no other run has"
        yield self.stage == "tune" and self.split != "validation", "a trial is scored on the validation split"
        yield self.stage == "confirm" and self.split != "test", "a confirm run is scored on the test split"
        yield (
            any((part is not None) != trains for part in of_training),
            ("training, learning_rate, rank, alpha and train_hash are null in a baseline, and in no other stage"),
        )

    @property
    def is_final(self) -> bool:
        """Whether the run is never repeated."""
        return self.status in FINAL


class Prediction(Part):
    """One dialogue of a run: what was written and what each reference gave it.

    `scores` maps a ROUGE type to one [precision, recall, F] in points a reference; null for random weights.
    """

    example_id: str
    prediction: str
    tokens: int
    hit_limit: bool
    truncated: bool
    scores: dict[str, tuple[tuple[float, float, float], ...]] | None


class Choice(Part):
    """The hyperparameters frozen for one arm, and what they were chosen by."""

    arm: str
    rank: int
    alpha: int
    learning_rate: float
    run_id: str | None
    score: float | None
    trials: int
    completed_trials: int
    edges: tuple[str, ...]
    ranking: tuple[str, ...]
    reason: str


class FrozenClaim(Part):
    """A claim as it stood at the freeze: the margin is in points from here on."""

    name: str
    candidate: str
    reference: str
    metrics: tuple[str, ...]
    margin: float
    margin_rule: str
    confidence: float
    drop_in: bool


class Importances(Part):
    """How far each hyperparameter decided whether a trial of an arm came out in its better half.

    `shares` are of the hyperparameters that varied and add up to 1, to four decimals; they are empty, and `reason` says
    why, where the trials cannot tell. `trials` counts those that gave a score.
    """

    arm: str
    evaluator: str
    trials: int
    shares: dict[str, float]
    reason: str | None = None


class ArmPart(Part):
    """How an arm is described in reports, also where it has no run yet."""

    name: str
    family: str
    precision: str
    method: str
    double_quant: bool | None
    targets: tuple[str, ...]
    zero_shot: str | None


class PruningPart(Part):
    """By which rule hopeless trials ended early (`harness.pruning`), the same for every arm."""

    at: tuple[float, ...]
    startup: int
    keep: float


class Frozen(Part):
    """`frozen.json`: what was fixed when the last trial was done and before any test score was seen."""

    schema_version: Version = SCHEMA_VERSION
    study: str
    protocol: Literal["paper", "seed"]
    model: ModelPart
    select_by: str
    arms: tuple[ArmPart, ...]
    choices: tuple[Choice, ...]
    claims: tuple[FrozenClaim, ...]
    seeds: tuple[int, ...]
    data: dict[str, str]
    prompt_hash: str
    frozen_at: str
    # Has a default: a freeze of 0.1.0 has none.
    importances: tuple[Importances, ...] = ()
    # Null where trials were never pruned, as in all freezes before there was pruning.
    pruning: PruningPart | None = None


class PlannedRun(Part):
    """One run of the planned matrix."""

    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    stage: Literal["baseline", "tune", "confirm"]
    purpose: Literal["tuned", "drop_in"] | None
    arm: str
    split: Literal["validation", "test"]
    seed: int
    trial: int | None
    repeat: int


class Plan(Part):
    """`plan.json`: the matrix as the grid asks for it, known as far as the freeze allows, and the floors of its data.

    `expected_confirm` counts the confirm and test runs that follow a freeze still to come. `floors` maps a system that
    needs no training (a constant summary, the first three turns) to its scores on the test split, in points.
    """

    schema_version: Version = SCHEMA_VERSION
    study: str
    protocol: Literal["paper", "seed"]
    arms: tuple[ArmPart, ...]
    runs: tuple[PlannedRun, ...]
    expected_confirm: int
    floors: dict[str, dict[str, float]]
    # Digest of the test split that the floors were scored on.
    floors_of: Digest
    data_description: str
    data_notes: tuple[str, ...]
    # Each claim's margin as the grid states it now: one that differs from the frozen one was changed afterwards.
    margins: dict[str, str]
    # Null where trials are not pruned, as in all plans before there was pruning.
    pruning: PruningPart | None = None
    # Whether trials may share captured steps, and be made on a base that is kept unpacked: of those that did or were,
    # records have neither memory nor time.
    share_graphs: bool = False
    unpacked_base: bool = False
