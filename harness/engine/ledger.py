"""Counting what the allocator would hold, tensor by tensor, while code runs on the meta device."""

import weakref
from typing import Any, Literal, get_args

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# The allocator hands out memory in blocks of this many bytes (CUDACachingAllocator, kMinBlockSize).
BLOCK_BYTES = 512
Category = Literal[
    "base_weights", "quantisation", "adapters", "gradients", "optimizer", "activations", "logits", "rest"
]
CATEGORIES: tuple[Category, ...] = get_args(Category)


class Ledger(TorchDispatchMode):
    """Bytes of every storage alive, by category; at each new peak the categories are noted."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.category: Category = "rest"
        self.held: dict[str, int] = {}
        self.peak: dict[str, int] = {}
        self._peak_bytes = 0
        self._bytes = 0
        self._known: dict[int, tuple[Any, int, Category]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in result if isinstance(result, tuple | list) else (result,):
            if isinstance(item, torch.Tensor):
                self.add(item, self.category)
        return result

    def add(self, tensor: torch.Tensor, category: Category) -> None:
        """Counts a tensor's storage, unless it is counted already."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES
        self._known[key] = (weakref.ref(storage, lambda _: self._remove(key)), size, category)
        self._change(category, size)
        if self._bytes > self._peak_bytes:
            self._peak_bytes = self._bytes
            self.peak = dict(self.held)

    def move(self, tensor: torch.Tensor, category: Category) -> None:
        """Counts a storage under another category from now on."""
        key = tensor.untyped_storage()._cdata
        if key in self._known:
            reference, size, before = self._known[key]
            self._known[key] = (reference, size, category)
            self._change(before, -size)
            self._change(category, size)

    def _remove(self, key: int) -> None:
        _, size, category = self._known.pop(key)
        self._change(category, -size)

    def _change(self, category: Category, size: int) -> None:
        self.held[category] = self.held.get(category, 0) + size
        self._bytes += size
