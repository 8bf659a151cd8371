"""Whether everything that a study recorded is whole and agrees with itself."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from results.external import ExternalPrediction, ExternalRun, read_externals
from results.layout import StudyFolder
from results.schema import Frozen, Prediction, Record
from results.store import ResultsError, read_frozen, read_plan, read_predictions, read_records
from study.examples import Example, digest
from study.metrics import METRICS, ROUGE_TYPES

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
    last = records.last
    faults = [f"{folder.records.name}, line {damage.line}: {damage.reason}" for damage in records.damaged]
    faults += _file_faults(folder, last)
    completed = [record for record in last.values() if record.status == "completed"]
    examples: dict[str, tuple[str, ...] | None] = {}
    for record in completed:
        digest_of = record.data.evaluated_hash
        if digest_of not in examples:
            try:
                examples[digest_of] = _example_ids(folder, record.split, digest_of)
            except ResultsError as error:
                examples[digest_of] = None
                faults.append(str(error))
        faults += _run_faults(folder, record, examples[digest_of])
    faults += _external_faults(folder, last)
    return Verified(len(records.all), len(last), len(completed), tuple(faults))


def _file_faults(folder: StudyFolder, last: Mapping[str, Record]) -> Iterator[str]:
    try:
        yield from _choice_faults(read_frozen(folder), last)
    except ResultsError as error:
        yield str(error)
    try:
        read_plan(folder)
    except ResultsError as error:
        yield str(error)
    recorded = {folder.predictions(run_id) for run_id in last}
    for path in sorted(folder.predictions("any").parent.glob("*.jsonl")):
        if path not in recorded:
            yield f"{path}: predictions of a run that has no record"


def _choice_faults(frozen: Frozen | None, last: Mapping[str, Record]) -> Iterator[str]:
    for choice in () if frozen is None else frozen.choices:
        if choice.run_id is not None and choice.run_id not in last:
            yield f"frozen.json: the choice of {choice.arm} comes from run {choice.run_id}, which has no record"


def _example_ids(folder: StudyFolder, split: str, expected: str) -> tuple[str, ...] | None:
    """The ids of a split's examples in their order; None where the text is not here (it is never published).

    Raises:
        ResultsError: the file holds other examples than the runs used.
    """
    path = folder.examples(split, expected)
    if not path.exists():
        return None
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        examples = [Example(row["id"], row["dialogue"], tuple(row["references"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ResultsError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if digest(examples) != expected:
        raise ResultsError(f"{path}: its digest is {digest(examples)[:16]}…, the runs used {expected[:16]}…")
    return tuple(example.id for example in examples)


def _external_faults(folder: StudyFolder, last: Mapping[str, Record]) -> Iterator[str]:
    externals = read_externals(folder)
    yield from externals.faults
    try:
        plan = read_plan(folder)
    except ResultsError:
        # Said already, among the faults of files.
        plan = None
    tests = {record.data.evaluated_hash for record in last.values() if record.split == "test"}
    for run in externals.runs:
        label = f"{run.arm}, seed {run.seed}"
        if run.test_hash not in tests | ({plan.floors_of} if plan is not None else set()):
            yield f"{label}: scored on dialogues (digest {run.test_hash[:16]}…) that are no test split of this study"
        yield from _external_order_faults(folder, run, label)
        yield from _score_faults(label, run.quality, run.predictions)


def _external_order_faults(folder: StudyFolder, run: ExternalRun, label: str) -> Iterator[str]:
    try:
        ids = _example_ids(folder, "test", run.test_hash)
    except ResultsError:
        # A damaged copy of the dialogues is told where a run uses it.
        return
    if ids is not None and tuple(item.example_id for item in run.predictions) != ids:
        yield f"{label}: its predictions are not those of the split's dialogues, in their order"


def _run_faults(folder: StudyFolder, record: Record, ids: Sequence[str] | None) -> Iterator[str]:
    label = f"run {record.run_id} ({record.arm}, {record.stage})"
    try:
        predictions = read_predictions(folder, record.run_id)
    except ResultsError as error:
        yield f"{label}: {error}"
        return
    found = [prediction.example_id for prediction in predictions]
    if len(found) != record.data.evaluated_size:
        yield f"{label}: {len(found)} predictions of {record.data.evaluated_size} dialogues"
    elif len(set(found)) < len(found):
        yield f"{label}: a dialogue has two predictions"
    elif ids is not None and tuple(found) != tuple(ids):
        yield f"{label}: its predictions are not those of the split's dialogues, in their order"
    elif record.quality is not None and found:
        yield from _score_faults(label, record.quality, predictions)
    elif any(prediction.scores is not None for prediction in predictions):
        yield f"{label}: a run without quality has predictions with scores"


def _score_faults(
    label: str, quality: Mapping[str, float], predictions: Sequence[Prediction] | Sequence[ExternalPrediction]
) -> Iterator[str]:
    for kind in ROUGE_TYPES:
        by_dialogue = [[triple[2] for triple in (prediction.scores or {}).get(kind, ())] for prediction in predictions]
        if not all(by_dialogue):
            yield f"{label}: {sum(not each for each in by_dialogue)} predictions have no {kind} scores"
            continue
        means = {
            kind: sum(sum(each) / len(each) for each in by_dialogue) / len(by_dialogue),
            f"{kind}_max": sum(max(each) for each in by_dialogue) / len(by_dialogue),
        }
        for key, mean in means.items():
            recorded = quality.get(key)
            if recorded is None:
                yield f"{label}: {METRICS[key].label} is not recorded, its predictions give {mean:.6f}"
            elif not abs(mean - recorded) <= TOLERANCE:
                yield f"{label}: {METRICS[key].label} is recorded as {recorded:.6f}, its predictions give {mean:.6f}"
