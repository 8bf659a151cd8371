"""A training on a GPU that goes on from a checkpoint: captured steps, their moments and their random state."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from harness.engine.adapting import attach, detach
from harness.engine.checkpoints import CheckpointFiles, Measured, Page
from harness.engine.encoding import Encoder
from harness.engine.keeping import Beside, Keeper
from harness.engine.loading import Base, load_base
from harness.engine.sources import model_folder
from harness.engine.training import Recipe, Trained, train
from harness.engine.trying import PROBE, probe_arm
from study.arms import Precision
from study.dialogues import generate
from study.prompts import TEMPLATES
from study.settings import EngineSettings
from study.space import Hyperparameters

pytestmark = pytest.mark.gpu
USES_CUDA_HERE = True
SETTINGS = replace(PROBE, steps=30, batch_size=4, micro_batch_size=4, max_tokens=512, length_grouping=True)


class PowerCut(BaseException):
    """Nothing of the training goes on after it."""


class Noted:
    """Keeps where trainings went on, and fails where a checkpoint could not be kept or used."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def measured(self) -> Measured:
        return Measured(seconds=1.0, allocated_bytes=1, reserved_bytes=1, host_rss_bytes=1)

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def breakdown(self) -> dict[str, int] | None:
        return None

    def resumed(self, page: Page) -> None:
        self.steps.append(page.step)

    def failed(self, what: str, why: str) -> None:
        pytest.fail(f"{what}: {why}")


def fitted(base: Base, precision: Precision, graphs: bool, keeper: Keeper | None, cut_after: int | None) -> Trained:
    engine = EngineSettings(pad_to_multiple=32)
    settings = replace(SETTINGS, engine=engine if graphs else replace(engine, cuda_graphs=None))
    examples = generate(5, {"train": 64}, turns=(4, 8))["train"]
    encoded = Encoder(base.tokenizer, TEMPLATES["summarize"], settings.max_tokens).encode(examples)
    arm = replace(probe_arm(precision), dropout=0.1)
    adapter = attach(base, arm, Hyperparameters(rank=8, alpha=16, learning_rate=2e-3), settings, seed=7)

    def on_step(step: int, *_: object) -> None:
        if step == cut_after:
            raise PowerCut

    try:
        return train(base, adapter, encoded, Recipe(settings, 2e-3, 7), on_step, Beside(keeper=keeper))
    finally:
        detach(adapter)


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.BF16, Precision.INT8, Precision.NF4])
def test_a_resumed_training_loses_what_the_undisturbed_one_loses(
    tmp_path: Path, precision: Precision, graphs: bool
) -> None:
    folder = model_folder("random/tiny-phi", None, "cuda").folder
    base = load_base(folder, probe_arm(precision), "cuda", model_dropout=False)
    noted = Noted()

    def keeper() -> Keeper:
        return Keeper(CheckpointFiles(tmp_path, "0" * 16, {}), 10, noted)

    undisturbed = fitted(base, precision, graphs, None, None)
    for after in (15, 25):
        with pytest.raises(PowerCut):
            fitted(base, precision, graphs, keeper(), after)
    resumed = fitted(base, precision, graphs, keeper(), None)
    assert noted.steps == [10, 20]
    assert len(resumed.losses) == SETTINGS.steps
    # The same kernels, but for the steps that are made outside graphs, whose head has fewer positions.
    tolerance = 1e-5 if precision is Precision.FP32 else 5e-3
    assert resumed.losses == pytest.approx(undisturbed.losses, rel=tolerance)
    assert (resumed.tokens, resumed.padding) == (undisturbed.tokens, undisturbed.padding)
    assert resumed.levers.no_graphs == undisturbed.levers.no_graphs
