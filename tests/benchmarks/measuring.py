"""What every engine of a comparison is given, and how each is read: real tokens, seconds, memory, arithmetic."""

import gc
import json
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.engine.encoding import Encoded, Encoder
from harness.messages import Device
from study.arms import Precision
from study.dialogues import generate
from study.examples import Example
from study.prompts import TEMPLATES

MATMUL = "matmul"
LEARNING_RATE = 1e-4
SEED = 17
_LABEL = re.compile(r"(?P<engine>[a-z]+)(-(?P<precision>[a-z0-9]+))?(/(?P<variants>[a-z0-9+-]+))?(@(?P<batch>\d+))?")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says about all engines. `steps` are timed, `warmup` come before them."""

    folder: str
    device: Device
    batch: int
    steps: int
    warmup: int
    rounds: int
    seconds_limit: float
    rank: int
    trl_rank: int
    trl_dropout: float
    hf_steps: int
    hf_warmup: int
    model_dropout: bool


@dataclass(frozen=True, slots=True)
class Job:
    """One row that was asked for: `ours-nf4/fused+pad64@32`."""

    label: str
    engine: str
    precision: Precision | None
    variants: tuple[str, ...]
    batch: int


def parsed(label: str, batch: int) -> Job:
    """The job that a label names.

    Raises:
        ValueError: it is not written as `engine-precision/variant+variant@batch`.
    """
    match = _LABEL.fullmatch(label)
    if match is None or (match["precision"] is None) != (match["engine"] == MATMUL):
        raise ValueError(f"{label!r}: written as engine-precision/variant+variant@batch, or {MATMUL}")
    variants = tuple(match["variants"].split("+")) if match["variants"] else ()
    precision = None if match["precision"] is None else Precision(match["precision"])
    return Job(label, match["engine"], precision, variants, int(match["batch"] or batch))


@dataclass(frozen=True, slots=True)
class Count:
    """One batch in numbers: real tokens, positions with padding, learned tokens, Σ of squared lengths."""

    tokens: int
    positions: int
    learned: int
    squares: int


def summed(counts: Sequence[Count]) -> Count:
    """Several batches as one."""
    return Count(
        sum(count.tokens for count in counts),
        sum(count.positions for count in counts),
        sum(count.learned for count in counts),
        sum(count.squares for count in counts),
    )


@dataclass(frozen=True, slots=True)
class Flops:
    """Arithmetic that training a frozen base with LoRA needs, however an engine does it (recomputation is not counted).

    Frozen linear layers cost 2 a weight forward and 2 back (no gradient of the weight), adapters 2 and 4, the head at
    learned positions only, causal attention 2 · length² · hidden a layer forward and twice that back.
    """

    a_token: int
    a_learned: int
    a_square: int

    def of(self, count: Count) -> int:
        """Floating-point operations of batches."""
        return self.a_token * count.tokens + self.a_learned * count.learned + self.a_square * count.squares


def flops_of(model: Any) -> Flops:
    """What an adapted model needs, read from the shapes of its layers."""
    head = model.get_output_embeddings()
    a_token = a_learned = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            size = module.in_features * module.out_features
            if module is head:
                a_learned += 4 * size
            else:
                a_token += (6 if "lora_" in name else 4) * size
    return Flops(a_token, a_learned, 6 * model.config.hidden_size * model.config.num_hidden_layers)


@dataclass(slots=True)
class Row:
    """What is known of one job; what is not stays None. Memory in MiB, `steady` without warm-up."""

    label: str
    engine: str
    precision: str | None
    batch: int
    rank: int | None = None
    steps: int | None = None
    tokens: int | None = None
    padding_share: float | None = None
    learned_share: float | None = None
    seconds: float | None = None
    rate: float | None = None
    steady_steps: int | None = None
    steady_tokens: int | None = None
    steady_seconds: float | None = None
    steady_rate: float | None = None
    flops_per_token: float | None = None
    tflops: float | None = None
    loss_mean: float | None = None
    loss_last: float | None = None
    loaded_mib: float | None = None
    allocated_mib: float | None = None
    reserved_mib: float | None = None
    load_seconds: float | None = None
    wall_seconds: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def row_of(job: Job, rank: int | None = None, error: str | None = None) -> Row:
    """The empty row of a job."""
    return Row(job.label, job.engine, job.precision, job.batch, rank=rank, error=error)


def synchronize(device: str) -> None:
    """Waits until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


class Meter:
    """The clock and the memory of one training; both start when everything is loaded.

    The clock is read behind `synchronize`, after the last warm-up step and after the last step; in between the host is
    left to run ahead.
    """

    def __init__(self, device: str, warmup: int, total: int, limit: float) -> None:
        self.total = total
        self._device = device
        self._warmup = warmup
        self._limit = limit
        self._stamps: list[float] = []
        self.loaded: float | None = None

    @property
    def steps(self) -> int:
        """Steps that were done."""
        return len(self._stamps) - 1

    def start(self) -> None:
        """Training begins: peaks are those of what follows, its warm-up included."""
        gc.collect()
        if self._device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.loaded = torch.cuda.memory_allocated() / 2**20
        self._stamps = [time.monotonic()]

    def step(self) -> bool:
        """Takes note of one more step; True where it is the last one, also because the time is up."""
        number = len(self._stamps)
        late = number > self._warmup and time.monotonic() - self._stamps[self._warmup] > self._limit
        last = number >= self.total or late
        if last or number == self._warmup:
            synchronize(self._device)
        self._stamps.append(time.monotonic())
        return last

    def read(self, row: Row, counts: Sequence[Count], flops: Flops, apart: Collection[int] = ()) -> None:
        """Fills a row in.

        Args:
            counts: of every step.
            apart: numbers of steps (from 1) that are no steady state. Every step's stamp must then be exact.
        """
        everything = summed(counts[: self.steps])
        row.steps = self.steps
        row.tokens = everything.tokens
        row.padding_share = 1 - everything.tokens / everything.positions
        row.learned_share = everything.learned / everything.tokens
        row.seconds = self._stamps[-1] - self._stamps[0]
        row.rate = everything.tokens / row.seconds
        row.flops_per_token = flops.of(everything) / everything.tokens
        row.loaded_mib = self.loaded
        steady = [number for number in range(self._warmup + 1, self.steps + 1) if number not in apart]
        if not steady:
            row.facts["steady"] = "no step is left"
            return
        total = summed([counts[number - 1] for number in steady])
        row.steady_steps = len(steady)
        row.steady_tokens = total.tokens
        row.steady_seconds = sum(self._stamps[number] - self._stamps[number - 1] for number in steady)
        row.steady_rate = total.tokens / row.steady_seconds
        row.tflops = flops.of(total) / row.steady_seconds / 1e12


def read_memory(row: Row, device: str) -> None:
    """The allocator's peaks since the meter was started, also after a failure."""
    if device == "cuda" and torch.cuda.is_initialized():
        row.allocated_mib = torch.cuda.max_memory_allocated() / 2**20
        row.reserved_mib = torch.cuda.max_memory_reserved() / 2**20


def dialogues(path: Path | None, limit: int) -> tuple[Example, ...]:
    """The first `limit` rows of a JSONL file (`dialogue`, `summary`), or as many of the project's own dialogues."""
    if path is None:
        return generate(0, {"train": limit})["train"]
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line][:limit]
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return tuple(Example(str(number), row["dialogue"], (row["summary"],)) for number, row in enumerate(rows))


def encoded(tokenizer: Any, examples: Sequence[Example], max_tokens: int) -> tuple[Encoded, ...]:
    """Examples as every engine sees them."""
    return Encoder(tokenizer, TEMPLATES["instruct"], max_tokens).encode(examples)


def matmul_rate(device: Device) -> float:
    """TFLOP/s of bf16 products of random 8192 × 8192 matrices: what the card really gives (small ones on a CPU)."""
    size, repeats = (8192, 100) if device == "cuda" else (256, 5)
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(left)
    for _ in range(repeats // 5):
        torch.matmul(left, right, out=out)
    synchronize(device)
    start = time.monotonic()
    for _ in range(repeats):
        torch.matmul(left, right, out=out)
    synchronize(device)
    return 2 * size**3 * repeats / (time.monotonic() - start) / 1e12
