"""Fine-tuning engines side by side: real tokens a second, peak memory and arithmetic on the same dialogues.

python -m tests.benchmarks.engines --model random/phi-2 --dialogues FILE.jsonl --batch 16 --out FILE.json
python -m tests.benchmarks.engines --dry

An engine is written `engine-precision/variant+variant@batch`: `ours-nf4`, `ours-bf16/fused+pad64@32`, `trl-int8`,
`hf-nf4`, `eager-bf16`; `matmul` is the ceiling. Variants are for ours: `eager`, `fused` and `graphs` name the levers
that are on (both, where none is named); `padN`, `passN`, `poolN`, `rankN`, `full-logits`, `checkpointing`,
`bf16-adapters`, `ungrouped` and `no-kernels` (PyTorch's operations instead of Triton's) change one setting each.
`ours-bf16@8,ours-bf16@32,ours-bf16/rank64` shows how it scales. Peers are no dependencies:
`pip install --no-deps trl==1.16.0`.

`tokens/s` is without warm-up (for ours with CUDA graphs also without captures, see `tests.benchmarks.ours`), `with
warm-up` is from the start of training to its last step. Memory is the allocator's peak over the whole training. What
fails stays in the table. The JSON is written anew after every engine.
"""

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

_ENVIRONMENT = {
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TORCH_WARM_POOL": "0",
    "CUDA_VISIBLE_DEVICES": "0",
}
ENGINES = "matmul,ours-bf16,ours-nf4,ours-int8,trl-bf16,trl-nf4,trl-int8,hf-nf4"
DRY = (
    "matmul,ours-bf16,ours-nf4,ours-int8,ours-bf16/eager,ours-bf16/fused,ours-bf16/graphs,ours-bf16/fused@8,"
    "trl-bf16,trl-nf4,trl-int8,hf-bf16,hf-nf4,hf-int8,eager-bf16,eager-nf4,eager-int8"
)
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "trl")


def main() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    arguments = _arguments()
    if arguments.model.startswith(("random/", "embedded/", ".", "/", "~")):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Imported here: the environment above is read while they are.
    import torch
    import transformers

    from tests.benchmarks.forking import Runner, preload
    from tests.benchmarks.measuring import Options, Row, dialogues, encoded, parsed

    jobs = [parsed(label, arguments.batch) for label in arguments.engines.split(",")]
    device: Any = "cpu" if arguments.dry or not torch.cuda.is_available() else "cuda"
    runner = Runner(preload(), arguments.engine_timeout, verbose=arguments.verbose)
    folder = runner.folder(arguments.model, device)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    examples = encoded(tokenizer, dialogues(arguments.dialogues, arguments.examples), arguments.max_tokens)
    # Grouping by length finds less to group in few dialogues than in a study's thousands.
    examples *= arguments.repeat
    options = Options(
        folder=folder,
        device=device,
        batch=arguments.batch,
        steps=arguments.steps or -(-len(examples) // arguments.repeat // arguments.batch),
        warmup=arguments.warmup,
        rounds=arguments.rounds,
        seconds_limit=arguments.seconds_limit,
        rank=arguments.rank,
        trl_rank=arguments.trl_rank or arguments.rank,
        trl_dropout=arguments.trl_dropout,
        hf_steps=arguments.hf_steps,
        hf_warmup=arguments.hf_warmup,
        model_dropout=arguments.model_dropout,
    )
    lengths = [example.length for example in examples]
    facts = {
        "model": arguments.model,
        "device": device,
        "start": runner.method,
        "dialogues": len(examples),
        "mean_tokens": sum(lengths) / len(lengths),
        "longest_tokens": max(lengths),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "options": {name: value for name, value in asdict(options).items() if name != "folder"},
    }
    print(json.dumps(facts), flush=True)
    rows: list[Row] = []
    for job in jobs:
        rows.append(runner.row(job, options, examples))
        print(_line(rows[-1]), file=sys.stderr, flush=True)
        if arguments.out is not None:
            told = {**facts, "rows": [asdict(row) for row in rows]}
            arguments.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="as a grid's model.id (random/phi-2)")
    parser.add_argument("--dialogues", type=Path, help="JSONL with dialogue and summary; else the project's own")
    parser.add_argument("--engines", help=f"comma-separated ({ENGINES})")
    parser.add_argument("--batch", type=int, help="dialogues a step (16)")
    parser.add_argument("--examples", type=int, help="at most so many dialogues (400)")
    parser.add_argument("--repeat", type=int, default=1, help="how often each of them is in the data (1)")
    parser.add_argument("--steps", type=int, help="timed steps (one pass over the dialogues)")
    parser.add_argument("--warmup", type=int, help="steps before (5)")
    parser.add_argument("--rounds", type=int, default=3, help="times the steps for ours with CUDA graphs")
    parser.add_argument("--seconds-limit", type=float, default=12.0, help="timed seconds after which an engine stops")
    parser.add_argument("--engine-timeout", type=float, default=90.0, help="seconds after which a process is ended")
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--trl-rank", type=int)
    parser.add_argument("--trl-dropout", type=float, default=0.0)
    parser.add_argument("--hf-steps", type=int, default=8)
    parser.add_argument("--hf-warmup", type=int, default=2)
    parser.add_argument("--model-dropout", action="store_true", help="leaves the model's dropout on (hf: always on)")
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--verbose", action="store_true", help="shows what the engines print")
    parser.add_argument("--dry", action="store_true", help="a tiny model on the CPU: does every engine run?")
    given = parser.parse_args()
    full = {"model": "random/phi-2", "engines": ENGINES, "batch": 16, "examples": 400, "warmup": 5, "steps": None}
    tiny = {"model": "random/tiny-phi", "engines": DRY, "batch": 4, "examples": 24, "warmup": 1, "steps": 4}
    for name, value in (tiny if given.dry else full).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    if given.dry:
        given.hf_steps, given.hf_warmup = min(given.hf_steps, 2), min(given.hf_warmup, 1)
    return given


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def table(rows: list[Any]) -> str:
    """Rows as a Markdown table, with ratios against TRL and the seed recipe of the same precision."""
    ceiling = next((row.tflops for row in rows if row.engine == "matmul"), None)
    heads = (
        "engine", "rank", "tokens/s", "with warm-up", "× TRL", "× HF", "TFLOP/s", "of matmul", "peak MiB", "of TRL",
        "reserved MiB", "loss", "last", "tokens", "padding", "learned", "steps", "timed", "load s", "all s", "note",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 2)}---|"]
    for row in rows:
        trl, hf = (_reference(rows, row, engine) for engine in ("trl", "hf"))
        own_tflops = None if row.engine == "matmul" else row.tflops
        cells = (
            row.label,
            _number(row.rank, ",.0f"),
            _number(row.steady_rate, ",.0f"),
            _number(row.rate, ",.0f"),
            _number(_ratio(row, trl, "steady_rate"), ".2f"),
            _number(_ratio(row, hf, "steady_rate"), ".1f"),
            _number(row.tflops, ".4g"),
            _number(own_tflops / ceiling if own_tflops and ceiling else None, ".1%"),
            _number(row.allocated_mib, ",.0f"),
            _number(_ratio(row, trl, "allocated_mib"), ".2f"),
            _number(row.reserved_mib, ",.0f"),
            _number(row.loss_mean, ".3f"),
            _number(row.loss_last, ".3f"),
            _number(row.tokens, ",.0f"),
            _number(row.padding_share, ".1%"),
            _number(row.learned_share, ".1%"),
            _number(row.steps, ",.0f"),
            _number(row.steady_steps, ",.0f"),
            _number(row.load_seconds, ".1f"),
            _number(row.wall_seconds, ".1f"),
            _note(row),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _note(row: Any) -> str:
    no_graphs = row.facts.get("cuda_graphs_not")
    told = row.error or row.facts.get("device") or (f"no CUDA graphs: {no_graphs}" if no_graphs else "")
    return str(told).replace("|", "/")


def _reference(rows: list[Any], row: Any, engine: str) -> Any:
    same = [other for other in rows if other.engine == engine and other.precision == row.precision]
    return next((other for other in same if other.batch == row.batch), same[0] if same else None)


def _ratio(row: Any, reference: Any, name: str) -> float | None:
    mine, its = getattr(row, name), getattr(reference, name, None)
    # A peak that ended in an error is no peak of a training.
    return mine / its if mine and its and not row.error and not reference.error else None


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _line(row: Any) -> str:
    told = row.error or f"{_number(row.steady_rate, ',.0f')} tokens/s, peak {_number(row.allocated_mib, ',.0f')} MiB"
    return f"{row.label}: {told} ({_number(row.wall_seconds, '.1f')} s)"


if __name__ == "__main__":
    main()
