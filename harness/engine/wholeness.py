"""Whether a model's folder holds all that it should, by its files' own account; nothing of the weights is read."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# As the reader of the format allows.
LONGEST_HEADER = 100_000_000

# What a loader parses; anything else that ends in .json is somebody's own.
READ = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)


def damage(folder: Path) -> str | None:
    """What is missing or torn in a folder with a model, in a few words; None where nothing is."""
    try:
        return next(_faults(folder), None)
    except OSError as error:
        return f"that folder cannot be read: {error.strerror}"


def _faults(folder: Path) -> Iterator[str]:
    if not os.path.isfile(folder / "config.json"):
        yield "no config.json in that folder"
    for path in (folder / name for name in READ):
        if path.is_file() and _json(path) is None:
            yield f"{path.name} is torn or damaged"
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        yield "no .safetensors in that folder (pickled weights are not read)"
    for path in weights:
        if not _is_whole(path):
            yield f"{path.name} is torn or damaged"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        content = _json(index)
        named = content.get("weight_map") if isinstance(content, dict) else None
        for name in sorted(set(map(str, named.values()))) if isinstance(named, dict) else ():
            if not os.path.isfile(folder / name):
                yield f"{name} is missing in that folder"


def _json(path: Path) -> Any:
    """What a file holds; None where it is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says: one that was cut off, or never written, is not."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):
            return False
        try:
            header = json.loads(file.read(length))
            ends = [int(tensor["data_offsets"][1]) for name, tensor in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return False
    return size == 8 + length + max(ends, default=0)
