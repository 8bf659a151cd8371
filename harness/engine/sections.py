"""Which part of a training step is being computed: what an allocation made now belongs to."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import torch

from harness.engine.loading import Base

# `activations`: the forward pass of the decoder, also where checkpointing repeats it. `logits`: head and loss, forward
# and backward. `rest`: the backward pass of the decoder, and everything else.
Section = Literal["activations", "logits", "rest"]


@contextmanager
def watched(base: Base, entered: Callable[[Section], None]) -> Iterator[None]:
    """Calls `entered` whenever another section of a training step begins, for the steps inside the block.

    What is computed stays as it is: modules are hooked, and checkpointing is given a context for what it repeats. It
    repeats a layer's forward method, so that hooks of the layer itself would not tell. A step begins in `rest`.
    """
    current: list[Section] = ["rest"]

    def enter(section: Section) -> None:
        current[0] = section
        entered(section)

    @contextmanager
    def repeated() -> Iterator[None]:
        before = current[0]
        enter("activations")
        try:
            yield
        finally:
            # Checkpointing breaks a repeated forward pass off by an exception, once it has what it needs.
            enter(before)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), repeated()

    def decoder_begins(*_: Any) -> None:
        enter("activations")

    def decoder_ends(_module: Any, _inputs: Any, output: Any) -> None:
        hidden = output.last_hidden_state
        if isinstance(hidden, torch.Tensor) and hidden.requires_grad:
            # The gradient of the hidden states is the end of head and loss on the way back.
            hidden.register_hook(lambda _: enter("rest"))

    def head_begins(*_: Any) -> None:
        enter("logits")

    hooks = [
        base.decoder.register_forward_pre_hook(decoder_begins),
        base.decoder.register_forward_hook(decoder_ends),
        base.head.register_forward_pre_hook(head_begins),
    ]
    layers = [layer for layer in base.decoder.layers if getattr(layer, "gradient_checkpointing", False)]
    checkpoints = [layer._gradient_checkpointing_func for layer in layers]
    for layer, checkpoint in zip(layers, checkpoints, strict=True):
        layer._gradient_checkpointing_func = partial(checkpoint, context_fn=contexts)
    try:
        yield
    finally:
        for layer, checkpoint in zip(layers, checkpoints, strict=True):
            layer._gradient_checkpointing_func = checkpoint
        for hook in hooks:
            hook.remove()


def adapter_gradients(model: Any, seen: Callable[[torch.Tensor], None]) -> list[Any]:
    """Calls `seen` with each gradient of the adapter once it has its final place; returns the hooks to remove."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        parameter.register_post_accumulate_grad_hook(lambda p: seen(p.grad) if p.grad is not None else None)
        for parameter in trainable
    ]
