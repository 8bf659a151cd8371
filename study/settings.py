"""Training and generation settings: the same for every arm of a study."""

from dataclasses import dataclass
from typing import Literal

from study.arms import Dtype

# `seed` re-runs an old notebook and allows what a study must not do.
Protocol = Literal["paper", "seed"]
Optimizer = Literal["adamw", "paged_adamw_8bit"]
Schedule = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Levers of speed that must not move the numbers; each can be switched off.

    A lever that came later is None when it is off: a digest leaves that out, so that older runs keep their names.
    """

    # Logits at completion positions only, instead of over the whole sequence.
    completion_logits: bool = True
    # Lengths are rounded up to a multiple of this many tokens.
    pad_to_multiple: int = 8
    # A linear layer and its adapter as one operation that keeps its input once; tanh-GELU in one kernel.
    fused: Literal[True] | None = True
    # A step's dialogues are passed through the model in parts of at most this many padded tokens; None: all at once.
    pass_tokens: int | None = None
    # Similar lengths are looked for among this many steps' dialogues; None: 16, and at most a quarter of an epoch.
    pool_steps: int | None = None
    # On a GPU: a step's forward, backward and update captured once per width and replayed.
    cuda_graphs: Literal[True] | None = True
    # On a GPU, where layers are fused: what is bound by memory (adapters' sums, GELU, rotations, unpacking 4-bit
    # weights) by kernels of this project's, in Triton.
    kernels: Literal[True] | None = True


@dataclass(frozen=True, slots=True)
class Training:
    """How an adapter is trained. `batch_size` counts dialogues per optimizer step; lengths are in tokens."""

    steps: int | None
    epochs: float | None
    batch_size: int
    micro_batch_size: int
    max_tokens: int
    optimizer: Optimizer
    schedule: Schedule
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    adapter_dtype: Literal["fp32", "compute"]
    model_dropout: bool
    loss_on: Literal["completion", "all"]
    length_grouping: bool
    engine: EngineSettings


@dataclass(frozen=True, slots=True)
class Sampling:
    """Random decoding, allowed only when an old protocol is re-run."""

    temperature: float
    top_p: float
    top_k: int


@dataclass(frozen=True, slots=True)
class Generation:
    """How summaries are written; greedy unless `sampling` is given. `dtype` None: chosen by device, and recorded."""

    max_new_tokens: int
    batch_size: int
    dtype: Dtype | None
    sampling: Sampling | None
    # Keys and values in tensors of fixed size; on a GPU each new token is then one replayed graph. None: they grow.
    static_cache: Literal[True] | None = True
