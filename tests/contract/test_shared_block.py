"""What reports take for the shared block is what the harness planned as such: the plan's order is a contract."""

from pathlib import Path
from typing import Any, cast

from harness.adapters.sources import Loaded
from harness.flow import Options, Study
from reports.evidence import gather
from reports.expected import shared_block
from results.layout import StudyFolder
from results.schema import Choice, Frozen, ModelPart
from results.store import write_frozen
from study.examples import Example
from study.grid import Grid, load_grid
from study.space import Hyperparameters

GRID = """
study: order
model: {id: some/model, revision: "0123456789012345678901234567890123456789"}
data:
  source: generated
  limits: {train: 2, validation: 2, test: 2}
  generated: {seed: 3, turns: [4, 5]}
prompt: {template: summarize}
arms:
  - {name: lora, precision: bf16, method: lora}
  - {name: qlora, precision: nf4, method: lora}
space: {rank: [4, 8, 16], alpha: [16, 32], learning_rate: {low: 1.0e-4, high: 1.0e-3, scale: log}}
tune: {trials: 4, tpe_trials: 2, seed: 0, sobol_seed: 2, select_by: rougeL, reselect: 0}
seeds: [1, 2, 3]
training: {epochs: 1}
generation: {max_new_tokens: 8}
claims: []
"""


def frozen_of(grid: Grid) -> Frozen:
    """A freeze that chose the first set of the block for every arm."""
    choices = []
    for arm in grid.trained_arms:
        first = grid.block(arm)[0]
        choices.append(
            Choice(
                arm=arm.name,
                rank=first.rank,
                alpha=first.alpha,
                learning_rate=first.learning_rate,
                run_id=None,
                score=None,
                trials=6,
                completed_trials=6,
                edges=(),
                ranking=(),
                reason="",
            )
        )
    return Frozen(
        study=grid.study,
        protocol=grid.protocol,
        model=ModelPart(id=grid.model.id, revision=grid.model.revision, weights=grid.model.weights),
        select_by="rougeL",
        arms=(),
        choices=tuple(choices),
        claims=(),
        seeds=grid.seeds,
        data={},
        prompt_hash="",
        frozen_at="",
    )


def test_trials_of_the_sampler_are_not_taken_for_the_block(tmp_path: Path) -> None:
    grid = load_grid(GRID)
    folder = StudyFolder.of(tmp_path, grid.study)
    folder.root.mkdir()
    splits = {
        split: tuple(Example(f"{split}-{n}", f"#Person1#: {split} {n}", ("a",)) for n in range(2))
        for split in ("train", "validation", "test")
    }
    unused = cast(Any, None)
    study = Study(grid, folder, Loaded(splits, (), "two dialogues"), unused, unused, Options())
    # As a study stands when it is over: every arm's block, what the sampler proposed, one repetition, and the freeze.
    for arm in grid.trained_arms:
        study.planned += study.specs.block(arm)
        study.planned += [study.specs.trial(arm, number, Hyperparameters(8, 16, number * 1e-4)) for number in (4, 5)]
        study.planned += [study.specs.trial(arm, 1, grid.block(arm)[1], seed=77)]
    write_frozen(folder, frozen_of(grid))
    study.write_plan()
    for found in gather(folder).arms:
        if found.trains:
            expected = [spec.run_id for spec in study.specs.block(grid.arm(found.part.name))]
            assert [run.run_id for run in shared_block(found)] == expected
            assert [run.trial for run in shared_block(found)] == [0, 1, 2, 3]
            trials = [run.trial for run in found.planned if run.stage == "tune"]
            assert sorted(trial for trial in trials if trial is not None) == [0, 1, 1, 2, 3, 4, 5]
