"""An adapter that is saved is the adapter that was trained, as PEFT loads it."""

import json
import resource
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors import safe_open

from harness.engine.adapting import Adapter, attach, save
from harness.engine.batches import evaluation_plan
from harness.engine.loading import Base
from harness.engine.training import Recipe, train, validation_loss
from harness.engine.trying import probe_arm
from study.arms import Method, Precision
from study.examples import Example
from study.models import ModelSpec
from study.settings import EngineSettings
from study.space import Hyperparameters
from tests.unit.harness.conftest import TRAINING, encode

MODEL = ModelSpec("microsoft/phi-2", "ef38235", "pretrained")


def trained(base: Base, precision: Precision, method: Method, examples: tuple[Example, ...]) -> tuple[Adapter, float]:
    adapter = attach(base, probe_arm(precision, method), Hyperparameters(4, 8, 1e-2), TRAINING, seed=7)
    encoded = encode(base, examples)
    train(base, adapter, encoded, Recipe(TRAINING, 1e-2, seed=7), lambda *_: None)
    return adapter, loss(base, examples)


def loss(base: Base, examples: tuple[Example, ...]) -> float:
    encoded = encode(base, examples)
    plan = evaluation_plan([item.length for item in encoded], 4)
    return validation_loss(base, encoded, plan, EngineSettings())


@pytest.mark.parametrize("method", [Method.LORA, Method.RSLORA, Method.DORA])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.NF4])
def test_a_saved_adapter_gives_the_trained_model_again(
    load: Callable[[Precision], Base],
    examples: tuple[Example, ...],
    tmp_path: Path,
    precision: Precision,
    method: Method,
) -> None:
    adapter, expected = trained(load(precision), precision, method, examples)
    save(adapter, tmp_path / "adapter", MODEL)
    fresh = load(precision)
    bare = loss(fresh, examples)
    loaded = peft.PeftModel.from_pretrained(fresh.model, str(tmp_path / "adapter")).eval()
    assert loaded is not None
    assert loss(fresh, examples) == pytest.approx(expected, rel=2e-3)
    assert abs(expected - bare) > 0.01


def test_an_adapter_that_finds_no_room_is_an_os_error_and_leaves_nothing(
    load: Callable[[Precision], Base], examples: tuple[Example, ...], tmp_path: Path
) -> None:
    adapter, _ = trained(load(Precision.FP32), Precision.FP32, Method.LORA, examples)
    mine = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, mine[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(adapter, tmp_path / "adapter", MODEL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, mine)
    assert list(tmp_path.iterdir()) == []


def test_a_saved_adapter_names_its_base_and_no_folder_and_holds_no_pickle(
    load: Callable[[Precision], Base], examples: tuple[Example, ...], tmp_path: Path, tiny_folder: str
) -> None:
    adapter, _ = trained(load(Precision.BF16), Precision.BF16, Method.LORA, examples)
    folder = tmp_path / "adapters" / "run"
    save(adapter, folder, MODEL)
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"], config["r"]) == (MODEL.id, MODEL.revision, 4)
    assert tiny_folder not in (folder / "adapter_config.json").read_text()
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert all("lora_" in name for name in tensors)
    assert [path.name for path in folder.parent.iterdir()] == ["run"]


def test_saving_again_replaces_the_older_one_as_a_whole(
    load: Callable[[Precision], Base], examples: tuple[Example, ...], tmp_path: Path
) -> None:
    adapter, _ = trained(load(Precision.FP32), Precision.FP32, Method.LORA, examples)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "left over").write_text("of an earlier run")
    save(adapter, folder, MODEL)
    assert not (folder / "left over").exists()
