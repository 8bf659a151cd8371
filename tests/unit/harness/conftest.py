"""A tiny random Phi, made once a session, and the values around it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch

from harness.engine.encoding import Encoded, Encoder
from harness.engine.fusing import Fused, unfusable
from harness.engine.loading import Base, load_base
from harness.engine.sources import model_folder
from harness.engine.trying import PROBE, probe_arm
from study.arms import Precision
from study.dialogues import generate
from study.examples import Example
from study.prompts import TEMPLATES
from study.settings import EngineSettings, Training

# Nothing is captured here, and what would be has other shapes.
TRAINING = replace(
    PROBE,
    steps=4,
    batch_size=4,
    micro_batch_size=4,
    max_tokens=512,
    length_grouping=True,
    engine=EngineSettings(cuda_graphs=None),
)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """A model this small is slower on two threads than on one, and much slower where they must share a core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_folder() -> str:
    """The folder of the tiny random Phi."""
    return model_folder("random/tiny-phi", None, "cpu").folder


@pytest.fixture
def load(tiny_folder: str) -> Callable[[Precision], Base]:
    """Loads the tiny Phi in a precision."""
    return lambda precision: load_base(tiny_folder, probe_arm(precision), "cpu", model_dropout=False)


@pytest.fixture(scope="session")
def examples() -> tuple[Example, ...]:
    """Twelve generated dialogues."""
    return generate(5, {"train": 12}, turns=(4, 5))["train"]


def encode(base: Base, examples: tuple[Example, ...], training: Training = TRAINING) -> tuple[Encoded, ...]:
    """Examples as the training sees them."""
    return Encoder(base.tokenizer, TEMPLATES["summarize"], training.max_tokens).encode(examples)


def training(**changes: object) -> Training:
    """The settings of these tests, with changes."""
    return replace(TRAINING, **changes)  # type: ignore[arg-type]


@contextmanager
def fused(model: Any, *, on: bool) -> Iterator[str | None]:
    """`model` in its fused form for the block; yields why not, if not."""
    reason = unfusable(model, on=on)
    with nullcontext() if reason is not None else Fused(model).applied():
        yield reason
