"""Where the GPU's time of a training step goes, kernel by kernel, beside what its arithmetic needs at the least.

python -m tests.benchmarks.profile_step --model random/phi-2 --dialogues FILE.jsonl --precision bf16,nf4

The same steps are made in four passes: shapes are captured in the first two, the third is timed, and the fourth is
profiled (CUPTI through torch.profiler, which slows it down a little). `least` is the arithmetic of a frozen base with
LoRA (tests.benchmarks.measuring.Flops) at the rate of a large bf16 matrix product on the same card. Kernels are sorted
by their names, so that products of adapters count with those of the base.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from harness.engine import training as engine
from harness.engine.adapting import attach, detach
from harness.engine.batches import TrainingPlan, training_plan
from harness.engine.encoding import Encoded, Encoder
from harness.engine.loading import load_base
from harness.engine.sources import model_folder
from harness.engine.training import Recipe, train
from harness.engine.trying import PROBE, probe_arm
from harness.messages import Device
from study.arms import Precision
from study.dialogues import generate
from study.prompts import TEMPLATES
from study.rows import examples_of
from study.settings import EngineSettings, Training
from study.space import Hyperparameters
from tests.benchmarks.measuring import LEARNING_RATE, SEED, Count, flops_of, matmul_rate

PASSES = 4
# What the names of kernels have in them, in the order in which they are asked.
KINDS = (
    ("dequantise the base", ("dequantize", "unpack_4bit")),
    ("add adapters, with GELU", ("add_low_rank",)),
    ("quantise inputs (LLM.int8)", ("int8", "quant")),
    ("attention", ("flash", "fmha", "sdpa", "attention")),
    ("matrix products", ("gemm", "nvjet", "cutlass", "xmma", "splitk", "cublas")),
    ("norms", ("norm",)),
    ("update of the adapter", ("multi_tensor", "adam")),
    ("compiled elementwise", ("triton",)),
    ("loss", ("softmax", "nll", "cross_entropy")),
    ("copies and fills", ("memcpy", "memset", "copy", "fill", "cat")),
)
OTHER = "other elementwise"


@dataclass(frozen=True, slots=True)
class Profile:
    """Milliseconds a step: of each kind of kernel, by the clock, and what the arithmetic needs at the least."""

    kinds: dict[str, float]
    wall: float
    least: float

    @property
    def idle(self) -> float:
        """What no kernel accounts for; kernels that run side by side count twice, and make it less."""
        return self.wall - sum(self.kinds.values())


def kind_of(kernel: str) -> str:
    """Which row of the table a kernel belongs to."""
    name = kernel.lower()
    return next((kind for kind, words in KINDS if any(word in name for word in words)), OTHER)


class Watch:
    """Times the passes before the last, and profiles the last."""

    def __init__(self, steps: int, device: Device) -> None:
        self._steps = steps
        activity = ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU
        self._profile = profile(activities=[activity])
        self._since = 0.0
        self.seconds = 0.0

    def on_step(self, number: int) -> None:
        """Step `number` (from 1) is done, and its loss was read."""
        if number == (PASSES - 2) * self._steps:
            self._since = time.monotonic()
        if number == (PASSES - 1) * self._steps:
            self.seconds = time.monotonic() - self._since
            self._profile.start()
        if number == PASSES * self._steps:
            self._profile.stop()

    def kernels(self) -> Iterator[tuple[str, float]]:
        """Name and milliseconds of everything that ran on the device."""
        for event in self._profile.events() or ():
            if event.device_type.name == "CUDA":
                yield event.name, event.self_device_time_total / 1000


def profiled(folder: str, device: Device, precision: Precision, options: argparse.Namespace, matmul: float) -> Profile:
    """One training of `PASSES` passes over the same steps; `matmul` in floating-point operations a second."""
    arm = probe_arm(precision)
    training = _training(options)
    base = load_base(folder, arm, device, model_dropout=False)
    encoded = Encoder(base.tokenizer, TEMPLATES["instruct"], training.max_tokens).encode(_examples(options))
    lengths = [example.length for example in encoded]
    once = training_plan(lengths, training, options.steps, SEED).steps
    adapter = attach(base, arm, Hyperparameters(options.rank, options.rank, LEARNING_RATE), training, SEED)
    flops = flops_of(adapter.model)
    watch = Watch(options.steps, device)
    recipe = Recipe(training, LEARNING_RATE, SEED, arm.checkpointing)
    try:
        with mock.patch.object(engine, "training_plan", return_value=TrainingPlan(once * PASSES)):
            train(base, adapter, encoded, recipe, lambda number, *_: watch.on_step(number))
    finally:
        detach(adapter)
    kinds: defaultdict[str, float] = defaultdict(float)
    kernels: defaultdict[str, list[float]] = defaultdict(list)
    for name, milliseconds in watch.kernels():
        kinds[kind_of(name)] += milliseconds / options.steps
        kernels[name].append(milliseconds)
    for name, each in sorted(kernels.items(), key=lambda item: -sum(item[1]))[: options.kernels]:
        told = f"{sum(each) / options.steps:6.2f} ms in {len(each) / options.steps:5.0f} calls a step"
        print(f"{precision} {told}, {kind_of(name)}: {name[:200]}", file=sys.stderr)
    needed = flops.of(_count([encoded[index] for step in once for index in step]))
    return Profile(dict(kinds), 1000 * watch.seconds / options.steps, 1000 * needed / matmul / options.steps)


def _training(options: argparse.Namespace) -> Training:
    settings = EngineSettings(pad_to_multiple=32, pass_tokens=options.pass_tokens, pool_steps=64)
    return replace(
        PROBE,
        steps=PASSES * options.steps,
        batch_size=options.batch,
        micro_batch_size=options.batch,
        max_tokens=1024,
        length_grouping=True,
        engine=settings,
    )


def _examples(options: argparse.Namespace) -> Any:
    if options.dialogues is None:
        return generate(3, {"train": 64}, turns=(4, 8))["train"]
    lines = options.dialogues.read_text(encoding="utf-8").splitlines()
    return tuple(examples_of(map(json.loads, lines), "dialogue", None, options.dialogues.name))


def _count(examples: Sequence[Encoded]) -> Count:
    lengths = [example.length for example in examples]
    learned = sum(len(example.completion) for example in examples)
    return Count(sum(lengths), sum(lengths), learned, sum(length**2 for length in lengths))


def table(profiles: dict[str, Profile]) -> str:
    """Milliseconds a step as a Markdown table, a column for each precision."""
    kinds = sorted({kind for one in profiles.values() for kind in one.kinds}, key=_order)
    rows = {kind: [one.kinds.get(kind, 0.0) for one in profiles.values()] for kind in kinds}
    rows["no kernel"] = [one.idle for one in profiles.values()]
    rows["by the clock"] = [one.wall for one in profiles.values()]
    rows["least for the arithmetic"] = [one.least for one in profiles.values()]
    lines = [f"| ms a step | {' | '.join(profiles)} |", f"|---|{'---:|' * len(profiles)}"]
    lines += [f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} |" for name, values in rows.items()]
    return "\n".join(lines)


def _order(kind: str) -> int:
    names = [name for name, _ in KINDS]
    return names.index(kind) if kind in names else len(names)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="random/phi-2")
    parser.add_argument("--dialogues", type=Path, help="a .jsonl file; generated ones without it")
    parser.add_argument("--precision", default="bf16,nf4", help="one or more, with commas")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12, help="steps of a pass")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--pass-tokens", type=int, default=4096)
    parser.add_argument("--kernels", type=int, default=0, metavar="N", help="on standard error, the N longest kernels")
    options = parser.parse_args(arguments)
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = model_folder(options.model, None, device).folder
    # matmul_rate gives TFLOP/s.
    matmul = matmul_rate(device) * 1e12
    profiles = {}
    for name in options.precision.split(","):
        profiles[name] = profiled(folder, device, Precision(name), options, matmul)
    print(table(profiles))


if __name__ == "__main__":
    main()
