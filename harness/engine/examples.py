"""Reading the examples that a study wrote down for its workers."""

import json
from pathlib import Path
from typing import Any

from study.examples import Example


def read_examples(path: Path) -> tuple[Example, ...]:
    """Every example of a file, in its order."""
    lines = path.read_text(encoding="utf-8").split("\n")
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines if line]
    return tuple(Example(row["id"], row["dialogue"], tuple(row["references"])) for row in rows)
