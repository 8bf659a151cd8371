"""Runs: what their digest follows, and what it does not."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from study.arms import Dtype, Precision
from study.grid import load_grid
from study.prompts import TEMPLATES, Prompts
from study.runs import DIGEST_VERSION, Purpose, RunSpec, SplitData, Stage, canonical, plain
from study.settings import EngineSettings
from study.space import Hyperparameters
from tests.unit.study.small_grid import SMALL

ROOT = Path(__file__).parents[3]
TRAIN = SplitData("train", 8, "a" * 64)
TEST = SplitData("test", 4, "b" * 64)


def confirm(*overrides: str) -> RunSpec:
    """A confirm run of the small grid's second arm."""
    grid = load_grid(SMALL, overrides)
    return RunSpec(
        study=grid.study,
        stage=Stage.CONFIRM,
        purpose=Purpose.TUNED,
        arm=grid.arm("lora"),
        hyperparameters=Hyperparameters(8, 16, 1e-3),
        seed=11,
        trial=None,
        repeat=0,
        model=grid.model,
        train=TRAIN,
        evaluated=TEST,
        prompts=grid.prompts,
        training=grid.training,
        generation=grid.generation,
        memory_limit_bytes=grid.memory_limit_bytes,
    )


RUN = confirm()
TRIAL = replace(RUN, stage=Stage.TUNE, purpose=None, trial=3, evaluated=SplitData("validation", 4, "c" * 64))
ZERO_SHOT = replace(
    RUN,
    stage=Stage.BASELINE,
    purpose=None,
    arm=load_grid(SMALL).arm("zero-shot"),
    hyperparameters=None,
    train=None,
    training=None,
)


def test_a_run_id_does_not_change_by_accident() -> None:
    # Every recorded run would be made again. Where a change is meant, raise DIGEST_VERSION and write the new ids here.
    def plain_engine(run: RunSpec) -> RunSpec:
        # Without the levers that came later a run has the name that it had before them.
        training = run.training and replace(
            run.training, engine=EngineSettings(fused=None, cuda_graphs=None, kernels=None)
        )
        return replace(run, training=training, generation=replace(run.generation, static_cache=None))

    ids = [plain_engine(run).run_id for run in (RUN, TRIAL, ZERO_SHOT)]
    assert ids == ["75559a607b150541", "253defc7bdd0ccb8", "f2e0edd67ae36c4b"]


def test_a_run_id_is_the_digest_of_the_canonical_form_of_the_whole() -> None:
    limited = replace(TRIAL, memory_limit_bytes=8 * 1024**3)
    for run in (RUN, TRIAL, ZERO_SHOT, limited, replace(RUN, model=replace(RUN.model, revision=None))):
        arm = {key: part for key, part in run.arm.content().items() if key not in ("rank", "alpha", "learning_rate")}
        shared = ("stage", "purpose", "hyperparameters", "seed", "repeat", "model", "train", "evaluated", "training")
        whole = {
            "digest_version": DIGEST_VERSION,
            "arm": {"name": run.arm.name, **arm},
            "prompts": [run.prompts.training.hash, run.prompts.evaluation.hash],
            **{name: getattr(run, name) for name in (*shared, "generation", "memory_limit_bytes")},
        }
        text = json.dumps(canonical(whole), sort_keys=True, separators=(",", ":"))
        assert run.run_id == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_equal_values_of_other_types_have_ids_of_their_own() -> None:
    # False equals 0, and 0 is what a hand-made setting may hold: neither may get the other's text.
    assert RUN.training is not None
    named = replace(RUN, training=replace(RUN.training, model_dropout=False))
    numbered = replace(RUN, training=replace(RUN.training, model_dropout=0))  # type: ignore[arg-type]
    assert named == numbered
    first = named.run_id
    assert numbered.run_id != first
    assert named.run_id == first


def test_ids_stay_right_however_many_settings_are_met() -> None:
    def of(steps: int) -> str:
        assert RUN.training is not None
        return replace(RUN, training=replace(RUN.training, steps=steps)).run_id

    # More than are remembered, each gone before the next is made, so that addresses come again.
    ids = [of(steps) for steps in range(1, 5001)]
    assert len(set(ids)) == 5000
    assert [of(steps) for steps in (1, 2500, 5000)] == [ids[0], ids[2499], ids[4999]]


def test_a_run_id_is_the_same_in_another_process() -> None:
    code = "from tests.unit.study.test_runs import *; print(RUN.run_id, TRIAL.run_id, ZERO_SHOT.run_id)"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [RUN.run_id, TRIAL.run_id, ZERO_SHOT.run_id]


CHANGES: dict[str, dict[str, Any]] = {
    "stage": {"stage": Stage.TUNE},
    "purpose": {"purpose": Purpose.DROP_IN},
    "seed": {"seed": 12},
    "repeat": {"repeat": 1},
    "rank": {"hyperparameters": Hyperparameters(4, 16, 1e-3)},
    "alpha": {"hyperparameters": Hyperparameters(8, 32, 1e-3)},
    "learning rate": {"hyperparameters": Hyperparameters(8, 16, 1.00001e-3)},
    "model": {"model": replace(RUN.model, id="random/phi-2")},
    "revision": {"model": replace(RUN.model, revision="main")},
    "weights": {"model": replace(RUN.model, weights="pretrained")},
    "training data": {"train": replace(TRAIN, hash="d" * 64)},
    "number of training dialogues": {"train": replace(TRAIN, size=9)},
    "evaluated data": {"evaluated": replace(TEST, hash="d" * 64)},
    "split": {"evaluated": replace(TEST, split="validation")},
    "training prompt": {"prompts": Prompts(TEMPLATES["instruct"], TEMPLATES["summarize"])},
    "evaluation prompt": {"prompts": Prompts(TEMPLATES["summarize"], TEMPLATES["instruct"])},
    "arm's name": {"arm": replace(RUN.arm, name="other")},
    "precision": {"arm": replace(RUN.arm, precision=Precision.FP32)},
    "compute dtype": {"arm": replace(RUN.arm, compute_dtype=Dtype.FP16)},
    "double quantisation": {"arm": replace(RUN.arm, double_quant=False)},
    "targets": {"arm": replace(RUN.arm, targets=("attention",))},
    "dropout": {"arm": replace(RUN.arm, dropout=0.05)},
    "checkpointing": {"arm": replace(RUN.arm, checkpointing=True)},
    "memory limit": {"memory_limit_bytes": 24 * 1024**3},
}
SETTINGS = (
    "training.steps=5",
    "training={epochs: 4, batch_size: 4}",
    "training.batch_size=8",
    "training.micro_batch_size=2",
    "training.max_tokens=512",
    "training.schedule=linear",
    "training.warmup_ratio=0.1",
    "training.weight_decay=0.01",
    "training.max_grad_norm=0.3",
    "training.adapter_dtype=compute",
    "training.model_dropout=true",
    "training.loss_on=all",
    "training.length_grouping=false",
    "training.engine.completion_logits=false",
    "training.engine.pad_to_multiple=1",
    "training.engine.fused=false",
    "training.engine.pass_tokens=2048",
    "training.engine.pool_steps=64",
    "training.engine.cuda_graphs=false",
    "training.engine.kernels=false",
    "generation.static_cache=false",
    "generation.max_new_tokens=9",
    "generation.batch_size=8",
    "generation.dtype=fp32",
    "training.memory_limit=8GiB",
    "training.memory_limit=8GB",
)
# What changes no number of a run.
IDLE = (
    "study=other",
    "training.timeout_minutes=5",
    "training.device=cpu",
    "training.repeats=3",
    "training.memory_limit=null",
    "arms.lora.repeats=3",
    "arms.qlora.repeats=3",
    "seeds=[21, 22]",
    "tune.trials=8",
    "tune.seed=5",
    "claims=[]",
    "arms.lora={name: lora, precision: bf16, method: lora, targets: all-linear, dropout: 0, compute_dtype: bf16}",
    "arms.lora.rank=8",
    "arms.lora.learning_rate=1e-3",
    "arms.qlora.precision=fp4",
    "training={steps: 4, batch_size: 4, micro_batch_size: 4, weight_decay: -0.0, max_grad_norm: 1}",
    "training={steps: 4, batch_size: 4, weight_decay: 0, epochs: null, warmup_ratio: 3e-2}",
)


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_a_number_changes_the_id(change: str) -> None:
    assert replace(RUN, **CHANGES[change]).run_id != RUN.run_id


def test_every_change_gives_an_id_of_its_own() -> None:
    ids = [replace(RUN, **change).run_id for change in CHANGES.values()] + [confirm(each).run_id for each in SETTINGS]
    assert len({RUN.run_id, *ids}) == 1 + len(ids)


@pytest.mark.parametrize("setting", IDLE)
def test_what_changes_no_number_keeps_the_id(setting: str) -> None:
    assert confirm(setting).run_id == RUN.run_id


def test_a_trials_number_is_no_part_of_its_id() -> None:
    assert replace(TRIAL, trial=7).run_id == TRIAL.run_id


def test_a_memory_limit_is_part_of_the_id_as_bytes_and_not_as_it_was_written() -> None:
    limited = [confirm(f"training.memory_limit={size}") for size in ("8GiB", "8192 MiB", "8388608KiB", "8.0gib")]
    assert {run.memory_limit_bytes for run in limited} == {8 * 1024**3}
    assert len({run.run_id for run in limited}) == 1
    assert limited[0].run_id not in (RUN.run_id, confirm("training.memory_limit=8GB").run_id)


def test_a_worker_that_is_told_of_a_limited_run_names_it_alike() -> None:
    limited = confirm("training.memory_limit=8GiB")
    adapter = TypeAdapter(RunSpec)
    assert adapter.validate_json(adapter.dump_json(limited)) == limited


def test_modules_in_another_order_keep_the_id() -> None:
    first, second = (replace(RUN, arm=replace(RUN.arm, targets=targets)) for targets in (("a", "b"), ("b", "a")))
    assert first.run_id == second.run_id


def test_a_worker_that_is_told_of_a_run_names_it_alike() -> None:
    for run in (RUN, TRIAL, ZERO_SHOT):
        adapter = TypeAdapter(RunSpec)
        assert adapter.validate_json(adapter.dump_json(run)).run_id == run.run_id


def test_the_canonical_form_does_not_tell_how_a_value_was_written() -> None:
    assert canonical({"a": 1.0, "b": (-0.0, 1e-4), "c": None, "d": Precision.NF4}) == {
        "a": 1,
        "b": [0, 1e-4],
        "d": "nf4",
    }
    assert json.dumps(canonical([True, 1])) == "[true, 1]"


@pytest.mark.parametrize("value", [{1, 2}, object(), b"x", Path("a")])
def test_a_value_without_a_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be part of a digest"):
        canonical({"a": [value]})


def test_a_number_of_another_library_is_refused_and_not_guessed_at() -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(TypeError, match="cannot be part of a digest"):
        canonical(numpy.float32(0.1))


def test_a_label_names_arm_and_stage() -> None:
    assert RUN.label() == "lora · seed 11"
    assert replace(RUN, purpose=Purpose.DROP_IN).label() == "lora · seed 11 · drop-in"
    assert TRIAL.label() == "lora · trial 3"
    assert ZERO_SHOT.label() == "zero-shot · test"


def test_settings_become_plain_json() -> None:
    assert RUN.training is not None
    plain_training = plain(RUN.training)
    assert plain_training["engine"] == {
        "completion_logits": True,
        "pad_to_multiple": 8,
        "fused": True,
        "pass_tokens": None,
        "pool_steps": None,
        "cuda_graphs": True,
        "kernels": True,
    }
    assert plain(replace(RUN.generation, dtype=Dtype.FP16))["dtype"] == "fp16"


def test_a_lever_that_came_later_and_is_off_leaves_old_digests_alone() -> None:
    assert RUN.training is not None
    off = replace(RUN.training.engine, fused=None, cuda_graphs=None, kernels=None)
    assert canonical(off) == {"completion_logits": True, "pad_to_multiple": 8}
    assert "static_cache" not in str(canonical(replace(RUN.generation, static_cache=None)))
