"""From a seed to splits of examples that share no pair of speakers."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from study.dialogues import engine
from study.dialogues.engine import Filling
from study.dialogues.scenes import ALL_SCENES
from study.dialogues.template import CORE_LINES, Scene
from study.examples import Example

GENERATOR_VERSION = 1
"""Goes into data hashes; raise it with every change that makes a seed mean other examples."""

SCENES: tuple[str, ...] = tuple(scene.name for scene in ALL_SCENES)

_BY_NAME = {scene.name: scene for scene in ALL_SCENES}
_MAX_REFERENCES = min(len(plot.summaries) for scene in ALL_SCENES for plot in scene.plots)
_MAX_ATTEMPTS = 10_000


def generate(
    seed: int,
    counts: Mapping[str, int],
    *,
    scenes: Sequence[str] = SCENES,
    turns: tuple[int, int] = (CORE_LINES, engine.MAX_TURNS),
    references: tuple[int, int] = (1, 3),
) -> dict[str, tuple[Example, ...]]:
    """Generate dialogues of two people with reference summaries.

    counts: split name to number of examples. turns, references: the least and the most of them an example has, both
    drawn evenly. Gives the splits in the order of `counts`.

    The same arguments give the same examples on every platform and Python. An example depends on the seed, its split,
    its index and the set of split names, not on any count: asking for more only appends. Splits are disjoint: each
    pair of speakers belongs to one of them by a hash, so that no dialogue of one can equal or nearly equal a dialogue
    of another. Scenes are spread evenly over every run of `len(scenes)` examples.

    Raises:
        ValueError: a count is negative, a scene is unknown, missing or named twice, or a range is empty or out of
            bounds.
    """
    _check(counts, scenes, turns, references)
    request = _Request(seed, tuple(sorted(counts)), tuple(_BY_NAME[name] for name in scenes), turns, references)
    return {split: _generate_split(request, split, count) for split, count in counts.items()}


@dataclass(frozen=True, slots=True)
class _Request:
    """What all examples of one call have in common."""

    seed: int
    splits: tuple[str, ...]
    scenes: tuple[Scene, ...]
    turns: tuple[int, int]
    references: tuple[int, int]


def _generate_split(request: _Request, split: str, count: int) -> tuple[Example, ...]:
    examples: list[Example] = []
    seen: set[str] = set()
    for index in range(count):
        example = _generate_example(request, split, index, seen)
        seen.add(example.dialogue)
        examples.append(example)
    return tuple(examples)


def _generate_example(request: _Request, split: str, index: int, seen: AbstractSet[str]) -> Example:
    """Draw until the speakers belong to the split and the dialogue is new to it."""
    scene = _scene(request, split, index)
    for attempt in range(_MAX_ATTEMPTS):
        stream = _stream(request.seed, split, str(index), str(attempt))
        filling = engine.fill(stream.choice(scene.plots), stream)
        if _owner(request, filling) != split:
            continue
        dialogue = engine.dialogue(filling, stream.randint(*request.turns), stream)
        if dialogue in seen:
            continue
        summaries = engine.references(filling, stream.randint(*request.references), stream)
        return Example(f"{split}-{index:05d}-{scene.name}", dialogue, summaries)
    raise ValueError(f"split {split!r}: no new dialogue for example {index} in {_MAX_ATTEMPTS} attempts; ask for fewer")


def _scene(request: _Request, split: str, index: int) -> Scene:
    """Give each run of `len(scenes)` examples every scene once, in an order of its own."""
    block, place = divmod(index, len(request.scenes))
    order = list(request.scenes)
    _stream(request.seed, split, "scenes", str(block)).shuffle(order)
    return order[place]


def _owner(request: _Request, filling: Filling) -> str:
    """Give the one split that may hold dialogues of these two speakers, whoever of them begins."""
    place = _number(str(request.seed), "speakers", *sorted(filling.speakers))
    return request.splits[place % len(request.splits)]


def _stream(seed: int, *parts: str) -> random.Random:
    return random.Random(_number(str(seed), *parts))


def _number(*parts: str) -> int:
    """Give a number that names the parts; JSON keeps ("a", "bc") apart from ("ab", "c")."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode("ascii")).digest(), "big")


def _check(
    counts: Mapping[str, int], scenes: Sequence[str], turns: tuple[int, int], references: tuple[int, int]
) -> None:
    for split, count in counts.items():
        if count < 0:
            raise ValueError(f"count {count} of split {split!r}: choose 0 or more")
    if not scenes or len(set(scenes)) < len(scenes):
        raise ValueError(f"scenes {tuple(scenes)!r}: name one or more, each once, from {', '.join(SCENES)}")
    for name in scenes:
        if name not in _BY_NAME:
            raise ValueError(f"scene {name!r}: choose from {', '.join(SCENES)}")
    _check_range("turns", turns, CORE_LINES, engine.MAX_TURNS)
    _check_range("references", references, 1, _MAX_REFERENCES)


def _check_range(field: str, asked: tuple[int, int], lowest: int, highest: int) -> None:
    low, high = asked
    if not lowest <= low <= high <= highest:
        raise ValueError(f"{field} {asked!r}: choose a least and a most between {lowest} and {highest}")
