"""A training made with what an earlier one was made with is the training that is made from nothing."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from harness.engine.adapting import Adapter, attach
from harness.engine.loading import Base, computing_in
from harness.engine.rigging import Rig, largest_shape, rig_key
from harness.engine.training import Levers, Recipe, Trained, rig_for, train, train_with, validation_loss
from harness.engine.trying import probe_arm
from study.arms import Method, Precision
from study.examples import Example
from study.prompts import TEMPLATES
from study.runs import RunSpec
from study.settings import Training
from study.space import Hyperparameters
from tests.unit.harness.conftest import encode, training
from tests.unit.harness.test_pruning import block, grid_of

Load = Callable[[Precision], Base]
SET = Hyperparameters(rank=4, alpha=8, learning_rate=1e-2)
STEPS = 6
PLAIN = training(steps=STEPS)


class BrokenOff(Exception):
    """The training ends here."""


def attached(base: Base, precision: Precision, settings: Training, method: Method = Method.LORA) -> Adapter:
    arm = replace(probe_arm(precision, method), dropout=0.2)
    return attach(base, arm, SET, settings, seed=7)


def weights(adapter: Adapter) -> list[torch.Tensor]:
    return [p.detach().clone() for p in adapter.model.parameters() if p.requires_grad]


def assert_same(first: tuple[Trained, list[torch.Tensor]], second: tuple[Trained, list[torch.Tensor]]) -> None:
    assert first[0].losses == second[0].losses
    assert len(set(first[0].losses)) == STEPS
    assert all(torch.equal(one, other) for one, other in zip(first[1], second[1], strict=True))


CASES = {
    "fp32": (Precision.FP32, PLAIN, Method.LORA),
    "bf16, adapter too": (Precision.BF16, training(steps=STEPS, adapter_dtype="compute"), Method.LORA),
    "fp16, whose gradients are scaled": (Precision.FP16, PLAIN, Method.LORA),
    "NF4, micro-batches, weight decay, cosine": (
        Precision.NF4,
        training(steps=STEPS, micro_batch_size=2, weight_decay=0.1, schedule="cosine", warmup_ratio=0.5),
        Method.LORA,
    ),
    "DoRA": (Precision.FP32, PLAIN, Method.DORA),
}


@pytest.mark.parametrize("held", [False, True], ids=["gradients come and go", "gradients have their places"])
@pytest.mark.parametrize("case", CASES)
def test_trainings_with_one_rig_are_those_with_a_new_one_each(
    load: Load, examples: tuple[Example, ...], case: str, held: bool
) -> None:
    precision, settings, method = CASES[case]

    def new(rate: float) -> tuple[Trained, list[torch.Tensor]]:
        base = load(precision)
        adapter = attached(base, precision, settings, method)
        trained = train(base, adapter, encode(base, examples), Recipe(settings, rate, 7), lambda *_: None)
        return trained, weights(adapter)

    base = load(precision)
    encoded = encode(base, examples)
    adapter = attached(base, precision, settings, method)
    rig = rig_for(base, adapter, encoded, Recipe(settings, 1e-2, 7), again=True)
    if held:
        # As where steps are captured.
        rig.stepper.hold_gradients()

    def made(rate: float) -> tuple[Trained, list[torch.Tensor]]:
        return train_with(rig, encoded, Recipe(settings, rate, 7), lambda *_: None), weights(adapter)

    def broken_off(step: int, *_: object) -> None:
        if step == 3:
            raise BrokenOff

    expected = {rate: new(rate) for rate in (1e-2, 3e-3)}
    assert expected[1e-2][0].losses != expected[3e-3][0].losses
    assert_same(made(1e-2), expected[1e-2])
    with computing_in(base, torch.float32):
        validation_loss(base, encoded, [range(12)], settings.engine)
    with pytest.raises(BrokenOff):
        train_with(rig, encoded, Recipe(settings, 5e-2, 7), broken_off)
    assert_same(made(3e-3), expected[3e-3])
    assert_same(made(1e-2), expected[1e-2])


def test_the_scale_of_fp16_begins_anew(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP16)
    encoded, recipe = encode(base, examples), Recipe(PLAIN, 1e-2, 7)
    rig = rig_for(base, attached(base, Precision.FP16, PLAIN), encoded, recipe, again=True)
    begun = rig.scaler.state_dict()
    train_with(rig, encoded, recipe, lambda *_: None)
    rig.scaler.update(4.0)
    assert rig.scaler.state_dict() != begun
    rig.begin(1e-2)
    assert rig.scaler.state_dict() == begun


def test_a_rig_for_one_training_serves_one_only(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    encoded = encode(base, examples)
    for settings, again in ((PLAIN, False), (training(steps=STEPS, optimizer="paged_adamw_8bit"), True)):
        recipe = Recipe(replace(settings, steps=1), 1e-2, 7)
        adapter = attached(base, Precision.FP32, settings)
        rig = rig_for(base, adapter, encoded, recipe, again=again)
        rig.begin(1e-2)
        with pytest.raises(RuntimeError, match="for one training"):
            rig.begin(1e-2)
        adapter.model.unload()


def test_a_rig_is_gone_with_its_last_user(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.NF4)
    encoded = encode(base, examples)
    rig = rig_for(base, attached(base, Precision.NF4, PLAIN), encoded, Recipe(PLAIN, 1e-2, 7))
    train_with(rig, encoded, Recipe(PLAIN, 1e-2, 7), lambda *_: None)
    seen = [weakref.ref(rig), weakref.ref(rig.optimizer), weakref.ref(rig.stepper)]
    gc.disable()
    try:
        # An evaluation follows, whose memory this is.
        del rig
        assert [ref() for ref in seen] == [None] * 3
    finally:
        gc.enable()


def test_nothing_is_gained_by_a_rig_without_graphs_or_of_one_training(
    load: Load, examples: tuple[Example, ...]
) -> None:
    base = load(Precision.FP32)
    rig = rig_for(
        base, attached(base, Precision.FP32, PLAIN), encode(base, examples), Recipe(PLAIN, 1e-2, 7), again=True
    )
    assert rig.captured() is None
    assert not rig.reusable


def test_weights_that_were_moved_are_noticed(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.NF4)
    rig = rig_for(base, attached(base, Precision.NF4, PLAIN), encode(base, examples), Recipe(PLAIN, 1e-2, 7))
    assert not rig.in_place()
    rig.lay_by()
    assert rig.in_place()
    layer = next(module for module in base.model.modules() if hasattr(getattr(module, "weight", None), "quant_state"))
    kept = layer.weight.quant_state.absmax
    layer.weight.quant_state.absmax = kept.clone()
    assert not rig.in_place()
    layer.weight.quant_state.absmax = kept
    assert rig.in_place()
    # They come back, to another place.
    embedding = base.model.get_input_embeddings().weight
    embedding.data = embedding.data.clone()
    assert not rig.in_place()


def trial() -> RunSpec:
    return block(grid_of())[0]


def changed(spec: RunSpec, **changes: object) -> RunSpec:
    assert spec.hyperparameters is not None
    return replace(spec, hyperparameters=replace(spec.hyperparameters, **changes))  # type: ignore[arg-type]


def test_a_key_leaves_out_the_learning_rate_and_what_no_training_sees() -> None:
    spec = trial()
    key = rig_key(spec, "train.jsonl")
    same = [
        changed(spec, learning_rate=0.5),
        replace(spec, trial=99),
        replace(spec, generation=replace(spec.generation, max_new_tokens=3)),
        replace(spec, prompts=replace(spec.prompts, evaluation=TEMPLATES["instruct"])),
    ]
    assert [rig_key(other, "train.jsonl") for other in same] == [key] * len(same)


def test_a_key_holds_all_that_graphs_and_the_start_depend_on() -> None:
    spec = trial()
    assert spec.training is not None
    assert spec.hyperparameters is not None
    others = [
        changed(spec, rank=spec.hyperparameters.rank + 1),
        changed(spec, alpha=spec.hyperparameters.alpha + 1),
        replace(spec, seed=spec.seed + 1),
        replace(spec, arm=replace(spec.arm, dropout=0.3)),
        replace(spec, arm=replace(spec.arm, targets=("mlp",))),
        replace(spec, arm=replace(spec.arm, checkpointing=not spec.arm.checkpointing)),
        replace(spec, training=replace(spec.training, weight_decay=0.3)),
        replace(spec, training=replace(spec.training, engine=replace(spec.training.engine, pass_tokens=4096))),
    ]
    keys = {rig_key(spec, "train.jsonl"), rig_key(spec, "other.jsonl")}
    keys |= {rig_key(other, "train.jsonl") for other in others}
    assert len(keys) == 2 + len(others)


def test_a_key_of_a_padded_adapter_has_its_rank_in_place_of_rank_and_alpha() -> None:
    spec = trial()
    key = rig_key(spec, "train.jsonl", 64)
    same = [changed(spec, rank=2), changed(spec, alpha=3), changed(spec, learning_rate=0.5)]
    assert [rig_key(other, "train.jsonl", 64) for other in same] == [key] * len(same)
    others = {rig_key(spec, "train.jsonl"), rig_key(spec, "train.jsonl", 32), rig_key(spec, "other.jsonl", 64)}
    others.add(rig_key(replace(spec, seed=spec.seed + 1), "train.jsonl", 64))
    assert len(others - {key}) == 4


def test_a_run_that_does_not_train_has_no_key() -> None:
    with pytest.raises(ValueError, match="hyperparameters"):
        rig_key(replace(trial(), hyperparameters=None), "train.jsonl")


def test_the_largest_shape_has_most_tokens_and_then_most_logits() -> None:
    assert largest_shape({(2, 64): 64, (4, 32): 128, (1, 100): 192}) == (4, 32, 128)
    assert largest_shape({}) is None
    assert largest_shape(None) is None


def test_reused_graphs_are_told_where_there_were_any() -> None:
    assert Levers(None, None, None, 7, 0, 5).facts()["graphs_reused"] == 5
    assert "graphs_reused" not in Levers(None, None, None, 7).facts()


def test_given_up_graphs_are_not_used_again(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    adapter = attached(base, Precision.FP32, PLAIN)
    rig: Rig = rig_for(base, adapter, encode(base, examples), Recipe(PLAIN, 1e-2, 7), again=True)
    rig._captured = object()  # type: ignore[assignment]
    found = [rig.reusable]
    rig.worn = True
    found.append(rig.reusable)
    rig.worn = False
    rig.stepper.hold_gradients()
    rig.give_up()
    assert [*found, rig.reusable] == [True, False, False]
    assert all(parameter.grad is None for parameter in adapter.model.parameters())
