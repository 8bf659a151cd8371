"""Causal attention without a mask, for batches that need none."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
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
    attend = sdpa.sdpa_attention_forward
    if base.device == "cpu" and base.model.training:
        # The way back through a CPU's fused kernel takes three times as long as through the products themselves.
        attend = written_out
    elif base.dtype == torch.float32:
        attend = with_keys_repeated
    transformers.AttentionInterface.register(UNMASKED, attend)
    config._attn_implementation = UNMASKED
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"


def with_keys_repeated(
    _module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention in fp32 for GPUs: of the kernels that do not make all scores at once none there knows both fp32
    and queries that share a key, so that keys and values are repeated for them. Shapes as in `written_out`."""
    key, value = (repeated(tensor, query.shape[1]) for tensor in (key, value))
    result = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scaling, is_causal=True)
    return result.transpose(1, 2).contiguous(), None


def repeated(shared: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys or values (batch, shared heads, tokens, size) once for each of so many heads."""
    return shared if shared.shape[1] == heads else shared.repeat_interleave(heads // shared.shape[1], dim=1)


def written_out(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention as its formula has it, for CPUs; queries (batch, heads, tokens, size) that share a key stay
    together, so that keys and values are not repeated for them. Returns (batch, tokens, heads, size)."""
    batch, heads, tokens, size = query.shape
    shared = key.shape[1]
    scale = size**-0.5 if scaling is None else scaling
    grouped = (query * scale).reshape(batch, shared, heads // shared * tokens, size)
    scores = (grouped @ key.transpose(-1, -2)).view(batch, shared, heads // shared, tokens, tokens)
    future = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).triu(1)
    weights = scores.masked_fill(future, float("-inf")).softmax(-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, dropout, module.training)
    result = weights.view(batch, shared, -1, tokens) @ value
    return result.view(batch, heads, tokens, size).transpose(1, 2).contiguous(), None
