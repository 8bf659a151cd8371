"""Generation against transformers' own, and its stop at the end of sequence."""

from collections.abc import Callable

import pytest
import torch

from harness.engine.batches import evaluation_plan
from harness.engine.generating import generate
from harness.engine.loading import Base
from study.arms import Precision
from study.examples import Example
from study.settings import Generation, Sampling
from tests.unit.harness.conftest import encode

Load = Callable[[Precision], Base]
GREEDY = Generation(max_new_tokens=12, batch_size=4, dtype=None, sampling=None)


def written(
    base: Base, examples: tuple[Example, ...], generation: Generation, seed: int = 0
) -> dict[int, tuple[int, ...]]:
    encoded = encode(base, examples)
    plan = evaluation_plan([len(item.prompt) for item in encoded], generation.batch_size)
    return {item.index: item.ids for batch in generate(base, encoded, plan, generation, seed) for item in batch}


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


def test_batched_answers_equal_those_of_transformers_one_by_one(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    assert written(base, examples, GREEDY) == one_by_one(base, examples, 12)


def test_rows_stop_at_the_end_of_sequence_each_for_itself(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    free = written(base, examples, GREEDY)
    # What some rows write in the middle becomes the end of sequence: these must stop there, the others go on.
    base.tokenizer.eos_token_id = next(iter(free.values()))[3]
    base.model.generation_config.eos_token_id = base.tokenizer.eos_token_id
    stopped = written(base, examples, GREEDY)
    assert len({len(ids) for ids in stopped.values()}) > 1
    assert stopped == one_by_one(base, examples, 12)
    assert all(base.tokenizer.eos_token_id not in ids for ids in stopped.values())


def test_an_answer_that_meets_the_limit_says_so(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    encoded = encode(base, examples[:2])
    ends = [ids[0] for ids in written(base, examples[:2], GREEDY).values()]
    base.tokenizer.eos_token_id = next(token for token in range(100) if token not in ends)
    batch = next(iter(generate(base, encoded, [(0, 1)], Generation(3, 2, None, None))))
    assert [(len(item.ids), item.hit_limit) for item in batch] == [(3, True), (3, True)]


def test_sampling_follows_from_its_seed(load: Load, examples: tuple[Example, ...]) -> None:
    base = load(Precision.FP32)
    sampled = Generation(8, 4, None, Sampling(temperature=1.0, top_p=0.95, top_k=50))
    assert written(base, examples, sampled, seed=1) == written(base, examples, sampled, seed=1)
    assert written(base, examples, sampled, seed=1) != written(base, examples, sampled, seed=2)


@pytest.mark.parametrize("precision", list(Precision))
def test_every_precision_generates(load: Load, examples: tuple[Example, ...], precision: Precision) -> None:
    assert set(written(load(precision), examples[:4], GREEDY)) == {0, 1, 2, 3}
