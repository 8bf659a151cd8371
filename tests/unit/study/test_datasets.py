"""Dataset definitions: names with slices, and limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.datasets import DataSpec, GeneratedData, Slice, is_hub_split, parse_slice

BOUNDS = st.none() | st.integers(-99, 99)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dev.jsonl", Slice("dev.jsonl", None, None)),
        ("dev.jsonl[:400]", Slice("dev.jsonl", None, 400)),
        ("dev.jsonl[-100:]", Slice("dev.jsonl", -100, None)),
        ("train[10:20]", Slice("train", 10, 20)),
        ("train[:-5]", Slice("train", None, -5)),
        ("train[5:-5]", Slice("train", 5, -5)),
        ("train[:]", Slice("train", None, None)),
        (" a b.csv ", Slice("a b.csv", None, None)),
        ("data[1].csv[:2]", Slice("data[1].csv", None, 2)),
    ],
)
def test_a_name_may_have_a_slice(text: str, expected: Slice) -> None:
    assert parse_slice(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", " ", "[:4]", "a[4]", "a[::2]", "a[:x]", "a[:1e3]", "a[:\u0664]", "a[:" + "9" * 5000 + "]", "a\nb[:4]x]"],
)
def test_a_bracket_that_is_no_slice_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no name with an optional slice"):
        parse_slice(text)


@pytest.mark.parametrize("text", ["a[:0]", "a[5:5]", "a[6:5]", "a[-5:-5]", "a[-4:-5]"])
def test_a_slice_that_cannot_hold_a_row_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the slice holds no rows"):
        parse_slice(text)


@given(BOUNDS, BOUNDS, st.integers(0, 120))
def test_a_slice_means_the_rows_that_python_would_give(low: int | None, high: int | None, count: int) -> None:
    text = f"a.csv[{'' if low is None else low}:{'' if high is None else high}]"
    rows = list(range(count))[low:high]
    try:
        assert list(parse_slice(text).of(count)) == rows
    except ValueError:
        assert rows == []


@pytest.mark.parametrize("name", ["train", "train.clean.100", "validation_2"])
def test_a_plain_name_is_a_split_of_the_hub(name: str) -> None:
    assert is_hub_split(name)


@pytest.mark.parametrize("name", ["train+test", "train[:10]+test", "train.", "a b", "tränen", "train\n", "all%"])
def test_an_expression_is_no_split_of_the_hub(name: str) -> None:
    assert not is_hub_split(name)


def test_a_limit_is_looked_up_by_split() -> None:
    spec = DataSpec(GeneratedData(0, (), (4, 5), (1, 1)), (("train", 8), ("validation", None), ("test", 4)), "refuse")
    assert [spec.limit(split) for split in ("train", "validation", "test")] == [8, None, 4]
