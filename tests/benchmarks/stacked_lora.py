"""Several trials at once over one frozen base, against the same trials one after another through the finished engine.

python -m tests.benchmarks.stacked_lora --dialogues train.jsonl [--precision bf16,nf4] [--trials 2,4] [--out FILE]
python -m tests.benchmarks.stacked_lora --check    in fp32: are the losses of 50 steps those of separate runs, to 1e-5?
python -m tests.benchmarks.stacked_lora --dry      does it run? A tiny model, generated dialogues

Rates are real tokens a second over the last of `1 + warmup` passes over the same batches: kernels are loaded and shapes
captured by then, for both sides. `--order shared` gives all trials one seed and hence one data order, as a study's tune
stage does; with `own` each has its own, and a step is as wide as the widest of its batches.
Exit status: 0, or 1 where --check fails.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from harness.engine.encoding import Encoder
from harness.engine.loading import load_base
from harness.engine.sources import model_folder
from harness.engine.trying import PROBE, probe_arm
from harness.messages import Device
from study.arms import Precision
from study.dialogues import generate
from study.examples import Example
from study.prompts import TEMPLATES
from study.rows import examples_of
from study.space import Hyperparameters
from tests.benchmarks.stacked import Trial
from tests.benchmarks.stacked_measuring import Bench, OutOfTime, Reading

GAIN = 1.5
TOLERANCE = 1e-5
CHECK_STEPS = 50
SEED = 0
# Sets from the middle of the study's space; a stack of two is padded to rank 16, one of four to rank 32.
SETS = tuple(Hyperparameters(*values) for values in ((16, 32, 2e-4), (8, 16, 5e-4), (32, 64, 1e-4), (16, 16, 3e-4)))


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison; `failure` says why a side has no reading."""

    precision: str
    order: str
    trials: int
    separate: Reading | None
    stacked: Reading | None
    failure: str | None

    @property
    def ratio(self) -> float | None:
        """How many times the tokens per second of separate runs."""
        return None if self.separate is None or self.stacked is None else self.stacked.rate / self.separate.rate


def trials_of(count: int, order: str) -> tuple[Trial, ...]:
    """The trials of a comparison."""
    return tuple(Trial(SETS[n % len(SETS)], SEED if order == "shared" else SEED + n) for n in range(count))


def compared(bench: Bench, orders: Sequence[str], counts: Sequence[int]) -> Iterator[Row]:
    """Every comparison; a trial that is in several is timed once."""
    known: dict[Trial, Reading] = {}
    for order in orders:
        for count in counts:
            trials = trials_of(count, order)
            separate: Reading | None = None
            stacked: Reading | None = None
            failure: str | None = None
            try:
                for trial in trials:
                    if trial not in known:
                        known[trial], _, levers = bench.separate(trial)
                        note(f"alone, {trial.hyperparameters}, seed {trial.seed}: {known[trial].rate:,.0f}/s, {levers}")
                separate = sum((known[trial] for trial in trials[1:]), start=known[trials[0]])
                stacked, _ = bench.stacked(trials)
                note(f"{count} stacked, {order} order: {stacked.rate:,.0f}/s")
            except OutOfTime:
                failure = "no: time limit"
            except RuntimeError as error:
                # Too little memory, in a capture too, is a finding; the next comparison may fit.
                failure = f"no: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"
            yield Row(str(bench.arm.precision), order, count, separate, stacked, failure)


def note(text: str) -> None:
    """Says on stderr how far it is."""
    print(text, file=sys.stderr, flush=True)


def furthest(bench: Bench, counts: Sequence[int]) -> float:
    """The largest difference of any loss between stacked and separate runs, in nats; data orders are unequal."""
    differences = [0.0]
    for count in counts:
        trials = trials_of(count, "own")
        _, losses = bench.stacked(trials)
        for own, trial in zip(losses, trials, strict=True):
            _, expected, _ = bench.separate(trial)
            differences += (abs(one - other) for one, other in zip(own, expected, strict=True))
    return max(differences)


def table(rows: Sequence[Row]) -> str:
    """The comparisons in Markdown."""
    heads = (
        "base", "data order", "trials", "one after another, tokens/s", "stacked, tokens/s", "ratio",
        "real share of tokens, alone / stacked", "peak alone / stacked, GiB", "warm-up alone / stacked, s",
        f"at least {GAIN}×",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|---|---|{'---:|' * 7}---|"]
    for row in rows:
        both = (row.separate, row.stacked)
        verdict = "no" if row.ratio is None or row.ratio < GAIN else "yes"
        cells = (
            row.precision,
            row.order,
            str(row.trials),
            *(_shown(reading, lambda one: f"{one.rate:,.0f}") for reading in both),
            "–" if row.ratio is None else f"{row.ratio:.2f}",
            " / ".join(_shown(reading, lambda one: f"{one.tokens / one.padded:.0%}") for reading in both),
            " / ".join(_shown(reading, _peak) for reading in both),
            " / ".join(_shown(reading, lambda one: f"{one.warm_seconds:.1f}") for reading in both),
            row.failure or verdict,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(reading: Reading | None, figure: Callable[[Reading], str]) -> str:
    return "–" if reading is None else figure(reading)


def _peak(reading: Reading) -> str:
    return "–" if reading.peak_allocated_bytes is None else f"{reading.peak_allocated_bytes / 2**30:.1f}"


def _examples(options: argparse.Namespace) -> tuple[Example, ...]:
    if options.dialogues is None:
        return tuple(generate(3, {"train": 64}, turns=(4, 8) if options.tiny else (8, 14))["train"])
    lines = options.dialogues.read_text(encoding="utf-8").splitlines()
    return tuple(examples_of(map(json.loads, lines), "dialogue", None, options.dialogues.name))


def _bench(options: argparse.Namespace, precision: Precision, deadline: float) -> Bench:
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    arm = replace(probe_arm(precision), targets=tuple(options.targets.split(",")))
    base = load_base(model_folder(options.model, None, device).folder, arm, device, model_dropout=False)
    passes = 1 if options.check else 1 + options.warmup
    training = replace(
        PROBE,
        steps=passes * options.steps,
        batch_size=options.batch,
        micro_batch_size=options.batch,
        max_tokens=options.max_tokens,
        schedule="cosine",
        warmup_ratio=0.03,
        length_grouping=True,
    )
    encoded = Encoder(base.tokenizer, TEMPLATES["instruct"], training.max_tokens).encode(_examples(options))
    return Bench(base, arm, encoded, training, passes, options.graphs, deadline)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="random/phi-2")
    parser.add_argument("--precision", default="bf16", help="one or more, with commas")
    parser.add_argument("--targets", default="all-linear")
    parser.add_argument("--trials", default="2,4", help="how many at once; one or more numbers, with commas")
    parser.add_argument("--order", default="shared,own")
    parser.add_argument("--batch", type=int, default=16, help="dialogues of each trial in a step")
    parser.add_argument("--steps", type=int, default=8, help="steps of a pass")
    parser.add_argument("--warmup", type=int, default=2, help="passes before the one that is timed")
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--dialogues", type=Path, help="a .jsonl file; generated ones without it")
    parser.add_argument("--graphs", action=argparse.BooleanOptionalAction, default=True, help="capture stacked steps")
    parser.add_argument("--limit-s", type=float, default=400.0, help="seconds after which nothing new is timed")
    parser.add_argument("--out", type=Path, help="a file for the figures as JSON")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args(arguments)
    if options.warmup < 2:
        # The very first step is computed outside any graph: its shape is captured in the second pass.
        parser.error("--warmup must be at least 2: all shapes are captured after two passes")
    refused = {"int8", "fp16"} & set(options.precision.split(","))
    if refused:
        parser.error(f"--precision {refused.pop()}: its trials cannot share a batch (tests/benchmarks/stacked.py)")
    options.tiny = options.dry or options.check
    if options.tiny:
        options.model, options.precision = "random/tiny-phi", "fp32"
        options.batch, options.steps = 4, CHECK_STEPS if options.check else 2
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    deadline = time.monotonic() + options.limit_s
    counts = [int(count) for count in options.trials.split(",")]
    rows: list[Row] = []
    for name in options.precision.split(","):
        bench = _bench(options, Precision(name), deadline)
        if options.check:
            difference = furthest(bench, counts)
            print(f"largest difference of a loss over {CHECK_STEPS} steps in fp32: {difference:.1e} nats")
            return 0 if difference <= TOLERANCE else 1
        for row in compared(bench, options.order.split(","), counts):
            rows.append(row)
            if options.out is not None:
                # Written as it comes: a machine may be taken back before the last of them.
                facts = {"torch": torch.__version__, "options": {k: str(v) for k, v in vars(options).items()}}
                facts["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
                figures = [asdict(one) | {"ratio": one.ratio} for one in rows]
                options.out.write_text(json.dumps(facts | {"rows": figures}, indent=1) + "\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
