"""The other ways to fine-tune: TRL's SFTTrainer at its best, the seed notebook's recipe, and a plain eager loop."""

import importlib
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import peft
import torch
import transformers

from harness.engine.encoding import Encoded
from harness.engine.loading import disable_dropout, quiet_libraries
from study.arms import Precision
from tests.benchmarks.measuring import LEARNING_RATE, SEED, Count, Job, Meter, Options, Row, flops_of, row_of, summed

IGNORED = -100
_DTYPES = {Precision.FP32: torch.float32, Precision.FP16: torch.float16}


def run_trl(job: Job, options: Options, examples: Sequence[Encoded]) -> Row:
    """TRL's SFTTrainer at its best: completion-only loss (its fused head), lengths grouped, no checkpointing, bf16,
    fused AdamW, tokens made beforehand, nothing logged or saved. Quantised models as TRL treats them."""
    start = time.monotonic()
    trl: Any = importlib.import_module("trl")
    model, tokenizer = _loaded(job, options, dropout=options.model_dropout)
    config = _lora(options.trl_rank, options.trl_rank, options.trl_dropout, "all-linear")
    with tempfile.TemporaryDirectory() as folder:
        arguments = trl.SFTConfig(
            **_common(folder, options, job, options.warmup + options.steps),
            per_device_train_batch_size=job.batch,
            train_sampling_strategy="group_by_length",
            completion_only_loss=True,
            gradient_checkpointing=False,
            optim="adamw_torch_fused",
            max_length=None,
            # An attention mask of odd width takes a slower kernel.
            pad_to_multiple_of=8,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        trainer = trl.SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=_dataset(examples, on_all=False),
            processing_class=tokenizer,
            peft_config=config,
        )
        row = row_of(job, options.trl_rank)
        row.load_seconds = time.monotonic() - start
        meter = Meter(options.device, options.warmup, options.warmup + options.steps, options.seconds_limit)
        return _trained(trainer, row, meter, micro_batches=1, checkpointing=False)


def run_hf(job: Job, options: Options, examples: Sequence[Encoded]) -> Row:
    """transformers' Trainer with the seed notebook's recipe: 1 dialogue × 4, reentrant checkpointing, loss on all
    tokens, rank 32 on the attention layers with dropout, paged 8-bit AdamW; the base through
    `prepare_model_for_kbit_training` where it is quantised."""
    start = time.monotonic()
    model, tokenizer = _loaded(job, options, dropout=True)
    if job.precision is not None and job.precision.is_quantised:
        model = peft.prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": True})
    else:
        model.enable_input_require_grads()
    present = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    targets = [name for name in ("q_proj", "k_proj", "v_proj", "dense", "o_proj") if name in present]
    model = peft.get_peft_model(model, _lora(32, 32, 0.05, targets))
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            **_common(folder, options, job, options.hf_warmup + options.hf_steps),
            per_device_train_batch_size=1,
            gradient_accumulation_steps=4,
            gradient_checkpointing=True,
            gradient_checkpointing_kwargs={"use_reentrant": True},
            # bitsandbytes has no optimizer for CPUs; there the recipe is tried, not measured.
            optim="paged_adamw_8bit" if options.device == "cuda" else "adamw_torch",
            remove_unused_columns=False,
        )
        trainer = transformers.Trainer(
            model=model,
            args=arguments,
            train_dataset=_dataset(examples, on_all=True),
            data_collator=transformers.DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED),
        )
        row = row_of(job, 32)
        row.load_seconds = time.monotonic() - start
        meter = Meter(options.device, options.hf_warmup, options.hf_warmup + options.hf_steps, options.seconds_limit)
        return _trained(trainer, row, meter, micro_batches=4, checkpointing=True)


def run_eager(job: Job, options: Options, examples: Sequence[Encoded]) -> Row:
    """A plain loop: PEFT under autocast, batches in random order padded with a mask, logits of every position."""
    start = time.monotonic()
    model, tokenizer = _loaded(job, options, dropout=options.model_dropout)
    model = peft.get_peft_model(model, _lora(options.rank, options.rank, 0.0, "all-linear"))
    model.train()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=LEARNING_RATE, weight_decay=0.0, fused=options.device == "cuda")
    collator = _Counting(transformers.DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED))
    tokenizer.padding_side = "right"
    rows = [_fields(example, on_all=False) for example in examples]
    order: list[int] = []
    rng = random.Random(SEED)
    row = row_of(job, options.rank)
    row.load_seconds = time.monotonic() - start
    meter = Meter(options.device, options.warmup, options.warmup + options.steps, options.seconds_limit)
    losses: list[torch.Tensor] = []
    meter.start()
    while True:
        while len(order) < job.batch:
            order += rng.sample(range(len(rows)), len(rows))
        chosen, order = order[: job.batch], order[job.batch :]
        batch = {name: tensor.to(options.device) for name, tensor in collator([rows[i] for i in chosen]).items()}
        with torch.autocast(options.device, dtype=torch.bfloat16, enabled=job.precision not in _DTYPES):
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if meter.step():
            break
    _read_losses(row, losses, 1)
    meter.read(row, collator.counts, flops_of(model))
    return row


def _loaded(job: Job, options: Options, *, dropout: bool) -> tuple[Any, Any]:
    quiet_libraries()
    transformers.utils.logging.set_verbosity_error()
    if job.variants or job.precision is None:
        raise ValueError(f"{job.label}: a peer has no variants")
    quantisation = None
    if job.precision is Precision.INT8:
        quantisation = transformers.BitsAndBytesConfig(load_in_8bit=True)
    elif job.precision.is_4bit:
        quantisation = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=str(job.precision),
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = transformers.AutoModelForCausalLM.from_pretrained(
        options.folder,
        dtype=_DTYPES.get(job.precision, torch.bfloat16),
        quantization_config=quantisation,
        device_map={"": 0 if options.device == "cuda" else "cpu"},
        attn_implementation="sdpa",
    )
    if not dropout:
        disable_dropout(model)
    return model, tokenizer


def _lora(rank: int, alpha: int, dropout: float, targets: str | list[str]) -> Any:
    return peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, bias="none", task_type="CAUSAL_LM"
    )


def _common(folder: str, options: Options, job: Job, steps: int) -> dict[str, Any]:
    cuda = options.device == "cuda"
    return {
        "output_dir": folder,
        "max_steps": steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": job.precision not in _DTYPES,
        "tf32": True if cuda else None,
        "use_cpu": not cuda,
        "seed": SEED,
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": cuda,
    }


def _fields(example: Encoded, *, on_all: bool) -> dict[str, list[int]]:
    tokens = [*example.prompt, *example.completion]
    labels = tokens if on_all else [IGNORED] * len(example.prompt) + list(example.completion)
    return {"input_ids": tokens, "attention_mask": [1] * len(tokens), "labels": labels}


def _dataset(examples: Sequence[Encoded], *, on_all: bool) -> Any:
    return datasets.Dataset.from_list([_fields(example, on_all=on_all) for example in examples])


class _Counting:
    """A collator that counts what it collates, batch by batch; its batches are trained on in this order."""

    def __init__(self, inner: Callable[[list[Any]], Any]) -> None:
        self._inner = inner
        self.counts: list[Count] = []

    def __call__(self, examples: list[Any]) -> Any:
        batch = self._inner(examples)
        lengths = batch["attention_mask"].sum(dim=1)
        # The first token of a sequence is nobody's target.
        learned = int((batch["labels"][:, 1:] != IGNORED).sum())
        squares = int((lengths**2).sum())
        self.counts.append(Count(int(lengths.sum()), batch["input_ids"].numel(), learned, squares))
        return batch


def _trained(trainer: Any, row: Row, meter: Meter, *, micro_batches: int, checkpointing: bool) -> Row:
    """Has a Trainer train, watched by a callback, and reads its row.

    Raises:
        RuntimeError: it checkpoints though it should not, or the other way round.
    """
    collator = trainer.data_collator = _Counting(trainer.data_collator)
    losses: list[torch.Tensor] = []
    inner_step = trainer.training_step

    def training_step(*args: Any, **kwargs: Any) -> Any:
        if not losses and checkpointing != any(getattr(m, "gradient_checkpointing", False) for m in model.modules()):
            raise RuntimeError(f"gradient checkpointing is {'off' if checkpointing else 'on'}")
        loss = inner_step(*args, **kwargs)
        losses.append(loss)
        return loss

    def on_step_end(_args: Any, _state: Any, control: Any, **_: Any) -> Any:
        control.should_training_stop = meter.step() or control.should_training_stop
        return control

    model = trainer.model
    trainer.training_step = training_step
    callback: Any = transformers.TrainerCallback()
    callback.on_step_end = on_step_end
    trainer.add_callback(callback)
    flops = flops_of(model)
    meter.start()
    trainer.train()
    _read_losses(row, losses, micro_batches)
    counts = collator.counts
    steps = [summed(counts[at : at + micro_batches]) for at in range(0, len(counts), micro_batches)]
    meter.read(row, steps, flops)
    row.facts["checkpointing"] = checkpointing
    return row


def _read_losses(row: Row, losses: Sequence[torch.Tensor], micro_batches: int) -> None:
    values = [loss.item() for loss in losses]
    steps = [sum(values[at : at + micro_batches]) for at in range(0, len(values), micro_batches)]
    row.loss_mean, row.loss_last = sum(steps) / len(steps), steps[-1]
