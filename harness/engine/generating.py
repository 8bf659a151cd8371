"""Writing summaries: batched, and stopped at the end of sequence; greedy ones in fixed slots, others as they were."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from harness.engine.decoding import Decoding, Row, SlotDecoder, cut, uncapturable
from harness.engine.encoding import Encoded
from harness.engine.loading import Base
from harness.engine.slots import sliding_or_other
from study.settings import Generation, Sampling


@dataclass(frozen=True, slots=True)
class Written:
    """Token ids that the model wrote for one example, without the end of sequence."""

    index: int
    ids: tuple[int, ...]
    hit_limit: bool


class Writer:
    """Writes the answers to examples; `decoding` says how, for good once all are written."""

    def __init__(self, base: Base, generation: Generation, seed: int = 0) -> None:
        self._base = base
        self._generation = generation
        self._seed = seed
        self.decoding = _decoding(base, generation)
        # Mean cross-entropy of the references in nats per token, where they were scored on the way.
        self.loss: float | None = None

    @property
    def scores(self) -> bool:
        """Whether references can be scored on the way, which spares a CPU a third of an evaluation. A GPU reads faster
        without a mask, and what it scores would no longer be comparable with what it scored before."""
        return self._base.device == "cpu" and self.decoding.how != "dynamic"

    def write(self, examples: Sequence[Encoded], plan: Sequence[Sequence[int]]) -> Iterator[list[Written]]:
        """The answers to every batch of `plan`, batch by batch; `loss` is known once all are written, if it `scores`.

        A finished row stays in its batch, fed with padding: LLM.int8 treats outliers by column, so that dropping a row
        could change its neighbours, and a captured step has a fixed number of rows.
        """
        batches = [[examples[index].prompt for index in indices] for indices in plan]
        references = [[examples[index].completion for index in indices] for indices in plan] if self.scores else None
        for indices, rows in zip(plan, self._rows(batches, references), strict=True):
            yield [Written(index, ids, hit) for index, (ids, hit) in zip(indices, rows, strict=True)]

    def _rows(
        self, batches: list[list[tuple[int, ...]]], references: list[list[tuple[int, ...]]] | None
    ) -> Iterator[list[Row]]:
        limit, sampling = self._generation.max_new_tokens, self._generation.sampling
        if self.decoding.how == "dynamic":
            sampler = None if sampling is None else _Sampler(sampling, self._seed, self._base.device)
            yield from (_decode(self._base, prompts, limit, sampler) for prompts in batches)
            return
        decoder = SlotDecoder(self._base, self.decoding, limit)
        yield from decoder.write(batches, references)
        if references is not None:
            self.loss = decoder.loss


def _decoding(base: Base, generation: Generation) -> Decoding:
    """How new tokens are to be made, before anything was tried."""
    if generation.sampling is not None:
        return Decoding("dynamic", "sampling is as an old protocol had it")
    if not generation.static_cache:
        return Decoding("dynamic", "switched off")
    if sliding_or_other(base.model.config):
        return Decoding("dynamic", "the model keeps more than keys and values of all tokens, or less")
    reason = uncapturable(base)
    return Decoding("graph" if reason is None else "eager", reason)


@torch.no_grad()
def _decode(base: Base, prompts: Sequence[tuple[int, ...]], limit: int, sampler: "_Sampler | None") -> list[Row]:
    """The answers to one batch of left-padded prompts, with a cache that grows."""
    pad, end = base.tokenizer.pad_token_id, base.tokenizer.eos_token_id
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=base.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=base.device)
    positions = (mask.cumsum(-1) - 1).clamp_(min=0)
    cache = DynamicCache(config=base.model.config)
    finished = torch.zeros(len(prompts), dtype=torch.bool, device=base.device)
    written: list[torch.Tensor] = []
    for step in range(limit):
        hidden = base.decoder(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits = base.head(hidden[:, -1])
        following = logits.argmax(-1) if sampler is None else sampler(logits)
        following = torch.where(finished, pad, following)
        # Rows that are done write the end of sequence from here on, so that cutting at the first one is enough.
        written.append(torch.where(finished, end, following))
        finished = finished | (following == end)
        if step + 1 == limit or bool(finished.all()):
            break
        ids = following[:, None]
        mask = torch.cat([mask, mask.new_ones((len(prompts), 1))], dim=-1)
        positions = positions[:, -1:] + 1
    return [cut(row, end) for row in torch.stack(written, dim=-1).tolist()]


class _Sampler:
    """Temperature, top-k and top-p sampling, as the seed protocol decoded; seeded apart from everything else."""

    def __init__(self, settings: Sampling, seed: int, device: str) -> None:
        self._settings = settings
        self._generator = torch.Generator(device=device).manual_seed(seed)

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        scores = logits.float() / self._settings.temperature
        if self._settings.top_k:
            kept = scores.topk(min(self._settings.top_k, scores.shape[-1]), dim=-1).values[:, -1:]
            scores = scores.masked_fill(scores < kept, float("-inf"))
        if self._settings.top_p < 1.0:
            ordered, order = scores.sort(dim=-1, descending=True)
            before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
            ordered = ordered.masked_fill(before >= self._settings.top_p, float("-inf"))
            scores = torch.full_like(scores, float("-inf")).scatter(-1, order, ordered)
        return torch.multinomial(scores.softmax(-1), 1, generator=self._generator)[:, 0]
