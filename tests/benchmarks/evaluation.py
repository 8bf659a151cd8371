"""How long an evaluation takes: every dialogue tokenised, answered and turned to text, by how tokens are made.

python -m tests.benchmarks.evaluation --model random/phi-2 --dialogues FILE.jsonl --count 500 --new-tokens 40
    --batch 250 --precisions bf16,nf4,int8 [--paths graph,eager,dynamic,one-by-one,hf] [--out FILE.json]

`graph` is the engine as studies have it, `eager` its steps launched one by one, `dynamic` the engine without
`generation.static_cache`; `one-by-one` and `hf` are transformers' generate, for one dialogue and in batches of the same
plan. All have a LoRA adapter of rank 16 on every linear layer. Seconds hold captures and tokenisation, and neither the
loss on the references nor ROUGE, which have columns and a line of their own. `~` marks what was measured on a part and
scaled to all dialogues: one-by-one always, others where --limit-s was met.

Random weights have no reason to stop, so that all rows go to the limit (`tokens` shows whether they did); answers of a
trained model end earlier, and a batch with its longest.
"""

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.messages import Device
from tests.benchmarks.engines import _ENVIRONMENT

PATHS = ("graph", "eager", "dynamic", "one-by-one", "hf")
SINGLE = 6
SCORED = 40


@dataclass(frozen=True, slots=True)
class Question:
    """What is measured in one process."""

    folder: str
    device: Device
    precision: str
    dialogues: Path | None
    count: int
    new_tokens: int
    batch: int
    max_tokens: int
    paths: tuple[str, ...]
    limit_s: float


@dataclass(slots=True)
class Timing:
    """One row of the table; seconds of all dialogues, memory in MiB."""

    precision: str
    path: str
    decode: str = ""
    reason: str | None = None
    seconds: float | None = None
    scaled: bool = False
    tokenise_s: float | None = None
    loss_s: float | None = None
    tokens: int | None = None
    of_tokens: int | None = None
    peak_mib: float | None = None
    error: str | None = None


def main() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    arguments = _arguments()
    # Imported here: the environment above is read while they are.
    import torch

    from tests.benchmarks.forking import Runner, preload

    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    runner = Runner(preload(), 60 + len(PATHS) * 2 * arguments.limit_s, verbose=arguments.verbose)
    folder = runner.folder(arguments.model, device)
    rows: list[Timing] = []
    facts: dict[str, Any] = {"model": arguments.model, "batch": arguments.batch, "new_tokens": arguments.new_tokens}
    for precision in arguments.precisions.split(","):
        question = Question(
            folder=folder,
            device=device,
            precision=precision,
            dialogues=arguments.dialogues,
            count=arguments.count,
            new_tokens=arguments.new_tokens,
            batch=arguments.batch,
            max_tokens=arguments.max_tokens,
            paths=tuple(arguments.paths.split(",")),
            limit_s=arguments.limit_s,
        )
        done = runner._run(_measured, (question,), 120 + len(question.paths) * 2 * arguments.limit_s)
        if isinstance(done, tuple):
            rows += done[0]
            facts |= done[1]
        else:
            rows.append(Timing(precision, "all", error=str(done)))
        if arguments.out is not None:
            arguments.out.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1))
    _print(rows, facts)
    print(_rouge_line(arguments.dialogues, arguments.count))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random/phi-2")
    parser.add_argument("--dialogues", type=Path, help="JSONL of dialogue and summary; default: generated ones")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--new-tokens", type=int, default=40)
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--max-tokens", type=int, default=2048)
    parser.add_argument("--precisions", default="bf16,nf4,int8")
    parser.add_argument("--paths", default="graph,eager,one-by-one,hf", help=f"of {', '.join(PATHS)}")
    parser.add_argument("--limit-s", type=float, default=30.0, help="seconds after which a path is left and scaled")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    unknown = set(arguments.paths.split(",")) - set(PATHS)
    if unknown:
        parser.error(f"paths are {', '.join(PATHS)}, not {', '.join(sorted(unknown))}")
    return arguments


def _measured(question: Question) -> tuple[list[Timing], dict[str, Any]]:
    """All paths of one precision, in one process: what each costs is more than what an earlier one has warmed."""
    bench = _Bench(question)
    rows: list[Timing] = []
    for path in question.paths:
        same = next((row for row in rows if row.path == "graph" and row.decode == "eager"), None)
        if path == "eager" and same is not None:
            continue
        row = Timing(question.precision, path)
        try:
            bench.measure(row)
        except Exception as error:  # noqa: BLE001 - a path that fails is a finding
            row.error = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        rows.append(row)
    return rows, bench.facts


class _Bench:
    """A base with its adapter, and the dialogues; every path is timed from their text to the answers' text."""

    def __init__(self, question: Question) -> None:
        import torch

        from harness.engine.adapting import attach
        from harness.engine.encoding import Encoder
        from harness.engine.loading import load_base
        from harness.engine.trying import PROBE, probe_arm
        from study.arms import Precision
        from study.prompts import TEMPLATES
        from study.space import Hyperparameters
        from tests.benchmarks.measuring import dialogues

        self._torch = torch
        self._question = question
        arm = probe_arm(Precision(question.precision))
        self._base = load_base(question.folder, arm, question.device, model_dropout=False)
        attach(self._base, arm, Hyperparameters(16, 16, 1e-4), PROBE, seed=0).model.eval()
        self._examples = dialogues(question.dialogues, question.count)
        self._encoder = Encoder(self._base.tokenizer, TEMPLATES["instruct"], question.max_tokens)
        self._encoded = self._encode()
        lengths = [len(item.prompt) for item in self._encoded]
        self.facts = {
            "device": torch.cuda.get_device_name(0) if question.device == "cuda" else "CPU",
            "dialogues": len(lengths),
            "prompt_tokens": {"least": min(lengths), "mean": sum(lengths) / len(lengths), "most": max(lengths)},
        }
        self._loss_s: float | None = None

    def measure(self, row: Timing) -> None:
        """Fills a row in; what a path needs once in a process is done before, on eight dialogues and two tokens."""
        self._run(row, self._plan(self._encoded[:8], 8), 2, lambda: False)
        if self._loss_s is None:
            self._loss_s = self._loss()
        row.loss_s = self._loss_s
        cuda = self._torch.cuda
        if self._question.device == "cuda":
            cuda.empty_cache()
            cuda.reset_peak_memory_stats()
        start = self._now()
        plan = self._plan(self._encode(), 1 if row.path == "one-by-one" else self._question.batch)
        row.tokenise_s = self._now() - start
        total = len(self._encoded)
        if row.path == "one-by-one":
            plan = [plan[at * len(plan) // SINGLE] for at in range(min(SINGLE, len(plan)))]
        limit = time.monotonic() + self._question.limit_s
        done, row.tokens = self._run(row, plan, self._question.new_tokens, lambda: time.monotonic() > limit)
        seconds = self._now() - start - row.tokenise_s
        row.seconds = row.tokenise_s + seconds * total / done
        row.scaled, row.of_tokens = done < total, done * self._question.new_tokens
        if self._question.device == "cuda":
            row.peak_mib = cuda.max_memory_allocated() / 2**20

    def _encode(self) -> tuple[Any, ...]:
        return self._encoder.encode(self._examples, reserve=self._question.new_tokens)

    @staticmethod
    def _plan(encoded: Sequence[Any], batch: int) -> list[tuple[int, ...]]:
        from harness.engine.batches import evaluation_plan

        return list(evaluation_plan([len(item.prompt) for item in encoded], batch))

    def _now(self) -> float:
        if self._question.device == "cuda":
            self._torch.cuda.synchronize()
        return time.monotonic()

    def _loss(self) -> float:
        from harness.engine.batches import loss_plan
        from harness.engine.training import validation_loss
        from study.settings import EngineSettings

        plan = loss_plan([item.length for item in self._encoded])
        validation_loss(self._base, self._encoded, plan[-1:], EngineSettings())
        start = self._now()
        validation_loss(self._base, self._encoded, plan, EngineSettings())
        return self._now() - start

    def _run(
        self, row: Timing, plan: Sequence[Sequence[int]], new_tokens: int, late: Callable[[], bool]
    ) -> tuple[int, int]:
        """Answers the batches of a plan until it is late: dialogues answered, tokens written."""
        engine = row.path in ("graph", "eager", "dynamic")
        batches = self._engine(row, plan, new_tokens) if engine else self._hf(row, plan, new_tokens)
        done = tokens = 0
        for answers in batches:
            for ids in answers:
                self._base.tokenizer.decode(ids, skip_special_tokens=True)
                tokens += len(ids)
            done += len(answers)
            if late():
                break
        return done, tokens

    def _engine(self, row: Timing, plan: Sequence[Sequence[int]], new_tokens: int) -> Iterator[list[list[int]]]:
        from harness.engine.generating import Writer
        from study.settings import Generation

        generation = Generation(new_tokens, self._question.batch, None, None)
        writer = Writer(self._base, replace(generation, static_cache=None) if row.path == "dynamic" else generation)
        if row.path == "eager" and writer.decoding.how == "graph":
            writer.decoding.how = "eager"
        for batch in writer.write(self._encoded, plan):
            row.decode, row.reason = writer.decoding.how, writer.decoding.reason
            yield [list(written.ids) for written in batch]

    def _hf(self, row: Timing, plan: Sequence[Sequence[int]], new_tokens: int) -> Iterator[list[list[int]]]:
        torch, tokenizer, device = self._torch, self._base.tokenizer, self._question.device
        pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
        row.decode = "generate"
        for indices in plan:
            prompts = [self._encoded[index].prompt for index in indices]
            width = max(len(prompt) for prompt in prompts)
            ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
            out = self._base.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=pad,
                eos_token_id=end,
            )
            yield [(line[: line.index(end)] if end in line else line) for line in out[:, width:].tolist()]


def _print(rows: Sequence[Timing], facts: dict[str, Any]) -> None:
    prompt = facts.get("prompt_tokens", {})
    print(
        f"{facts['model']} on {facts.get('device')}: {facts.get('dialogues')} dialogues of {prompt.get('least')} to "
        f"{prompt.get('most')} tokens (mean {prompt.get('mean', 0):.0f}), batch {facts['batch']}, "
        f"{facts['new_tokens']} new tokens; random weights do not stop early"
    )
    print(
        "| precision | path | seconds of all | a dialogue, ms | tokenising, s | loss, s | tokens | peak, MiB | decode |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---|")
    for row in rows:
        if row.error is not None or row.seconds is None:
            print(f"| {row.precision} | {row.path} | | | | | | | {row.error} |")
            continue
        mark = "~" if row.scaled else ""
        each = 1000 * row.seconds / facts["dialogues"]
        told = row.decode if row.reason is None else f"{row.decode}: {row.reason}"
        print(
            f"| {row.precision} | {row.path} | {mark}{row.seconds:.2f} | {mark}{each:.1f} | {row.tokenise_s or 0:.2f} "
            f"| {row.loss_s or 0:.2f} | {row.tokens} of {row.of_tokens} | {row.peak_mib or 0:.0f} | {told} |"
        )


def _rouge_line(path: Path | None, count: int) -> str:
    """Scoring's own time, on a processor: summaries against those of their neighbours, since nothing here is good."""
    from harness.scores import Rouge
    from tests.benchmarks.measuring import dialogues

    texts = [example.references[0] for example in dialogues(path, min(count, SCORED + 1))]
    rouge = Rouge()
    start = time.monotonic()
    for answer, reference in itertools.pairwise(texts):
        rouge.score(answer, (reference,))
    each = (time.monotonic() - start) / max(len(texts) - 1, 1)
    return (
        f"ROUGE on one core: ~{each * count:.2f} s for {count} dialogues of one reference ({each * 1000:.2f} ms each)"
    )


if __name__ == "__main__":
    main()
