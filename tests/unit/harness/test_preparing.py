"""What a worker does in advance, and what it must not."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from harness.engine.preparing import ContextMadeError, has_context, prepared_session
from harness.engine.session import Session
from harness.flow import examples_text
from harness.messages import Answers, Event, Finished, Job, Prepare
from harness.specs import Specs
from study.dialogues import generate
from study.grid import load_grid
from study.runs import RunSpec
from tests.unit.study.small_grid import SMALL

EXAMPLES = generate(0, {"train": 8, "validation": 4, "test": 4}, turns=(4, 5))
SPECS = Specs.of(load_grid(SMALL), EXAMPLES)


def specification(kind: str) -> RunSpec:
    if kind == "baseline":
        return SPECS.baselines("validation")[0]
    return SPECS.block(SPECS.grid.arm("lora"))[0]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The files of examples, by split."""
    paths = {split: tmp_path / f"{split}.jsonl" for split in ("train", "validation")}
    for split, path in paths.items():
        path.write_text(examples_text(EXAMPLES[split]), encoding="utf-8")
    return {split: str(path) for split, path in paths.items()}


def command_and_job(spec: RunSpec, files: dict[str, str], folder: str) -> tuple[Prepare, Job]:
    train = files["train"] if spec.arm.trains else None
    return (
        Prepare(spec, folder, train, files["validation"], "cpu"),
        Job(spec, folder, train, files["validation"], "cpu"),
    )


@pytest.mark.parametrize("kind", ["baseline", "trial"])
def test_a_prepared_session_reads_no_examples_any_more_and_makes_the_same_numbers(
    kind: str, files: dict[str, str], tiny_folder: str
) -> None:
    spec = specification(kind)
    command, job = command_and_job(spec, files, tiny_folder)
    told: dict[str, list[Event]] = {"plain": [], "prepared": []}
    Session(told["plain"].append).run(job)
    session = prepared_session(command, told["prepared"].append)
    assert told["prepared"] == []
    for file in files.values():
        Path(file).unlink()
    session.run(job)
    plain, prepared = ([event for event in events if isinstance(event, Answers | Finished)] for events in told.values())
    assert isinstance(prepared[-1], Finished)
    assert prepared == plain


def test_without_a_model_s_folder_the_examples_are_left_alone(files: dict[str, str], tiny_folder: str) -> None:
    command, job = command_and_job(specification("trial"), files, tiny_folder)
    told: list[Event] = []
    session = prepared_session(replace(command, model_folder=None, train_file="nowhere.jsonl"), told.append)
    session.run(job)
    assert isinstance(told[-1], Finished)


@pytest.mark.parametrize("there", [False, True])
def test_a_context_that_was_made_in_advance_is_found(
    there: bool, files: dict[str, str], tiny_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, _ = command_and_job(specification("trial"), files, tiny_folder)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch._C, "_cuda_hasPrimaryContext", lambda number: there and number == 1, raising=False)
    assert has_context("cuda") is there
    assert not has_context("cpu")
    on_gpu = replace(command, device="cuda")
    if there:
        with pytest.raises(ContextMadeError, match="context on the GPU"):
            prepared_session(on_gpu, cast(list[Event], []).append)
    else:
        assert isinstance(prepared_session(on_gpu, cast(list[Event], []).append), Session)
