"""YAML to plain values: the core schema of YAML 1.2 and nothing that a reader would not expect."""

from typing import Any

import pytest

from study.problems import GridError
from study.yaml_text import MAX_DEPTH, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-4", 1e-4),
        ("1E+3", 1000.0),
        ("+.5", 0.5),
        ("5.", 5.0),
        ("-3", -3),
        ("007", 7),
        ("~", None),
        ("null", None),
        ("", None),
        ("true", True),
        ("False", False),
    ],
)
def test_numbers_booleans_and_null_are_what_they_look_like(text: str, value: object) -> None:
    found = parse_yaml(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text", ["on", "yes", "NO", "1:30", "2024-01-01", "1_000", "0x1F", "0o17", ".inf", ".nan", "1e", "e5", "1\u0663"]
)
def test_what_yaml_1_1_would_guess_at_stays_text(text: str) -> None:
    assert parse_yaml(text) == text


@pytest.mark.parametrize("text", ["'12'", '"true"', "|-\n  null"])
def test_a_quoted_value_stays_text(text: str) -> None:
    assert isinstance(parse_yaml(text), str)


def test_mappings_and_lists_nest() -> None:
    assert parse_yaml("a:\n  - {b: [1, x]}\n  - ~") == {"a": [{"b": [1, "x"]}, None]}


def test_a_byte_order_mark_is_passed_over() -> None:
    assert parse_yaml("\ufeffa: 1") == {"a": 1}


def test_line_breaks_and_tabs_in_a_text_are_kept() -> None:
    assert parse_yaml('"a\\n\\tb"') == "a\n\tb"


def test_every_fault_is_told_with_its_path_and_the_rest_is_read() -> None:
    document = read_yaml("arms:\n  - {name: a, rank: !!int 4, rank: 5}\n  - {x: &y 1e999, z: *y}\nb: 1")
    assert [str(problem) for problem in document.problems] == [
        "arms[0] (a).rank 'tag:yaml.org,2002:int': YAML tags are not allowed: leave it out",
        "arms[0] (a).rank: duplicate key (again on line 2)",
        "arms[1].x '1e999': too large for a number",
        "arms[1].z: YAML aliases (*name) are not allowed: write it out",
    ]
    assert document.value == {"arms": [{"name": "a", "rank": None}, {"x": None, "z": None}], "b": 1}


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def test_the_deepest_nesting_that_is_allowed_is_read_and_one_level_more_is_refused() -> None:
    value: Any = parse_yaml(nested(MAX_DEPTH))
    depth = 0
    while isinstance(value, list):
        value, depth = (value[0] if value else None), depth + 1
    assert depth == MAX_DEPTH
    with pytest.raises(GridError, match="nested deeper than 12 levels"):
        parse_yaml(nested(MAX_DEPTH + 1))
