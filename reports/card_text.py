"""The text of an adapter's card: metadata that the Hub reads, then what a reader must know."""

import json
from collections.abc import Iterator, Sequence

from reports.claiming import ClaimResult
from reports.decomposition import FEWEST
from reports.evidence import ArmEvidence, Evidence
from reports.public_text import public_text
from reports.stats import single_arm_interval
from reports.tables import GIB
from reports.wording import claim_sentence
from results.schema import Record
from study.metrics import METRICS, ROUGE_TYPES
from study.problems import one_line

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


def card(evidence: Evidence, claims: Sequence[ClaimResult], arm: ArmEvidence, record: Record) -> str:
    """The card of the adapter that `record` trained, in Markdown."""
    return "\n".join(["---", *_metadata(evidence, arm, record), "---", "", *_body(evidence, claims, arm, record), ""])


def _metadata(evidence: Evidence, arm: ArmEvidence, record: Record) -> Iterator[str]:
    """YAML, every text as a JSON string, which YAML reads as it is."""
    yield f"base_model: {_quoted(record.model.id)}"
    yield "library_name: peft"
    yield "pipeline_tag: summarization"
    yield "tags:"
    tags = (
        "lora",
        record.adapter.method,
        "qlora" if record.precision.base in ("nf4", "fp4") else record.precision.base,
    )
    for tag in dict.fromkeys((*tags, "dialogue-summarization")):
        yield f"- {_quoted(tag)}"
    scores = [(key, score) for key in ROUGE_TYPES if (score := _score(arm, key)) is not None]
    if scores:
        yield "model-index:"
        yield f"- name: {_quoted(f'{evidence.study}-{arm.part.name}')}"
        yield "  results:"
        yield "  - task: {type: summarization}"
        yield f"    dataset: {{name: {_quoted(evidence.description)}, type: {_quoted('dialogue')}, split: test}}"
        yield "    metrics:"
        for key, (mean, _) in scores:
            yield f"    - {{type: {_quoted(key)}, name: {_quoted(METRICS[key].label)}, value: {mean:.2f}}}"


def _quoted(text: object) -> str:
    return json.dumps(public_text(str(text)), ensure_ascii=False)


def _score(arm: ArmEvidence, metric: str) -> tuple[float, float] | None:
    """Mean and half the width of the 95% interval on the test split, in points."""
    # One dialogue has a score, and no interval.
    if arm.scored is None or len(arm.scored.example_ids) < FEWEST:
        return None
    interval = single_arm_interval(arm.scored.scores[metric], confidence=0.95)
    return interval.mean, (interval.high - interval.low) / 2


def _body(evidence: Evidence, claims: Sequence[ClaimResult], arm: ArmEvidence, record: Record) -> Iterator[str]:
    yield f"# {_(arm.part.name)}: a LoRA adapter on a {_bits(record)} base, for dialogue summarisation"
    yield ""
    yield (
        f"Trained in the study {_code(evidence.study)} on {_code(record.model.id)}"
        + (f" at revision {_code(record.model.revision)}" if record.model.revision else "")
        + f". This file was written from the study's records; the adapter is that of run `{record.run_id}`, "
        f"seed {record.seed}. It was chosen by its arm's validation score: no test score had a say in it."
    )
    yield from _section("Training", _training(evidence, record, arm))
    yield from _section("Test scores", _scores(arm))
    yield from _section("Memory and time", _measured(record))
    yield from _section("What the study says", [f"- {_(claim_sentence(claim))}" for claim in claims])
    yield from _section("Use", _usage(record))
    yield from _section("Limits", _limits(evidence, arm))


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"## {title}", "", *lines] if lines else []


def _(text: object) -> str:
    """A text from outside inside Markdown: one line, no mark-up, no table cell of its own."""
    escaped = public_text(one_line(str(text)))
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in escaped)


def _code(text: object) -> str:
    """The same inside a code span, where nothing but its own mark has a meaning."""
    return f"`{public_text(one_line(str(text))).replace('`', chr(39))}`"


def _precision(record: Record) -> str:
    names = {"int8": "8-bit (LLM.int8)", "nf4": "4-bit (NF4)", "fp4": "4-bit (FP4)"}
    return names.get(record.precision.base, record.precision.base)


def _bits(record: Record) -> str:
    """The base's precision as it stands in a title."""
    return {"int8": "quantised (LLM.int8)", "nf4": "4-bit (NF4)", "fp4": "4-bit (FP4)"}.get(
        record.precision.base, record.precision.base
    )


def _rows(pairs: Sequence[tuple[str, object]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in pairs)]


def _training(evidence: Evidence, record: Record, arm: ArmEvidence) -> list[str]:
    settings = record.training or {}
    parameters = record.parameters
    length = f"{settings.get('steps')} steps" if settings.get("steps") else f"{settings.get('epochs')} epochs"
    pairs: list[tuple[str, object]] = [
        ("data", _(evidence.description)),
        ("dialogues", record.data.train_size),
        ("base", f"{_precision(record)}, computing in {_(record.precision.compute_dtype)}"),
        ("rank, alpha, dropout", f"{record.adapter.rank}, {record.adapter.alpha}, {record.adapter.dropout:g}"),
        ("modules", _(", ".join(record.adapter.target_modules or ()))),
        ("learning rate", f"{record.learning_rate:.3g}, {_(settings.get('schedule'))}"),
        ("length", f"{length}, {settings.get('batch_size')} dialogues a step"),
    ]
    if parameters is not None:
        share = 100 * parameters.trainable / parameters.total
        pairs.append(("trainable parameters", f"{parameters.trainable:,} ({share:.3f}% of all)"))
    if arm.choice is not None:
        pairs.append(("chosen of", f"{arm.choice.completed_trials} trials on the validation split"))
    return _rows(pairs)


def _scores(arm: ArmEvidence) -> list[str]:
    if arm.scored is None:
        return []
    rows = ["| metric | F, points | ± 95% |", "|---|---:|---:|"]
    for key in ROUGE_TYPES:
        score = _score(arm, key)
        if score is not None:
            rows.append(f"| {METRICS[key].label} | {score[0]:.2f} | {score[1]:.2f} |")
    seeds = len(arm.scored.seeds)
    return [*rows, "", f"Means over {seeds} {'seed' if seeds == 1 else 'seeds'}, of which this adapter is one."]


def _measured(record: Record) -> list[str]:
    train, pairs = record.memory.train, []
    if train is not None and train.allocated_bytes is not None:
        pairs.append(("peak of training, allocated", f"{train.allocated_bytes / GIB:.2f} GiB"))
    if train is not None and train.process_bytes is not None:
        pairs.append(("the same, the process (NVML)", f"{train.process_bytes / GIB:.2f} GiB"))
    if train is not None and train.allocated_bytes is None and train.host_rss_bytes is not None:
        pairs.append(("peak of training, host memory", f"{train.host_rss_bytes / GIB:.2f} GiB"))
    if record.seconds.train is not None:
        pairs.append(("training", f"{record.seconds.train:.0f} s"))
    environment = record.environment
    pairs.append(("on", _(environment.get("gpu") or environment.get("cpu"))))
    packages = environment.get("packages") or {}
    named = [f"{name} {packages[name]}" for name in _PACKAGES if packages.get(name)]
    pairs.append(("with", _(", ".join(named))))
    return _rows(pairs)


def _usage(record: Record) -> list[str]:
    base, kind = record.precision.base, record.precision
    dtypes = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
    dtype = f"torch.{dtypes.get(kind.compute_dtype, 'bfloat16')}"
    options = [f"dtype={dtype}"]
    if base == "int8":
        options.append("quantization_config=BitsAndBytesConfig(load_in_8bit=True)")
    elif base in ("nf4", "fp4"):
        options.append(
            f'quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="{base}", '
            f"bnb_4bit_use_double_quant={bool(kind.double_quant)}, bnb_4bit_compute_dtype={dtype})"
        )
    source = json.dumps(public_text(record.model.id))
    return [
        "```python",
        "import torch",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, BitsAndBytesConfig",
        "",
        f"base = AutoModelForCausalLM.from_pretrained({source}, {', '.join(options)})",
        'model = PeftModel.from_pretrained(base, "path/to/this/folder")',
        "```",
        "",
        "Load the base in the precision above: the adapter was trained on it. Merging an adapter into a quantised base",
        "changes its outputs.",
    ]


def _limits(evidence: Evidence, arm: ArmEvidence) -> list[str]:
    lines = [
        "- Scores are of one data set and one prompt; nothing is known of others.",
        "- ROUGE counts shared words. It does not tell whether a summary is true.",
    ]
    if arm.choice is not None and arm.choice.edges:
        edges = ", ".join(arm.choice.edges)
        lines.append(f"- The chosen hyperparameters lie at the edge of the space ({_(edges)}); better may lie beyond.")
    lines += [f"- {_(note)}" for note in evidence.notes]
    return lines
