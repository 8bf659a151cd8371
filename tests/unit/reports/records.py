"""Synthetic studies: plan, freeze, records and predictions as a run would have written them, with chosen scores.

`write_study(results)` is a study of three arms that match. Everything is drawn from fixed seeds: same call, same files.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from results.layout import StudyFolder
from results.schema import (
    AdapterPart,
    ArmPart,
    Breakdown,
    Choice,
    DataPart,
    EnergyPart,
    ErrorPart,
    ForecastPart,
    Frozen,
    FrozenClaim,
    GpuPart,
    GpuStatePart,
    MemoryPart,
    ModelPart,
    Parameters,
    Phases,
    Plan,
    PlannedRun,
    PrecisionPart,
    Prediction,
    Record,
    Seconds,
    Status,
    Tokens,
)
from results.store import RecordStore, write_frozen, write_plan, write_predictions
from study.metrics import ROUGE_TYPES

GIB = 1024**3
SEEDS = (11, 12, 13, 14, 15)
TEST_HASH, VALIDATION_HASH = "ab" * 32, "cd" * 32
GPU = "NVIDIA Test 80GB"
PACKAGES = {"torch": "2.11.0", "transformers": "5.17.0", "peft": "0.21.0", "bitsandbytes": "0.50.0"}
# Each metric lies this far below ROUGE-1, in points.
BELOW = {"rouge1": 0.0, "rouge2": 22.0, "rougeL": 8.0, "rougeLsum": 7.0}


# A peak of 9.6 GiB at seed 15, whose run adds nothing.
PARTS = {
    "base_weights": 5.2,
    "quantisation": 0.0,
    "adapters": 0.1,
    "gradients": 0.1,
    "optimizer": 0.2,
    "activations": 3.0,
    "logits": 0.8,
    "rest": 0.2,
}
# What stands above the allocated peak, in GiB: reserved, process, device above baseline.
RESERVED, PROCESS, DEVICE = 0.5, 1.0, 1.25
TRAINED_TOKENS = 200_000
WATTS = 300.0


@dataclass(frozen=True)
class Card:
    """What runs on a GPU measured beside their peak: in GiB, seconds and watts, as records of version 2 hold it.

    The training peak of a run is its arm's `memory` + 0.01 GiB × (seed mod 5) + 0.001 GiB × repeat. `shared` are the
    seeds whose runs were not alone; `reached` the peak at which a run without enough memory ended, in `phase`.
    """

    parts: Mapping[str, float] | None = field(default_factory=lambda: PARTS)
    forecast: float | None = None
    forecast_seconds: float | None = None
    shared: tuple[int, ...] = ()
    limit: float | None = None
    phase: str = "train"
    reached: float = 7.5


@dataclass(frozen=True)
class Arm:
    """One arm: `mean` is its expected ROUGE-1 in points, `memory` its peak in GiB, `card` what else was measured.

    `statuses` are what seeds came to that did not complete; `examples` names the dialogues that it was scored on.
    """

    name: str
    precision: str = "bf16"
    method: str = "lora"
    mean: float = 40.0
    memory: float = 10.0
    zero_shot: str | None = "zero-shot"
    statuses: Mapping[int, Status] = field(default_factory=dict)
    not_run: tuple[int, ...] = ()
    gpu: str | None = GPU
    packages: Mapping[str, str] = field(default_factory=lambda: PACKAGES)
    examples: str = "dialogue"
    other_dialogues: tuple[int, ...] = ()
    trial_statuses: tuple[Status, ...] = ("completed", "completed")
    card: Card | None = None

    @property
    def trains(self) -> bool:
        return self.method != "none"


ZERO_SHOT = Arm("zero-shot", method="none", mean=22.0, memory=5.4, zero_shot=None)
LORA = Arm("lora", memory=9.6)
QLORA = Arm("qlora", precision="nf4", memory=6.1)


def claim(**changes: Any) -> FrozenClaim:
    """`qlora` matches `lora` on ROUGE-1 within one point."""
    fields: dict[str, object] = {
        "name": "qlora-matches-lora",
        "candidate": "qlora",
        "reference": "lora",
        "metrics": ("rouge1",),
        "margin": 1.0,
        "margin_rule": "fixed: 1 points",
        "confidence": 0.90,
        "drop_in": False,
    }
    return FrozenClaim.model_validate(fields | changes)


@dataclass(frozen=True)
class Study:
    """What `write_study` writes. `margins` None: the grid states each claim's margin as it was frozen."""

    name: str = "study"
    arms: Sequence[Arm] = (ZERO_SHOT, LORA, QLORA)
    claims: Sequence[FrozenClaim] = (claim(),)
    seeds: tuple[int, ...] = SEEDS
    dialogues: int = 40
    frozen: bool = True
    protocol: str = "paper"
    weights: str = "pretrained"
    model: str = "microsoft/phi-2"
    description: str = "synthetic dialogues"
    error: str = "it did not work"
    prediction: str = "a summary"
    margins: Mapping[str, str] | None = None
    floors: Mapping[str, float] = field(default_factory=lambda: {"constant summary": 14.0, "first 3 turns": 26.0})
    edges: tuple[str, ...] = ()
    residual: float = 2.0
    repeats: int = 1
    optimizer: str = "adamw"
    # (rank, alpha, learning rate) of drop-in runs of the candidate of the first claim, with their mean score.
    drop_in: Mapping[tuple[int, int, float], float] = field(default_factory=dict)


CHOSEN = (16, 32, 2e-4)


def write_study(results: Path, study: Study | None = None, **changes: Any) -> StudyFolder:
    """Writes a study (by default one whose arms match) with `changes` made to it; gives its folder."""
    study = replace(study or Study(), **changes)
    folder = StudyFolder.of(results, study.name)
    folder.root.mkdir(parents=True, exist_ok=True)
    store = RecordStore(folder)
    runs: list[PlannedRun] = []
    for arm in study.arms:
        for run in _runs(study, arm):
            runs.append(run)
            status = _status(study, arm, run)
            if status is not None:
                store.append(record(study, arm, run, status))
                if status == "completed":
                    write_predictions(folder, run.run_id, predictions(study, arm, run))
    write_plan(folder, _plan(study, runs))
    if study.frozen:
        write_frozen(folder, _frozen(study))
    return folder


def run_id(*parts: object) -> str:
    """The id of the run that these parts name."""
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:16]


def tuned_id(arm: str, seed: int, repeat: int = 0) -> str:
    """The id of an arm's confirm run."""
    return run_id("confirm", "tuned", arm, seed, None, *([repeat] if repeat else []))


def _runs(study: Study, arm: Arm) -> list[PlannedRun]:
    def run(
        stage: str,
        purpose: str | None,
        seed: int,
        trial: int | None,
        *key: object,
        split: str = "test",
        repeat: int = 0,
    ) -> PlannedRun:
        return PlannedRun.model_validate(
            {
                "run_id": run_id(stage, purpose, arm.name, seed, trial, *key, *([repeat] if repeat else [])),
                "stage": stage,
                "purpose": purpose,
                "arm": arm.name,
                "split": split,
                "seed": seed,
                "trial": trial,
                "repeat": repeat,
            }
        )

    if not arm.trains:
        return [run("baseline", None, 0, None, "validation", split="validation"), run("baseline", None, 0, None)]
    runs = [run("tune", None, 0, trial, split="validation") for trial in range(len(arm.trial_statuses))]
    if study.frozen:
        runs += [
            run("confirm", "tuned", seed, None, repeat=repeat)
            for seed in study.seeds
            for repeat in range(study.repeats)
        ]
        if study.claims and study.claims[0].candidate == arm.name:
            runs += [run("confirm", "drop_in", seed, None, key) for key in study.drop_in for seed in study.seeds]
    return runs


def _status(study: Study, arm: Arm, run: PlannedRun) -> Status | None:
    """What a run came to; None where it was never run."""
    if run.stage == "tune":
        return arm.trial_statuses[run.trial or 0]
    return None if run.seed in arm.not_run else arm.statuses.get(run.seed, "completed")


def _drop_in_key(study: Study, run: PlannedRun) -> tuple[int, int, float]:
    return next(
        key for key in study.drop_in if run.run_id == run_id("confirm", "drop_in", run.arm, run.seed, None, key)
    )


def record(study: Study, arm: Arm, run: PlannedRun, status: Status) -> Record:
    """The record of a run."""
    completed = status == "completed"
    chosen = _drop_in_key(study, run) if run.purpose == "drop_in" else CHOSEN
    scored = completed and study.weights == "pretrained"
    quality = {key: arm.mean - below for key, below in BELOW.items()} | {"validation_loss": 1.5}
    peak = MemoryPart(
        allocated_bytes=None if arm.gpu is None else int((arm.memory + 0.01 * (run.seed % 5)) * GIB),
        host_rss_bytes=int(3 * GIB),
        source="test",
    )
    made = Record(
        run_id=run.run_id,
        study=study.name,
        stage=run.stage,
        purpose=run.purpose,
        split=run.split,
        repeat=run.repeat,
        arm=arm.name,
        protocol="seed" if study.protocol == "seed" else "paper",
        model=_model(study),
        precision=PrecisionPart(base=arm.precision, compute_dtype="bf16", double_quant=None),
        adapter=AdapterPart(
            method=arm.method,
            rank=chosen[0] if arm.trains else None,
            alpha=chosen[1] if arm.trains else None,
            dropout=0.0,
            targets=("all-linear",),
            target_modules=None,
        ),
        learning_rate=chosen[2] if arm.trains else None,
        training={"steps": 100, "optimizer": study.optimizer} if arm.trains else None,
        generation={},
        prompt_hash="00" * 8,
        seed=run.seed,
        trial=run.trial,
        status=status,
        error=None if completed else ErrorPart(type="Failure", message=study.error, phase="train"),
        quality=quality if scored else None,
        memory=Phases(train=peak if arm.trains else None, evaluate=peak) if completed else Phases(),
        forecast=ForecastPart(),
        seconds=Seconds(train=100.0 + run.seed if arm.trains else None, total=200.0),
        tokens=Tokens(),
        energy_j=None,
        parameters=Parameters(trainable=23_592_960, total=2_803_276_800, adapter_bytes=94_371_840)
        if completed
        else None,
        checks={},
        data=DataPart(
            train_hash="ef" * 32 if arm.trains else None,
            train_size=400 if arm.trains else None,
            evaluated_hash=TEST_HASH if run.split == "test" else VALIDATION_HASH,
            evaluated_size=study.dialogues,
        ),
        environment={"gpu": arm.gpu, "driver": "580.65", "packages": dict(arm.packages), "cpu": "Test CPU", "cpus": 2},
        started_at="2026-01-01T00:00:00+00:00",
    )
    return made if arm.card is None else Record.model_validate(made.model_dump() | _on_card(made, arm, arm.card))


def _on_card(made: Record, arm: Arm, card: Card) -> dict[str, Any]:
    """The fields of a record that the card of an arm decides."""
    warm, trains = made.stage == "tune", made.training is not None
    extra = 0.01 * (made.seed % 5) + 0.001 * made.repeat
    peak = arm.memory + extra
    ended: dict[str, float] = {"load": arm.memory / 2, "prepare": arm.memory / 2 + 0.1}
    ended |= {"train": peak, "evaluate": arm.memory / 2 + 0.5} if trains else {"evaluate": peak}
    completed = made.status == "completed"
    memory = {phase: _peaks(value, warm=warm) for phase, value in ended.items()} if completed else {}
    if made.status == "out_of_memory":
        memory = {card.phase: _peaks(card.reached, warm=warm) | {"until_failure": True}}
    seconds = {"load": 5.0, "prepare": 1.0, "train": made.seconds.train, "evaluate": 50.0, "total": 200.0}
    parts = None if card.parts is None else {name: int(size * GIB) for name, size in card.parts.items()}
    if parts is not None:
        parts["rest"] += int(extra * GIB)
    trained = made.seconds.train if completed else None
    return {
        "memory": memory,
        "error": None if made.error is None else made.error.model_dump() | {"phase": card.phase},
        "forecast": ForecastPart(
            train_allocated_bytes=int(card.forecast * GIB) if trains and card.forecast is not None else None,
            train_seconds=card.forecast_seconds if trains else None,
        ),
        "seconds": Seconds.model_validate(seconds if completed else {}),
        "tokens": Tokens(trained=TRAINED_TOKENS if trained is not None else None),
        "energy": {} if trained is None else {"train": EnergyPart(joules=WATTS * trained, seconds=trained)},
        "energy_j": WATTS * 200 if completed else None,
        "breakdown": Breakdown.model_validate(parts) if parts is not None and completed and trains else None,
        "gpu": _gpu(alone=made.seed not in card.shared),
        "memory_limit_bytes": None if card.limit is None else int(card.limit * GIB),
        "checks": {"warm_worker": warm},
    }


def _peaks(allocated: float, *, warm: bool) -> dict[str, Any]:
    """The peaks of one phase: a warm process can tell the allocated one only."""
    told = {"allocated_bytes": int(allocated * GIB), "host_rss_bytes": int(3 * GIB)}
    if warm:
        return told | {"source": "warm worker: allocated peak only"}
    above = {"reserved_bytes": RESERVED, "process_bytes": PROCESS, "device_bytes": DEVICE}
    more = {name: int((allocated + size) * GIB) for name, size in above.items()}
    return told | more | {"source": f"process, {int(100 * allocated)} samples"}


def _gpu(*, alone: bool) -> GpuPart:
    return GpuPart(
        uuid="GPU-0",
        total_bytes=80 * GIB,
        baseline_bytes=0,
        driver_reserved_bytes=None,
        before=GpuStatePart(),
        after=None,
        foreign_before=() if alone else ((4711, 2 * GIB),),
        foreign_during=0 if alone else 1,
        samples_per_second=25.0,
    )


def predictions(study: Study, arm: Arm, run: PlannedRun) -> list[Prediction]:
    """One a dialogue, three references each; F around the arm's mean, dialogues more or less hard for every arm."""
    mean = study.drop_in[_drop_in_key(study, run)] if run.purpose == "drop_in" else arm.mean
    hardness = np.random.default_rng(7).normal(0.0, 6.0, study.dialogues)
    noise = np.random.default_rng([int(run.run_id, 16)]).normal(0.0, study.residual, study.dialogues)
    values = mean + hardness - hardness.mean() + noise - noise.mean()
    examples = "other" if run.seed in arm.other_dialogues else arm.examples
    return [
        Prediction(
            example_id=f"{examples}-{number}",
            prediction=study.prediction,
            tokens=9,
            hit_limit=False,
            truncated=False,
            scores=_scores(float(value)) if study.weights == "pretrained" else None,
        )
        for number, value in enumerate(values)
    ]


def _scores(value: float) -> dict[str, tuple[tuple[float, float, float], ...]]:
    # Three references that differ, so that mean and max differ too; their mean is the value.
    return {kind: tuple((50.0, 50.0, value - BELOW[kind] + step) for step in (-6.0, 0.0, 6.0)) for kind in ROUGE_TYPES}


def _model(study: Study) -> ModelPart:
    weights = "random" if study.weights == "random" else "pretrained"
    return ModelPart.model_validate({"id": study.model, "revision": None, "weights": weights})


def _parts(study: Study) -> tuple[ArmPart, ...]:
    return tuple(
        ArmPart(
            name=arm.name,
            family=arm.name,
            precision=arm.precision,
            method=arm.method,
            double_quant=None,
            targets=("all-linear",) if arm.trains else (),
            zero_shot=arm.zero_shot,
        )
        for arm in study.arms
    )


def _plan(study: Study, runs: Sequence[PlannedRun]) -> Plan:
    stated = {item.name: item.margin_rule.removesuffix(" (added after the freeze)") for item in study.claims}
    return Plan.model_validate(
        {
            "study": study.name,
            "protocol": study.protocol,
            "arms": _parts(study),
            "runs": tuple(runs),
            "expected_confirm": 0,
            "floors": {
                name: {key: max(value - below / 2, 0.0) for key, below in BELOW.items()}
                for name, value in study.floors.items()
            },
            "floors_of": TEST_HASH,
            "data_description": study.description,
            "data_notes": (),
            "margins": dict(stated if study.margins is None else study.margins),
        }
    )


def _frozen(study: Study) -> Frozen:
    choices = tuple(
        Choice(
            arm=arm.name,
            rank=CHOSEN[0],
            alpha=CHOSEN[1],
            learning_rate=CHOSEN[2],
            run_id=run_id("tune", None, arm.name, 0, 0),
            score=None if study.weights == "random" else 30.0,
            trials=2,
            completed_trials=2,
            edges=study.edges,
            ranking=(),
            reason="random weights give no score" if study.weights == "random" else "best validation ROUGE-L",
        )
        for arm in study.arms
        if arm.trains
    )
    return Frozen.model_validate(
        {
            "study": study.name,
            "protocol": study.protocol,
            "model": _model(study),
            "select_by": "rougeL",
            "arms": _parts(study),
            "choices": choices,
            "claims": tuple(study.claims),
            "seeds": study.seeds,
            "data": {"test": TEST_HASH},
            "prompt_hash": "00" * 8,
            "frozen_at": "2026-01-01T00:00:00+00:00",
        }
    )
