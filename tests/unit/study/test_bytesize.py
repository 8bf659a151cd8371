"""Sizes of memory: what is read, and what is refused with its form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.bytesize import memory_bytes

FORM = "write a number with its unit: 8GiB, 24GB or 512MiB"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * 1024**3),
        ("8GB", 8_000_000_000),
        ("24 GB", 24_000_000_000),
        ("512MiB", 512 * 1024**2),
        ("512MB", 512_000_000),
        ("64KiB", 65_536),
        ("64KB", 64_000),
        ("1000000B", 1_000_000),
        ("1B", 1),
        ("0.5GiB", 512 * 1024**2),
        ("10.92 GB", 10_920_000_000),
        ("0.000001MB", 1),
        ("  8GiB\n", 8 * 1024**3),
        ("8gib", 8 * 1024**3),
        ("8gB", 8_000_000_000),
        ("008GiB", 8 * 1024**3),
        ("999999999GiB", 999_999_999 * 1024**3),
    ],
)
def test_a_size_is_a_number_and_its_unit(text: str, size: int) -> None:
    assert memory_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8",
        "GiB",
        "8G",
        "8Gi",
        "8 Gi B",
        "8TiB",
        "8iB",
        "0GiB",
        "0.0B",
        "0.4B",
        "-8GiB",
        "+8GiB",
        "8,5GiB",
        ".5GiB",
        "8.GiB",
        "1e9B",
        "8GiB 8GiB",
        "8GiB;",
        "nanGB",
        "infGB",
        "0x8GB",
        # More digits than any memory needs; a float would not hold them.
        "9999999999GiB",
        "0.1234567GiB",
        # Digits and letters that only look alike.
        "٨GiB",
        "8GıB",
        "8ＧＢ",
    ],
)
def test_anything_else_is_refused_with_the_form_that_is_meant(text: str) -> None:
    with pytest.raises(ValueError, match=FORM):
        memory_bytes(text)


@given(st.integers(1, 999_999_999), st.sampled_from(["B", "KB", "MB", "GB"]), st.sampled_from(["", " ", "  "]))
def test_a_whole_number_of_units_is_exact(number: int, unit: str, space: str) -> None:
    assert memory_bytes(f"{number}{space}{unit}") == number * 1000 ** ["B", "KB", "MB", "GB"].index(unit)


@given(st.text(max_size=12))
def test_a_text_is_a_size_of_at_least_one_byte_or_refused_in_the_same_words(text: str) -> None:
    told = FORM
    try:
        assert memory_bytes(text) >= 1
    except ValueError as error:
        told = str(error)
    assert told == FORM
