"""Systems that this project did not train: their predictions as score matrices, beside those of the arms."""

from collections.abc import Iterator, Sequence

import numpy as np

from reports.scores import Scored, Unscored
from results.external import ExternalRun
from study.metrics import ROUGE_TYPES
from study.rouge import reduced


def systems(runs: Sequence[ExternalRun]) -> Iterator[tuple[str, tuple[ExternalRun, ...]]]:
    """Each system by its name in claims (`external/NAME`) with its seeds, in the order of their names."""
    for name in sorted({run.arm for run in runs}):
        yield name, tuple(sorted((run for run in runs if run.arm == name), key=lambda run: run.seed))


def scored(runs: Sequence[ExternalRun], test_hash: str) -> tuple[Scored | Unscored, tuple[str, ...]]:
    """The score matrices of one system, one row a seed, and the ids of those left out: scored on other dialogues than
    those that `test_hash` names."""
    used = [run for run in runs if run.test_hash == test_hash]
    others = tuple(run.run_id for run in runs if run.test_hash != test_hash)
    if not used:
        return Unscored("was scored on other dialogues than the runs"), others
    matrices = {
        kind: np.array([[reduced(item.scores[kind], "mean") for item in run.predictions] for run in used])
        for kind in ROUGE_TYPES
    }
    found = Scored(
        run_ids=tuple(run.run_id for run in used),
        seeds=tuple(run.seed for run in used),
        example_ids=tuple(item.example_id for item in used[0].predictions),
        scores=matrices,
    )
    return found, others
