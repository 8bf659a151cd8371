"""Sizes of memory as people write them: 8GiB, 24 GB, 512MiB."""

import re

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?)\s*(?P<unit>[KMG]i?B|B)", re.IGNORECASE | re.ASCII)


def memory_bytes(text: str) -> int:
    """A size in bytes: `8GiB` is 8·2³⁰, `8GB` is 8·10⁹.

    Raises:
        ValueError: no number with a unit, or less than a byte.
    """
    match = _SIZE.fullmatch(text.strip())
    size = 0 if match is None else round(float(match["number"]) * _UNITS[match["unit"].upper()])
    if size < 1:
        raise ValueError("write a number with its unit: 8GiB, 24GB or 512MiB")
    return size
