"""What `doctor` asks of a worker: does a tiny model really load and train in each precision?"""

import time

import torch

from harness.engine.adapting import attach, detach, moved
from harness.engine.encoding import Encoded
from harness.engine.loading import load_base, quiet_libraries
from harness.engine.sources import model_folder
from harness.engine.training import Recipe, train
from harness.messages import Device, PrecisionsTried, PrecisionTrial, TryPrecisions
from study.arms import DEFAULT_COMPUTE, Arm, Method, Precision
from study.settings import EngineSettings, Training
from study.space import Hyperparameters

PROBE = Training(
    steps=2,
    epochs=None,
    batch_size=2,
    micro_batch_size=2,
    max_tokens=64,
    optimizer="adamw",
    schedule="constant",
    warmup_ratio=0.0,
    weight_decay=0.0,
    max_grad_norm=1.0,
    adapter_dtype="fp32",
    model_dropout=False,
    loss_on="completion",
    length_grouping=False,
    engine=EngineSettings(),
)


def try_precisions(request: TryPrecisions) -> PrecisionsTried:
    """Two steps of LoRA on a tiny random Phi in each precision."""
    quiet_libraries()
    folder = model_folder("random/tiny-phi", None, "cpu").folder
    return PrecisionsTried(tuple(_try(Precision(name), folder, request.device) for name in request.precisions))


def _try(precision: Precision, folder: str, device: Device) -> PrecisionTrial:
    start = time.monotonic()
    error: str | None = None
    try:
        _train_briefly(precision, folder, device)
    except Exception as failure:  # noqa: BLE001 - any failure at all is the answer to the question
        error = f"{type(failure).__name__}: {str(failure).splitlines()[0] if str(failure) else ''}"
    return PrecisionTrial(precision, time.monotonic() - start, error)


def probe_arm(precision: Precision, method: Method = Method.LORA) -> Arm:
    """An arm of one precision with everything else at its default."""
    return Arm(
        name=f"{method}-{precision}",
        family=f"{method}-{precision}",
        axes=(),
        precision=precision,
        method=method,
        compute_dtype=DEFAULT_COMPUTE[precision],
        double_quant=True if precision.is_4bit else None,
        targets=("all-linear",),
        dropout=0.0,
        checkpointing=False,
    )


def _train_briefly(precision: Precision, folder: str, device: Device) -> None:
    arm = probe_arm(precision)
    base = load_base(folder, arm, device, model_dropout=False)
    adapter = attach(base, arm, Hyperparameters(4, 8, 1e-3), PROBE, seed=0)
    ids = torch.randint(0, 500, (4, 24), generator=torch.Generator().manual_seed(0)).tolist()
    examples = [Encoded(str(number), tuple(row[:16]), tuple(row[16:]), False) for number, row in enumerate(ids)]
    train(base, adapter, examples, Recipe(PROBE, 1e-3, seed=0), lambda *_: None)
    share = moved(adapter)
    detach(adapter)
    if share == 0.0:
        raise RuntimeError("no adapter matrix moved")
