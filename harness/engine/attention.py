"""Causal attention without a mask, for batches that need none."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transformers

from harness.engine.loading import Base

# A name without a mask function: transformers then makes no mask, and scaled_dot_product_attention is causal by itself.
UNMASKED = "sdpa-unmasked"


@contextmanager
def unmasked(base: Base, longest: int) -> Iterator[None]:
    """Batches padded on the right, of at most `longest` tokens, are computed without a mask in the block.

    transformers makes none either once it has looked at the positions, which waits for the GPU in every step; while a
    CUDA graph is captured it cannot look, and makes a whole mask, which bars attention's fast path
    (masking_utils.find_packed_sequence_indices). Models that attend to a window shorter than the batch keep theirs.
    """
    config = base.model.config
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    if any(window is not None and window < longest for window in windows) or config._attn_implementation != "sdpa":
        yield
        return
    sdpa: Any = importlib.import_module("transformers.integrations.sdpa_attention")
    transformers.AttentionInterface.register(UNMASKED, sdpa.sdpa_attention_forward)
    config._attn_implementation = UNMASKED
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"
