"""The training loop against independent arithmetic, and the adapter's proofs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from harness.engine import attention, rigging
from harness.engine.adapting import Adapter, AdapterError, attach, base_parameters, detach, moved, resolve_targets
from harness.engine.attention import UNMASKED, unmasked
from harness.engine.batching import collate
from harness.engine.encoding import Encoded
from harness.engine.loading import Base, computing_in, dtype_census
from harness.engine.stepping import Diverged, Stepper, make_state, summed_loss
from harness.engine.training import Recipe, rate_factor, train, validation_loss
from harness.engine.trying import probe_arm
from study.arms import Method, Precision
from study.examples import Example
from study.models import KNOWN_SHAPES
from study.settings import EngineSettings, Training
from study.space import Hyperparameters
from tests.unit.harness.conftest import TRAINING, encode, training

Load = Callable[[Precision], Base]
SET = Hyperparameters(rank=4, alpha=8, learning_rate=1e-2)
ALL = list(Precision)


def fit(base: Base, adapter: Adapter, encoded: tuple[Encoded, ...], settings: Training = TRAINING) -> tuple[float, ...]:
    return train(base, adapter, encoded, Recipe(settings, 1e-2, seed=7), lambda *_: None).losses


def adapted(base: Base, precision: Precision, settings: Training = TRAINING) -> Adapter:
    return attach(base, probe_arm(precision), SET, settings, seed=7)


def test_the_loss_equals_the_model_s_own_on_a_padded_batch(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    encoded = encode(base, examples[:4])
    batch = collate(encoded, base.tokenizer.pad_token_id, "cpu", EngineSettings())
    labels = torch.full_like(batch.ids, -100)
    mask = torch.zeros_like(batch.ids)
    for row, item in enumerate(encoded):
        labels[row, len(item.prompt) : item.length] = torch.tensor(item.completion)
        mask[row, : item.length] = 1
    expected = base.model(input_ids=batch.ids, attention_mask=mask, labels=labels).loss * batch.targets.numel()
    assert batch.padding > 0
    assert summed_loss(base, batch, EngineSettings()).item() == pytest.approx(expected.item(), rel=1e-5)


def test_completion_logits_change_no_number(load: Load, examples: tuple[Example, ...]) -> None:
    losses = []
    for lever in (True, False):
        base = load(Precision.FP32)
        settings = training(engine=EngineSettings(completion_logits=lever))
        losses.append(fit(base, adapted(base, Precision.FP32), encode(base, examples), settings))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_padding_to_a_multiple_changes_no_number(load: Load, examples: tuple[Example, ...]) -> None:
    losses = []
    for multiple in (1, 64):
        base = load(Precision.FP32)
        settings = training(engine=EngineSettings(pad_to_multiple=multiple))
        losses.append(fit(base, adapted(base, Precision.FP32), encode(base, examples), settings))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_micro_batches_give_the_loss_and_the_step_of_the_whole_batch(load: Load, examples: tuple[Example, ...]) -> None:
    losses = []
    for micro in (4, 1):
        base = load(Precision.FP32)
        settings = training(micro_batch_size=micro)
        losses.append(fit(base, adapted(base, Precision.FP32), encode(base, examples), settings))
    assert losses[0] == pytest.approx(losses[1], abs=2e-5)


def test_checkpointing_changes_no_number(load: Load, examples: tuple[Example, ...]) -> None:
    losses = []
    for on in (False, True):
        base = load(Precision.FP32)
        adapter = attach(base, probe_arm(Precision.FP32), SET, TRAINING, seed=7)
        encoded = encode(base, examples)
        losses.append(
            train(base, adapter, encoded, Recipe(TRAINING, 1e-2, 7, checkpointing=on), lambda *_: None).losses
        )
        assert not any(getattr(module, "gradient_checkpointing", False) for module in base.model.modules())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.parametrize("precision", ALL)
def test_every_precision_trains_and_leaves_its_base_as_it_was(
    load: Load, examples: tuple[Example, ...], precision: Precision
) -> None:
    base = load(precision)
    before = {name: value.clone() for name, value in base.model.state_dict().items() if isinstance(value, torch.Tensor)}
    encoded = encode(base, examples)
    adapter = adapted(base, precision)
    losses = fit(base, adapter, encoded, training(steps=12))
    assert min(losses[-3:]) < losses[0]
    assert moved(adapter) == 1.0
    detach(adapter)
    after = base.model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("precision", ALL)
def test_a_second_trial_in_a_warm_worker_gives_the_numbers_of_a_fresh_one(
    load: Load, examples: tuple[Example, ...], precision: Precision
) -> None:
    base = load(precision)
    encoded = encode(base, examples)
    first = adapted(base, precision)
    losses = fit(base, first, encoded)
    with computing_in(base, torch.float32):
        validation_loss(base, encoded, [range(12)], EngineSettings())
    detach(first)
    assert fit(base, adapted(base, precision), encoded) == losses


@pytest.mark.parametrize("precision", ALL)
def test_computing_in_fp32_puts_every_weight_back_exactly(load: Load, precision: Precision) -> None:
    base = load(precision)
    before = {name: parameter.detach().clone() for name, parameter in base.model.named_parameters()}
    with computing_in(base, torch.float32):
        if base.dtype != torch.float32:
            assert base.model.get_input_embeddings().weight.dtype == torch.float32
    after = dict(base.model.named_parameters())
    assert all(after[name].dtype == value.dtype and torch.equal(after[name], value) for name, value in before.items())


def test_quantised_and_unquantised_arms_have_one_dtype_policy(load: Load) -> None:
    kept = {}
    for precision in (Precision.BF16, Precision.INT8, Precision.NF4):
        base = load(precision)
        census = dtype_census(adapted(base, precision).model)
        assert set(census["adapter"]) == {"float32"}
        kept[precision] = census["base"]
    assert set(kept[Precision.BF16]) == {"bfloat16"}
    # What is not packed is bf16 in every arm: no norm, embedding or head was cast to fp32 in some of them.
    assert kept[Precision.INT8]["bfloat16"] == kept[Precision.NF4]["bfloat16"]
    assert set(kept[Precision.NF4]) == {"bfloat16", "uint8"}


def watch_dtypes(base: Base) -> set[torch.dtype]:
    """Fills a set with the dtypes of everything that the decoder layers put out."""
    seen: set[torch.dtype] = set()

    def note(_module: torch.nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            seen.add(output.dtype)

    for module in base.decoder.layers.modules():
        module.register_forward_hook(note)
    return seen


def test_activations_have_the_compute_dtype_in_every_arm(load: Load, examples: tuple[Example, ...]) -> None:
    for precision in (Precision.BF16, Precision.INT8, Precision.NF4):
        base = load(precision)
        adapted(base, precision)
        seen = watch_dtypes(base)
        encoded = encode(base, examples[:2])
        summed_loss(base, collate(encoded, 0, "cpu", EngineSettings()), EngineSettings()).backward()
        assert seen == {torch.bfloat16}, precision


def test_trainable_and_total_parameters_do_not_depend_on_the_precision(load: Load) -> None:
    shape = KNOWN_SHAPES["random/tiny-phi"]
    expected = shape.lora_parameters(("all-linear",), 4)
    for precision in ALL:
        base = load(precision)
        assert base_parameters(base)["total"] == shape.parameters
        parameters = adapted(base, precision).parameters
        assert parameters["trainable"] == expected
        assert parameters["total"] == shape.parameters + expected
        assert parameters["adapter_bytes"] == 4 * expected


@pytest.mark.parametrize("method", [Method.RSLORA, Method.DORA])
@pytest.mark.parametrize("precision", [Precision.BF16, Precision.NF4])
def test_variants_of_lora_train(
    load: Load, examples: tuple[Example, ...], precision: Precision, method: Method
) -> None:
    base = load(precision)
    adapter = attach(base, probe_arm(precision, method), SET, TRAINING, seed=7)
    losses = fit(base, adapter, encode(base, examples), training(steps=12))
    assert min(losses[-3:]) < losses[0]


def test_asking_for_a_module_that_is_not_there_is_an_error() -> None:
    linears = {"q_proj": ["attention"], "fc1": ["mlp"]}
    assert resolve_targets(linears, ("all-linear",)) == ("q_proj", "fc1")
    assert resolve_targets(linears, ("mlp",)) == ("fc1",)
    with pytest.raises(AdapterError, match=r"'o_proj'.*q_proj, fc1"):
        resolve_targets(linears, ("q_proj", "o_proj"))


def test_the_adapter_s_start_follows_from_the_seed(load: Load) -> None:
    def start(seed: int) -> torch.Tensor:
        adapter = attach(load(Precision.BF16), probe_arm(Precision.BF16), SET, TRAINING, seed)
        matrices = dict(adapter.model.named_parameters())
        return torch.cat([p.detach().flatten() for name, p in matrices.items() if "lora_A" in name])

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


def test_a_loss_that_is_no_number_ends_the_run(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    adapter = adapted(base, Precision.FP32)
    with torch.no_grad():
        base.model.get_output_embeddings().weight[3, 0] = float("nan")
    with pytest.raises(Diverged, match="nan"):
        fit(base, adapter, encode(base, examples))


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")
def test_the_seed_protocol_s_optimizer_and_loss_train(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.NF4)
    settings = training(steps=8, optimizer="paged_adamw_8bit", loss_on="all", micro_batch_size=1)
    losses = fit(base, adapted(base, Precision.NF4), encode(base, examples), settings)
    assert losses[-1] < losses[0]


def test_learning_rates_warm_up_and_fall() -> None:
    cosine = training(schedule="cosine", warmup_ratio=0.2)
    factors = [rate_factor(step, 10, cosine) for step in range(10)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[3:] == sorted(factors[3:], reverse=True)
    assert 0.0 < factors[-1] < 0.1
    linear = training(schedule="linear", warmup_ratio=0.0)
    assert [rate_factor(step, 4, linear) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert rate_factor(9, 10, training(schedule="constant")) == 1.0


@pytest.mark.parametrize(
    "settings",
    [
        training(steps=6),
        training(steps=6, weight_decay=0.1, warmup_ratio=0.5, schedule="cosine"),
        training(steps=6, micro_batch_size=1),
    ],
)
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.NF4])
def test_moments_made_before_the_first_step_move_no_number(
    load: Load,
    examples: tuple[Example, ...],
    monkeypatch: pytest.MonkeyPatch,
    settings: Training,
    precision: Precision,
) -> None:
    results = []
    for made in (True, False):
        if not made:
            monkeypatch.setattr(rigging, "make_state", lambda optimizer: None)
        base = load(precision)
        adapter = adapted(base, precision, settings)
        losses = fit(base, adapter, encode(base, examples), settings)
        assert len(set(losses)) == 6
        results.append((losses, [p.detach().clone() for p in adapter.model.parameters() if p.requires_grad]))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(first, second) for first, second in zip(results[0][1], results[1][1], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_moments_are_there_before_the_first_step_and_nothing_else_is_changed(dtype: torch.dtype) -> None:
    weights = [torch.nn.Parameter(torch.linspace(-1.0, 1.0, size, dtype=dtype)) for size in (3, 5)]
    before = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, lr=0.1, weight_decay=0.5)
    make_state(optimizer)
    for weight, start in zip(weights, before, strict=True):
        assert torch.equal(weight, start)
        assert weight.grad is None
        state = optimizer.state[weight]
        assert set(state) == {"step", "exp_avg", "exp_avg_sq"}
        assert state["step"].item() == 0
        assert not state["exp_avg"].any()
        assert not state["exp_avg_sq"].any()
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["eps"]) == (0.1, 0.5, 1e-8)


def test_the_first_step_of_a_training_finds_its_moments(
    load: Load, examples: tuple[Example, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load(Precision.BF16)
    adapter = adapted(base, Precision.BF16)
    found: list[tuple[int, float]] = []
    step = Stepper.step

    def watched(stepper: Any, batches: Any) -> float:
        state = stepper._optimizer.state
        found.append((len(state), sum(values["step"].item() for values in state.values())))
        return step(stepper, batches)

    monkeypatch.setattr(Stepper, "step", watched)
    fit(base, adapter, encode(base, examples), training(steps=2))
    matrices = sum(p.requires_grad for p in adapter.model.parameters())
    assert found == [(matrices, 0.0), (matrices, float(matrices))]


def test_a_step_makes_no_mask_also_where_transformers_may_not_look(
    load: Load, examples: tuple[Example, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load(Precision.FP32)
    encoded = encode(base, examples)
    masks: list[object] = []
    attend = attention.written_out

    def watched(module: Any, query: Any, key: Any, value: Any, mask: Any, **named: Any) -> tuple[torch.Tensor, None]:
        masks.append(mask)
        return attend(module, query, key, value, mask, **named)

    monkeypatch.setattr(attention, "written_out", watched)
    # As it is while a graph is captured.
    monkeypatch.setattr(transformers.masking_utils, "is_tracing", lambda *_: True)
    fit(base, adapted(base, Precision.FP32), encoded, training(steps=1))
    assert masks
    assert set(masks) == {None}
    assert base.model.config._attn_implementation == "sdpa"


def test_a_window_shorter_than_the_batch_keeps_its_mask(load: Load) -> None:
    base = load(Precision.FP32)
    base.model.config.sliding_window = 64
    with unmasked(base, 65):
        assert base.model.config._attn_implementation == "sdpa"
    with unmasked(base, 64):
        assert base.model.config._attn_implementation == UNMASKED
