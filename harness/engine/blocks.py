"""The training pass of decoder blocks that are known, with the layers that share an input as groups.

transformers cuts a head into the part that turns and the part that stays, turns it with a dozen kernels and joins the
two, and gives each layer its input for itself. Other blocks are left as they are: their adapted layers are groups of
one.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, activations
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP
from transformers.models.phi.modeling_phi import PhiDecoderLayer

from harness.engine.groups import Angles, Group, Layer, Sum, Together
from harness.engine.kernels import Plain

# These compute 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) operation by operation (transformers/activations.py).
WRITTEN_OUT = (activations.NewGELUActivation, activations.FastGELUActivation)
Forward = Callable[..., Any]
# The layer that a linear module is.
LayerOf = Callable[[nn.Module], Layer]


def known_block(block: nn.Module, layer_of: LayerOf, operations: Plain) -> tuple[Forward, list[Group]] | None:
    """The training forward pass of a block that is known, and its groups; None for others."""
    known: Any = block
    if type(block) is PhiDecoderLayer and not known.self_attn.qk_layernorm:
        return _phi(known, layer_of, operations)
    if type(block) is LlamaAttention:
        return _llama_attention(known, layer_of, operations)
    if type(block) is LlamaMLP:
        return _llama_mlp(known, layer_of, operations)
    return None


def _phi(block: Any, layer_of: LayerOf, operations: Plain) -> tuple[Forward, list[Group]]:
    """Phi's attention and MLP read the same normalised input, and are added to what came in together."""
    attention, mlp = block.self_attn, block.mlp
    heads = [layer_of(module) for module in (attention.q_proj, attention.k_proj, attention.v_proj)]
    first, second, dense = layer_of(mlp.fc1), layer_of(mlp.fc2), layer_of(attention.dense)
    # Masks of dropout are drawn in the order of the layers, so that none may be moved before another.
    together = not any(layer.drops for layer in (*heads, first, second, dense))
    activates = together and is_tanh_gelu(mlp.activation_fn)
    turning = {"turning": 2, "head_size": attention.head_dim}
    read = Together([*heads, first] if together else heads, operations, activates=activates, **turning)
    joins, widens, narrows = (Together([layer], operations) for layer in (dense, first, second))

    def forward(
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **named: Any,
    ) -> torch.Tensor:
        normed = block.input_layernorm(hidden_states)
        query, key, value, *wide = read(normed, angles_of(position_embeddings))
        attended = _attended(attention, (query, key, value), attention_mask, past_key_values, named)
        (joined,) = joins(attended)
        attended = block.resid_dropout(joined)
        if not together:
            wide = list(widens(normed))
        if activates:
            (fed,) = narrows(wide[0], activated=wide[1])
        else:
            (fed,) = narrows(mlp.activation_fn(wide[0]))
        added: Any = Sum
        result: torch.Tensor = added.apply(operations, attended, block.resid_dropout(fed), hidden_states)
        return result

    groups = [*read.groups, *joins.groups, *([] if together else widens.groups), *narrows.groups]
    return _checkpointing(block, forward), groups


def _checkpointing(block: Any, forward: Forward) -> Forward:
    """`forward` with the checkpointing of transformers' own, which since 5.2x belongs to it and not to the call."""
    if type(block).__call__ is not nn.Module.__call__:
        return forward

    def checkpointing(*hidden: torch.Tensor, **named: Any) -> Any:
        if not (block.gradient_checkpointing and block.training):
            return forward(*hidden, **named)
        return block._gradient_checkpointing_func(partial(forward, **named), *hidden)

    return checkpointing


def _llama_attention(attention: Any, layer_of: LayerOf, operations: Plain) -> tuple[Forward, list[Group]]:
    layers = [layer_of(module) for module in (attention.q_proj, attention.k_proj, attention.v_proj)]
    read = Together(layers, operations, turning=2, head_size=attention.head_dim)
    joins = Together([layer_of(attention.o_proj)], operations)

    def forward(
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Any = None,
        **named: Any,
    ) -> tuple[torch.Tensor, None]:
        query, key, value = read(hidden_states, angles_of(position_embeddings))
        (joined,) = joins(_attended(attention, (query, key, value), attention_mask, past_key_values, named))
        return joined, None

    return forward, [*read.groups, *joins.groups]


def _llama_mlp(mlp: Any, layer_of: LayerOf, operations: Plain) -> tuple[Forward, list[Group]]:
    widens = Together([layer_of(mlp.gate_proj), layer_of(mlp.up_proj)], operations)
    narrows = Together([layer_of(mlp.down_proj)], operations)

    def forward(x: torch.Tensor) -> torch.Tensor:
        gate, up = widens(x)
        (result,) = narrows(mlp.act_fn(gate) * up)
        return result

    return forward, [*widens.groups, *narrows.groups]


def is_tanh_gelu(module: nn.Module) -> bool:
    """Whether an activation is GELU in its form with tanh."""
    plain = isinstance(module, nn.GELU | activations.GELUTanh) and getattr(module, "approximate", "tanh") == "tanh"
    return plain or isinstance(module, WRITTEN_OUT)


def angles_of(embeddings: tuple[torch.Tensor, torch.Tensor] | None) -> Angles:
    """What transformers gives as cosines and sines (batch, tokens, turning part): both halves turn by the same."""
    if embeddings is None:
        raise ValueError("this block has position embeddings")
    cosines, sines = embeddings
    half = cosines.shape[-1] // 2
    return cosines[..., :half], sines[..., :half]


def _attended(
    attention: Any,
    parts: Sequence[torch.Tensor],
    mask: torch.Tensor | None,
    past_key_values: Any,
    named: dict[str, Any],
) -> torch.Tensor:
    """Attention (batch, tokens, hidden) of queries, keys and values (batch, tokens, hidden), as transformers has it."""
    if past_key_values is not None:
        raise ValueError("the fused attention is for training: it has no cache")
    query, key, value = (part.view(*part.shape[:-1], -1, attention.head_dim).transpose(1, 2) for part in parts)
    attend: Any = AttentionInterface()[attention.config._attn_implementation]
    dropout = attention.attention_dropout if attention.training else 0.0
    result, _ = attend(attention, query, key, value, mask, dropout=dropout, scaling=attention.scaling, **named)
    joined: torch.Tensor = result.reshape(*result.shape[:-2], -1).contiguous()
    return joined
