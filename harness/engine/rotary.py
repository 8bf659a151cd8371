"""Rotary position embeddings of queries and keys in one operation each, for the training pass of known attentions.

transformers cuts a head into the part that turns and the part that stays, turns it with a dozen kernels and joins the
two; the way back takes the pieces apart again. Here a head is copied once and turned in the copy. Turning back is
turning by the opposite angle, so that nothing but the angles is kept.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.models.llama.modeling_llama import LlamaAttention
from transformers.models.phi.modeling_phi import PhiAttention

# How each names the product that joins the heads. Others are left as they are.
_OUTPUT: dict[type[nn.Module], str] = {PhiAttention: "dense", LlamaAttention: "o_proj"}


def fused_attention(module: nn.Module) -> Callable[..., Any] | None:
    """The training forward pass of an attention that is known, in its fused form; None for others."""
    output = _OUTPUT.get(type(module))
    if output is None or getattr(module, "qk_layernorm", False):
        return None
    known: Any = module

    def forward(
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        **named: Any,
    ) -> tuple[torch.Tensor, None]:
        if past_key_values is not None:
            raise ValueError("the fused attention is for training: it has no cache")
        heads = (*hidden_states.shape[:-1], -1, known.head_dim)
        query = rotated(known.q_proj(hidden_states).view(heads), *position_embeddings).transpose(1, 2)
        key = rotated(known.k_proj(hidden_states).view(heads), *position_embeddings).transpose(1, 2)
        value = known.v_proj(hidden_states).view(heads).transpose(1, 2)
        attend: Any = AttentionInterface()[known.config._attn_implementation]
        dropout = known.attention_dropout if known.training else 0.0
        result, _ = attend(known, query, key, value, attention_mask, dropout=dropout, scaling=known.scaling, **named)
        joined: torch.Tensor = getattr(known, output)(result.reshape(*hidden_states.shape[:-1], -1).contiguous())
        return joined, None

    return forward


def rotated(heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Heads (batch, tokens, heads, size) turned by the angles of their positions (batch, tokens, turning part).

    The first half of the turning part is turned against the second, both by the same angles; what is beyond it stays.
    """
    function: Any = _Rotation
    half = cosines.shape[-1] // 2
    result: torch.Tensor = function.apply(heads, cosines[..., :half].unsqueeze(2), sines[..., :half].unsqueeze(2))
    return result


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cosines, sines)
        return _turned(heads, cosines, sines)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        cosines, sines = ctx.saved_tensors
        return _turned(gradients[0], cosines, -sines), None, None


def _turned(heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    half = cosines.shape[-1]
    result = heads.clone(memory_format=torch.contiguous_format)
    first, second = heads[..., :half], heads[..., half : 2 * half]
    result[..., :half].mul_(cosines).addcmul_(second, sines, value=-1.0)
    result[..., half : 2 * half].mul_(cosines).addcmul_(first, sines)
    return result
