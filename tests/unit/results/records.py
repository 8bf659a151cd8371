"""Records, predictions and plans to build tests on, whole and without contradiction."""

from typing import Any

from results.schema import ArmPart, Choice, Frozen, ModelPart, Plan, PlannedRun, Prediction, Record
from study.examples import Example, digest
from study.metrics import ROUGE_TYPES

EXAMPLES = tuple(Example(f"d{n}", f"A: hello {n}\nB: hi\u2028there", (f"They greet {n}.",)) for n in range(3))
TEST_HASH = digest(EXAMPLES)
MODEL = ModelPart(id="microsoft/phi-2", revision="ef38", weights="pretrained")

_CONFIRM: dict[str, Any] = {
    "run_id": "0" * 16,
    "study": "small",
    "stage": "confirm",
    "purpose": "tuned",
    "split": "test",
    "repeat": 0,
    "arm": "lora",
    "protocol": "paper",
    "model": MODEL.model_dump(),
    "precision": {"base": "bf16", "compute_dtype": "bf16", "double_quant": None},
    "adapter": {
        "method": "lora",
        "rank": 8,
        "alpha": 16,
        "dropout": 0.0,
        "targets": ["all-linear"],
        "target_modules": ["q_proj"],
    },
    "learning_rate": 1e-3,
    "training": {"steps": 4},
    "generation": {"max_new_tokens": 8},
    "prompt_hash": "aa-aa",
    "seed": 11,
    "trial": None,
    "status": "completed",
    "error": None,
    "quality": {"validation_loss": 1.5},
    "memory": {"train": {"allocated_bytes": 1000}},
    "forecast": {},
    "seconds": {"train": 1.5, "total": 2.0},
    "tokens": {"trained": 100},
    "energy_j": None,
    "parameters": {"trainable": 10, "total": 100, "adapter_bytes": 40},
    "checks": {"warm_worker": False},
    "data": {"train_hash": "c" * 64, "train_size": 8, "evaluated_hash": TEST_HASH, "evaluated_size": len(EXAMPLES)},
    "environment": {"gpu": None},
    "started_at": "2026-01-01T00:00:00+00:00",
}
_TRIAL = {"stage": "tune", "purpose": None, "split": "validation", "trial": 3}
_BASELINE = {
    "stage": "baseline",
    "purpose": None,
    "arm": "zero-shot",
    "learning_rate": None,
    "training": None,
    "adapter": {**_CONFIRM["adapter"], "method": "none", "rank": None, "alpha": None, "target_modules": None},
    "data": {**_CONFIRM["data"], "train_hash": None, "train_size": None},
}
FAILED = {"status": "failed", "error": {"type": "E", "message": "it broke", "phase": "train"}, "quality": None}


def confirm(**changes: Any) -> Record:
    """A completed confirm run."""
    return Record.model_validate({**_CONFIRM, **changes})


def trial(**changes: Any) -> Record:
    """A completed trial."""
    return confirm(**{**_TRIAL, **changes})


def baseline(**changes: Any) -> Record:
    """A completed zero-shot run."""
    return confirm(**{**_BASELINE, **changes})


def prediction(number: int, measures: tuple[float, ...] = (40.0, 50.0), **changes: Any) -> Prediction:
    """What was written for the dialogue of that number; `measures` are its F in points, one a reference."""
    scores = {kind: [(10.0, 20.0, measure) for measure in measures] for kind in ROUGE_TYPES}
    fields: dict[str, Any] = {
        "example_id": f"d{number}",
        "prediction": "They\nmeet.\u2028",
        "tokens": 4,
        "hit_limit": False,
        "truncated": False,
        "scores": scores,
    }
    return Prediction.model_validate({**fields, **changes})


def quality(mean: float, best: float) -> dict[str, float]:
    """A run's quality with every ROUGE type alike, in points."""
    means = dict.fromkeys(ROUGE_TYPES, mean)
    return {**means, **{f"{kind}_max": best for kind in ROUGE_TYPES}, "validation_loss": 1.5}


def frozen(**changes: Any) -> Frozen:
    """A freeze of one arm."""
    choice = Choice(
        arm="lora",
        rank=8,
        alpha=16,
        learning_rate=1e-3,
        run_id="1" * 16,
        score=30.0,
        trials=4,
        completed_trials=4,
        edges=(),
        ranking=("1" * 16,),
        reason="best",
    )
    fields: dict[str, Any] = {
        "study": "small",
        "protocol": "paper",
        "model": MODEL.model_dump(),
        "select_by": "rougeL",
        "arms": [arm_part().model_dump()],
        "choices": [choice.model_dump()],
        "claims": [],
        "seeds": [11, 12],
        "data": {"test": TEST_HASH},
        "prompt_hash": "aa-aa",
        "frozen_at": "2026-01-01T00:00:00+00:00",
    }
    return Frozen.model_validate({**fields, **changes})


def arm_part() -> ArmPart:
    """How the arm of these records is described."""
    return ArmPart(
        name="lora",
        family="lora",
        precision="bf16",
        method="lora",
        double_quant=None,
        targets=("all-linear",),
        zero_shot=None,
    )


def plan() -> Plan:
    """A plan of one run."""
    run = PlannedRun(
        run_id="0" * 16, stage="confirm", purpose="tuned", arm="lora", split="test", seed=11, trial=None, repeat=0
    )
    return Plan(
        study="small",
        protocol="paper",
        arms=(arm_part(),),
        runs=(run,),
        expected_confirm=1,
        floors={"lead": {"rouge1": 20.0}},
        floors_of=TEST_HASH,
        data_description="generated",
        data_notes=(),
        margins={},
    )
