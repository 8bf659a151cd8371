"""Synthetic studies with all that figures show: trials that differ, losses, lengths and importances.

`write_measured(results)` writes a study of `records`, then a second record of each run, which counts, that says more.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from results.layout import StudyFolder
from results.schema import Importances, Record, Status
from results.store import RecordStore, read_frozen, read_records, write_frozen
from study.space import Interval, Space, sobol_block
from tests.unit.reports.records import LORA, QLORA, ZERO_SHOT, Arm, Card, claim, run_id, write_study

SPACE = Space(rank=(4, 8, 16, 32, 64), alpha=(16, 32, 64), learning_rate=Interval(2e-5, 2e-3, "log"))
STEPS = 120
NO_TRIALS = "0 trials gave a score, and it takes 6"
SHARES = {"alpha": 0.07, "learning_rate": 0.71, "rank": 0.22}


@dataclass(frozen=True)
class More:
    """What a figure needs beside `records`: trials an arm, and what a test wants else."""

    trials: int = 16
    steps: int = STEPS
    importances: bool = True
    # Trials that ended otherwise, by number.
    trial_statuses: dict[int, Status] = field(default_factory=dict)
    constant: bool = False


def arms(more: More) -> tuple[Arm, ...]:
    """A zero-shot model, three arms that fit and one that does not."""
    statuses: list[Status] = [more.trial_statuses.get(number, "completed") for number in range(more.trials)]
    made = (
        ZERO_SHOT,
        LORA,
        Arm("lora-int8", precision="int8", mean=39.8, memory=7.4),
        QLORA,
    )
    cards = {
        arm.name: Arm(
            arm.name,
            precision=arm.precision,
            method=arm.method,
            mean=arm.mean + 0.3 * index,
            memory=arm.memory,
            zero_shot=arm.zero_shot,
            trial_statuses=tuple(statuses),
            card=Card(forecast=arm.memory * (0.97 + 0.02 * index)),
        )
        for index, arm in enumerate(made)
    }
    lost: list[Status] = ["out_of_memory"] * more.trials
    unfit = Arm(
        "lora-fp32",
        precision="fp32",
        statuses=dict.fromkeys((11, 12, 13, 14, 15), "out_of_memory"),
        trial_statuses=tuple(lost),
        card=Card(forecast=17.5, limit=16.0, reached=15.5),
    )
    return (*cards.values(), unfit)


def write_measured(results: Path, more: More | None = None, **changes: Any) -> StudyFolder:
    """Writes the study; `changes` are those of `records.write_study`."""
    more = more or More()
    fields: dict[str, Any] = {"arms": arms(more), "claims": (claim(metrics=("rouge1", "rougeL"), drop_in=True),)}
    folder = write_study(results, **(fields | changes))
    store = RecordStore(folder)
    for record in read_records(folder).last.values():
        store.append(said_more(record, more))
    frozen = read_frozen(folder)
    if frozen is not None:
        stored = [
            Importances(arm=choice.arm, evaluator="Test evaluator", trials=more.trials, shares=SHARES)
            if choice.arm != "lora-fp32"
            else Importances(arm=choice.arm, evaluator="Test evaluator", trials=0, shares={}, reason=NO_TRIALS)
            for choice in frozen.choices
        ]
        best = {choice.arm: run_id("tune", None, choice.arm, 0, min(5, more.trials - 1)) for choice in frozen.choices}
        choices = tuple(choice.model_copy(update={"run_id": best[choice.arm]}) for choice in frozen.choices)
        kept = tuple(stored) if more.importances else ()
        write_frozen(folder, frozen.model_copy(update={"importances": kept, "choices": choices}))
    return folder


def said_more(record: Record, more: More) -> Record:
    """A record with what the figures show, drawn from seeds that its run decides."""
    draw = np.random.default_rng([int(record.run_id, 16)])
    fields = record.model_dump()
    if record.stage == "tune":
        fields |= _trial(record, more, draw)
    if record.split == "test" and record.status == "completed":
        fields["checks"] = record.checks | _checks(record, more, draw)
    if record.status == "completed" and record.seconds.train is not None:
        seconds = record.seconds.train * (1.6 if record.arm == "qlora" else 1.0) + float(draw.normal(0.0, 2.0))
        fields["seconds"] = fields["seconds"] | {"train": seconds}
        fields["energy_j"] = None if record.energy_j is None else 300.0 * (seconds + 100.0)
    return Record.model_validate(fields)


def _trial(record: Record, more: More, draw: np.random.Generator) -> dict[str, Any]:
    number = record.trial or 0
    chosen = SPACE.at(sobol_block(more.trials, 1)[number])
    changed: dict[str, Any] = {
        "adapter": record.adapter.model_dump() | {"rank": chosen.rank, "alpha": chosen.alpha},
        "learning_rate": chosen.learning_rate,
    }
    if record.quality is not None:
        away = math.log10(chosen.learning_rate) + 3.4
        value = 30.0 - 6.0 * away**2 - 0.3 * abs(math.log2(chosen.rank) - 4) + float(draw.normal(0.0, 0.4))
        changed["quality"] = record.quality | {"rougeL": 30.0 if more.constant else value}
    return changed


def _checks(record: Record, more: More, draw: np.random.Generator) -> dict[str, Any]:
    ratio = 1.05 if record.training else 2.4
    checks: dict[str, Any] = {
        "length_ratio": round(ratio + float(draw.normal(0.0, 0.03)), 4),
        "empty_outputs": int(draw.integers(0, 2)),
        "hit_max_new_tokens": int(draw.integers(0, 3)) + (0 if record.training else 20),
    }
    if record.training:
        steps = np.arange(1, more.steps + 1)
        smooth = 1.3 + 1.2 * np.exp(-steps / 15) + 0.05 * (record.arm == "qlora")
        checks["losses"] = [round(float(loss), 5) for loss in smooth + draw.normal(0.0, 0.08, more.steps)]
    return checks
