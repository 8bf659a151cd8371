"""Batches as tensors: examples padded on the right, and the positions whose next token is learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from harness.engine.batches import rounded_up
from harness.engine.encoding import Encoded
from study.settings import EngineSettings

# What cross_entropy leaves out: the target of a position that only fills a shape.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded token ids (batch, tokens) and the positions whose next token is learned.

    There is no attention mask: under causal attention what is padded on the right is seen by no real token, and
    without a mask scaled_dot_product_attention takes its fast path. `tokens` counts real tokens, `learned` the
    positions that have a target.
    """

    ids: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    targets: torch.Tensor
    tokens: int
    learned: int

    @classmethod
    def blank(cls, dialogues: int, width: int, places: int, device: str) -> "Batch":
        """A batch of a shape without anything in it."""
        ids = torch.zeros((dialogues, width), dtype=torch.long, device=device)
        rows, columns, targets = (torch.zeros(places, dtype=torch.long, device=device) for _ in range(3))
        return cls(ids, rows, columns, targets, 0, 0)

    @property
    def padding(self) -> int:
        """Padded positions of the batch."""
        return self.ids.numel() - self.tokens

    @property
    def shape(self) -> tuple[int, ...]:
        """Dialogues, tokens of each, positions with logits."""
        return (*self.ids.shape, self.targets.numel())

    def to(self, device: str) -> "Batch":
        """The batch on a device; from pinned memory without waiting."""
        moved = [part.to(device, non_blocking=True) for part in self._parts()]
        return Batch(moved[0], moved[1], moved[2], moved[3], self.tokens, self.learned)

    def fill(self, other: "Batch") -> None:
        """Takes over the tensors of a batch of the same shape."""
        for mine, its in zip(self._parts(), other._parts(), strict=True):
            mine.copy_(its, non_blocking=True)

    def _parts(self) -> tuple[torch.Tensor, ...]:
        return self.ids, self.rows, self.columns, self.targets


def gathered(
    examples: Sequence[Encoded],
    pad_id: int,
    engine: EngineSettings,
    *,
    on_all: bool = False,
    pinned: bool = False,
    places: Mapping[tuple[int, int], int] | None = None,
) -> Batch:
    """Examples as one batch in host memory.

    Args:
        on_all: the loss is over every token, otherwise over the completion alone.
        pinned: in memory that a GPU can read by itself.
        places: positions with logits by dialogues and width; those that no example needs have no target.
    """
    width = rounded_up(max(example.length for example in examples), engine.pad_to_multiple)
    ids = torch.full((len(examples), width), pad_id, dtype=torch.long)
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    for row, example in enumerate(examples):
        tokens = (*example.prompt, *example.completion)
        ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        first = 1 if on_all else len(example.prompt)
        rows += [row] * (len(tokens) - first)
        columns += range(first - 1, len(tokens) - 1)
        targets += tokens[first:]
    learned = len(targets)
    unused = (learned if places is None else places[len(examples), width]) - learned
    rows += [0] * unused
    columns += [0] * unused
    targets += [IGNORED] * unused
    made = [ids, *(torch.tensor(values, dtype=torch.long) for values in (rows, columns, targets))]
    if pinned:
        made = [tensor.pin_memory() for tensor in made]
    total = sum(example.length for example in examples)
    return Batch(made[0], made[1], made[2], made[3], total, learned)


def collate(
    examples: Sequence[Encoded], pad_id: int, device: str, engine: EngineSettings, *, on_all: bool = False
) -> Batch:
    """Examples as one batch on a device. With `on_all` the loss is over every token, otherwise over the completion."""
    return gathered(examples, pad_id, engine, on_all=on_all, pinned=device == "cuda").to(device)
