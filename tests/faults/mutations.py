"""Damage to inputs: bytes flipped, cut, doubled and inserted, and values of a JSON structure replaced."""

import copy
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

T = TypeVar("T")
Damage = Callable[[bytes], bytes]
# Data, a place in it, and a piece of bytes.
Change = Callable[[bytes, int, bytes], bytes]

# What parsers stumble over: numbers without end, half characters, nesting, signs that a terminal acts on.
SPLICES = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-0.0",
    b"9" * 400,
    b"9" * 5000,
    b"0x10",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b'""',
    b'"\\ud800"',
    b'"\\u0000"',
    b"\xed\xa0\x80",
    b"\xff\xfe",
    b"\x00",
    b"\x1b[2J",
    b"\r\n",
    "\u2028\u202e".encode(),
    b"[" * 200,
    b'{"a":' * 200,
    b"- " * 200,
    b"&a *a",
    b"!!python/name:os.system ",
    b'"\\UFFFFFFFF"',
    b"%YAML 1.9999999999\n---\n",
    b": ",
    b",",
    b'"',
    b"\\",
    b"../../x",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**63,
    10**400,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 5000,
    "\ud800",
    "\x00\x1b[2J\n\u202e",
    "../../x",
    "NaN",
    [],
    {},
    [[[[[[]]]]]],
    {"": None},
    {"\ud800": 1},
    [None] * 50,
)


def _flip(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << (len(piece) % 8))]) + data[at + 1 :] if at < len(data) else data


def _delete(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + data[at + 1 + 3 * len(piece) :]


def _double(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + 2 * data[at : at + 1 + 20 * len(piece)] + data[at + 1 + 20 * len(piece) :]


def _insert(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + piece + data[at:]


def _overwrite(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at] + piece + data[at + len(piece) :]


def _cut(data: bytes, at: int, piece: bytes) -> bytes:
    return data[:at]


_KINDS: tuple[Change, ...] = (_flip, _delete, _double, _insert, _overwrite, _cut)
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(_KINDS), st.integers(0, 2**20), st.sampled_from(SPLICES) | st.binary(min_size=1, max_size=8)
    ),
    min_size=1,
    max_size=4,
)


def damages() -> st.SearchStrategy[Damage]:
    """One to four changes of bytes, each anywhere."""
    return _STEPS.map(_damage)


def _damage(steps: list[tuple[Change, int, bytes]]) -> Damage:
    def apply(data: bytes) -> bytes:
        for kind, place, piece in steps:
            data = kind(data, place % (len(data) + 1), piece)
        return data

    return apply


def places(value: object, above: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a structure of mappings and lists, the whole left out."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in members for place in ((*above, key), *places(inner, (*above, key)))]


def replacements() -> st.SearchStrategy[Damage]:
    """Up to three values of a JSON text in other ones' place, or gone, or doubled under a second key."""
    step = st.tuples(st.sampled_from(["set", "delete", "add"]), st.integers(0, 2**20), st.sampled_from(VALUES))
    return st.lists(step, min_size=1, max_size=3).map(_replacing)


def _replacing(steps: list[tuple[str, int, Any]]) -> Damage:
    def apply(text: bytes) -> bytes:
        data = json.loads(text)
        for kind, number, value in steps:
            known = places(data)
            if known:
                _change(data, known[number % len(known)], kind, copy.deepcopy(value))
        return json.dumps(data).encode()

    return apply


def _change(data: Any, place: tuple[str | int, ...], kind: str, value: object) -> None:
    for part in place[:-1]:
        data = data[part]
    if kind == "delete":
        del data[place[-1]]
    elif kind == "set" or isinstance(data, list):
        data[place[-1]] = value
    else:
        data[f"{place[-1]}_"] = value


def damaged(valid: bytes, *, structured: bool) -> st.SearchStrategy[bytes]:
    """Random bytes, or `valid` with damage to its bytes or (JSON alone) to what they stand for."""
    mutated = damages().map(lambda damage: damage(valid))
    found = st.binary(max_size=200) | mutated | mutated
    return found | replacements().map(lambda damage: damage(valid)) if structured else found


def on_inputs(check: Callable[[T], None], inputs: st.SearchStrategy[T], count: int) -> None:
    """Holds so many inputs against `check`; one that takes more than ten seconds has hung."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    # Without the database of examples: what is found is to become a test of its own.
    chosen = settings(
        max_examples=count,
        deadline=timedelta(seconds=10),
        suppress_health_check=quiet,
        database=None,
        print_blob=True,
    )
    chosen(given(inputs)(check))()
