"""Decoding on a GPU: replayed graphs against the same steps one by one, token for token."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from harness.engine.adapting import attach
from harness.engine.batches import evaluation_plan
from harness.engine.decoding import SlotDecoder
from harness.engine.encoding import Encoded
from harness.engine.generating import Writer
from harness.engine.loading import Base, load_base
from harness.engine.sources import model_folder
from harness.engine.trying import PROBE, probe_arm
from study.arms import Precision
from study.settings import Generation
from study.space import Hyperparameters

pytestmark = pytest.mark.gpu
USES_CUDA_HERE = True
GREEDY = Generation(max_new_tokens=24, batch_size=8, dtype=None, sampling=None)
# Two shapes of the same rows, then a last batch of fewer: three captures.
LENGTHS = (*range(200, 184, -1), *range(60, 52, -1), 9, 5, 1)


@pytest.fixture(autouse=True)
def _exact_fp32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False


def loaded(precision: Precision) -> Base:
    """The tiny Phi with an adapter whose matrices are not zero."""
    folder = model_folder("random/tiny-phi", None, "cuda").folder
    base = load_base(folder, probe_arm(precision), "cuda", model_dropout=False)
    adapter = attach(base, probe_arm(precision), Hyperparameters(8, 16, 1e-3), PROBE, seed=7)
    torch.manual_seed(1)
    for name, parameter in adapter.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapter.model.eval()
    return base


def smollm_like() -> Base:
    """Random weights in SmolLM2-135M's widths (grouped queries, nine heads), eight layers of it."""
    config = transformers.LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1_536,
        num_hidden_layers=8,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    torch.manual_seed(0)
    model: Any = transformers.LlamaForCausalLM(config)
    model = model.to("cuda", torch.bfloat16).requires_grad_(False).eval()
    return Base(model, loaded(Precision.BF16).tokenizer, "cuda", torch.bfloat16)


def prompts(*lengths: int) -> tuple[Encoded, ...]:
    draw = torch.Generator().manual_seed(5)
    return tuple(
        Encoded(str(number), tuple(torch.randint(3, 500, (length,), generator=draw).tolist()), (1,), truncated=False)
        for number, length in enumerate(lengths)
    )


def answers(base: Base, generation: Generation, *, how: str = "graph") -> dict[int, tuple[int, ...]]:
    encoded = prompts(*LENGTHS)
    plan = evaluation_plan([len(item.prompt) for item in encoded], generation.batch_size)
    writer = Writer(base, generation)
    if how == "eager" and writer.decoding.how == "graph":
        writer.decoding.how = "eager"
    found = {item.index: item.ids for batch in writer.write(encoded, plan) for item in batch}
    assert writer.decoding.how == how, writer.decoding.reason
    assert len(found) == len(LENGTHS)
    return found


def stop_in_the_middle(base: Base, found: dict[int, tuple[int, ...]]) -> None:
    base.tokenizer.eos_token_id = found[0][3]


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16, Precision.NF4])
def test_graphs_write_what_single_steps_write(precision: Precision) -> None:
    base = loaded(precision)
    free = answers(base, GREEDY)
    assert free == answers(base, GREEDY, how="eager")
    stop_in_the_middle(base, free)
    stopped = answers(base, GREEDY)
    assert stopped == answers(base, GREEDY, how="eager")
    assert len({len(ids) for ids in stopped.values()}) > 1


def test_in_fp32_slots_write_what_a_cache_that_grows_writes() -> None:
    base = loaded(Precision.FP32)
    assert answers(base, GREEDY) == answers(base, replace(GREEDY, static_cache=None), how="dynamic")


def test_grouped_queries_in_16_bits_are_written_alike_by_graphs_and_single_steps() -> None:
    base = smollm_like()
    graph, eager = answers(base, GREEDY), answers(base, GREEDY, how="eager")
    growing = answers(base, replace(GREEDY, static_cache=None), how="dynamic")
    apart = sum(graph[row] != ids for row, ids in growing.items())
    print(f"{apart} of {len(growing)} bf16 answers differ between slots and a cache that grows")
    assert graph == eager
    # Random weights have near ties everywhere: which side one falls to depends on the order of a sum. First tokens
    # are before any error could add up.
    assert sum(graph[row][:1] == ids[:1] for row, ids in growing.items()) >= len(growing) - 3


def test_every_shape_is_captured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    base = loaded(Precision.BF16)
    captured, single = [], []
    graph_of_step, step = SlotDecoder._graph_of_step, SlotDecoder._step

    def counting_graphs(self: SlotDecoder) -> object:
        captured.append(self._shape)
        return graph_of_step(self)

    def counting_steps(self: SlotDecoder) -> None:
        single.append(self._shape)
        step(self)

    monkeypatch.setattr(SlotDecoder, "_graph_of_step", counting_graphs)
    monkeypatch.setattr(SlotDecoder, "_step", counting_steps)
    answers(base, GREEDY)
    assert captured == [(8, 224), (8, 88), (3, 32)]
    # The first of all is launched by itself; the others are the captures.
    assert len(single) == 1 + len(captured)


def test_int8_is_decoded_step_by_step_and_says_why() -> None:
    base = loaded(Precision.INT8)
    writer = Writer(base, GREEDY)
    assert writer.decoding.facts() == {
        "decode": "eager",
        "decode_fallback": "LLM.int8 reads on the host which columns are outliers",
    }
    answers(base, GREEDY, how="eager")


def test_a_step_that_asks_the_host_is_not_captured_and_the_tokens_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = loaded(Precision.FP32)
    expected = answers(base, GREEDY)
    original = SlotDecoder._take

    def take(self: SlotDecoder, hidden: torch.Tensor) -> None:
        hidden.abs().max().item()
        original(self, hidden)

    monkeypatch.setattr(SlotDecoder, "_take", take)
    encoded = prompts(*LENGTHS)
    plan = evaluation_plan([len(item.prompt) for item in encoded], GREEDY.batch_size)
    writer = Writer(base, GREEDY)
    found = {item.index: item.ids for batch in writer.write(encoded, plan) for item in batch}
    assert writer.decoding.how == "eager"
    assert str(writer.decoding.reason).startswith("capture failed: ")
    assert found == expected
    # The process is not the worse for it.
    monkeypatch.undo()
    assert answers(base, GREEDY) == expected


def test_graphs_hold_no_more_than_single_steps() -> None:
    base = loaded(Precision.BF16)
    peaks = []
    for how in ("eager", "graph"):
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        answers(base, GREEDY, how=how)
        peaks.append(torch.cuda.max_memory_allocated())
    # cuBLAS has a workspace for the stream that captures too (32 MiB on Hopper).
    assert peaks[1] <= peaks[0] * 1.05 + 33 * 2**20
