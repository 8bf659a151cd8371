"""Batch plans follow from lengths, settings and a seed alone."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engine.batches import evaluation_plan, rounded_up, step_count, training_plan

LENGTHS = [17, 300, 45, 45, 90, 12, 260, 33, 51, 120]


def test_every_example_is_used_once_an_epoch() -> None:
    plan = training_plan(LENGTHS, 2, 5, seed=1, group=True)
    assert Counter(index for step in plan.steps for index in step) == Counter(range(10))


def test_the_first_batch_is_the_longest() -> None:
    plan = training_plan(LENGTHS, 2, 20, seed=3, group=True)
    widths = [max(LENGTHS[index] for index in step) for step in plan.steps]
    assert widths[0] == max(widths)


def test_the_plan_depends_on_the_seed() -> None:
    def batches(seed: int) -> set[frozenset[int]]:
        return {frozenset(step) for step in training_plan(LENGTHS, 2, 5, seed, group=True).steps}

    assert training_plan(LENGTHS, 2, 5, seed=1, group=True) == training_plan(LENGTHS, 2, 5, seed=1, group=True)
    # Not only the order: which examples meet in a batch is part of what a seed stands for.
    assert len({frozenset(batches(seed)) for seed in range(6)}) > 3


def test_grouping_by_length_saves_padding() -> None:
    lengths = [10 + 7 * (index * 37 % 41) for index in range(200)]

    def padded(*, group: bool) -> int:
        plan = training_plan(lengths, 8, 25, seed=0, group=group)
        return sum(max(lengths[index] for index in step) * len(step) for step in plan.steps)

    assert padded(group=True) < 0.8 * padded(group=False)


def test_a_batch_larger_than_the_data_goes_on_into_the_next_epoch() -> None:
    plan = training_plan([5, 6, 7], 8, 2, seed=0, group=False)
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
