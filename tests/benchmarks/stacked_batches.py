"""The batches of several trials as one: trial after trial, padded to the widest of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from harness.engine.batches import TrainingPlan, rounded_up, training_plan
from harness.engine.encoding import Encoded
from study.settings import Training

# What cross_entropy leaves out: the target of a position that only fills a shape.
IGNORED = -100
# A trial has a multiple of this many positions with logits, so that few shapes are captured.
PLACES_MULTIPLE = 64


@dataclass(frozen=True, slots=True)
class StackedBatch:
    """Right-padded token ids (trials · dialogues, tokens) and, trial after trial, the positions that are learned.

    Every trial has as many positions as the one with most; those left over have no target. `shares` (trials) is one
    over each trial's learned tokens, `widths` the padded tokens of each trial's own batch, `tokens` counts real tokens.
    """

    ids: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    targets: torch.Tensor
    shares: torch.Tensor
    widths: tuple[int, ...]
    tokens: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Dialogues, tokens of each, positions with logits."""
        return (*self.ids.shape, self.targets.numel())

    def to(self, device: str) -> "StackedBatch":
        """The batch on a device; from pinned memory without waiting."""
        moved = [part.to(device, non_blocking=True) for part in self.parts()]
        return StackedBatch(moved[0], moved[1], moved[2], moved[3], moved[4], self.widths, self.tokens)

    def parts(self) -> tuple[torch.Tensor, ...]:
        """Its tensors."""
        return self.ids, self.rows, self.columns, self.targets, self.shares


class Batches:
    """The stacked batches of a training, step by step, in host memory."""

    def __init__(
        self, examples: Sequence[Encoded], plans: Sequence[TrainingPlan], training: Training, pad_id: int
    ) -> None:
        self._multiple = training.engine.pad_to_multiple
        self._pad_id = pad_id
        self._steps = [
            [[examples[index] for index in step] for step in together]
            for together in zip(*(plan.steps for plan in plans), strict=True)
        ]
        self._places: dict[int, int] = {}
        for step in self._steps:
            most = max(sum(len(example.completion) for example in batch) for batch in step)
            width = max(self._width(batch) for batch in step)
            self._places[width] = max(self._places.get(width, 0), rounded_up(most, PLACES_MULTIPLE))

    def __len__(self) -> int:
        """How many steps there are."""
        return len(self._steps)

    def tokens(self, step: int) -> int:
        """Real tokens of a step (from 0), over all trials."""
        return sum(example.length for batch in self._steps[step] for example in batch)

    def padded(self, step: int) -> int:
        """Tokens of a step that are computed, real and padded."""
        widest = max(self._width(batch) for batch in self._steps[step])
        return sum(len(batch) for batch in self._steps[step]) * widest

    def gathered(self, step: int, *, pinned: bool) -> StackedBatch:
        """The batch of a step (from 0); `pinned` in memory that a GPU can read by itself."""
        batches = self._steps[step]
        widths = tuple(self._width(batch) for batch in batches)
        places = self._places[max(widths)]
        ids = torch.full((sum(map(len, batches)), max(widths)), self._pad_id, dtype=torch.long)
        rows: list[int] = []
        columns: list[int] = []
        targets: list[int] = []
        learned: list[int] = []
        row = 0
        for batch in batches:
            before = len(targets)
            for example in batch:
                ids[row, : example.length] = torch.tensor((*example.prompt, *example.completion), dtype=torch.long)
                rows += [row] * len(example.completion)
                columns += range(len(example.prompt) - 1, example.length - 1)
                targets += example.completion
                row += 1
            learned.append(len(targets) - before)
            unused = places - learned[-1]
            rows += [row - 1] * unused
            columns += [0] * unused
            targets += [IGNORED] * unused
        made = [ids, *(torch.tensor(values, dtype=torch.long) for values in (rows, columns, targets))]
        made.append(torch.tensor([1.0 / count for count in learned]))
        if pinned:
            made = [tensor.pin_memory() for tensor in made]
        return StackedBatch(made[0], made[1], made[2], made[3], made[4], widths, self.tokens(step))

    def _width(self, batch: Sequence[Encoded]) -> int:
        return rounded_up(max(example.length for example in batch), self._multiple)


def plan_of(examples: Sequence[Encoded], training: Training, steps: int, seed: int) -> TrainingPlan:
    """The data order that a run of its own has with this seed."""
    lengths = [example.length for example in examples]
    return training_plan(lengths, training, steps, seed)
