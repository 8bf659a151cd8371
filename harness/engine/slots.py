"""Keys and values in tensors of fixed size: every token has a slot, and its slot is its position.

A cache that grows is copied whole for every new token, and its shapes change, so that no step could be captured and
replayed. Here a row's prompt stands at its first slots, without padding before it, and each new token goes to the next
one: where that is, is read from a tensor on the device, and the host never asks.
"""

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from harness.engine.batches import rounded_up

# Attention kernels read a mask in pieces of 16 bytes: eight numbers of two bytes.
SLOTS_MULTIPLE = 8
# A shape is kept for batches of shorter prompts while they need at least this share of its slots: a step that is
# captured anew costs a few steps' time, and slots that nobody needs are read at every step.
LEAST_USED = 0.8


def slot_counts(needed: Sequence[int]) -> list[int]:
    """Slots a row for batch after batch, given those that each needs; no batch has more than the longest needs."""
    counts: list[int] = []
    count = 0
    for need in needed:
        if not LEAST_USED * count <= need <= count:
            count = rounded_up(need, SLOTS_MULTIPLE)
        counts.append(count)
    return counts


def sliding_or_other(config: Any) -> bool:
    """Whether a model keeps anything but the keys and values of all tokens: windows, states, layers that share."""
    return any(type(layer) is not DynamicLayer for layer in transformers.DynamicCache(config=config).layers)


class SlotCache(transformers.Cache):
    """The keys and values of one batch; their memory is made once, for the largest batch, and used again by others."""

    def __init__(self, config: Any, most_slots: int) -> None:
        """`most_slots`: rows times slots of the largest batch."""
        count = config.get_text_config(decoder=True).num_hidden_layers
        self._slotted = [_SlotLayer(most_slots) for _ in range(count)]
        super().__init__(layers=[*self._slotted])

    @property
    def dtype(self) -> torch.dtype:
        """The type of keys and values, known once something was read."""
        return self._slotted[0].parts()[0].dtype

    def shape(self, rows: int, slots: int) -> None:
        """Begins a batch of this shape."""
        for layer in self._slotted:
            layer.fit(rows, slots)

    def read_into(self, first: int, last: int) -> None:
        """What comes next are whole prompts, padded on the right: those of the rows from `first` to before `last`."""
        for layer in self._slotted:
            layer.rows, layer.index = (first, last), None

    def write_at(self, positions: torch.Tensor) -> None:
        """What comes next are as many tokens of every row as there are positions (rows, tokens)."""
        for layer in self._slotted:
            layer.index = positions[:, None, :, None]


class _SlotLayer(CacheLayerMixin):
    """Keys and values of one layer, each (rows, heads, slots, head size)."""

    is_compileable = False
    is_sliding = False

    def __init__(self, most_slots: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows = (0, 0)
        self.index: torch.Tensor | None = None
        self._most_slots = most_slots
        self._shape = (0, 0)
        # The memory of keys and of values, and heads and head size of each.
        self._memory: list[tuple[torch.Tensor, int, int]] = []

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Makes the memory of both; zeros, since a slot that is masked is still multiplied by its weight of zero."""
        for states in (key_states, value_states):
            heads, size = states.shape[1], states.shape[3]
            self._memory.append((states.new_zeros(self._most_slots * heads * size), heads, size))
        self.is_initialized = True
        self.fit(*self._shape)

    def fit(self, rows: int, slots: int) -> None:
        """Begins a batch: keys and values are the first part of their memory, in its shape."""
        self._shape = (rows, slots)
        if self._memory:
            self.keys, self.values = (
                memory[: rows * heads * slots * size].view(rows, heads, slots, size)
                for memory, heads, size in self._memory
            )

    def parts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, once there are any."""
        if self.keys is None or self.values is None:
            raise RuntimeError("nothing was read yet")
        return self.keys, self.values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keeps new keys and values, and gives those that attention is to see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self.parts()
        if self.index is not None:
            keys.scatter_(2, self.index.expand_as(key_states), key_states)
            values.scatter_(2, self.index.expand_as(value_states), value_states)
            return keys, values
        first, last = self.rows
        keys[first:last, :, : key_states.shape[2]].copy_(key_states)
        values[first:last, :, : value_states.shape[2]].copy_(value_states)
        # A prompt sees itself alone, causally: without a mask attention takes its fast path.
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Tokens before those that come next, as far as transformers asks: none, masks and positions are given."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys that prompts see and where these begin; a new token comes with its mask."""
        return query_length, 0

    def get_max_length(self) -> int:
        """Slots of a row."""
        return self._shape[1]
