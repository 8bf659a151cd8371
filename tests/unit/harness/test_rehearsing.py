"""What a worker answers when it is asked for the peaks of arms: batches and tokens as the training will have them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from harness.engine import rehearsing
from harness.engine.adapting import attach
from harness.engine.batches import training_plan
from harness.engine.batching import collate
from harness.engine.loading import Base
from harness.engine.rehearsal import evaluation_peak, set_stage, training_peak
from harness.engine.rehearsing import rehearse_all
from harness.engine.sources import model_config, present_folder, shape_config
from harness.engine.training import Recipe, train
from harness.engine.trying import probe_arm
from harness.messages import Event, Rehearsal, RehearsalCase, Rehearse
from study.arms import Arm, Method, Precision
from study.examples import Example
from study.models import EMBEDDED, KNOWN_SHAPES
from study.prompts import TEMPLATES, Prompts
from study.settings import EngineSettings, Training
from study.space import Hyperparameters
from tests.unit.harness.conftest import encode, training

TINY = "random/tiny-phi"
PROMPTS = Prompts(TEMPLATES["summarize"], TEMPLATES["summarize"])
SETTINGS = training(steps=2, batch_size=4, micro_batch_size=2)
BATCH = (2, 64, 20)


def arm_of(precision: Precision = Precision.BF16, **changes: Any) -> Arm:
    return replace(probe_arm(precision), **changes)


def case_of(arm: Arm | None = None, rank: int = 4, settings: Training = SETTINGS, **changes: Any) -> RehearsalCase:
    return RehearsalCase(arm or arm_of(), rank, settings, seed=7, **changes)


def ask(
    *cases: RehearsalCase, model: str = TINY, folder: str | None = None, train_file: Path | None = None
) -> list[Rehearsal]:
    answers: list[Event] = []
    file = None if train_file is None else str(train_file)
    rehearse_all(Rehearse(model, None, folder, PROMPTS, file, cases), answers.append)
    assert all(isinstance(answer, Rehearsal) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Rehearsal)]


@pytest.fixture
def train_file(tmp_path: Path, examples: tuple[Example, ...]) -> Path:
    path = tmp_path / "train.jsonl"
    rows = [{"id": item.id, "dialogue": item.dialogue, "references": list(item.references)} for item in examples]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        training(steps=3, batch_size=4, micro_batch_size=4),
        training(steps=3, batch_size=2, micro_batch_size=1, length_grouping=False),
        training(steps=None, epochs=1.5, batch_size=4, micro_batch_size=2),
        training(steps=2, loss_on="all"),
        training(steps=2, engine=EngineSettings(completion_logits=False, pad_to_multiple=64)),
    ],
)
def test_batch_and_tokens_are_those_of_the_training_itself(
    tiny_folder: str,
    load: Callable[[Precision], Base],
    examples: tuple[Example, ...],
    train_file: Path,
    settings: Training,
) -> None:
    base = load(Precision.FP32)
    arm = arm_of(Precision.FP32)
    encoded = encode(base, examples, settings)
    adapter = attach(base, arm, Hyperparameters(4, 8, 1e-3), settings, seed=7)
    trained = train(base, adapter, encoded, Recipe(settings, 1e-3, seed=7), lambda *_: None)
    (answer,) = ask(case_of(arm, settings=settings), folder=tiny_folder, train_file=train_file)
    assert answer.error is None
    assert answer.tokens == trained.tokens
    plan = training_plan([item.length for item in encoded], settings, trained.steps, 7)
    size = settings.micro_batch_size
    made = [
        collate(
            [encoded[index] for index in step[at : at + size]],
            0,
            "cpu",
            settings.engine,
            on_all=settings.loss_on == "all",
        )
        for step in plan.steps
        for at in range(0, len(step), size)
    ]
    largest = max(made, key=lambda batch: batch.ids.numel())
    assert answer.batch is not None
    dialogues, width, logits = answer.batch
    assert (dialogues, width) == largest.ids.shape
    every = not settings.engine.completion_logits
    assert logits in {
        batch.ids.numel() if every else batch.targets.numel()
        for batch in made
        if batch.ids.numel() == largest.ids.numel()
    }
    # The first step has it, so that the memory's peak shows at once.
    assert largest.ids.numel() == max(batch.ids.numel() for batch in made[: settings.batch_size // size])


def test_peaks_are_those_of_the_rehearsal_with_that_batch(
    tiny_folder: str, load: Callable[[Precision], Base], examples: tuple[Example, ...], train_file: Path
) -> None:
    references = max(len(item.completion) for item in encode(load(Precision.BF16), examples, training(max_tokens=80)))
    arm = arm_of(Precision.NF4, checkpointing=True)
    (answer,) = ask(case_of(arm, evaluated=(8, 64, 16, 80)), folder=tiny_folder, train_file=train_file)
    assert answer.batch is not None
    stage = set_stage(model_config(TINY, None, tiny_folder), arm, 4, SETTINGS)
    assert answer.parts == training_peak(stage, arm, SETTINGS, answer.batch)
    assert answer.evaluate_bytes == sum(evaluation_peak(stage, (8, 64, 16, 8 * references)).values())
    assert (answer.trainable, answer.total) == (stage.trainable, stage.total)


def test_prompts_of_generation_are_no_longer_than_the_longest_example(
    tiny_folder: str, load: Callable[[Precision], Base], examples: tuple[Example, ...], train_file: Path
) -> None:
    zero_shot = RehearsalCase(arm_of(method=Method.NONE, targets=()), None, None, 0, evaluated=(4, 1_500, 8, 1))
    (answer,) = ask(zero_shot, folder=tiny_folder, train_file=train_file)
    encoded = encode(load(Precision.BF16), examples, training(max_tokens=1_508))
    longest = max(item.length for item in encoded)
    learned = 4 * max(len(item.completion) for item in encoded)
    (expected,) = ask(replace(zero_shot, evaluated=(4, longest, 8, learned)), folder=tiny_folder)
    assert longest < 1_500
    assert answer == expected


def test_without_examples_a_batch_is_taken_as_given_and_tokens_are_not_known(tiny_folder: str) -> None:
    (answer,) = ask(case_of(batch=BATCH), folder=tiny_folder)
    assert (answer.batch, answer.tokens, answer.error) == (BATCH, None, None)
    assert answer.parts is not None


def test_a_model_that_is_not_here_is_rehearsed_from_its_known_shape(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (answer,) = ask(case_of(batch=BATCH))
    assert answer.error is None
    assert answer.total == KNOWN_SHAPES[TINY].parameters + KNOWN_SHAPES[TINY].lora_parameters(("all-linear",), 4)
    assert list(tmp_path.iterdir()) == []


def test_without_examples_and_batch_there_is_a_reason_and_no_number(tiny_folder: str) -> None:
    (answer,) = ask(case_of(), folder=tiny_folder)
    assert answer == Rehearsal(0, error="the examples are not here and no batch was given")


def test_a_case_that_cannot_be_rehearsed_leaves_the_others(tiny_folder: str) -> None:
    good, bad = case_of(batch=BATCH), case_of(arm_of(targets=("o_proj",)), batch=BATCH)
    answers = ask(good, bad, good, folder=tiny_folder)
    assert [answer.case for answer in answers] == [0, 1, 2]
    assert answers[0] == replace(answers[2], case=0)
    assert answers[0].parts is not None
    assert answers[1].parts is None
    assert answers[1].error is not None
    assert answers[1].error.startswith("AdapterError: targets 'o_proj'")


def test_an_unknown_model_is_told_for_every_case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    answers = ask(case_of(batch=BATCH), case_of(batch=BATCH), model=str(tmp_path / "nowhere"))
    assert [answer.case for answer in answers] == [0, 1]
    for answer in answers:
        assert answer.error is not None
        assert "nowhere" in answer.error
        assert len(answer.error.splitlines()) == 1


def test_a_zero_shot_arm_is_answered_with_its_evaluation(tiny_folder: str) -> None:
    arm = arm_of(method=Method.NONE, targets=())
    (answer,) = ask(RehearsalCase(arm, None, None, 0, evaluated=(4, 64, 8, 40)), folder=tiny_folder)
    assert (answer.parts, answer.trainable, answer.error) == (None, 0, None)
    assert answer.total == KNOWN_SHAPES[TINY].parameters
    assert answer.evaluate_bytes is not None


def test_arms_that_differ_in_name_seed_and_rate_are_rehearsed_once(tiny_folder: str) -> None:
    rehearsing._rehearsed.cache_clear()
    other = arm_of(name="other", family="other", axes=(("a", "b"),), alpha=4, learning_rate=1e-3)
    first, second = ask(case_of(batch=BATCH), replace(case_of(other, batch=BATCH), seed=8), folder=tiny_folder)
    assert first == replace(second, case=0)
    assert rehearsing._rehearsed.cache_info().misses == 1
    # The configuration is read again for another question, and is the same.
    ask(case_of(batch=BATCH), folder=tiny_folder)
    assert rehearsing._rehearsed.cache_info().misses == 1
    ask(case_of(rank=8, batch=BATCH), case_of(batch=(2, 72, 20)), case_of(arm_of(Precision.NF4), batch=BATCH))
    assert rehearsing._rehearsed.cache_info().misses == 4


def test_a_folder_is_present_only_with_its_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "qlora-ablation" / "random-tiny-phi-v1"
    assert present_folder(TINY, None) is None
    folder.mkdir(parents=True)
    assert present_folder(TINY, None) is None
    (folder / "config.json").write_text("{}")
    assert present_folder(TINY, None) is None
    save_file({"head": torch.zeros(2)}, folder / "model.safetensors")
    assert present_folder(TINY, None) == str(folder)
    assert present_folder(EMBEDDED, None) is None
    assert present_folder(str(tmp_path), None) == str(tmp_path)


def test_the_made_model_has_the_configuration_of_its_shape(tiny_folder: str) -> None:
    made, known = model_config(TINY, None, tiny_folder).to_dict(), shape_config(KNOWN_SHAPES[TINY]).to_dict()
    # What the file adds: its tokenizer's ids and what wrote it.
    aside = {"bos_token_id", "eos_token_id", "pad_token_id", "dtype", "architectures", "transformers_version"}
    assert {key: made[key] for key in known if key not in aside | {"_name_or_path"}} == {
        key: value for key, value in known.items() if key not in aside | {"_name_or_path"}
    }


def test_a_rehearsal_touches_no_real_memory(tiny_folder: str) -> None:
    stage = set_stage(model_config(TINY, None, tiny_folder), arm_of(Precision.INT8), 4, SETTINGS)
    assert {tensor.device.type for tensor in stage.base.model.parameters()} == {"meta"}
    assert torch.get_default_device().type == "cpu"
