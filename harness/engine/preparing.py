"""What of a run a worker does in advance, while another worker has the GPU: nothing that holds memory there."""

from collections.abc import Callable
from typing import Any

import torch
import transformers

from harness.engine.session import ZERO_SHOT_MAX_TOKENS, Session
from harness.messages import Device, Event, Prepare


class ContextMadeError(RuntimeError):
    """Something that was done in advance has made a context on the GPU."""


class PreparedSession(Session):
    """A session that knows the examples of its first job as token ids before the job comes."""

    def __init__(self, command: Prepare, folder: str, emit: Callable[[Event], None]) -> None:
        super().__init__(emit)
        spec, training = command.spec, command.spec.training
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if training is not None and command.train_file is not None:
            self._encodings.of(tokenizer, command.train_file, spec.prompts.training, training.max_tokens)
        limit = ZERO_SHOT_MAX_TOKENS if training is None else training.max_tokens
        reserve = spec.generation.max_new_tokens
        self._encodings.of(tokenizer, command.evaluated_file, spec.prompts.evaluation, limit, reserve)


def prepared_session(command: Prepare, emit: Callable[[Event], None]) -> Session:
    """A session for the job that is to come.

    Raises:
        ContextMadeError: this process holds memory of a GPU by now. The card is read before the job is given, and what
            is held by then would count as somebody else's.
    """
    folder = command.model_folder
    session = Session(emit) if folder is None else PreparedSession(command, folder, emit)
    if has_context(command.device):
        raise ContextMadeError("what was done in advance has made a context on the GPU")
    return session


def has_context(device: Device) -> bool:
    """Whether this process has a context on any GPU that it sees."""
    # Not part of torch's documented surface, but all that tells without making one.
    core: Any = torch._C
    return device == "cuda" and any(core._cuda_hasPrimaryContext(number) for number in range(torch.cuda.device_count()))
