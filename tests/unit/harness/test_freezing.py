"""The freeze: choices on validation alone, kept as long as the grid asks for the runs behind them."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from harness.adapters.sources import Loaded
from harness.flow import Options, Study
from harness.freezing import Candidate, Trials, choose, freeze, ranked
from harness.outcomes import Completed, Stopped
from harness.progress import parted
from harness.runlog import RunLog
from harness.scores import Scorer
from harness.specs import Specs
from harness.view import PlainView
from results.layout import StudyFolder
from results.schema import Frozen, Importances, PruningPart, Record
from results.store import RecordStore, read_frozen
from study.dialogues import generate
from study.grid import Grid, load_grid
from study.runs import RunSpec
from study.space import Hyperparameters

TEXT = """
study: freezing
model: {id: ./somewhere}
data:
  source: generated
  limits: {train: 4, validation: 2, test: 2}
  generated: {turns: [4, 4]}
prompt: {template: summarize}
arms:
  - {name: zero-shot, precision: bf16, method: none}
  - {name: lora, precision: bf16}
  - {name: qlora, precision: nf4}
space: {rank: [4, 8, 16], alpha: 16, learning_rate: {low: 1e-4, high: 1e-2}}
tune: {trials: 4, select_by: rougeL}
seeds: [11, 12, 13]
training: {steps: 1, batch_size: 1}
claims:
  - {name: claim, candidate: qlora, reference: lora, metrics: [rougeL], margin: {retain: 0.95}}
"""
EXAMPLES = generate(1, {"train": 4, "validation": 2, "test": 2}, turns=(4, 4))


def grid_of(**changes: str) -> Grid:
    return load_grid(TEXT, [f"{key.replace('__', '.')}={value}" for key, value in changes.items()])


def record_of(spec: RunSpec, quality: dict[str, float] | None) -> Record:
    """A record of a run with the given quality, or of one that did not fit."""
    log = RunLog(spec, "paper", {item.id: item for item in EXAMPLES[spec.evaluated.split]}, Scorer(), warm=False)
    if quality is None:
        return log.record(Stopped("out_of_memory", "OutOfMemoryError", "no", "train"), {}, 1.0)
    blank = replace(spec, model=replace(spec.model, weights="random"))
    made = RunLog(blank, "paper", {}, Scorer(), warm=False).record(Completed(1.0), {}, 1.0)
    data: dict[str, Any] = made.model_dump()
    data |= {"run_id": spec.run_id, "model": {**data["model"], "weights": "pretrained"}, "quality": quality}
    return Record.model_validate(data)


def candidates(grid: Grid, arm: str, values: list[tuple[float, float] | None]) -> list[Candidate]:
    """One candidate a trial, with (rougeL, validation loss), or out of memory."""
    specs = Specs.of(grid, EXAMPLES)
    made = []
    for spec, value in zip(specs.block(grid.arm(arm)), values, strict=True):
        quality = None if value is None else {"rougeL": value[0], "validation_loss": value[1]}
        assert spec.hyperparameters is not None
        made.append(Candidate(spec.hyperparameters, (record_of(spec, quality),)))
    return made


def test_the_best_validation_score_is_chosen_and_ties_go_to_the_lower_loss() -> None:
    grid = grid_of()
    trials = candidates(grid, "lora", [(20.0, 1.0), (30.0, 2.0), (30.0, 1.5), None])
    choice = choose(grid, "lora", trials, [])
    assert choice is not None
    assert choice.run_id == trials[2].records[0].run_id
    assert (choice.score, choice.trials, choice.completed_trials) == (30.0, 4, 3)
    assert choice.ranking == tuple(trials[index].records[0].run_id for index in (2, 1, 0))


def test_a_loss_is_better_when_it_is_lower() -> None:
    trials = candidates(grid_of(), "lora", [(20.0, 1.4), (30.0, 2.0), (30.0, 1.5), None])
    assert ranked(trials, "validation_loss")[0] is trials[0]


def test_an_arm_of_which_no_trial_fitted_has_no_choice() -> None:
    grid = grid_of()
    assert choose(grid, "lora", candidates(grid, "lora", [None, None, None, None]), []) is None


def test_sets_run_again_on_more_seeds_are_judged_by_their_mean() -> None:
    grid = grid_of()
    trials = candidates(grid, "lora", [(20.0, 1.0), (30.0, 1.0), (29.0, 1.0), (10.0, 1.0)])
    again = [
        Candidate(item.hyperparameters, (*item.records, record_of(spec, {"rougeL": value, "validation_loss": 1.0})))
        for item, spec, value in zip(
            trials[1:3], Specs.of(grid, EXAMPLES).block(grid.arm("lora")), (10.0, 29.0), strict=False
        )
    ]
    choice = choose(grid, "lora", trials, again)
    assert choice is not None
    assert choice.run_id == trials[2].records[0].run_id


def trials_of(grid: Grid, scores: float = 30.0, zero_shot: float = 16.0) -> Trials:
    specs = Specs.of(grid, EXAMPLES)
    found = {arm.name: candidates(grid, arm.name, [(scores, 1.0)] * 4) for arm in grid.trained_arms}
    choices = [choice for arm in found if (choice := choose(grid, arm, found[arm], [])) is not None]
    baseline = specs.baselines("validation")[0]
    return Trials(
        choices=choices,
        scores={choice.arm: {"rougeL": scores, "validation_loss": 1.0} for choice in choices},
        baselines={"zero-shot": record_of(baseline, {"rougeL": zero_shot, "validation_loss": 2.0})},
        run_ids=frozenset(record.run_id for items in found.values() for item in items for record in item.records),
        hashes=specs.hashes(),
    )


@pytest.mark.parametrize(("zero_shot", "margin"), [(16.0, 0.7), (29.0, 0.5), (0.0, 1.0)])
def test_the_retain_rule_takes_its_margin_from_the_reference_s_gain(zero_shot: float, margin: float) -> None:
    grid = grid_of()
    frozen = freeze(grid, trials_of(grid, 30.0, zero_shot), None)
    assert frozen.claims[0].margin == pytest.approx(margin)


def test_a_margin_stays_as_it_was_frozen() -> None:
    grid = grid_of()
    first = freeze(grid, trials_of(grid), None)
    later = freeze(grid_of(claims__0__margin="0.9"), trials_of(grid), first)
    assert later.claims[0].margin == first.claims[0].margin


def test_a_claim_added_after_the_freeze_says_so() -> None:
    grid = grid_of()
    first = freeze(grid, trials_of(grid), None)
    renamed = grid_of(claims__claim__name="other")
    assert freeze(renamed, trials_of(renamed), first).claims[0].margin_rule.endswith("(added after the freeze)")


def test_a_choice_made_under_other_training_settings_is_made_again() -> None:
    grid = grid_of()
    first = freeze(grid, trials_of(grid), None)
    changed = grid_of(training__steps="2")
    second = freeze(changed, trials_of(changed), first)
    assert {choice.run_id for choice in first.choices}.isdisjoint({choice.run_id for choice in second.choices})
    assert freeze(grid, trials_of(grid, 31.0), first).choices == first.choices


def test_runs_are_parted_by_what_the_store_says_of_them() -> None:
    grid = grid_of()
    block = Specs.of(grid, EXAMPLES).block(grid.arm("lora"))
    statuses = ["completed", "out_of_memory", "failed", "interrupted"]
    last: dict[str, Record] = {}
    for spec, status in zip(block, statuses, strict=True):
        made = record_of(spec, {"rougeL": 1.0} if status == "completed" else None)
        last[spec.run_id] = made.model_copy(update={"status": status})
    split = parted([*block, *block], last, retry_failed=False)
    assert [spec.trial for spec in split.done] == [0, 1, 0, 1]
    assert [spec.trial for spec in split.given_up] == [2, 2]
    assert [spec.trial for spec in split.to_do] == [3]
    assert [spec.trial for spec in parted(block, last, retry_failed=True).to_do] == [2, 3]


def test_drop_in_runs_take_the_reference_s_hyperparameters() -> None:
    grid = grid_of(claims__claim__drop_in="true")
    frozen = freeze(grid, trials_of(grid), None)
    reference = next(choice for choice in frozen.choices if choice.arm == "lora")
    runs = list(Specs.of(grid, EXAMPLES).confirms(frozen))
    drop_in = [spec for spec in runs if spec.purpose == "drop_in"]
    assert len(runs) + 1 == Specs.of(grid, EXAMPLES).confirm_count() == 3 + 3 + 3 + 1
    assert {spec.arm.name for spec in drop_in} == {"qlora"}
    expected = Hyperparameters(reference.rank, reference.alpha, reference.learning_rate)
    assert {spec.hyperparameters for spec in drop_in} == {expected}


def test_a_freeze_says_that_trials_were_pruned_also_when_the_grid_no_longer_asks_for_it() -> None:
    grid, pruning = grid_of(), grid_of(tune__pruning="{startup: 2}")
    frozen = freeze(pruning, trials_of(pruning), None)
    assert frozen.pruning == PruningPart(at=(0.25, 0.5), startup=2, keep=0.5)
    assert freeze(grid, trials_of(grid), frozen) == frozen
    assert freeze(grid, trials_of(grid), None).pruning is None


def told(arm: str, share: float = 0.7) -> Importances:
    return Importances(arm=arm, evaluator="a test", trials=8, shares={"learning_rate": share, "rank": 1.0 - share})


def test_importances_are_frozen_and_a_second_freeze_changes_no_last_digit() -> None:
    grid = grid_of()
    first = freeze(grid, replace(trials_of(grid), importances=[told("lora"), told("qlora")]), None)
    assert first.importances == (told("lora"), told("qlora"))
    again = freeze(grid, replace(trials_of(grid), importances=[told("lora", 0.7001), told("qlora", 0.7001)]), first)
    assert again == first


def test_importances_of_a_choice_that_is_made_again_are_made_again() -> None:
    grid, changed = grid_of(), grid_of(training__steps="2")
    first = freeze(grid, replace(trials_of(grid), importances=[told("lora")]), None)
    second = freeze(changed, replace(trials_of(changed), importances=[told("lora", 0.6)]), first)
    assert second.importances == (told("lora", 0.6),)


def test_a_freeze_without_importances_can_be_read_and_gets_them_once() -> None:
    grid = grid_of()
    fields = freeze(grid, trials_of(grid), None).model_dump(mode="json")
    del fields["importances"]
    old = Frozen.model_validate(fields)
    assert old.importances == ()
    trials = replace(trials_of(grid), importances=[told("lora")])
    once = freeze(grid, trials, old)
    assert once.importances == (told("lora"),)
    assert freeze(grid, trials, once) == once


class _Refusing:
    """A conductor that runs nothing: what follows the freeze begins with it."""

    seats = 1

    def expect(self, specs: Sequence[RunSpec]) -> None:
        pass

    def recall(self, specs: Sequence[RunSpec], last: Mapping[str, Record]) -> None:
        pass

    def run_all(self, specs: Sequence[RunSpec], keep: Callable[[Record], None], then: RunSpec | None = None) -> None:
        if specs:
            raise LookupError(specs[0].stage)


def test_a_study_freezes_its_importances_once_and_writes_the_same_file_at_the_next_start(tmp_path: Path) -> None:
    grid = grid_of(tune__trials="8")
    folder = StudyFolder.of(tmp_path, grid.study)
    folder.root.mkdir()
    specs = Specs.of(grid, EXAMPLES)
    store = RecordStore(folder)
    for spec in specs.baselines("validation"):
        store.append(record_of(spec, {"rougeL": 16.0, "validation_loss": 2.0}))
    for number, spec in enumerate(specs.block(grid.arm("lora"))):
        store.append(record_of(spec, {"rougeL": 20.0 + number, "validation_loss": 1.0}))
    for spec in specs.block(grid.arm("qlora")):
        store.append(record_of(spec, None))
    written = []
    for _ in range(2):
        study = Study(
            grid,
            folder,
            Loaded(EXAMPLES, (), "four"),
            cast(Any, _Refusing()),
            PlainView(Console(file=io.StringIO()), 1),
            Options(),
        )
        with pytest.raises(LookupError):
            study.run()
        written.append(folder.frozen.read_bytes())
    assert written[0] == written[1]
    frozen = read_frozen(folder)
    assert frozen is not None
    lora, qlora = frozen.importances
    assert (lora.arm, lora.trials, set(lora.shares), lora.reason) == ("lora", 8, {"rank", "learning_rate"}, None)
    assert sum(lora.shares.values()) == pytest.approx(1.0, abs=2e-4)
    assert (qlora.arm, qlora.trials, qlora.shares) == ("qlora", 0, {})
    assert qlora.reason == "0 trials gave a score, and it takes 6"
