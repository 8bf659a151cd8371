"""The search space and the block of sets that every arm is given alike."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.space import Hyperparameters, Interval, Space, sobol_block

RATES = Interval(2e-5, 2e-3, "log")
GOLDEN_BLOCK = (
    (0.409949589, 0.964120219, 0.857654875),
    (0.78334015, 0.173778752, 0.283152572),
    (0.712344826, 0.585692485, 0.637648509),
    (0.086528133, 0.309626092, 0.190658808),
)
PAPER = Space((4, 8, 16, 32, 64), (16, 32, 64), RATES)


def test_a_block_is_the_same_in_every_process_and_with_every_version() -> None:
    # Values of scipy 1.17 and numpy 2.4; others give another study, which is worth a failing test.
    assert sobol_block(4, 0) == tuple(pytest.approx(point, abs=1e-8) for point in GOLDEN_BLOCK)


def test_a_block_follows_from_its_seed() -> None:
    assert sobol_block(8, 1) == sobol_block(8, 1)
    assert sobol_block(8, 1) != sobol_block(8, 2)


def test_a_larger_block_begins_with_the_smaller_one() -> None:
    assert sobol_block(16, 5)[:8] == sobol_block(8, 5)


@pytest.mark.parametrize("count", [1, 2, 16, 64])
def test_a_block_of_a_power_of_two_is_balanced_in_every_dimension(count: int) -> None:
    for dimension in range(3):
        cells = Counter(int(point[dimension] * count) for point in sobol_block(count, 3))
        assert set(cells.values()) == {1}
        assert len(cells) == count


def test_a_block_of_nothing_is_empty_and_other_sizes_are_refused() -> None:
    assert sobol_block(0, 0) == ()
    for count in (3, 6, 1000):
        with pytest.raises(ValueError, match="power of two"):
            sobol_block(count, 0)


@given(st.floats(0, 1, exclude_max=True), st.sampled_from(["log", "linear"]))
def test_a_value_of_an_interval_lies_within_it(unit: float, scale: str) -> None:
    # More digits than are kept, so that rounding could lead outside.
    interval = Interval(1.23456789e-5, 1.23456781e-2, "log" if scale == "log" else "linear")
    assert interval.low <= interval.at(unit) <= interval.high


def test_a_drawn_rate_has_six_digits_and_a_listed_one_is_used_as_it_stands() -> None:
    assert Interval(1e-4, 1e-2, "log").at(1 / 3) == 0.000464159
    space = Space((8,), (16,), (0.000123456789,))
    assert space.at((0.5, 0.5, 0.5)).learning_rate == 0.000123456789


def test_a_log_interval_is_uniform_in_the_logarithm_and_a_linear_one_in_the_value() -> None:
    assert Interval(1e-4, 1e-2, "log").at(0.5) == pytest.approx(1e-3)
    assert Interval(1e-4, 1e-2, "linear").at(0.5) == pytest.approx(5.05e-3)


def test_each_choice_gets_an_equal_share_of_the_unit_interval() -> None:
    ranks = [PAPER.at((step / 100, 0.0, 0.0)).rank for step in range(100)]
    assert Counter(ranks) == dict.fromkeys(PAPER.rank, 20)
    alphas = [PAPER.at((0.0, step / 90, 0.0)).alpha for step in range(90)]
    assert Counter(alphas) == dict.fromkeys(PAPER.alpha, 30)


def test_an_arm_that_fixes_a_value_narrows_the_space_there_alone() -> None:
    narrow = PAPER.narrowed(8, None, 1e-3)
    assert narrow == Space((8,), PAPER.alpha, (1e-3,))
    assert not narrow.is_point
    assert PAPER.narrowed(8, 16, 1e-3).is_point
    assert not PAPER.narrowed(8, 16, None).is_point


@pytest.mark.parametrize(
    ("chosen", "edges"),
    [
        (Hyperparameters(64, 32, 1e-3), ("rank high",)),
        (Hyperparameters(4, 16, 2e-5), ("rank low", "alpha low", "learning_rate low")),
        (Hyperparameters(16, 32, 1.9e-3), ("learning_rate high",)),
        (Hyperparameters(16, 32, 2e-4), ()),
    ],
)
def test_a_winner_at_the_edge_of_its_range_is_flagged(chosen: Hyperparameters, edges: tuple[str, ...]) -> None:
    assert PAPER.edges(chosen) == edges


def test_a_fixed_value_is_no_edge() -> None:
    assert Space((8,), (16,), (1e-3,)).edges(Hyperparameters(8, 16, 1e-3)) == ()
    assert Space((8,), (16,), (1e-4, 1e-3, 1e-2)).edges(Hyperparameters(8, 16, 1e-2)) == ("learning_rate high",)
