"""A rehearsed training step against real ones: the same model on the CPU, under the same ledger."""

import gc
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from harness.engine import rehearsal
from harness.engine.adapting import Adapter, attach
from harness.engine.batching import Batch
from harness.engine.census import quantisation_tensors
from harness.engine.decoding import Decoding, SlotDecoder
from harness.engine.ledger import BLOCK_BYTES, CATEGORIES, Ledger
from harness.engine.loading import Base, load_base
from harness.engine.rehearsal import (
    ATTENTION,
    WORKSPACE_BYTES,
    Stage,
    evaluation_peak,
    set_stage,
    training_peak,
)
from harness.engine.sections import Section, watched
from harness.engine.sources import shape_config
from harness.engine.standins import attention
from harness.engine.stepping import make_state, summed_loss
from harness.engine.training import set_checkpointing
from harness.engine.trying import PROBE, probe_arm
from harness.forecast import forecast_arm
from study.arms import Arm, Method, Precision
from study.models import EMBEDDED, KNOWN_SHAPES, ModelShape, llama_shape, phi_shape
from study.settings import EngineSettings, Training
from study.space import Hyperparameters
from tests.unit.harness.conftest import fused

TINY = KNOWN_SHAPES["random/tiny-phi"]
PHI_2 = KNOWN_SHAPES["microsoft/phi-2"]
# Nothing is captured on the CPU, which the rehearsal is held against.
# Plain operations, as a CPU computes them: a real step is what the rehearsal is held against.
TRAINING = replace(PROBE, batch_size=4, micro_batch_size=4, engine=EngineSettings(cuda_graphs=None, kernels=None))
RANK = 4
# Dialogues, padded tokens, learned positions.
BATCH = (4, 40, 50)
ALL = list(Precision)
SIXTEEN_BIT = pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP16])


def arm_of(precision: Precision, *, checkpointing: bool = False, **changes: Any) -> Arm:
    return replace(probe_arm(precision), checkpointing=checkpointing, **changes)


def rehearsed(
    arm: Arm,
    training: Training = TRAINING,
    batch: tuple[int, int, int] = BATCH,
    shape: ModelShape = TINY,
    rank: int = RANK,
) -> dict[str, int]:
    return training_peak(set_stage(shape_config(shape), arm, rank, training), arm, training, batch)


def activations(arm: Arm, **changes: Any) -> int:
    return rehearsed(arm, **changes)["activations"]


def lasting(arm: Arm, shape: ModelShape) -> dict[str, int]:
    """Bytes of a model with its adapter before any step."""
    stage = set_stage(shape_config(shape), arm, RANK, TRAINING)
    ledger = Ledger()
    rehearsal._hold_model(ledger, stage.base)
    return dict(ledger.held)


def rounded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def on_the_cpu(folder: str, arm: Arm, implementation: str = ATTENTION) -> Stage:
    """The tiny model with its weights, as a study loads and adapts it."""
    base = load_base(folder, arm, "cpu", model_dropout=False)
    transformers.AttentionInterface.register(ATTENTION, attention)
    base.model.set_attn_implementation(implementation)
    adapter = attach(base, arm, Hyperparameters(RANK, RANK, 1e-4), TRAINING, seed=0)
    adapter.model.train()
    set_checkpointing(base.model, on=arm.checkpointing)
    return Stage(base, adapter, 0, 0)


def real_batch(shape: tuple[int, int, int] = BATCH) -> Batch:
    dialogues, width, learned = shape
    draw = torch.Generator().manual_seed(3)
    ids, targets = (torch.randint(0, 500, size, generator=draw) for size in ((dialogues, width), (learned,)))
    rows, columns = (torch.randint(0, top, (learned,), generator=draw) for top in (dialogues, width))
    return Batch(ids, rows, columns, targets, dialogues * width, len(targets))


def adapter_of(stage: Stage) -> Adapter:
    assert stage.adapter is not None
    return stage.adapter


def step(stage: Stage, training: Training = TRAINING) -> Ledger:
    with fused(adapter_of(stage).model, on=bool(training.engine.fused)):
        return rehearsal._step(stage.base, adapter_of(stage), training, real_batch(), held=False)


def norm_statistics(layers: int = TINY.layers) -> int:
    """What the CPU's LayerNorm keeps less of a 16-bit input than a GPU's: mean and deviation of a token, 2 bytes of
    each instead of 4 (aten: native_layer_norm)."""
    tokens = BATCH[0] * BATCH[1]
    return (layers + 1) * 2 * (rounded(4 * tokens) - rounded(2 * tokens))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_peak_of_a_step_is_that_of_a_real_step_in_every_category(tiny_folder: str, checkpointing: bool) -> None:
    arm = arm_of(Precision.FP32, checkpointing=checkpointing)
    real = step(on_the_cpu(tiny_folder, arm)).peak
    expected = dict.fromkeys(CATEGORIES, 0) | real | {"rest": real["rest"] + WORKSPACE_BYTES}
    assert rehearsed(arm) == expected
    assert min(expected[part] for part in ("base_weights", "adapters", "optimizer", "activations", "logits")) > 0


@SIXTEEN_BIT
@pytest.mark.parametrize("checkpointing", [False, True])
def test_in_16_bits_it_differs_by_the_norms_statistics_alone(
    tiny_folder: str, precision: Precision, checkpointing: bool
) -> None:
    arm = arm_of(precision, checkpointing=checkpointing)
    real = step(on_the_cpu(tiny_folder, arm)).peak
    foreseen = rehearsed(arm)
    for part in ("base_weights", "adapters", "gradients", "optimizer", "logits"):
        assert foreseen[part] == real.get(part, 0), part
    apart = sum(foreseen.values()) - WORKSPACE_BYTES - sum(real.values())
    assert 0 < apart <= norm_statistics()


def quantised_part(stage: Stage) -> int:
    """Bytes of scales and code books of a real quantised model, in the allocator's blocks."""
    found: dict[int, int] = {}
    for module in stage.base.model.modules():
        for tensor in quantisation_tensors(module):
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = rounded(storage.nbytes())
    return sum(found.values())


@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("precision", [Precision.NF4, Precision.FP4])
def test_packed_weights_and_their_scales_are_as_large_as_real_ones(
    tiny_folder: str, precision: Precision, double_quant: bool
) -> None:
    arm = arm_of(precision, double_quant=double_quant)
    stage = on_the_cpu(tiny_folder, arm)
    foreseen = rehearsed(arm)
    assert foreseen["base_weights"] == step(stage).peak["base_weights"]
    # Offsets of scales are numbers of 4 bytes, of which every layer has one, in a block of its own.
    assert foreseen["quantisation"] == quantised_part(stage)


def test_int8_weights_and_their_scales_are_as_large_as_real_ones(tiny_folder: str) -> None:
    stage = on_the_cpu(tiny_folder, arm_of(Precision.INT8))
    foreseen = rehearsed(arm_of(Precision.INT8))
    assert foreseen["base_weights"] == step(stage).peak["base_weights"]
    assert foreseen["quantisation"] == quantised_part(stage)


def kept(stage: Stage, batch: Batch) -> int:
    """Bytes of activations alive when the forward pass is over: what the backward pass needs, of all precisions."""
    ledger = Ledger()
    rehearsal._hold_model(ledger, stage.base)
    for module in stage.base.model.modules():
        for tensor in quantisation_tensors(module):
            ledger.add(tensor, "quantisation")

    def entered(section: Section) -> None:
        ledger.category = section

    with watched(stage.base, entered), ledger:
        loss = summed_loss(stage.base, batch, EngineSettings())
        held = ledger.held["activations"]
    del loss
    return held


def kept_in_rehearsal(arm: Arm) -> int:
    stage = set_stage(shape_config(TINY), arm, RANK, TRAINING)
    adapter_of(stage).model.train()
    set_checkpointing(stage.base.model, on=arm.checkpointing)
    with torch.device("meta"):
        return kept(stage, rehearsal._batch(BATCH))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ALL)
def test_the_stand_ins_keep_what_attention_and_quantised_layers_keep(
    tiny_folder: str, precision: Precision, checkpointing: bool
) -> None:
    arm = arm_of(precision, checkpointing=checkpointing)
    # The real attention too: scaled_dot_product_attention on its flash path.
    stage = on_the_cpu(tiny_folder, arm, "sdpa")
    kept(stage, real_batch())  # the first pass moves int8 scales to where later ones find them
    apart = kept_in_rehearsal(arm) - kept(stage, real_batch())
    assert 0 <= apart <= (0 if precision is Precision.FP32 else norm_statistics())


@pytest.mark.parametrize("precision", ALL)
def test_checkpointing_lowers_activations(precision: Precision) -> None:
    shape = phi_shape(vocabulary=512, hidden=64, intermediate=256, layers=8, heads=4)
    on, off = (activations(arm_of(precision, checkpointing=each), shape=shape) for each in (True, False))
    # One layer of eight is computed again; int8 keeps the inputs of all its products besides.
    assert on < (0.7 if precision is Precision.INT8 else 0.3) * off


def test_int8_keeps_the_inputs_of_its_layers_under_checkpointing_too() -> None:
    # Where layers are not fused: bitsandbytes keeps them outside of what checkpointing drops.
    plain = replace(TRAINING, engine=EngineSettings(fused=None, cuda_graphs=None))
    int8, bf16 = (
        activations(arm_of(each, checkpointing=True), training=plain) for each in (Precision.INT8, Precision.BF16)
    )
    tokens = BATCH[0] * BATCH[1]
    # At the peak one layer is computed again. Of its six products, q, k and v share one input.
    assert int8 - bf16 >= 2 * tokens * (64 + 64 + 256)


def test_more_rank_is_more_of_the_adapter_its_gradients_and_its_moments() -> None:
    # The second micro-batch finds every gradient.
    settings = replace(TRAINING, batch_size=8)
    low, high = (rehearsed(arm_of(Precision.BF16), settings, rank=rank) for rank in (8, 16))
    # Matrices of rank 8 and 16 fill whole blocks, so that the difference is exact: fp32, two moments.
    more = 4 * TINY.lora_parameters(("all-linear",), 8)
    added = {part: high[part] - low[part] for part in ("adapters", "gradients", "optimizer", "base_weights")}
    assert added == {"adapters": more, "gradients": more, "optimizer": 2 * more, "base_weights": 0}


def test_an_adapter_in_the_compute_dtype_is_half_as_large() -> None:
    arm = arm_of(Precision.BF16)
    full, half = (rehearsed(arm, replace(TRAINING, adapter_dtype=kind), rank=16) for kind in ("fp32", "compute"))
    assert full["adapters"] == 2 * half["adapters"]


def test_the_optimizer_s_state_is_what_adamw_makes(tiny_folder: str) -> None:
    stage = on_the_cpu(tiny_folder, arm_of(Precision.BF16))
    optimizer = torch.optim.AdamW([p for p in adapter_of(stage).model.parameters() if p.requires_grad])
    make_state(optimizer)
    made = [value for state in optimizer.state.values() for value in state.values()]
    assert rehearsed(arm_of(Precision.BF16))["optimizer"] == sum(rounded(value.nbytes) for value in made)


def test_a_paged_optimizer_holds_two_bytes_a_weight_of_small_matrices_and_pages_large_ones() -> None:
    def held(rank: int) -> tuple[int, int]:
        training = replace(TRAINING, optimizer="paged_adamw_8bit")
        stage = set_stage(shape_config(TINY), arm_of(Precision.NF4), rank, training)
        small = [p for p in adapter_of(stage).model.parameters() if p.requires_grad and p.numel() < 100_000]
        parts = training_peak(stage, arm_of(Precision.NF4), training, BATCH)
        return parts["optimizer"], sum(2 * rounded(p.numel()) for p in small)

    few, many = held(4), held(512)
    assert few[0] == few[1] > 0
    # A matrix of fc1 and fc2 has 512 × 256 elements at that rank.
    assert many[0] == many[1] < 2 * 512 * sum(linear.inputs + linear.outputs for linear in TINY.linears) * TINY.layers


def test_a_second_micro_batch_finds_the_gradients_of_the_first() -> None:
    whole = rehearsed(arm_of(Precision.BF16), TRAINING)
    split = rehearsed(arm_of(Precision.BF16), replace(TRAINING, batch_size=8))
    assert split["gradients"] - whole["gradients"] == split["adapters"]
    unchanged = set(CATEGORIES) - {"gradients"}
    assert {part: split[part] for part in unchanged} == {part: whole[part] for part in unchanged}


@pytest.mark.parametrize("precision", ALL)
def test_a_longer_batch_holds_more_activations_in_proportion(precision: Precision) -> None:
    once, twice = (activations(arm_of(precision), batch=(4, width, 50)) for width in (256, 512))
    assert twice == pytest.approx(2 * once, rel=0.01)


def test_logits_are_made_of_the_learned_positions() -> None:
    # On the way back: the logarithms of the softmax, their gradient and that of the logits, in fp32.
    few, many = (rehearsed(arm_of(Precision.BF16), batch=(4, 512, learned))["logits"] for learned in (1024, 2048))
    assert many - few == 1024 * TINY.vocabulary * (4 + 4 + 4)


@pytest.mark.parametrize("precision", ALL)
def test_weights_are_those_of_the_arithmetic_over_shapes(precision: Precision) -> None:
    arm = arm_of(precision)
    parts = lasting(arm, PHI_2)
    weights = parts["base_weights"] + parts.get("quantisation", 0)
    assert weights == pytest.approx(forecast_arm(arm, PHI_2, 16).weight_bytes, rel=0.01)


def test_double_quantisation_saves_what_it_saves_in_the_arithmetic() -> None:
    single, double = (arm_of(Precision.NF4, double_quant=double) for double in (False, True))
    saved = lasting(single, PHI_2)["quantisation"] - lasting(double, PHI_2)["quantisation"]
    expected = forecast_arm(single, PHI_2, RANK).weight_bytes - forecast_arm(double, PHI_2, RANK).weight_bytes
    assert saved == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("model", KNOWN_SHAPES)
@pytest.mark.parametrize("precision", [Precision.BF16, Precision.INT8, Precision.NF4])
def test_parameters_are_those_of_the_shape(model: str, precision: Precision) -> None:
    shape = KNOWN_SHAPES[model]
    stage = set_stage(shape_config(shape), arm_of(precision, targets=("attention",)), 16, TRAINING)
    assert stage.trainable == shape.lora_parameters(("attention",), 16)
    assert stage.total == shape.parameters + stage.trainable
    zero_shot = set_stage(shape_config(shape), arm_of(precision, method=Method.NONE, targets=()), None, None)
    assert (zero_shot.adapter, zero_shot.trainable, zero_shot.total) == (None, 0, shape.parameters)


def test_phi_2_has_the_parameters_that_are_published() -> None:
    stages = [
        set_stage(shape_config(PHI_2), arm_of(Precision.BF16, targets=("attention",)), rank, TRAINING)
        for rank in (1, 32)
    ]
    assert [stage.trainable for stage in stages] == [655_360, 20_971_520]
    assert {stage.total - stage.trainable for stage in stages} == {2_779_683_840}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", [Precision.BF16, Precision.INT8, Precision.NF4])
def test_a_llama_with_grouped_heads_is_rehearsed(precision: Precision, checkpointing: bool) -> None:
    grouped, full = (
        llama_shape(vocabulary=512, hidden=64, intermediate=256, layers=2, heads=(4, keys), tied=True)
        for keys in (1, 4)
    )
    arm = arm_of(precision, checkpointing=checkpointing)
    narrow, wide = (rehearsed(arm, shape=shape) for shape in (grouped, full))
    assert 0 < narrow["activations"] <= wide["activations"]
    assert narrow["base_weights"] < wide["base_weights"]
    assert sum(narrow.values()) < sum(wide.values())


def test_a_llama_with_grouped_heads_keeps_what_a_real_one_keeps() -> None:
    shape = llama_shape(vocabulary=512, hidden=64, intermediate=256, layers=2, heads=(4, 2), tied=True)
    arm = arm_of(Precision.FP32)
    transformers.AttentionInterface.register(ATTENTION, attention)
    model = transformers.LlamaForCausalLM._from_config(
        shape_config(shape), dtype=torch.float32, attn_implementation=ATTENTION
    )
    model.requires_grad_(False)
    base = Base(model, None, "cpu", torch.float32)
    stage = Stage(base, attach(base, arm, Hyperparameters(RANK, RANK, 1e-4), TRAINING, seed=0), 0, 0)
    adapter_of(stage).model.train()
    real = step(stage).peak
    assert rehearsed(arm, shape=shape) == (
        dict.fromkeys(CATEGORIES, 0) | real | {"rest": real["rest"] + WORKSPACE_BYTES}
    )


def test_rslora_holds_what_lora_holds_and_dora_magnitudes_besides() -> None:
    lora, rslora, dora = (
        rehearsed(arm_of(Precision.BF16, method=method)) for method in (Method.LORA, Method.RSLORA, Method.DORA)
    )
    assert rslora == lora
    outputs = [linear.outputs for linear in TINY.linears]
    assert dora["adapters"] - lora["adapters"] == TINY.layers * sum(rounded(4 * each) for each in outputs)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8, Precision.NF4])
def test_nothing_is_left_alive_after_a_rehearsal_but_what_lasts(precision: Precision, checkpointing: bool) -> None:
    arm = arm_of(precision, checkpointing=checkpointing)
    stage = set_stage(shape_config(TINY), arm, RANK, TRAINING)
    adapter = adapter_of(stage)
    adapter.model.train()
    set_checkpointing(stage.base.model, on=checkpointing)
    with torch.device("meta"):
        batch = rehearsal._batch(BATCH)
        ledger = rehearsal._step(stage.base, adapter, TRAINING, batch, held=False)
    del batch
    gc.collect()
    before = Ledger()
    rehearsal._hold_model(before, stage.base)
    held = {part: size for part, size in ledger.held.items() if size}
    assert held == {**before.held, "gradients": before.held["adapters"]}
    for parameter in adapter.model.parameters():
        parameter.grad = None
    gc.collect()
    assert {part: size for part, size in ledger.held.items() if size} == before.held


def test_a_second_rehearsal_on_a_stage_tells_the_same() -> None:
    arm = arm_of(Precision.NF4, checkpointing=True)
    stage = set_stage(shape_config(TINY), arm, RANK, TRAINING)
    assert training_peak(stage, arm, TRAINING, BATCH) == training_peak(stage, arm, TRAINING, BATCH)


def test_a_zero_shot_arm_has_no_training_to_rehearse() -> None:
    arm = arm_of(Precision.BF16, method=Method.NONE, targets=())
    with pytest.raises(ValueError, match="no training"):
        training_peak(set_stage(shape_config(TINY), arm, None, None), arm, TRAINING, BATCH)


@pytest.mark.parametrize("static", [True, False], ids=["slots", "growing"])
def test_generation_holds_the_weights_and_keys_and_values_of_every_layer(static: bool) -> None:
    stage = set_stage(shape_config(TINY), arm_of(Precision.BF16), None, None)
    short, long = (evaluation_peak(stage, (8, 64, fresh, 8), static_cache=static) for fresh in (2_000, 4_000))
    assert short["base_weights"] == rehearsed(arm_of(Precision.BF16))["base_weights"]
    assert short["gradients"] == short["optimizer"] == short["adapters"] == 0
    more = long["activations"] - short["activations"]
    cache = 2 * 2 * 8 * 2_000 * 64 * 2
    # Keys and values of 2,000 tokens more in two layers; those that grow are there once more in the last of them, while
    # they are joined; beside slots there is a mask and a number for each, of two and eight bytes.
    assert cache <= more <= (1.02 if static else 1.5) * cache + 64 * BLOCK_BYTES


def test_slots_never_take_more_than_keys_and_values_that_grow() -> None:
    stage = set_stage(shape_config(TINY), arm_of(Precision.BF16), None, None)
    for batch in ((8, 512, 1, 8), (8, 512, 64, 8), (8, 64, 2_000, 8), (40, 512, 64, 40)):
        slots, growing = (sum(evaluation_peak(stage, batch, static_cache=static).values()) for static in (True, False))
        assert slots <= growing


def test_prompts_of_a_cache_that_grows_are_read_at_once() -> None:
    stage = set_stage(shape_config(TINY), arm_of(Precision.BF16), None, None)

    def held(dialogues: int, fresh: int) -> int:
        return evaluation_peak(stage, (dialogues, 512, fresh, dialogues), static_cache=False)["activations"]

    assert held(8, 1) == held(8, 8)
    assert held(16, 1) > 1.9 * held(8, 1)


def slots_peak(base: Base, device: str, shape: tuple[int, int], fresh: int) -> int:
    """Bytes at the peak of reading prompts (dialogues, tokens) into slots and making new tokens there."""
    ledger = Ledger()
    with torch.device(device), ledger:
        SlotDecoder(base, Decoding("eager"), fresh).rehearse(*shape)
    return sum(ledger.peak.values())


def test_prompts_are_read_into_slots_so_many_tokens_at_a_time() -> None:
    base = rehearsal._without_device(set_stage(shape_config(TINY), arm_of(Precision.BF16), None, None).base)
    half, whole = (slots_peak(base, "meta", (dialogues, 512), 1) for dialogues in (32, 64))
    # Of 64 prompts half are read at a time; of all there are ids and, in two layers, keys and values.
    of_half = 32 * 512 * (8 + 2 * 2 * 64 * 2)
    assert of_half < whole - half < 1.05 * of_half + 64 * BLOCK_BYTES
    assert half > 2 * of_half


def test_slots_on_the_meta_device_hold_what_slots_on_the_cpu_hold(tiny_folder: str) -> None:
    real = on_the_cpu(tiny_folder, arm_of(Precision.FP32))
    stage = set_stage(shape_config(TINY), arm_of(Precision.FP32), RANK, TRAINING)
    for each in (real, stage):
        adapter_of(each).model.eval()
    for fresh in (2, 300):
        foreseen = slots_peak(rehearsal._without_device(stage.base), "meta", (6, 50), fresh)
        assert foreseen == slots_peak(real.base, "cpu", (6, 50), fresh)


def test_the_loss_of_long_references_is_the_peak_where_the_vocabulary_is_large() -> None:
    shape = llama_shape(vocabulary=50_000, hidden=64, intermediate=256, layers=2, heads=(4, 1), tied=True)
    stage = set_stage(shape_config(shape), arm_of(Precision.BF16), None, None)
    few, many = (sum(evaluation_peak(stage, (8, 64, 4, learned)).values()) for learned in (8, 800))
    # 792 positions more, each with a row of logits in bf16 and in fp32 at least.
    assert many - few > 700 * 50_000 * (2 + 4)


def dropped(dropout: float) -> dict[str, int]:
    arm = arm_of(Precision.BF16, dropout=dropout)
    return training_peak(set_stage(shape_config(TINY), arm, RANK, TRAINING), arm, TRAINING, BATCH)


def test_the_adapter_s_dropout_keeps_its_output_and_a_mask_of_a_byte_an_element() -> None:
    without, with_dropout = dropped(0.0), dropped(0.05)
    dialogues, width, _ = BATCH
    # Six linear layers in each of two decoder layers: what goes into the adapter (two bytes) and the mask (one).
    inputs = 2 * dialogues * width * (4 * 64 + 64 + 256)
    more = with_dropout["activations"] - without["activations"]
    # Some of these layers shared one input before; each keeps its own now.
    assert inputs < more < 3 * inputs
    assert {name: size for name, size in with_dropout.items() if name not in ("activations", "rest", "logits")} == {
        name: size for name, size in without.items() if name not in ("activations", "rest", "logits")
    }


def test_generation_of_grouped_heads_keeps_fewer_keys() -> None:
    grouped, full = (
        llama_shape(vocabulary=512, hidden=64, intermediate=256, layers=2, heads=(4, keys), tied=True)
        for keys in (1, 4)
    )
    small, large = (
        evaluation_peak(set_stage(shape_config(shape), arm_of(Precision.BF16), None, None), (8, 16, 4_000, 8))
        for shape in (grouped, full)
    )
    assert small["activations"] < 0.35 * large["activations"]


def test_every_known_shape_s_configuration_is_one_that_transformers_computes() -> None:
    parts = rehearsed(arm_of(Precision.NF4, checkpointing=True), shape=KNOWN_SHAPES[EMBEDDED], batch=(1, 8, 4))
    assert list(parts) == list(CATEGORIES)
    assert min(parts[part] for part in ("base_weights", "quantisation", "adapters", "optimizer")) > 0


@pytest.mark.parametrize(("checkpointing", "way_back"), [(False, []), (True, ["activations", "rest"] * TINY.layers)])
def test_a_step_goes_through_its_sections_in_order_and_leaves_no_hook(
    tiny_folder: str, checkpointing: bool, way_back: list[Section]
) -> None:
    stage = on_the_cpu(tiny_folder, arm_of(Precision.FP32, checkpointing=checkpointing))
    hooks = ("_forward_pre_hooks", "_forward_hooks", "_forward_hooks_always_called")

    def hooked() -> int:
        return sum(len(getattr(module, name)) for module in stage.base.model.modules() for name in hooks)

    before = hooked()
    entered: list[Section] = []
    with watched(stage.base, entered.append):
        assert hooked() > before
        summed_loss(stage.base, real_batch(), EngineSettings()).backward()
    assert hooked() == before
    sections = [section for index, section in enumerate(entered) if entered[index - 1 : index] != [section]]
    assert sections == ["activations", "logits", "rest", *way_back]


class Doubling(nn.Module):
    """A layer that makes one tensor and drops it."""

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        made = tensor + 1.0
        return made * 2.0


def test_a_ledger_counts_storages_in_blocks_and_forgets_what_is_dropped() -> None:
    ledger = Ledger()
    with torch.device("meta"):
        tensor = torch.empty(1_000)
        ledger.add(tensor, "rest")
        ledger.category = "activations"
        with ledger:
            result = Doubling()(tensor)
            view = result.view(10, 100)
            same = result.add_(1.0)
    assert ledger.held == {"rest": 4_096, "activations": 4_096}
    assert ledger.peak == {"rest": 4_096, "activations": 8_192}
    ledger.move(view, "gradients")
    assert ledger.held == {"rest": 4_096, "activations": 0, "gradients": 4_096}
    del result, same
    assert ledger.held["gradients"] == 4_096
    del view, tensor
    assert set(ledger.held.values()) == {0}
    assert ledger.peak == {"rest": 4_096, "activations": 8_192}


def test_what_a_ledger_does_not_know_cannot_be_moved() -> None:
    ledger = Ledger()
    ledger.move(torch.empty(3), "gradients")
    assert ledger.held == {}
