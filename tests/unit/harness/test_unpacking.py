"""Trials on weights that are kept unpacked: the numbers of the packed base, and none of its figures."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from harness.engine import unpacking
from harness.engine.adapting import attach, detach
from harness.engine.loading import Base
from harness.engine.training import Levers, Recipe, train
from harness.engine.trying import probe_arm
from harness.engine.unpacking import difference, packed_layers, unpacked, unpacked_bytes
from harness.messages import PhaseEnded
from harness.outcomes import Completed
from harness.runlog import RunLog
from harness.scores import Scorer
from harness.specs import Specs
from study.arms import Precision
from study.examples import Example
from study.grid import load_grid
from study.settings import EngineSettings
from study.space import Hyperparameters
from tests.unit.harness.conftest import encode as encode_examples
from tests.unit.harness.conftest import training
from tests.unit.harness.test_freezing import EXAMPLES
from tests.unit.harness.test_padding import record_of
from tests.unit.study.small_grid import SMALL

Load = Callable[[Precision], Base]
FOUR_BIT = pytest.mark.parametrize("precision", [Precision.NF4, Precision.FP4])


@FOUR_BIT
def test_all_packed_weights_are_kept_as_each_pass_would_unpack_them(load: Load, precision: Precision) -> None:
    base = load(precision)
    layers = list(packed_layers(base.model))
    weights = unpacked(base)
    # Two blocks of six linear layers.
    assert len(layers) == len(weights) == 12
    for layer in layers:
        kept = weights[id(layer)]
        assert kept.shape == (layer.out_features, layer.in_features)
        assert kept.dtype == base.dtype
    assert unpacked_bytes(base) == sum(kept.numel() * kept.element_size() for kept in weights.values())
    assert not list(packed_layers(load(Precision.BF16).model))


@FOUR_BIT
def test_a_training_on_them_is_that_on_the_packed_base(
    load: Load, examples: tuple[Example, ...], precision: Precision
) -> None:
    base = load(precision)
    encoded = encode_examples(base, examples)
    found = []
    for each in (base, replace(base, unpacked=unpacked(base))):
        adapter = attach(each, probe_arm(precision), Hyperparameters(4, 8, 1e-2), training(), seed=7)
        found.append(train(each, adapter, encoded, Recipe(training(), 5e-3, 7), lambda *_: None))
        detach(adapter)
    assert [one.levers.facts().get("unpacked_base", False) for one in found] == [False, True]
    # A CPU multiplies 4-bit weights in another way: within rounding, then.
    assert found[1].losses == pytest.approx(found[0].losses, rel=2e-3)


def test_weights_that_are_not_those_of_the_base_are_found_out(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.BF16)
    encoded = encode_examples(base, examples)
    settings = training(engine=EngineSettings())
    told = []
    for change in (0.0, 1e-2):
        # On a CPU a product of 4-bit weights has other bits than one of unpacked ones: another frozen base, then.
        weights = {id(layer): layer.weight.data + change for layer in _linear(base)}
        told.append(difference(base, probe_arm(Precision.BF16), settings, encoded, weights, seed=7))
    assert told[0] is None
    assert str(told[1]).startswith("its loss is another in step ")
    assert not any(hasattr(module, "lora_A") for module in base.model.modules())


def test_an_adapter_that_ends_elsewhere_is_found_out_too(
    load: Load, examples: tuple[Example, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load(Precision.BF16)
    encoded = encode_examples(base, examples)
    # The loss of one step says nothing of the way back, and the way back all of the adapter.
    monkeypatch.setattr(unpacking, "STEPS", 1)
    last = _linear(base)[-1]
    weights = {id(layer): layer.weight.data for layer in _linear(base)}
    other = _WayBack(last.weight.data)
    assert difference(base, probe_arm(Precision.BF16), training(), encoded, weights, seed=7) is None
    told = difference(base, probe_arm(Precision.BF16), training(), encoded, {**weights, id(last): other}, seed=7)
    assert told == "its adapter is another after 1 steps"


class _WayBack(torch.Tensor):
    """Weights that are others from the second time on that they are asked for."""

    times = 0

    @staticmethod
    def __new__(cls, weights: torch.Tensor) -> "_WayBack":
        return weights.as_subclass(cls)

    def to(self, *_: object, **__: object) -> torch.Tensor:
        self.times += 1
        plain = self.as_subclass(torch.Tensor)
        return plain if self.times == 1 else plain * 2.0


def _linear(base: Base) -> list[torch.nn.Linear]:
    return [module for module in base.decoder.layers.modules() if isinstance(module, torch.nn.Linear)]


def test_of_such_a_trial_neither_memory_nor_time_is_told() -> None:
    record = record_of({"unpacked_base": True}, Completed(1.0))
    assert record.memory.train is not None
    assert record.memory.train.source == "not told: its base was kept unpacked"
    assert (record.memory.train.allocated_bytes, record.seconds.train, record.energy_j) == (None, None, None)
    assert Levers(None, None, None, 7, unpacked_base=True).facts()["unpacked_base"]
    assert "unpacked_base" not in Levers(None, None, None, 7).facts()


def test_an_evaluation_beside_what_is_kept_tells_no_memory_of_the_gpu() -> None:
    grid = load_grid(SMALL)
    spec = Specs.of(grid, EXAMPLES).block(grid.arm("lora"))[0]
    log = RunLog(spec, "paper", {}, Scorer(), warm=True)
    log.facts = {"checks": {"kept_beside_evaluation": True}}
    for phase in ("train", "evaluate"):
        log.add_phase(PhaseEnded(phase, 1.0, 700, 900, 950), None, None)
    record = log.record(Completed(1.0), {}, 3.0)
    assert record.memory.train is not None
    assert record.memory.evaluate is not None
    assert (record.memory.train.allocated_bytes, record.memory.evaluate.allocated_bytes) == (700, None)
    assert record.memory.evaluate.host_rss_bytes == 950
