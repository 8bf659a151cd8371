"""Whether everything that a study recorded is whole and agrees with itself."""

from collections.abc import Iterator
from dataclasses import dataclass

from results.layout import StudyFolder
from results.schema import Prediction, Record
from results.store import ResultsError, read_frozen, read_plan, read_predictions, read_records

# Scores are stored with six decimals; a mean of them can differ from the recorded one by no more than this, in points.
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Verified:
    """What was looked at, and every fault found, a line each."""

    records: int
    runs: int
    predictions: int
    faults: tuple[str, ...]


def verify(folder: StudyFolder) -> Verified:
    """Reads everything and recomputes what can be recomputed.

    Raises:
        ResultsError: the record file itself cannot be read.
    """
    records = read_records(folder)
    faults = [f"{folder.records.name}, line {damage.line}: {damage.reason}" for damage in records.damaged]
    for name, read in (("frozen.json", read_frozen), ("plan.json", read_plan)):
        try:
            read(folder)
        except ResultsError as error:
            faults.append(f"{name}: {error}")
    files = 0
    for record in records.last.values():
        if record.status == "completed":
            files += 1
            faults += _run_faults(folder, record)
    return Verified(len(records.all), len(records.last), files, tuple(faults))


def _run_faults(folder: StudyFolder, record: Record) -> Iterator[str]:
    label = f"run {record.run_id} ({record.arm}, {record.stage})"
    try:
        predictions = read_predictions(folder, record.run_id)
    except ResultsError as error:
        yield f"{label}: {error}"
        return
    if len(predictions) != record.data.evaluated_size:
        yield f"{label}: {len(predictions)} predictions of {record.data.evaluated_size} dialogues"
    elif record.quality is not None:
        yield from _score_faults(label, record.quality, predictions)


def _score_faults(label: str, quality: dict[str, float], predictions: tuple[Prediction, ...]) -> Iterator[str]:
    if any(prediction.scores is None for prediction in predictions):
        yield f"{label}: a scored run has predictions without scores"
        return
    for key in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        values = [[triple[2] for triple in (prediction.scores or {})[key]] for prediction in predictions]
        mean = sum(sum(each) / len(each) for each in values) / len(values)
        if abs(mean - quality[key]) > TOLERANCE:
            yield f"{label}: {key} is recorded as {quality[key]:.6f}, its predictions give {mean:.6f}"
