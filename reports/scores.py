"""Score matrices: the predictions of an arm's runs as (seeds, dialogues) arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reports.comparability import LeftOut
from results.layout import StudyFolder
from results.schema import Prediction, Record
from results.store import ResultsError, read_predictions
from study.metrics import ROUGE_TYPES

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scored:
    """The test scores of one arm: `scores[metric]` is (seeds, dialogues), in points, mean over references."""

    run_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    example_ids: tuple[str, ...]
    scores: dict[str, FloatArray]


@dataclass(frozen=True, slots=True)
class Unscored:
    """Why an arm has no score matrix."""

    reason: str


class ScoreReader:
    """Reads predictions into score matrices, and notes the runs whose predictions cannot be used."""

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._faults: dict[str, list[str]] = {}

    @property
    def left_out(self) -> list[LeftOut]:
        """Runs whose predictions could not be used."""
        return [LeftOut(reason, tuple(run_ids)) for reason, run_ids in self._faults.items()]

    def read(self, runs: Sequence[Record]) -> Scored | Unscored:
        """The score matrices of completed runs, one row a seed (the first of its repeats).

        A run without usable predictions is left out, which is a missing seed; runs on different dialogues spoil the
        arm, for nothing says which of them is right.
        """
        if not runs:
            return Unscored("has no completed test run")
        if all(record.quality is None for record in runs):
            return Unscored("has random weights, which have no scores")
        rows: dict[int, tuple[Record, tuple[Prediction, ...]]] = {}
        for record in sorted(runs, key=lambda item: (item.seed, item.repeat)):
            predictions = self._usable(record) if record.seed not in rows else None
            if predictions is not None:
                rows[record.seed] = (record, predictions)
        if not rows:
            return Unscored("has no test run with usable predictions")
        dialogues = {tuple(item.example_id for item in predictions) for _, predictions in rows.values()}
        if len(dialogues) > 1:
            return Unscored("has runs that were scored on different dialogues")
        return Scored(
            run_ids=tuple(record.run_id for record, _ in rows.values()),
            seeds=tuple(rows),
            example_ids=dialogues.pop(),
            scores={kind: np.array([_row(items, kind) for _, items in rows.values()]) for kind in ROUGE_TYPES},
        )

    def _usable(self, record: Record) -> tuple[Prediction, ...] | None:
        try:
            predictions = read_predictions(self._folder, record.run_id)
        except ResultsError:
            fault = "their predictions are missing or damaged"
        else:
            if len({item.example_id for item in predictions}) < len(predictions):
                fault = "their predictions hold a dialogue twice"
            elif not predictions or not all(_is_scored(item) for item in predictions):
                fault = "their predictions lack scores"
            else:
                return predictions
        self._faults.setdefault(fault, []).append(record.run_id)
        return None


def _is_scored(item: Prediction) -> bool:
    return item.scores is not None and all(item.scores.get(kind) for kind in ROUGE_TYPES)


def _row(predictions: Sequence[Prediction], kind: str) -> list[float]:
    """F of every dialogue, mean over its references (the primary rule), in points."""
    return [
        sum(triple[2] for triple in item.scores[kind]) / len(item.scores[kind])
        for item in predictions
        if item.scores is not None
    ]
