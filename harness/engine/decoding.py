"""Greedy decoding of one batch after another in fixed slots, each new token one replayed CUDA graph where there can be.

Prompts are read in groups of similar length, padded on the right and without a mask. Then every row of the batch has
one token a step, until all rows are done or the limit is met; a row that is done goes on with padding. Rows are not
dropped: the shape of a captured step is fixed, and a smaller batch can move the numbers of its other rows (LLM.int8
treats outliers by column; matrix products choose their kernels by rows).

Answers in fp32 are those of a cache that grows, token for token. In 16 bits two tokens may tie, and LLM.int8's answers
depend on who shares a batch and on its padding whichever way they are made.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F

from harness.engine.adapting import AdapterLinear
from harness.engine.loading import Base, asks_the_host
from harness.engine.slots import SlotCache, slot_counts

# Prompts are read so many padded tokens at a time: enough to fill a GPU, and their activations stay small.
READ_TOKENS = 16_384
# The host asks for the end every so many steps, and reads the answer to its last question: this many steps are queued
# meanwhile, so that the GPU does not wait.
ASK_EVERY = 4
# What one row wrote, without the end of sequence, and whether it met the limit.
Row = tuple[tuple[int, ...], bool]


@dataclass(slots=True)
class Decoding:
    """How new tokens were made: replayed graphs, the same steps launched one by one, or with a cache that grows; and
    why not in a better way."""

    how: Literal["graph", "eager", "dynamic"]
    reason: str | None = None

    def facts(self) -> dict[str, str | None]:
        """As a record keeps them."""
        return {"decode": self.how, "decode_fallback": self.reason}


def uncapturable(base: Base) -> str | None:
    """Why steps of this base are not worth a try at capturing; None where they are."""
    return "no GPU" if base.device != "cuda" else asks_the_host(base.model)


def groups(lengths: Sequence[int], most: int = READ_TOKENS) -> Iterator[tuple[int, int, int]]:
    """Neighbouring prompts that are read at once, with no more than `most` padded tokens where they are several: the
    first, the one after the last, tokens of the longest."""
    first, width = 0, 0
    for row, length in enumerate(lengths):
        if row > first and max(width, length) * (row + 1 - first) > most:
            yield first, row, width
            first, width = row, 0
        width = max(width, length)
    yield first, len(lengths), width


@contextmanager
def adapters_cast(base: Base) -> Iterator[None]:
    """Keeps an adapter's matrices in the dtype they are multiplied in for the block, instead of casting them each time:
    the same numbers from fewer kernels."""
    dtype = base.head.weight.dtype
    matrices = [module.weight for module in base.model.modules() if isinstance(module, AdapterLinear)]
    kept = [matrix.data for matrix in matrices]
    try:
        for matrix in matrices:
            matrix.data = matrix.data.to(dtype)
        yield
    finally:
        for matrix, data in zip(matrices, kept, strict=True):
            matrix.data = data


@dataclass(frozen=True, slots=True)
class _State:
    """What a step reads and leaves for the next, in tensors that stay where they are.

    `token` and `position` (rows, 1) come next, `written` (rows, limit) has been made so far, up to before `column`.
    """

    token: torch.Tensor
    position: torch.Tensor
    finished: torch.Tensor
    written: torch.Tensor
    column: torch.Tensor
    all_finished: torch.Tensor

    @classmethod
    def of(cls, rows: int, limit: int, device: str) -> "_State":
        """The state of a batch of so many rows."""

        def zeros(*size: int, dtype: torch.dtype = torch.long) -> torch.Tensor:
            return torch.zeros(size, dtype=dtype, device=device)

        return cls(
            token=zeros(rows, 1),
            position=zeros(rows, 1),
            finished=zeros(rows, dtype=torch.bool),
            written=zeros(rows, limit),
            column=zeros(1, 1),
            all_finished=zeros(dtype=torch.bool),
        )


class SlotDecoder:
    """Writes the answers to the batches of one plan, and scores references; `decoding` says how it writes, as far as it
    is known."""

    def __init__(self, base: Base, decoding: Decoding, limit: int) -> None:
        """`limit`: new tokens of a row at most."""
        self._base = base
        self._decoding = decoding
        self._limit = limit
        self._shape = (0, 0)
        self._state = _State.of(0, limit, base.device)
        self._places = torch.arange(0)
        self._cache = SlotCache(base.model.config, 0)
        self._last = torch.empty(0)
        # Cross-entropy of the references in nats, and their tokens.
        self._nats, self._learned = 0.0, 0
        # Whether a step was launched kernel by kernel, whether the graph is one of this shape, and where graphs live.
        self._warm = self._captured = False
        self._graph: Any = None
        self._pool: Any = None
        self._stream: Any = None

    @property
    def loss(self) -> float:
        """Mean cross-entropy of all tokens of the references, in nats; once all answers are written."""
        return self._nats / self._learned

    def write(
        self,
        batches: Sequence[Sequence[tuple[int, ...]]],
        references: Sequence[Sequence[tuple[int, ...]]] | None = None,
    ) -> Iterator[list[Row]]:
        """The answers to prompts, batch by batch; `references` are scored on the way, each behind its prompt, which is
        read once for both.

        On a GPU the answers of a batch are handed out while the prompts of the next are read, so that what is done
        with them takes no time of its own.
        """
        widths = [max(1, *(len(prompt) for prompt in prompts)) for prompts in batches]
        room = [max(self._limit, *(len(each) for each in rows)) for rows in references or [[()]] * len(batches)]
        counts = slot_counts([width + most - 1 for width, most in zip(widths, room, strict=True)])
        sizes = [len(prompts) * slots for prompts, slots in zip(batches, counts, strict=True)]
        self._cache = SlotCache(self._base.model.config, max(sizes))
        written: Callable[[], list[Row]] | None = None
        with adapters_cast(self._base):
            for number, (prompts, slots) in enumerate(zip(batches, counts, strict=True)):
                self._read(prompts, slots)
                if references is not None:
                    self._score(references[number])
                if written is not None:
                    yield written()
                written = self._finish()
                if self._base.device != "cuda":
                    yield written()
                    written = None
            if written is not None:
                yield written()

    @torch.no_grad()
    def rehearse(self, rows: int, width: int) -> None:
        """Reads a batch of prompts of one width and makes one token more, for what that holds in memory."""
        slots = slot_counts([width + self._limit - 1])[0]
        self._cache = SlotCache(self._base.model.config, rows * slots)
        with adapters_cast(self._base):
            self._read([(0,) * width] * rows, slots)
            self._step()

    @torch.no_grad()
    def _read(self, prompts: Sequence[tuple[int, ...]], slots: int) -> None:
        """Reads the prompts of a batch and takes the first token of each answer."""
        self._take_shape(len(prompts), slots)
        ids, lengths = self._on_device(prompts)
        lasts = [
            self._read_group(ids[first:last, :width], lengths[first:last], (first, last))
            for first, last, width in groups([len(prompt) for prompt in prompts])
        ]
        state = self._state
        state.position.copy_(lengths[:, None] - 1)
        state.finished.zero_()
        state.column.zero_()
        state.written.fill_(self._base.tokenizer.eos_token_id)
        self._last = torch.cat(lasts)
        self._take(self._last)

    def _take_shape(self, rows: int, slots: int) -> None:
        """Begins a batch; a graph serves the batches of its shape that follow at once, and find its tensors."""
        if (rows, slots) == self._shape:
            return
        self._shape = (rows, slots)
        self._captured = False
        self._state = _State.of(rows, self._limit, self._base.device)
        self._places = torch.arange(slots, device=self._base.device)
        self._cache.shape(rows, slots)

    def _on_device(self, prompts: Sequence[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids (rows, tokens), padded on the right, and how many of them are real; an empty prompt is one pad."""
        pad = self._base.tokenizer.pad_token_id
        real = [prompt or (pad,) for prompt in prompts]
        width = max(len(prompt) for prompt in real)
        ids = torch.tensor([[*prompt, *[pad] * (width - len(prompt))] for prompt in real])
        lengths = torch.tensor([len(prompt) for prompt in real])
        if self._base.device == "cuda":
            ids, lengths = ids.pin_memory(), lengths.pin_memory()
        return (
            ids.to(self._base.device, non_blocking=True),
            lengths.to(self._base.device, non_blocking=True),
        )

    def _read_group(self, ids: torch.Tensor, lengths: torch.Tensor, rows: tuple[int, int]) -> torch.Tensor:
        """The hidden states (rows, hidden) of the last real tokens of prompts that are read at once."""
        self._cache.read_into(*rows)
        hidden = self._base.decoder(
            input_ids=ids, position_ids=self._places[None, : ids.shape[1]], past_key_values=self._cache, use_cache=True
        ).last_hidden_state
        last: torch.Tensor = hidden[torch.arange(len(ids), device=ids.device), lengths - 1]
        return last

    @torch.no_grad()
    def _score(self, references: Sequence[tuple[int, ...]]) -> None:
        """Reads the references of a batch behind their prompts. New tokens take the same slots, one by one, and see no
        slot beyond their own."""
        ids, lengths = self._on_device(references)
        # The first new token's position is that behind the prompt.
        position = self._state.position + self._places[: ids.shape[1]]
        hidden = self._last[:, None]
        if ids.shape[1] > 1:
            seen = self._read_behind(ids[:, :-1], position[:, :-1])
            hidden = torch.cat([hidden, seen], dim=1)
        real = self._places[: ids.shape[1]] < lengths[:, None]
        logits = self._base.head(hidden[real])
        self._nats += float(F.cross_entropy(logits.float(), ids[real], reduction="sum"))
        self._learned += int(lengths.sum())

    def _read_behind(self, ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Hidden states (rows, tokens, hidden) of tokens at positions (rows, tokens); each sees the slots up to
        its own."""
        mask = torch.zeros((*ids.shape, len(self._places)), dtype=self._cache.dtype, device=ids.device)
        mask.masked_fill_(self._places > position[:, :, None], float("-inf"))
        self._cache.write_at(position)
        hidden: torch.Tensor = self._base.decoder(
            input_ids=ids,
            attention_mask=mask[:, None],
            position_ids=position,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    @torch.no_grad()
    def _finish(self) -> Callable[[], list[Row]]:
        """Makes the other tokens of a batch; what comes back waits for them, where they are not there yet."""
        finished = _Question() if self._base.device == "cuda" else None
        for step in range(1, self._limit):
            if finished is None:
                stop = bool(self._state.all_finished)
            else:
                stop = step % ASK_EVERY == 1 and finished.ask(self._state.all_finished)
            if stop:
                break
            self._advance()
        return self._reader()

    def _reader(self) -> Callable[[], list[Row]]:
        end = self._base.tokenizer.eos_token_id
        written = self._state.written.to("cpu", non_blocking=True, copy=True)
        event = torch.cuda.Event() if self._base.device == "cuda" else None
        if event is not None:
            event.record()

        def read() -> list[Row]:
            if event is not None:
                event.synchronize()
            return [cut(row, end) for row in written.tolist()]

        return read

    def _advance(self) -> None:
        """One token for every row."""
        if self._decoding.how == "graph" and self._warm and not self._captured:
            self._capture()
        if self._captured:
            self._graph.replay()
            return
        # The first step of all is launched kernel by kernel and loads what a capture must find there.
        self._step()
        self._warm = True

    def _step(self) -> None:
        self._take(self._read_behind(self._state.token, self._state.position)[:, -1])

    def _take(self, hidden: torch.Tensor) -> None:
        """The next token of every row from its last hidden state (rows, hidden); rows that are done get padding, and
        have the end of sequence written, so that cutting at the first one is enough."""
        state, tokenizer = self._state, self._base.tokenizer
        following = self._base.head(hidden).argmax(-1)
        state.token.copy_(following.masked_fill(state.finished, tokenizer.pad_token_id)[:, None])
        following = following.masked_fill(state.finished, tokenizer.eos_token_id)[:, None]
        state.written.scatter_(1, state.column.expand_as(following), following)
        state.finished.logical_or_(following[:, 0] == tokenizer.eos_token_id)
        state.all_finished.copy_(state.finished.all())
        state.position.add_(1)
        state.column.add_(1)

    def _capture(self) -> None:
        """Captures the step of this shape, or gives up capturing."""
        try:
            self._graph = self._graph_of_step()
            self._captured = True
        except RuntimeError as error:
            # Nothing was computed: the step is launched kernel by kernel, and so are those that follow.
            cause = error.__context__ or error
            self._decoding.how = "eager"
            self._decoding.reason = f"capture failed: {str(cause).strip().splitlines()[0][:200]}"
            self._graph = None
            torch.cuda.synchronize()

    def _graph_of_step(self) -> Any:
        """A graph of the next step, captured on a stream of its own and replayed where everything else is computed. The
        last graph is there until this one is: their temporaries have the same memory."""
        if self._pool is None:
            # What reading the prompts has reserved is not for graphs, and cannot be freed during a capture.
            torch.cuda.empty_cache()
            self._pool = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream()
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                self._step()
            finally:
                graph.capture_end()
        torch.cuda.current_stream().wait_stream(self._stream)
        return graph


class _Question:
    """Asks a GPU whether all rows are done without waiting for what is queued now."""

    def __init__(self) -> None:
        self._asked: tuple[torch.Tensor, Any] | None = None

    def ask(self, flag: torch.Tensor) -> bool:
        """The flag as it was at the last question; asks anew."""
        before = self._asked
        event = torch.cuda.Event()
        copy = flag.to("cpu", non_blocking=True)
        event.record()
        self._asked = (copy, event)
        if before is None:
            return False
        before[1].synchronize()
        return bool(before[0])


def cut(row: list[int], end: int) -> Row:
    """A row up to its first end of sequence, and whether it has none."""
    if end in row:
        return tuple(row[: row.index(end)]), False
    return tuple(row), True
