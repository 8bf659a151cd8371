"""Answering what a training will hold: the longest batch from the examples, a step of it on the meta device."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import transformers

from harness.engine.batches import largest_batches, step_count, training_plan
from harness.engine.encoding import Encoder
from harness.engine.examples import read_examples
from harness.engine.loading import quiet_libraries
from harness.engine.rehearsal import evaluation_peak, set_stage, training_peak
from harness.engine.sources import ModelError, model_config, present_folder
from harness.messages import Event, Rehearsal, RehearsalCase, Rehearse
from study.arms import Arm
from study.prompts import PromptTemplate

# Of the largest batches those with most padded tokens: the peak lies among the first few.
MOST_BATCHES = 4
# Real tokens, and positions that are learned, of one example.
Lengths = tuple[tuple[int, int], ...]


def rehearse_all(request: Rehearse, emit: Callable[[Event], None]) -> None:
    """Answers every case, each with its own reason where it cannot be rehearsed."""
    quiet_libraries()
    try:
        folder = request.model_folder or present_folder(request.model_id, request.revision)
        config = model_config(request.model_id, request.revision, folder)
    except ModelError as error:
        for number in range(len(request.cases)):
            emit(Rehearsal(number, error=str(error)))
        return
    for number, case in enumerate(request.cases):
        try:
            emit(replace(_answer(request, case, config, folder), case=number))
        except Exception as error:  # noqa: BLE001 - a forecast that cannot be made must not stop a study
            emit(Rehearsal(number, error=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"))


def _answer(request: Rehearse, case: RehearsalCase, config: Any, folder: str | None) -> Rehearsal:
    batches, tokens = _training_batches(request, case, folder)
    if case.training is not None and not batches:
        return Rehearsal(0, error="the examples are not here and no batch was given")
    same = replace(case, arm=_nameless(case.arm), batch=None, evaluated=_evaluated(request, case, folder), seed=0)
    answers = [_rehearsed(_Frozen(config), replace(same, batch=batch)) for batch in batches or (None,)]
    # Which of the largest batches decides is known once each has been rehearsed.
    return replace(max(answers, key=lambda answer: sum((answer.parts or {}).values())), tokens=tokens)


@cache
def _rehearsed(frozen: "_Frozen", case: RehearsalCase) -> Rehearsal:
    stage = set_stage(frozen.config, case.arm, case.rank, case.training)
    parts = evaluate_bytes = None
    if case.training is not None and case.batch is not None:
        parts = training_peak(stage, case.arm, case.training, case.batch)
    if case.evaluated is not None:
        evaluate_bytes = sum(evaluation_peak(stage, case.evaluated, static_cache=case.static_cache).values())
    return Rehearsal(0, parts, evaluate_bytes, case.batch, stage.trainable, stage.total)


def _evaluated(request: Rehearse, case: RehearsalCase, folder: str | None) -> tuple[int, int, int, int] | None:
    """The longest batch of evaluation; prompts and references are taken to be no longer than those of the training."""
    if case.evaluated is None or folder is None or request.train_file is None:
        return case.evaluated
    dialogues, width, fresh, _ = case.evaluated
    lengths = _lengths(folder, request.train_file, request.prompts.training, width + fresh)
    longest, references = (max(values) for values in zip(*lengths, strict=True))
    return dialogues, min(width, longest), fresh, dialogues * references


def _training_batches(
    request: Rehearse, case: RehearsalCase, folder: str | None
) -> tuple[tuple[tuple[int, int, int], ...], int | None]:
    """The largest micro-batches of a training, and the real tokens of all of it where the examples are here."""
    training = case.training
    if training is None or folder is None or request.train_file is None:
        return (() if case.batch is None else (case.batch,)), None
    lengths = _lengths(folder, request.train_file, request.prompts.training, training.max_tokens)
    count = step_count(len(lengths), training.batch_size, steps=training.steps, epochs=training.epochs)
    totals = [total for total, _ in lengths]
    plan = training_plan(totals, training, count, case.seed)
    tokens = sum(totals[index] for step in plan.steps for index in step)
    return largest_batches(plan, lengths, training)[:MOST_BATCHES], tokens


class _Frozen:
    """A configuration as the key of a cache."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self._text = config.to_json_string()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


def _nameless(arm: Arm) -> Arm:
    """The arm without what memory does not depend on."""
    return replace(arm, name="", family="", axes=(), alpha=None, learning_rate=None, rank=None)


@cache
def _lengths(folder: str, train_file: str, template: PromptTemplate, max_tokens: int) -> Lengths:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    encoded = Encoder(tokenizer, template, max_tokens).encode(read_examples(Path(train_file)))
    return tuple((item.length, len(item.completion)) for item in encoded)
