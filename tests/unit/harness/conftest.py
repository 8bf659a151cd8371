"""A tiny random Phi, made once a session, and the values around it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from harness.engine.encoding import Encoded, Encoder
from harness.engine.loading import Base, load_base
from harness.engine.sources import model_folder
from study.arms import DEFAULT_COMPUTE, Arm, Method, Precision
from study.dialogues import generate
from study.examples import Example
from study.prompts import TEMPLATES
from study.settings import EngineSettings, Training

TRAINING = Training(
    steps=4,
    epochs=None,
    batch_size=4,
    micro_batch_size=4,
    max_tokens=512,
    optimizer="adamw",
    schedule="constant",
    warmup_ratio=0.0,
    weight_decay=0.0,
    max_grad_norm=1.0,
    adapter_dtype="fp32",
    model_dropout=False,
    loss_on="completion",
    length_grouping=True,
    engine=EngineSettings(),
)


def make_arm(precision: Precision, method: Method = Method.LORA, *, checkpointing: bool = False) -> Arm:
    """A trained arm of one precision."""
    return Arm(
        name=f"{method}-{precision}",
        family=f"{method}-{precision}",
        axes=(),
        precision=precision,
        method=method,
        compute_dtype=DEFAULT_COMPUTE[precision],
        double_quant=True if precision.is_4bit else None,
        targets=("all-linear",),
        dropout=0.0,
        checkpointing=checkpointing,
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
    return lambda precision: load_base(tiny_folder, make_arm(precision), "cpu", model_dropout=False)


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
