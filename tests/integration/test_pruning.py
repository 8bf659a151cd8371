"""Pruning through real workers: in one seat and in pieces, in two seats, and held against a study without it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.adapters.sources import load
from harness.conductor import Conductor, Machine
from harness.engine.sources import model_folder
from harness.flow import examples_text
from harness.specs import Specs
from harness.view import PlainView
from results.layout import StudyFolder
from results.schema import Record
from results.store import read_records, write_atomically
from study.grid import load_grid

pytestmark = pytest.mark.slow
GRID = """
study: pruned
model: {{id: {model}}}
data:
  source: generated
  limits: {{train: 8, validation: 2, test: 2}}
  generated: {{seed: 3, turns: [4, 5]}}
prompt: {{template: summarize}}
arms:
  - {{name: lora, precision: bf16}}
  - {{name: qlora, precision: nf4}}
# The block's learning rates are 2.5e-6, 3.1e-4, 2.7e-5 and 2.9e-3: the third lags behind the median of the first two.
space: {{rank: 4, alpha: 16, learning_rate: {{low: 1.0e-6, high: 1.0e-2}}}}
tune: {{trials: 4, sobol_seed: 7, pruning: {pruning}}}
seeds: [11]
training: {{device: cpu, steps: 8, batch_size: 4, max_tokens: 512}}
generation: {{max_new_tokens: 4, batch_size: 2}}
"""


def tuned(root: Path, pruning: str, seats: int = 1, pieces: Iterable[slice] = (slice(None),)) -> dict[str, Record]:
    """The blocks of both arms, each piece by a conductor that knows the earlier ones from their records alone."""
    grid = load_grid(GRID.format(model=model_folder("random/tiny-phi", None, "cpu").folder, pruning=pruning))
    folder, loaded = StudyFolder.of(root, grid.study), load(grid.data)
    specs = Specs.of(grid, loaded.splits)
    for split, part in specs.splits.items():
        write_atomically(folder.examples(split, part.hash), examples_text(loaded.splits[split]).encode())
    block = [spec for arm in grid.arms for spec in specs.block(arm)]
    for piece in pieces:
        with open(root / "said", "w", encoding="utf-8") as said:
            machine, view = Machine("cpu", None, {}, (None,) * seats), PlainView(Console(file=said), 8)
            conductor = Conductor(grid, folder, machine, loaded.splits, view)
            try:
                conductor.recall(block, read_records(folder).last)
                conductor.run_all(block[piece], lambda record: None)
            finally:
                conductor.close()
    records = read_records(folder)
    assert len(records.all) == len(records.last) == 8
    return {f"{record.arm} {record.trial}": record for record in records.all}


def numbers(record: Record) -> dict[str, Any]:
    kept = ("waypoints", "losses", "lora_b_moved", "empty_outputs")
    told = record.model_dump(mode="json", include={"run_id", "status", "error", "quality"})
    return told | {key: record.checks.get(key) for key in kept}


def test_hopeless_trials_end_early_the_same_ones_however_the_study_is_made(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rule = "{startup: 1, at: [0.5]}"
    plain = tuned(tmp_path_factory.mktemp("plain"), "null")
    pieces = tuned(tmp_path_factory.mktemp("pieces"), rule, pieces=(slice(0, 3), slice(3, 8)))
    two = tuned(tmp_path_factory.mktemp("two"), rule, seats=2)
    assert {name: numbers(record) for name, record in pieces.items()} == {
        name: numbers(record) for name, record in two.items()
    }
    pruned = {name for name, record in pieces.items() if record.status == "pruned"}
    assert pruned == {"lora 2", "qlora 2"}
    for name, record in pieces.items():
        (value,) = record.checks["waypoints"].values()
        if name in pruned:
            assert record.error is not None
            assert (record.error.type, record.error.phase, record.quality) == ("Pruned", "train", None)
            assert f"at step 4 of 8 (0.5) its loss of {value:g} is above" in record.error.message
        else:
            # A trial that completes has the numbers that it has without pruning.
            assert numbers(record) | {"waypoints": None} == numbers(plain[name])
        assert value == pytest.approx(plain[name].checks["losses"][3], abs=1e-5)
    # A worker goes on after a trial that was pruned, with the base that it has.
    # Which of the two seats is first is chance.
    assert {name for name, record in two.items() if not record.checks["warm_worker"]} == {"lora 0", "qlora 0"}
