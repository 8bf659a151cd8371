"""What can be said of an arm before it runs: memory from a rehearsal, time and energy from earlier records."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from harness.messages import Rehearsal
from results.schema import BatchShape, Breakdown, ForecastPart, Record
from study.arms import Arm, Precision
from study.models import ModelShape
from study.runs import RunSpec
from study.settings import Training

GIB = 1024**3
CPU = "cpu"
# Sizes of common cards, GiB.
CARDS = (8, 12, 16, 24, 40, 80)
# bitsandbytes keeps one fp32 absmax a block of 64 weights; double quantisation keeps it in 8 bits, with one fp32 a
# block of 256 of those (Dettmers et al. 2023, section 3).
_BLOCK, _DOUBLE_BLOCK = 64, 256
_BYTES = {Precision.FP32: 4.0, Precision.FP16: 2.0, Precision.BF16: 2.0, Precision.INT8: 1.0}


@dataclass(frozen=True, slots=True)
class ArmForecast:
    """Weights of the base in bytes, and parameters of the adapter at a rank."""

    weight_bytes: int
    trainable: int
    total: int


def forecast_arm(arm: Arm, shape: ModelShape, rank: int) -> ArmForecast:
    """Weights and adapter parameters of an arm on a model of known shape.

    Quantisation packs the linear layers of the decoder; embeddings, norms, biases and head keep the compute dtype.
    """
    packed = shape.linear_parameters if arm.precision.is_quantised else 0
    plain = shape.parameters - packed
    plain_bytes = 4 if arm.compute_dtype == "fp32" else 2
    per_weight = _packed_bytes(arm) if packed else 0.0
    # LLM.int8 keeps one fp32 scale a row of each quantised weight.
    rows = shape.layers * sum(linear.outputs for linear in shape.linears) if arm.precision is Precision.INT8 else 0
    trainable = shape.lora_parameters(arm.targets, rank) if arm.trains else 0
    return ArmForecast(
        weight_bytes=round(plain * plain_bytes + packed * per_weight + 4 * rows),
        trainable=trainable,
        total=shape.parameters + trainable,
    )


def _packed_bytes(arm: Arm) -> float:
    if not arm.precision.is_4bit:
        return _BYTES[arm.precision]
    scales = 4 / _BLOCK
    if arm.double_quant:
        scales = 1 / _BLOCK + 4 / (_BLOCK * _DOUBLE_BLOCK)
    return 0.5 + scales


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a card holds besides allocated memory: the share by which reserved memory exceeds it, and the context and
    the driver's own reserve in bytes. The defaults were measured on an H200 (docs/measurements.md)."""

    reserved_share: float = 0.08
    context_bytes: int = 762 * 1024**2
    driver_bytes: int = 615 * 1024**2

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Overhead":
        """As earlier records tell it, medians; the defaults where they do not."""
        default, shares, contexts, drivers = cls(), [], [], []
        for record in records:
            train = record.memory.train
            if train is None or train.process_bytes is None or not train.reserved_bytes or not train.allocated_bytes:
                continue
            shares.append(train.reserved_bytes / train.allocated_bytes - 1)
            contexts.append(max(0, train.process_bytes - train.reserved_bytes))
            if record.gpu is not None and record.gpu.driver_reserved_bytes is not None:
                drivers.append(record.gpu.driver_reserved_bytes)
        return cls(
            median(shares) if shares else default.reserved_share,
            round(median(contexts)) if contexts else default.context_bytes,
            round(median(drivers)) if drivers else default.driver_bytes,
        )

    def card_bytes(self, allocated: int) -> int:
        """How large a card must be for a peak of allocated memory, in bytes."""
        return round(allocated * (1 + self.reserved_share)) + self.context_bytes + self.driver_bytes


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast earlier runs like this one were.

    Real tokens a second in training, and the seconds that its first step takes longer than the others (it loads
    kernels); seconds of what comes before and beside training in a fresh process, and of evaluation a dialogue; watts
    of a whole run and of its training (None where no energy was counted).

    `runs` runs on `machine` tell it; `exact` says that they were of just this kind.
    """

    tokens_per_second: float
    first_step_s: float
    start_s: float
    evaluate_s_per_dialogue: float
    watts: float | None
    train_watts: float | None
    runs: int
    machine: str
    exact: bool

    def train_s(self, tokens: int) -> float:
        """Seconds of training."""
        return self.first_step_s + tokens / self.tokens_per_second

    def run_s(self, tokens: int, dialogues: int) -> float:
        """Seconds of a whole run in a fresh process."""
        return self.start_s + self.train_s(tokens) + self.evaluate_s_per_dialogue * dialogues


@dataclass(slots=True)
class Rates:
    """Earlier completed runs that trained: what times and energies are forecast from."""

    records: list[Record] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Keeps a record, if it can tell of times."""
        shared = record.gpu is not None and not record.gpu.alone
        # Of a training in parts nobody knows who was beside the earlier ones.
        clean = not shared and "resumed_from_step" not in record.checks
        if record.status == "completed" and record.parameters and clean and _rate(record) is not None:
            self.records.append(record)

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Rates":
        """Of all records that can tell of times."""
        rates = cls()
        for record in records:
            rates.add(record)
        return rates

    def pace(self, arm: Arm, rank: int, training: Training, model: tuple[str, int], machine: str | None) -> Pace | None:
        """The pace of the runs most like one of this arm: of the same model size, precision, checkpointing and machine,
        nearest in targets, batch size and rank; None where there are none.

        Args:
            model: the model's id, and the parameters of its base.
            machine: the GPU's name or `cpu`; None is any GPU, and then the one that most of those runs had.
        """
        model_id, base_parameters = model
        like = [item for item in self.records if _base(item) == base_parameters and _same_arithmetic(item, arm)]
        machines = [name for item in like if (name := machine_of(item)) != CPU]
        wanted = machine if machine is not None else max(machines, key=machines.count, default=None)
        like = [item for item in like if machine_of(item) == wanted]
        if not like:
            return None
        nearest = min(_distance(item, arm, rank, training, model_id) for item in like)
        chosen = [item for item in like if _distance(item, arm, rank, training, model_id) == nearest]
        return _pace(chosen, exact=not any(nearest))


# A training of fewer steps is mostly its first one, and tells nothing of longer ones unless that one is told apart.
LEAST_STEPS = 20


def _rate(record: Record) -> tuple[float, float] | None:
    """Real tokens a second after the first step, and the seconds that the first takes longer; None where unknown."""
    trained, seconds, checks = record.tokens.trained, record.seconds.train, record.checks
    if not trained or not seconds:
        return None
    first_s, first_tokens = checks.get("first_step_s"), checks.get("first_step_tokens")
    if isinstance(first_s, float) and isinstance(first_tokens, int) and first_tokens < trained and first_s < seconds:
        rate = (trained - first_tokens) / (seconds - first_s)
        return rate, max(0.0, first_s - first_tokens / rate)
    if record.tokens.steps is not None and record.tokens.steps < LEAST_STEPS:
        return None
    return trained / seconds, 0.0


def machine_of(record: Record) -> str:
    """What a run's times are of: the GPU's name, or `cpu`."""
    name = record.environment.get("gpu")
    return str(name) if name else CPU


def _base(record: Record) -> int:
    return 0 if record.parameters is None else record.parameters.total - record.parameters.trainable


def _same_arithmetic(record: Record, arm: Arm) -> bool:
    settings = record.training or {}
    return (
        record.precision.base == arm.precision
        and record.precision.compute_dtype == arm.compute_dtype
        and record.adapter.method == arm.method
        and bool(settings.get("checkpointing")) == arm.checkpointing
    )


def _distance(record: Record, arm: Arm, rank: int, training: Training, model_id: str) -> tuple[float, ...]:
    """How unlike a run is, the weightiest difference first."""
    settings = record.training or {}

    def ratio(known: object, wanted: int) -> float:
        return abs(math.log2(float(known) / wanted)) if isinstance(known, int) and known else math.inf

    alike = {"max_tokens", "optimizer", "adapter_dtype", "loss_on", "length_grouping", "model_dropout", "batch_size"}
    return (
        float(record.adapter.targets != arm.targets),
        ratio(settings.get("micro_batch_size"), training.micro_batch_size),
        float(record.precision.double_quant != arm.double_quant),
        ratio(record.adapter.rank, rank),
        float(record.model.id != model_id),
        float(record.adapter.dropout != arm.dropout)
        + sum(key in settings and settings[key] != getattr(training, key) for key in sorted(alike)),
    )


def _pace(records: Sequence[Record], *, exact: bool) -> Pace:
    starts, rates, evaluations, watts, train_watts = [], [], [], [], []
    firsts: list[float] = []
    for record in records:
        seconds, rate = record.seconds, _rate(record)
        if rate is not None:
            rates.append(rate[0])
            if not record.checks.get("engine", {}).get("graphs_reused"):
                # A run that is to come captures its own.
                firsts.append(rate[1])
        if seconds.total is not None and seconds.load is not None and not record.checks.get("started_ahead"):
            starts.append(seconds.total - (seconds.train or 0.0) - (seconds.evaluate or 0.0))
        if seconds.evaluate is not None and record.data.evaluated_size:
            evaluations.append(seconds.evaluate / record.data.evaluated_size)
        if record.energy_j is not None and record.energy_window_s:
            watts.append(record.energy_j / record.energy_window_s)
        training = record.energy.get("train")
        if training is not None and training.seconds:
            train_watts.append(training.joules / training.seconds)
    return Pace(
        tokens_per_second=median(rates),
        first_step_s=median(firsts) if firsts else 0.0,
        start_s=median(starts) if starts else 0.0,
        evaluate_s_per_dialogue=median(evaluations) if evaluations else 0.0,
        watts=median(watts) if watts else None,
        train_watts=median(train_watts) if train_watts else None,
        runs=len(records),
        machine=machine_of(records[0]),
        exact=exact,
    )


def forecast_run(spec: RunSpec, rehearsal: Rehearsal | None, rates: Rates, machine: str) -> ForecastPart:
    """What is forecast of a run that trains, as its record keeps it."""
    if rehearsal is None or rehearsal.parts is None or spec.hyperparameters is None or spec.training is None:
        return ForecastPart()
    base = (rehearsal.total or 0) - (rehearsal.trainable or 0)
    pace = rates.pace(spec.arm, spec.hyperparameters.rank, spec.training, (spec.model.id, base), machine)
    seconds = None if pace is None or rehearsal.tokens is None else pace.train_s(rehearsal.tokens)
    return ForecastPart(
        train_allocated_bytes=sum(rehearsal.parts.values()),
        train_seconds=seconds,
        train_energy_j=None
        if seconds is None or pace is None or pace.train_watts is None
        else seconds * pace.train_watts,
        breakdown=Breakdown.model_validate(rehearsal.parts),
        batch=None
        if rehearsal.batch is None
        else BatchShape(dialogues=rehearsal.batch[0], width=rehearsal.batch[1], logits=rehearsal.batch[2]),
    )
