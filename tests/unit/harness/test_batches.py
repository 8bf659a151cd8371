"""Batch plans follow from lengths, settings and a seed alone."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engine.batches import (
    TrainingPlan,
    evaluation_plan,
    largest_batches,
    logit_places,
    loss_plan,
    passes,
    rounded_up,
    step_count,
    training_plan,
)
from study.settings import EngineSettings
from tests.unit.harness.conftest import training

LENGTHS = [17, 300, 45, 45, 90, 12, 260, 33, 51, 120]
GROUPED = training(batch_size=2, micro_batch_size=2)


def test_every_example_is_used_once_an_epoch() -> None:
    plan = training_plan(LENGTHS, GROUPED, 5, seed=1)
    assert Counter(index for step in plan.steps for index in step) == Counter(range(10))


def test_the_first_batch_is_the_longest() -> None:
    plan = training_plan(LENGTHS, GROUPED, 20, seed=3)
    widths = [max(LENGTHS[index] for index in step) for step in plan.steps]
    assert widths[0] == max(widths)


def test_the_plan_depends_on_the_seed() -> None:
    def batches(seed: int) -> set[frozenset[int]]:
        return {frozenset(step) for step in training_plan(LENGTHS, GROUPED, 5, seed).steps}

    assert training_plan(LENGTHS, GROUPED, 5, seed=1) == training_plan(LENGTHS, GROUPED, 5, seed=1)
    # Not only the order: which examples meet in a batch is part of what a seed stands for.
    assert len({frozenset(batches(seed)) for seed in range(6)}) > 3


def test_grouping_by_length_saves_padding() -> None:
    lengths = [10 + 7 * (index * 37 % 41) for index in range(200)]

    def padded(*, group: bool) -> int:
        plan = training_plan(lengths, training(batch_size=8, length_grouping=group), 25, seed=0)
        return sum(max(lengths[index] for index in step) * len(step) for step in plan.steps)

    assert padded(group=True) < 0.8 * padded(group=False)


def test_a_batch_larger_than_the_data_goes_on_into_the_next_epoch() -> None:
    plan = training_plan([5, 6, 7], training(batch_size=8, length_grouping=False), 2, seed=0)
    assert [len(step) for step in plan.steps] == [8, 8]


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_the_evaluation_plan_holds_every_example_once_from_long_to_short(lengths: list[int], size: int) -> None:
    plan = evaluation_plan(lengths, size)
    order = [index for batch in plan for index in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[index] for index in order] == sorted(lengths, reverse=True)
    assert all(len(batch) <= size for batch in plan)


def test_steps_follow_from_epochs() -> None:
    assert step_count(100, 16, steps=None, epochs=3.0) == 19
    assert step_count(100, 16, steps=7, epochs=None) == 7
    with pytest.raises(ValueError, match="steps or epochs"):
        step_count(100, 16, steps=None, epochs=None)


def test_lengths_are_rounded_up() -> None:
    assert [rounded_up(length, 8) for length in (1, 8, 9)] == [8, 8, 16]


# Tokens and completion tokens of each example.
PAIRS = [(17, 5), (300, 20), (45, 9), (45, 30), (90, 4), (12, 3), (260, 80), (33, 8), (51, 7), (120, 11)]


def test_the_longest_batch_is_the_one_with_the_most_padded_tokens() -> None:
    plan = TrainingPlan(((0, 2), (4, 1), (5, 6)))
    settings = training(batch_size=2, micro_batch_size=2)
    assert largest_batches(plan, PAIRS, settings)[0] == (2, 304, 4 + 20)


def test_of_batches_of_one_width_the_one_with_most_logits_counts() -> None:
    settings = training(batch_size=2, micro_batch_size=2)
    # 300 and 297 tokens are padded to 304 alike.
    assert largest_batches(TrainingPlan(((0, 1), (1, 1))), [(297, 40), (300, 20)], settings)[0] == (2, 304, 60)
    assert largest_batches(TrainingPlan(((1, 1), (0, 1))), [(297, 40), (300, 20)], settings)[0] == (2, 304, 60)


def test_micro_batches_are_looked_at_one_by_one() -> None:
    plan = TrainingPlan(((0, 1, 2, 6), (3, 4, 5, 7)))
    assert largest_batches(plan, PAIRS, training(batch_size=4, micro_batch_size=4))[0] == (4, 304, 5 + 20 + 9 + 80)
    assert largest_batches(plan, PAIRS, training(batch_size=4, micro_batch_size=2))[0] == (2, 304, 5 + 20)
    assert largest_batches(plan, PAIRS, training(batch_size=4, micro_batch_size=1))[0] == (1, 304, 20)


def test_more_dialogues_can_hold_more_than_longer_ones() -> None:
    # The last micro-batch of a step may be smaller than the others.
    plan = TrainingPlan(((4, 9, 1),))
    assert largest_batches(plan, PAIRS, training(batch_size=3, micro_batch_size=2))[0] == (1, 304, 20)
    assert largest_batches(plan, [*PAIRS[:9], (190, 11)], training(batch_size=3, micro_batch_size=2))[0] == (2, 192, 15)


@pytest.mark.parametrize(
    ("changes", "logits"),
    [
        ({}, 4 + 20),
        ({"loss_on": "all"}, 89 + 299),
        ({"engine": EngineSettings(completion_logits=False)}, 2 * 304),
        ({"loss_on": "all", "engine": EngineSettings(completion_logits=False)}, 2 * 304),
    ],
)
def test_logits_are_made_where_the_loss_is_and_everywhere_without_the_lever(
    changes: dict[str, object], logits: int
) -> None:
    settings = training(batch_size=2, micro_batch_size=2, **changes)
    assert largest_batches(TrainingPlan(((4, 1),)), PAIRS, settings)[0] == (2, 304, logits)


def test_widths_are_padded_to_the_multiple() -> None:
    def width(multiple: int) -> int:
        engine = EngineSettings(pad_to_multiple=multiple)
        return largest_batches(TrainingPlan(((1,),)), PAIRS, training(micro_batch_size=1, engine=engine))[0][1]

    assert [width(multiple) for multiple in (1, 8, 64, 512)] == [300, 304, 320, 512]


@given(
    st.lists(st.tuples(st.integers(2, 500), st.integers(1, 90)), min_size=1, max_size=40),
    st.sampled_from([(4, 4), (4, 2), (4, 1), (3, 3)]),
    st.integers(0, 5),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_no_micro_batch_is_longer_and_it_is_in_the_first_step(
    lengths: list[tuple[int, int]], sizes: tuple[int, int], seed: int, group: bool
) -> None:
    whole, micro = sizes
    chosen = training(batch_size=whole, micro_batch_size=micro, length_grouping=group)
    plan = training_plan([total for total, _ in lengths], chosen, 5, seed)
    dialogues, width, _ = largest_batches(plan, lengths, chosen)[0]
    widths = [
        rounded_up(max(lengths[index][0] for index in step[at : at + micro]), 8)
        for step in plan.steps
        for at in range(0, whole, micro)
    ]
    assert (dialogues, width) == (micro, max(widths))
    assert max(widths[: whole // micro]) == width


def test_a_batch_with_more_logits_is_one_of_the_largest_though_others_are_longer() -> None:
    lengths = [(304, 10), (296, 40), (288, 30), (200, 60)]
    plan = TrainingPlan(((0,), (1,), (2,), (3,)))
    found = largest_batches(plan, lengths, training(batch_size=1, micro_batch_size=1))
    assert found == ((1, 304, 10), (1, 296, 40), (1, 200, 60))


@given(
    st.lists(st.integers(2, 500), min_size=1, max_size=40),
    st.sampled_from([(16, 16), (12, 6), (5, 5), (4, 1)]),
    st.integers(16, 6000),
)
@settings(max_examples=100, deadline=None)
def test_passes_hold_every_dialogue_once_and_no_more_tokens_than_allowed(
    lengths: list[int], sizes: tuple[int, int], bound: int
) -> None:
    whole, micro = sizes
    chosen = training(batch_size=whole, micro_batch_size=micro, engine=EngineSettings(pass_tokens=bound))
    plan = training_plan(lengths, chosen, 3, seed=1)
    largest = 0
    for number, step in enumerate(plan.steps):
        parts = list(passes(step, lengths, chosen))
        assert Counter(index for part in parts for index in part) == Counter(step)
        for part in parts:
            width = rounded_up(max(lengths[index] for index in part), 8)
            assert len(part) == 1 or len(part) * width <= bound
            assert len(part) <= micro
            if number == 0:
                largest = max(largest, len(part) * max(lengths[index] for index in part))
            assert len(part) * max(lengths[index] for index in part) <= largest
    assert largest > 0


def test_a_bound_cuts_a_step_into_few_shapes() -> None:
    lengths = [800, 700, *[250] * 14]
    chosen = training(batch_size=16, micro_batch_size=16, engine=EngineSettings(pass_tokens=4096, pad_to_multiple=32))
    parts = [len(part) for part in passes(range(16), lengths, chosen)]
    # Two long ones with two others, and what is left in pieces of eight, four, two.
    assert parts == [4, 8, 4]


def test_places_are_enough_for_every_pass_of_their_shape() -> None:
    chosen = training(batch_size=2, micro_batch_size=2, engine=EngineSettings(pass_tokens=400))
    plan = training_plan([total for total, _ in PAIRS], chosen, 5, seed=1)
    places = logit_places(plan, PAIRS, chosen)
    assert places is not None
    for step in plan.steps:
        for part in passes(step, [total for total, _ in PAIRS], chosen):
            width = rounded_up(max(PAIRS[index][0] for index in part), 8)
            assert places[len(part), width] >= sum(PAIRS[index][1] for index in part)
            assert places[len(part), width] % 64 == 0


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.integers(16, 3000))
@settings(max_examples=50, deadline=None)
def test_the_loss_plan_holds_every_example_once_within_its_bound(lengths: list[int], bound: int) -> None:
    plan = loss_plan(lengths, bound)
    order = [index for batch in plan for index in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[index] for index in order] == sorted(lengths, reverse=True)
    assert all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= bound for batch in plan)
