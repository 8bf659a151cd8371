"""What a worker does with a job: load, prepare, train, evaluate, and say so as it goes."""

import errno
import gc
import importlib.metadata
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from harness.engine.adapting import Adapter, AdapterError, attach, base_parameters, detach, moved, save
from harness.engine.batches import evaluation_plan, loss_plan
from harness.engine.census import Census
from harness.engine.checkpoints import PAGE, CheckpointFiles, Measured, Page
from harness.engine.encoding import Encoded, Encodings
from harness.engine.generating import Writer, Written
from harness.engine.keeping import Beside, Keeper
from harness.engine.kernels import missing
from harness.engine.limiting import play_card
from harness.engine.loading import (
    TORCH_DTYPES,
    Base,
    computing_in,
    device_facts,
    dtype_census,
    load_base,
    multiplies_in_bf16,
)
from harness.engine.meters import PhaseMeter
from harness.engine.padding import own_census, own_parameters, start_of, unpaddable
from harness.engine.rigging import Rig, rig_key
from harness.engine.shelving import Shelf, fits, room
from harness.engine.stepping import Diverged
from harness.engine.training import Recipe, rig_for, train_with, validation_loss
from harness.engine.unpacking import difference, unpacked, unpacked_bytes
from harness.messages import Answer, Answers, Event, Facts, Finished, Job, Progress, Raised, Resumed
from harness.pruning import WAYPOINTS, Pruned, Watch
from study.arms import Dtype, Method
from study.models import ModelSpec
from study.prompts import PromptTemplate
from study.runs import RunSpec, Stage
from study.settings import EngineSettings, Training

Emit = Callable[[Event], None]
# Zero-shot runs have no training settings; their prompts may be this long.
ZERO_SHOT_MAX_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class _Sharing:
    """What a training has in common with others that can be made with what it was made with, None where it shares
    nothing; the rank that its adapter is padded to for that, if it is; and the base that it is trained on, with weights
    that are kept unpacked, if they are."""

    kind: tuple[object, ...] | None
    padded_rank: int | None
    base: Base

    @property
    def facts(self) -> dict[str, Any]:
        """Why memory and times are not those of the run's arm and rank; empty where they are."""
        padded = {} if self.padded_rank is None else {"padded_rank": self.padded_rank}
        return {**padded, **({"unpacked_base": True} if self.base.unpacked else {})}


class Session:
    """The state of a worker between jobs: the base that is loaded, if any, and what its last trial was trained with."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._base: Base | None = None
        self._loaded: tuple[object, ...] | None = None
        self._encodings = Encodings()
        self._shelf = Shelf()
        # Arms of which this process has made a training in an adapter of its own rank, whose figures are true.
        self._told: set[str] = set()
        # The base with its weights kept unpacked, while trials are made on it; and why those of an arm may not be, by
        # its name: None where it was shown that they may.
        self._unpacked: Base | None = None
        self._no_unpacked: dict[str, str | None] = {}
        # The most bytes that this process has reserved on the GPU in any phase.
        self._most_reserved = 0

    def run(self, job: Job) -> None:
        """Runs one job and reports how it ended; what it raises is reported too, and ends the process's use."""
        meter = PhaseMeter(job.device, self._emit, fresh=job.measured)
        try:
            if job.memory_limit is not None:
                self._emit(Facts("checks", {"memory_limit": play_card(job.memory_limit)}))
            loss = self._run(job, meter)
        except Diverged as error:
            self._emit(Raised("diverged", "Diverged", str(error), meter.phase))
        except Pruned as error:
            self._emit(Raised("pruned", "Pruned", str(error), meter.phase))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and ends this process's use
            if host_out_of_memory(error):
                told = f"the host has no memory left: {_first_line(error)}"
                self._emit(Raised("out_of_memory", "MemoryError", told, meter.phase))
                return
            outcome: Literal["out_of_memory", "failed"] = "out_of_memory" if out_of_memory(error) else "failed"
            # To the log, and before a word is said of it: whoever hears that ends this process at once.
            traceback.print_exc()
            self._emit(Raised(outcome, type(error).__name__, _first_line(error), meter.phase))
            if outcome == "failed":
                sys.exit(1)
        else:
            self._emit(Finished(loss))
        finally:
            self._reserved()

    def _run(self, job: Job, meter: PhaseMeter) -> float:
        base = self._loaded_base(job, meter)
        if job.train_file is None:
            self._shelf.clear()
            self._pack()
            self._emit(Facts("parameters", base_parameters(base)))
            self._emit(Facts("checks", {"dtypes": dtype_census(base.model)}))
            return self._evaluate(base, job, meter)
        sharing = self._sharing(base, job)
        rig = self._trained(sharing.base, job, meter, sharing)
        self._reserved()
        adapter, kept = rig.adapter, self._shelf.keep(sharing.kind, rig, _evaluation(job))
        # What is not kept is not in the way of the evaluation.
        del rig
        if kept:
            self._emit(Facts("checks", {"kept_beside_evaluation": True}))
        try:
            with self._shelf.evaluating(_evaluation(job)) if _is_trial_on_gpu(job) else nullcontext():
                loss = self._evaluate(base, job, meter)
            self._reserved()
            if job.adapter_folder is not None:
                self._save(adapter, job.adapter_folder, job.spec.model)
            return loss
        except BaseException:
            self._shelf.clear()
            raise
        finally:
            if not kept:
                detach(adapter)

    def _save(self, adapter: Adapter, folder: str, model: ModelSpec) -> None:
        try:
            save(adapter, Path(folder), model)
        except OSError as error:
            # The run is whole without it: a full disk must not cost its scores.
            self._emit(Facts("checks", {"adapter_not_saved": error.strerror or type(error).__name__}))

    def _loaded_base(self, job: Job, meter: PhaseMeter) -> Base:
        spec = job.spec
        dropout = spec.training is not None and spec.training.model_dropout
        wanted = (job.model_folder, spec.arm.base, job.device, dropout)
        if self._base is None or self._loaded != wanted:
            if self._base is not None:
                raise RuntimeError("a worker loads one base only: another base needs another worker")
            with meter.measure("load"):
                self._base = load_base(job.model_folder, spec.arm, job.device, model_dropout=dropout)
            self._loaded = wanted
        return self._base

    def _sharing(self, base: Base, job: Job) -> _Sharing:
        """With what a job is trained. The first of an arm is made as a confirm run is: it tells what the arm takes."""
        own, rank, spec = _kind(job), job.padded_rank, job.spec
        if own is None or spec.training is None or spec.arm.name not in self._told:
            self._pack()
            return _Sharing(own, None, base)
        base = self._on_unpacked(base, job, spec.training)
        if rank is not None and (why_not := unpaddable(base, spec.arm, spec.training)) is not None:
            self._emit(Facts("checks", {"graphs_not_shared": why_not}))
            rank = None
        sharing = _Sharing(_kind(job, rank, unpacked=bool(base.unpacked)), rank, base)
        if sharing.facts:
            # Before anything is measured: of a trial that ends early the figures are no more those of its rank.
            self._emit(Facts("checks", {"engine": sharing.facts}))
        return sharing

    def _on_unpacked(self, base: Base, job: Job, training: Training) -> Base:
        """The base with its 4-bit weights kept unpacked, where a job may be trained on it; else the base."""
        name = job.spec.arm.name
        if not job.unpacked:
            self._pack()
            return base
        if name not in self._no_unpacked:
            self._no_unpacked[name] = self._unprovable(base, job, training)
        why_not = self._no_unpacked[name]
        if why_not is not None:
            self._pack()
            self._emit(Facts("checks", {"base_not_unpacked": why_not}))
            return base
        self._unpacked = self._unpacked or replace(base, unpacked=unpacked(base))
        return self._unpacked

    def _unprovable(self, base: Base, job: Job, training: Training) -> str | None:
        """Why an arm's trials may not be made on weights that are kept unpacked: no room beside what earlier jobs took,
        or other bits. None where it was shown that they may."""
        spec = job.spec
        if job.train_file is None or not training.engine.fused or spec.arm.method is Method.DORA:
            return "layers are not fused"
        if (why_not := missing(base.device, on=bool(training.engine.kernels))) is not None:
            # bitsandbytes multiplies packed weights in another way where rows are few.
            return f"without kernels of the project's own ({why_not}) few rows are multiplied otherwise"
        if not fits(unpacked_bytes(base), self._most_reserved, room()):
            return "there is no room for it"
        examples = self._encodings.of(base.tokenizer, job.train_file, spec.prompts.training, training.max_tokens)
        self._shelf.clear()
        try:
            self._unpacked = self._unpacked or replace(base, unpacked=unpacked(base))
            return difference(base, spec.arm, training, examples, self._unpacked.unpacked, spec.seed)
        except (Diverged, torch.OutOfMemoryError) as error:
            # That is no end of the trial, which has not begun.
            return f"the comparison ended early: {type(error).__name__}"

    def _pack(self) -> None:
        """Drops what is kept unpacked: it would count as what the next job takes."""
        if self._unpacked is not None:
            self._shelf.clear()
            self._unpacked = None
            gc.collect()
            torch.cuda.empty_cache()

    def _reserved(self) -> None:
        """Keeps the most that was reserved since the phase began."""
        if torch.cuda.is_initialized():
            self._most_reserved = max(self._most_reserved, torch.cuda.max_memory_reserved())

    def _trained(self, base: Base, job: Job, meter: PhaseMeter, sharing: _Sharing) -> Rig:
        spec, padded = job.spec, sharing.padded_rank
        training, chosen = spec.training, spec.hyperparameters
        if training is None or chosen is None or job.train_file is None:
            raise ValueError("a run that trains needs training settings, hyperparameters and examples")
        # Before the phase, whose peak would hold what is cleared away.
        rig = self._shelf.taken(sharing.kind)
        with meter.measure("prepare"):
            examples = self._encodings.of(base.tokenizer, job.train_file, spec.prompts.training, training.max_tokens)
            adapter = rig.adapter if rig else attach(base, spec.arm, chosen, training, spec.seed, padded)
            start = None if padded is None else start_of(adapter, chosen, spec.seed)
        self._emit(Facts("parameters", own_parameters(adapter, chosen.rank)))
        self._emit(Facts("adapter", {"target_modules": list(adapter.target_modules)}))
        self._emit(Facts("data", {"truncated_train": sum(example.truncated for example in examples)}))
        dtypes = own_census(adapter, dtype_census(adapter.model), chosen.rank)
        recipe = Recipe(training, chosen.learning_rate, spec.seed, spec.arm.checkpointing, start)

        def on_step(step: int, steps: int, loss: float, rate: float) -> None:
            self._emit(Progress("train", step, steps, loss, rate))
            watch.step(step, steps, loss)

        watch = Watch(job.waypoints)
        following = _Following(self._emit, meter, watch, job, sharing.facts)
        try:
            with meter.measure("train"):
                rig = rig or rig_for(base, adapter, examples, recipe, again=sharing.kind is not None)
                trained = train_with(rig, examples, recipe, on_step, following.beside)
                meter.excluded_s = following.beside.seconds
        except Pruned:
            # The base is whole, and serves the next trial.
            if rig is None or not self._shelf.keep(sharing.kind, rig, None):
                detach(adapter)
            raise
        finally:
            if watch.values:
                self._emit(Facts("checks", {WAYPOINTS: watch.values}))
        parts = following.breakdown()
        if parts is not None:
            self._emit(Facts("breakdown", parts))
        self._emit(
            Facts(
                "tokens",
                {
                    "trained": trained.tokens,
                    "trained_completion": trained.completion_tokens,
                    "trained_padding": trained.padding,
                    "steps": trained.steps,
                },
            )
        )
        share = moved(adapter)
        if share == 0.0:
            raise AdapterError("no lora_B matrix moved from zero: the adapter learned nothing")
        # In a padded adapter, or on an unpacked base, it is not that of the trial.
        warm_up = {"first_step_s": trained.first_seconds, "first_step_tokens": trained.first_tokens}
        checks = {
            "dtypes": dtypes,
            "lora_b_moved": share,
            "engine": trained.levers.facts(),
            **({} if sharing.facts else warm_up),
            "first_loss": trained.losses[0],
            "last_loss": trained.losses[-1],
            "losses": [round(loss, 5) for loss in trained.losses],
        }
        self._emit(Facts("checks", checks))
        if not sharing.facts:
            self._told.add(spec.arm.name)
        return rig

    def _evaluate(self, base: Base, job: Job, meter: PhaseMeter) -> float:
        spec = job.spec
        dtype = _generation_dtype(spec, base)
        engine = EngineSettings() if spec.training is None else spec.training.engine
        with meter.measure("evaluate"), computing_in(base, TORCH_DTYPES[dtype]):
            limit = ZERO_SHOT_MAX_TOKENS if spec.training is None else spec.training.max_tokens
            reserve = spec.generation.max_new_tokens
            encoded = self._encodings.of(base.tokenizer, job.evaluated_file, spec.prompts.evaluation, limit, reserve)
            plan = evaluation_plan([len(item.prompt) for item in encoded], spec.generation.batch_size)
            writer = Writer(base, spec.generation, spec.seed)
            loss = None
            if not writer.scores:
                loss = _finite(validation_loss(base, encoded, loss_plan([item.length for item in encoded]), engine))
            generated = 0
            done = 0
            for batch in writer.write(encoded, plan):
                generated += sum(len(written.ids) for written in batch)
                done += len(batch)
                self._emit(Answers(tuple(_answer(base, spec.prompts.evaluation, encoded, item) for item in batch)))
                self._emit(Progress("evaluate", done, len(encoded)))
            loss = _finite(writer.loss) if loss is None else loss
        self._emit(Facts("tokens", {"prompt": sum(len(item.prompt) for item in encoded), "generated": generated}))
        self._emit(Facts("data", {"truncated_evaluated": sum(item.truncated for item in encoded)}))
        self._emit(Facts("checks", {"generation_dtype": str(dtype), **writer.decoding.facts()}))
        self._emit(Facts("checks", device_facts(job.device)))
        return loss


class _Following:
    """What goes on beside the training of a job, and what is said of it."""

    def __init__(self, emit: Emit, meter: PhaseMeter, watch: Watch, job: Job, shared: Mapping[str, object]) -> None:
        self._emit = emit
        self._meter = meter
        self._watch = watch
        self._breakdown: dict[str, int] | None = None
        self._told: set[str] = set()
        keeper = None
        if job.checkpoints is not None:
            made_on = _made_on(job) | {name: str(value) for name, value in shared.items()}
            files = CheckpointFiles(Path(job.checkpoints.folder), job.spec.run_id, made_on)
            keeper = Keeper(files, job.checkpoints.every, self)
        self.beside = Beside(Census() if job.measured and job.device == "cuda" else None, keeper)

    def measured(self) -> Measured:
        """Seconds and peaks of this part so far."""
        self._meter.excluded_s = self.beside.seconds
        now = self._meter.reading("train")
        return Measured(
            seconds=now.seconds,
            allocated_bytes=now.allocated_bytes,
            reserved_bytes=now.reserved_bytes,
            host_rss_bytes=now.host_rss_bytes,
        )

    def aside(self) -> AbstractContextManager[None]:
        """What is done inside is no part of what is measured; its seconds are with `beside`."""
        return self._meter.aside()

    def breakdown(self) -> dict[str, int] | None:
        """What the peak of the first step consists of, in whichever part that was made."""
        if self._breakdown is None and self.beside.census is not None:
            self._breakdown = self.beside.census.parts()
        return self._breakdown

    def resumed(self, page: Page) -> None:
        """Says from where the training goes on, and has its losses pass their waypoints again."""
        was = page.measured
        self._breakdown = page.breakdown
        self._emit(
            Resumed(page.step, page.steps, was.seconds, was.allocated_bytes, was.reserved_bytes, was.host_rss_bytes)
        )
        for step, loss in enumerate(page.tally.losses, start=1):
            self._watch.step(step, page.steps, loss)

    def failed(self, what: str, why: str) -> None:
        """Says once what became of a checkpoint."""
        if what not in self._told:
            self._told.add(what)
            self._emit(Facts("checks", {what: why}))


def _is_trial_on_gpu(job: Job) -> bool:
    return job.spec.stage is Stage.TUNE and job.device == "cuda"


def _kind(job: Job, padded_rank: int | None = None, *, unpacked: bool = False) -> tuple[object, ...] | None:
    """What a warm worker's trial has in common with others that can be trained with what it was trained with, in an
    adapter of its own or in a padded one, on its base as it is or kept unpacked. None for a run that shares nothing:
    its figures may be quoted, or it goes on from a checkpoint."""
    training = job.spec.training
    if not _is_trial_on_gpu(job) or job.measured or job.train_file is None:
        return None
    if training is None or not training.engine.cuda_graphs:
        return None
    if job.checkpoints is not None and (Path(job.checkpoints.folder) / PAGE).exists():
        return None
    return rig_key(job.spec, job.train_file, padded_rank, unpacked=unpacked)


def _evaluation(job: Job) -> tuple[object, ...]:
    """What decides the memory that the evaluation of a job takes."""
    spec = job.spec
    return spec.arm, spec.training, spec.generation, spec.prompts.evaluation, job.evaluated_file


def _made_on(job: Job, packages: Iterable[str] = ("torch", "transformers", "peft", "bitsandbytes")) -> dict[str, str]:
    """What the numbers of a training depend on that its run id does not hold."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    if job.device == "cuda":
        return versions | {"device": torch.cuda.get_device_name()}
    # Sums are split among threads.
    return versions | {"device": "cpu", "threads": str(torch.get_num_threads())}


def _finite(loss: float | None) -> float:
    if loss is None or not math.isfinite(loss):
        # The last step may have done it, or the weights as they came.
        raise Diverged(f"the validation loss is {loss}")
    return loss


def _generation_dtype(spec: RunSpec, base: Base) -> Dtype:
    """The arm's compute dtype, but on a CPU that does not multiply in it: fp32 is up to five times faster there than
    bf16, and with AVX512-BF16 (or AMX) 36% slower (SmolLM2, 24 dialogues, NF4)."""
    if spec.generation.dtype is not None:
        return spec.generation.dtype
    if base.device == "cuda" or (spec.arm.compute_dtype is Dtype.BF16 and multiplies_in_bf16()):
        return spec.arm.compute_dtype
    return Dtype.FP32


def _answer(base: Base, template: PromptTemplate, encoded: tuple[Encoded, ...], written: Written) -> Answer:
    text = base.tokenizer.decode(list(written.ids), skip_special_tokens=True)
    source = encoded[written.index]
    return Answer(source.example_id, template.answer(text), len(written.ids), written.hit_limit, source.truncated)


def out_of_memory(error: Exception) -> bool:
    """Whether the GPU had no memory left: the allocator says so itself; on a small card the driver or cuBLAS may."""
    told = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in told)


def host_out_of_memory(error: Exception) -> bool:
    """Whether the machine, or this process's share of it, had no memory left: libraries say so in the system's words,
    torch's allocator in its own."""
    told = (os.strerror(errno.ENOMEM), "DefaultCPUAllocator: can't allocate memory", "std::bad_alloc")
    return isinstance(error, MemoryError) or any(text in str(error) for text in told)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:500] if lines else type(error).__name__
