"""Generation against transformers' own, in slots and with a cache that grows, and its stop at the end of sequence."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import transformers

from harness.engine.adapting import attach
from harness.engine.batches import evaluation_plan
from harness.engine.decoding import Decoding, SlotDecoder, adapters_cast, groups, uncapturable
from harness.engine.encoding import Encoded
from harness.engine.generating import Writer
from harness.engine.loading import Base, computing_in
from harness.engine.slots import LEAST_USED, SLOTS_MULTIPLE, SlotCache, slot_counts
from harness.engine.training import validation_loss
from harness.engine.trying import probe_arm
from study.arms import Precision
from study.examples import Example
from study.settings import EngineSettings, Generation, Sampling
from study.space import Hyperparameters
from tests.unit.harness.conftest import TRAINING, encode
from tests.unit.harness.test_fusing import llama

Load = Callable[[Precision], Base]
GREEDY = Generation(max_new_tokens=12, batch_size=4, dtype=None, sampling=None)
GROWING = replace(GREEDY, static_cache=None)
BOTH = pytest.mark.parametrize("generation", [GREEDY, GROWING], ids=["slots", "growing"])


def answers(
    base: Base, encoded: tuple[Encoded, ...], generation: Generation, seed: int = 0
) -> dict[int, tuple[int, ...]]:
    plan = evaluation_plan([len(item.prompt) for item in encoded], generation.batch_size)
    batches = Writer(base, generation, seed).write(encoded, plan)
    return {item.index: item.ids for batch in batches for item in batch}


def written(
    base: Base, examples: tuple[Example, ...], generation: Generation, seed: int = 0
) -> dict[int, tuple[int, ...]]:
    return answers(base, encode(base, examples), generation, seed)


def one_by_one(base: Base, examples: tuple[Example, ...], limit: int) -> dict[int, tuple[int, ...]]:
    end = base.tokenizer.eos_token_id
    result = {}
    for index, item in enumerate(encode(base, examples)):
        ids = torch.tensor([item.prompt])
        out = base.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False
        )[0, len(item.prompt) :].tolist()
        result[index] = tuple(out[: out.index(end)] if end in out else out)
    return result


def prompts(*lengths: int) -> tuple[Encoded, ...]:
    """Examples with random prompts of these lengths."""
    draw = torch.Generator().manual_seed(5)
    return tuple(
        Encoded(str(number), tuple(torch.randint(3, 500, (length,), generator=draw).tolist()), (1,), truncated=False)
        for number, length in enumerate(lengths)
    )


def stop_in_the_middle(base: Base, free: dict[int, tuple[int, ...]], at: int = 3) -> None:
    """What some rows write in the middle becomes the end of sequence: these must stop there, the others go on."""
    base.tokenizer.eos_token_id = next(iter(free.values()))[at]
    base.model.generation_config.eos_token_id = base.tokenizer.eos_token_id


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and slots of every step that is computed in slots."""
    seen: list[tuple[int, int]] = []
    original = SlotDecoder._step

    def step(self: SlotDecoder) -> None:
        seen.append(self._shape)
        original(self)

    monkeypatch.setattr(SlotDecoder, "_step", step)
    return seen


@BOTH
def test_batched_answers_equal_those_of_transformers_one_by_one(
    load: Load, examples: tuple[Example, ...], generation: Generation
) -> None:
    base = load(Precision.FP32)
    assert written(base, examples, generation) == one_by_one(base, examples, 12)


@BOTH
def test_rows_stop_at_the_end_of_sequence_each_for_itself(
    load: Load, examples: tuple[Example, ...], generation: Generation
) -> None:
    base = load(Precision.FP32)
    stop_in_the_middle(base, written(base, examples, generation))
    stopped = written(base, examples, generation)
    assert len({len(ids) for ids in stopped.values()}) > 1
    assert stopped == one_by_one(base, examples, 12)
    assert all(base.tokenizer.eos_token_id not in ids for ids in stopped.values())


@BOTH
def test_an_answer_that_meets_the_limit_says_so(
    load: Load, examples: tuple[Example, ...], generation: Generation
) -> None:
    base = load(Precision.FP32)
    encoded = encode(base, examples[:2])
    ends = [token for ids in written(base, examples[:2], generation).values() for token in ids[:3]]
    base.tokenizer.eos_token_id = next(token for token in range(100) if token not in ends)
    short = replace(generation, max_new_tokens=3, batch_size=2)
    batch = next(iter(Writer(base, short).write(encoded, [(0, 1)])))
    assert [(len(item.ids), item.hit_limit) for item in batch] == [(3, True), (3, True)]


@pytest.mark.parametrize("model", ["phi", "llama"])
@pytest.mark.parametrize("lengths", [(1, 1, 1, 1, 1), (1, 7, 3, 30, 12), (5, 5, 40, 2, 1)])
def test_references_scored_on_the_way_have_the_loss_of_a_pass_of_their_own(
    load: Load, model: str, lengths: tuple[int, ...]
) -> None:
    base = load(Precision.FP32)
    base = llama(base) if model == "llama" else base
    draw = torch.Generator().manual_seed(9)
    encoded = tuple(
        replace(item, completion=tuple(torch.randint(3, 500, (length,), generator=draw).tolist()))
        for item, length in zip(prompts(9, 33, 2, 21, 17), lengths, strict=True)
    )
    writer = Writer(base, replace(GREEDY, batch_size=2))
    plan = evaluation_plan([len(item.prompt) for item in encoded], 2)
    scored = {item.index: item.ids for batch in writer.write(encoded, plan) for item in batch}
    whole = [tuple(range(len(encoded)))]
    assert writer.scores
    assert writer.loss == pytest.approx(validation_loss(base, encoded, whole, EngineSettings()), rel=1e-5)
    # And no answer is another for it.
    assert scored == answers(base, encoded, GROWING)


def test_a_cache_that_grows_scores_nothing(load: Load) -> None:
    base = load(Precision.FP32)
    writer = Writer(base, GROWING)
    list(writer.write(prompts(3, 4), [(0, 1)]))
    assert not writer.scores
    assert writer.loss is None


def test_sampling_follows_from_its_seed(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    sampled = Generation(8, 4, None, Sampling(temperature=1.0, top_p=0.95, top_k=50))
    assert Writer(base, sampled).decoding.how == "dynamic"
    assert written(base, examples, sampled, seed=1) == written(base, examples, sampled, seed=1)
    assert written(base, examples, sampled, seed=1) != written(base, examples, sampled, seed=2)


@pytest.mark.parametrize("precision", list(Precision))
def test_in_every_precision_slots_change_no_token(
    load: Load, examples: tuple[Example, ...], precision: Precision
) -> None:
    base = load(precision)
    # As a study evaluates on a CPU: in 16 bits two tokens may tie, and sums with padding are taken in another order.
    with computing_in(base, torch.float32):
        with_slots = written(base, examples, GREEDY)
        assert set(with_slots) == set(range(12))
        assert with_slots == written(base, examples, GROWING)


@pytest.mark.parametrize("precision", list(Precision))
def test_in_the_compute_dtype_every_precision_generates(
    load: Load, examples: tuple[Example, ...], precision: Precision
) -> None:
    assert set(written(load(precision), examples[:4], GREEDY)) == {0, 1, 2, 3}


@pytest.mark.parametrize("model", ["phi", "llama"])
@pytest.mark.parametrize("lengths", [(90, 70, 33, 32, 9, 8, 7, 2, 1), (40,), (64, 64, 64), (1, 1)], ids=str)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_prompts_of_any_length_are_answered_as_with_a_cache_that_grows(
    load: Load, model: str, lengths: tuple[int, ...], batch_size: int
) -> None:
    base = load(Precision.FP32) if model == "phi" else llama(load(Precision.FP32))
    encoded = prompts(*lengths)
    free = answers(base, encoded, replace(GROWING, batch_size=batch_size))
    assert answers(base, encoded, replace(GREEDY, batch_size=batch_size)) == free
    stop_in_the_middle(base, free)
    stopped = answers(base, encoded, replace(GROWING, batch_size=batch_size))
    assert answers(base, encoded, replace(GREEDY, batch_size=batch_size)) == stopped


def test_prompts_are_read_in_groups_and_answered_as_if_read_at_once(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, encoded = load(Precision.FP32), prompts(90, 70, 33, 32, 9, 8, 7, 2, 1)
    at_once = answers(base, encoded, replace(GREEDY, batch_size=9))
    seen: list[tuple[int, int]] = []
    original = SlotCache.read_into

    def read_into(self: SlotCache, first: int, last: int) -> None:
        seen.append((first, last))
        original(self, first, last)

    monkeypatch.setattr(SlotCache, "read_into", read_into)
    monkeypatch.setattr("harness.engine.decoding.groups", lambda lengths: groups(lengths, most=100))
    assert answers(base, encoded, replace(GREEDY, batch_size=9)) == at_once
    assert seen == [(0, 1), (1, 2), (2, 5), (5, 9)]


def test_a_prompt_without_tokens_is_answered_and_moves_no_other(load: Load) -> None:
    base = load(Precision.FP32)
    alone = answers(base, prompts(20), GREEDY)
    together = answers(base, prompts(20, 0), GREEDY)
    assert together[0] == alone[0]
    assert set(together) == {0, 1}


def test_a_limit_of_one_token_needs_no_step(load: Load, steps: list[tuple[int, int]]) -> None:
    base, encoded = load(Precision.FP32), prompts(20, 10, 5)
    one = replace(GREEDY, max_new_tokens=1, batch_size=2)
    assert answers(base, encoded, one) == answers(base, encoded, replace(one, static_cache=None))
    assert steps == []


def test_a_batch_ends_when_all_its_rows_have(load: Load, steps: list[tuple[int, int]]) -> None:
    base, encoded = load(Precision.FP32), prompts(20)
    stop_in_the_middle(base, answers(base, encoded, GREEDY))
    steps.clear()
    (ids,) = answers(base, encoded, GREEDY).values()
    assert len(steps) == len(ids) < 11


def test_memory_is_made_once_and_batches_of_shorter_prompts_keep_a_shape(
    load: Load, steps: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, made = load(Precision.FP32), []
    original = SlotCache.__init__

    def init(self: SlotCache, config: object, most_slots: int) -> None:
        made.append(most_slots)
        original(self, config, most_slots)

    monkeypatch.setattr(SlotCache, "__init__", init)
    answers(base, prompts(90, 85, 82, 40, 39, 3), replace(GREEDY, batch_size=1))
    assert list(dict.fromkeys(steps)) == [(1, 104), (1, 56), (1, 16)]
    assert made[-1] == 104


def test_slots_hold_every_token_and_few_that_nobody_needs() -> None:
    needed = [500, 499, 420, 399, 300, 299, 120, 60, 61, 200]
    counts = slot_counts(needed)
    assert counts == [504, 504, 504, 400, 304, 304, 120, 64, 64, 200]
    for need, count in zip(needed, counts, strict=True):
        assert need <= count
        assert count < need / LEAST_USED + SLOTS_MULTIPLE
        assert count % SLOTS_MULTIPLE == 0


def test_groups_are_all_rows_in_order_and_as_large_as_they_may_be() -> None:
    lengths = [700, 300, 290, 280, 100, 90, 80, 70, 60, 1]
    found = list(groups(lengths, most=900))
    assert found == [(0, 1, 700), (1, 4, 300), (4, 10, 100)]
    assert list(groups([5, 9, 2])) == [(0, 3, 9)]
    assert list(groups([20_000, 10], most=100)) == [(0, 1, 20_000), (1, 2, 10)]


def test_a_record_is_told_how_tokens_were_made_and_why(load: Load) -> None:
    base = load(Precision.FP32)
    assert Writer(base, GREEDY).decoding.facts() == {"decode": "eager", "decode_fallback": "no GPU"}
    assert Writer(base, GROWING).decoding.facts() == {"decode": "dynamic", "decode_fallback": "switched off"}
    base.model.config.sliding_window = 16
    fallback = Writer(base, GREEDY).decoding
    assert fallback.how == "dynamic"
    assert fallback.reason is not None


class Replayed:
    """A graph that is none: it launches the step anew."""

    def __init__(self, decoder: SlotDecoder) -> None:
        self._decoder = decoder
        self._shape = decoder._shape

    def replay(self) -> None:
        assert self._decoder._shape == self._shape
        self._decoder._step()


def as_if_capturable(base: Base, batch_size: int) -> Writer:
    writer = Writer(base, replace(GREEDY, batch_size=batch_size))
    writer.decoding = Decoding("graph")
    return writer


def test_a_shape_is_captured_after_the_first_step_of_all_and_replayed(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, encoded = load(Precision.FP32), prompts(90, 85, 82, 40, 39, 3)
    plan = evaluation_plan([len(item.prompt) for item in encoded], 2)
    captured: list[tuple[int, int]] = []

    def graph_of_step(self: SlotDecoder) -> Replayed:
        captured.append(self._shape)
        return Replayed(self)

    monkeypatch.setattr(SlotDecoder, "_graph_of_step", graph_of_step)
    writer = as_if_capturable(base, 2)
    found = {item.index: item.ids for batch in writer.write(encoded, plan) for item in batch}
    assert captured == [(2, 104), (2, 56)]
    assert writer.decoding.facts() == {"decode": "graph", "decode_fallback": None}
    assert found == answers(base, encoded, replace(GROWING, batch_size=2))


def test_a_capture_that_fails_is_told_and_steps_are_launched_one_by_one(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, encoded = load(Precision.FP32), prompts(90, 85, 40)
    plan = evaluation_plan([len(item.prompt) for item in encoded], 1)
    tried: list[int] = []

    def graph_of_step(_: SlotDecoder) -> None:
        tried.append(1)
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        finally:
            raise RuntimeError("the capture was invalidated")  # as capture_end raises over it

    monkeypatch.setattr(SlotDecoder, "_graph_of_step", graph_of_step)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    writer = as_if_capturable(base, 1)
    found = {item.index: item.ids for batch in writer.write(encoded, plan) for item in batch}
    assert len(tried) == 1
    assert writer.decoding.facts() == {
        "decode": "eager",
        "decode_fallback": "capture failed: operation not permitted when stream is capturing",
    }
    assert found == answers(base, encoded, replace(GROWING, batch_size=1))


def test_int8_is_not_tried_to_be_captured(load: Load) -> None:
    base = load(Precision.INT8)
    base.device = "cuda"
    assert uncapturable(base) == "LLM.int8 reads on the host which columns are outliers"
    base = load(Precision.NF4)
    base.device = "cuda"
    assert uncapturable(base) is None


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.NF4, Precision.INT8])
def test_an_adapter_cast_once_computes_what_one_cast_each_time_does(
    load: Load, examples: tuple[Example, ...], precision: Precision
) -> None:
    base = load(precision)
    adapter = attach(base, probe_arm(precision), Hyperparameters(4, 8, 1e-2), TRAINING, seed=3)
    adapter.model.eval()
    matrices = [parameter for name, parameter in adapter.model.named_parameters() if "lora_" in name]
    for matrix in matrices:
        torch.nn.init.normal_(matrix, std=0.2)
    before = [matrix.data.clone() for matrix in matrices]
    ids = torch.tensor([encode(base, examples)[0].prompt])
    with torch.no_grad():
        each_time = base.decoder(input_ids=ids).last_hidden_state
        with adapters_cast(base):
            assert {matrix.dtype for matrix in matrices} == {torch.bfloat16}
            once = base.decoder(input_ids=ids).last_hidden_state
    assert torch.equal(once, each_time)
    for matrix, kept in zip(matrices, before, strict=True):
        assert matrix.dtype == torch.float32
        assert torch.equal(matrix, kept)


def test_a_mask_of_four_dimensions_is_taken_as_it_is(load: Load) -> None:
    # What slots rely on in transformers: a prepared mask reaches attention, and prompts without one are causal.
    base, encoded = load(Precision.FP32), prompts(12)
    ids = torch.tensor([encoded[0].prompt])
    with torch.no_grad():
        plain = base.decoder(input_ids=ids, use_cache=False).last_hidden_state
        cache = SlotCache(base.model.config, 16)
        cache.shape(1, 16)
        cache.read_into(0, 1)
        read = base.decoder(input_ids=ids[:, :11], past_key_values=cache, use_cache=True).last_hidden_state
        assert torch.allclose(read, plain[:, :11], atol=1e-5)
        position = torch.tensor([[11]])
        mask = torch.full((1, 1, 1, 16), float("-inf"))
        mask[..., :12] = 0
        cache.write_at(position)
        last = base.decoder(
            input_ids=ids[:, 11:], attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True
        ).last_hidden_state
    assert torch.allclose(last, plain[:, 11:], atol=1e-5)
    assert isinstance(cache, transformers.Cache)
