"""What the reader of predictions holds: of each arm one run's summaries, dialogue by dialogue, with their scores."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports.claiming import ClaimResult
from reports.evidence import ArmEvidence, Evidence
from reports.page_text import visible_lines
from results.external import ExternalPrediction
from results.layout import StudyFolder
from results.schema import Prediction
from results.store import ResultsError, read_predictions
from study.examples import Example, digest
from study.metrics import METRICS
from study.problems import one_line, shortened

METRIC_KEYS = ("rouge1", "rouge2", "rougeL")
DIALOGUES = 200
# Characters of text in all, so that a study of many arms stays a page that opens; and of one text.
_ALL_TEXT = 4_000_000
_ONE_TEXT = 6_000

Scores = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Summary:
    """What one arm wrote of a dialogue; `scores` are those of the shown seed, `mean` over all seeds, in the order of
    `METRIC_KEYS`, in points, mean over references. `remarks`: cut input, stopped at the length limit, empty."""

    text: str
    scores: Scores | None
    mean: Scores | None
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class System:
    """One arm, or system from elsewhere, in the reader: the run whose predictions are shown, and of how many seeds."""

    arm: str
    run_id: str
    seed: int
    seeds: int


@dataclass(frozen=True, slots=True)
class Contrast:
    """A claim in the reader: candidate and reference as places among the systems, and the metric to begin with."""

    name: str
    candidate: int
    reference: int
    metric: int


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One dialogue; `example` is None where its text is not here. One summary a system (None: it has none)."""

    id: str
    example: Example | None
    summaries: tuple[Summary | None, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """The reader's content: the dialogues that differ most first, `left_out` more of the split not on the page;
    `without_text` says why dialogues and references are missing."""

    systems: tuple[System, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    dialogues: tuple[Dialogue, ...] = ()
    left_out: int = 0
    without_text: str | None = None


def read_reading(
    folder: StudyFolder, evidence: Evidence, results: Sequence[ClaimResult], limit: int = DIALOGUES
) -> Reading:
    """The predictions of the test split that the page shows: of each arm the run of its lowest seed that has some."""
    arms = (*evidence.arms, *evidence.external)
    found = [(arm, *shown) for arm in arms if (shown := _shown_run(folder, arm)) is not None]
    if not found:
        return Reading()
    systems = tuple(system for _, system, _ in found)
    hashes = [record.data.evaluated_hash for record in evidence.comparable] or [evidence.plan.floors_of]
    examples, without_text = _examples(folder, hashes[0])
    by_arm = []
    for arm, _, predictions in found:
        means = _means(arm)
        by_arm.append({item.example_id: _summary(item, means.get(item.example_id)) for item in predictions})
    ids = list(dict.fromkeys(name for summaries in by_arm for name in summaries))
    everything = [
        Dialogue(name, examples.get(name), tuple(summaries.get(name) for summaries in by_arm)) for name in ids
    ]
    contrasts = _contrasts(results, systems)
    chosen = _fitting(_by_difference(everything, contrasts)[:limit])
    return Reading(systems, contrasts, tuple(chosen), len(everything) - len(chosen), without_text)


def _shown_run(
    folder: StudyFolder, arm: ArmEvidence
) -> tuple[System, Sequence[Prediction] | Sequence[ExternalPrediction]] | None:
    name = one_line(arm.part.name)
    if arm.external:
        # One that was scored on other dialogues has no place beside the arms.
        used = [run for run in arm.external if arm.scored is not None and run.run_id in arm.scored.run_ids]
        return (System(name, used[0].run_id, used[0].seed, len(used)), used[0].predictions) if used else None
    seeds = len({run.seed for run in arm.runs})
    for record in sorted(arm.runs, key=lambda run: (run.seed, run.repeat)):
        try:
            predictions = read_predictions(folder, record.run_id)
        except ResultsError:
            # The page says elsewhere which runs have none; the next seed may.
            continue
        if predictions:
            return System(name, record.run_id, record.seed, seeds), predictions
    return None


def _summary(item: Prediction | ExternalPrediction, mean: Scores | None) -> Summary:
    remarks = {"empty": not item.prediction.strip()}
    if isinstance(item, Prediction):
        remarks |= {"stopped at the length limit": item.hit_limit, "its dialogue was cut": item.truncated}
    said = tuple(remark for remark, holds in remarks.items() if holds)
    return Summary(item.prediction, _scores(item), mean, said)


def _scores(item: Prediction | ExternalPrediction) -> Scores | None:
    """F of each metric, mean over references; None where any is missing."""
    triples = [] if item.scores is None else [item.scores.get(key) or () for key in METRIC_KEYS]
    if not triples or not all(triples):
        return None
    first, second, third = (sum(triple[2] for triple in each) / len(each) for each in triples)
    return first, second, third


def _means(arm: ArmEvidence) -> dict[str, Scores]:
    """Scores of each dialogue, mean over seeds, where the arm has several."""
    if arm.scored is None or len(arm.scored.seeds) < 2:
        return {}
    columns = [arm.scored.scores[key].mean(axis=0) for key in METRIC_KEYS]
    rows = zip(arm.scored.example_ids, *columns, strict=True)
    return {name: (float(one), float(two), float(three)) for name, one, two, three in rows}


def _contrasts(results: Sequence[ClaimResult], systems: Sequence[System]) -> tuple[Contrast, ...]:
    place = {system.arm: index for index, system in enumerate(systems)}
    contrasts = []
    for result in results:
        if result.claim is None:
            continue
        candidate, reference = (place.get(one_line(name)) for name in (result.claim.candidate, result.claim.reference))
        if candidate is not None and reference is not None:
            known = [METRIC_KEYS.index(metric) for metric in result.claim.metrics if metric in METRIC_KEYS]
            contrasts.append(Contrast(one_line(result.name), candidate, reference, known[0] if known else 0))
    return tuple(contrasts)


def _by_difference(dialogues: Sequence[Dialogue], contrasts: Sequence[Contrast]) -> list[Dialogue]:
    """The most different first; of equal ones in the order of the split."""
    return sorted(dialogues, key=lambda dialogue: -_difference(dialogue, contrasts))


def _difference(dialogue: Dialogue, contrasts: Sequence[Contrast]) -> float:
    """The largest absolute difference of any claim in points; without claims, of any two arms in ROUGE-1."""
    scores = [None if summary is None else summary.scores for summary in dialogue.summaries]
    if not contrasts:
        known = [each[0] for each in scores if each is not None]
        return max(known) - min(known) if known else 0.0
    apart = [0.0]
    for contrast in contrasts:
        candidate, reference = scores[contrast.candidate], scores[contrast.reference]
        if candidate is not None and reference is not None:
            apart.append(abs(candidate[contrast.metric] - reference[contrast.metric]))
    return max(apart)


def _fitting(dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    """The first of them, as many as there is room for."""
    room = _ALL_TEXT
    fitting: list[Dialogue] = []
    for dialogue in dialogues:
        room -= _length(dialogue)
        if room < 0 and fitting:
            break
        fitting.append(dialogue)
    return fitting


def _length(dialogue: Dialogue) -> int:
    texts = [summary.text for summary in dialogue.summaries if summary is not None]
    if dialogue.example is not None:
        texts += [dialogue.example.dialogue, *dialogue.example.references]
    # What stands around each text counts as well: scores, commas.
    return sum(min(len(text), _ONE_TEXT) + 60 for text in texts)


def _examples(folder: StudyFolder, test_hash: str) -> tuple[Mapping[str, Example], str | None]:
    """The dialogues of the test split by id, or why there are none."""
    path = folder.examples("test", test_hash)
    if not path.exists():
        return {}, "The dialogues and references are not in this copy of the study: their text is never published."
    try:
        examples = _read_examples(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}, "The file of dialogues and references is damaged, and is not shown."
    if digest(examples) != test_hash:
        return {}, "The file of dialogues holds others than the runs were scored on, and is not shown."
    return {example.id: example for example in examples}, None


def _read_examples(path: Path) -> list[Example]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    return [Example(row["id"], row["dialogue"], tuple(row["references"])) for row in rows]


# --- for the page's script ---


def reading_data(reading: Reading) -> dict[str, Any]:
    """The reader's content as its script takes it: every text with what prints nothing written out."""
    scored = any(summary is not None and summary.scores for item in reading.dialogues for summary in item.summaries)
    return {
        "metrics": [METRICS[key].label for key in METRIC_KEYS] if scored else [],
        "systems": [
            {"arm": each.arm, "run": each.run_id, "seed": each.seed, "seeds": each.seeds} for each in reading.systems
        ],
        "contrasts": [
            {"name": each.name, "candidate": each.candidate, "reference": each.reference, "metric": each.metric}
            for each in reading.contrasts
        ],
        "dialogues": [
            {
                "id": one_line(item.id),
                "dialogue": None if item.example is None else _text(item.example.dialogue),
                "references": [] if item.example is None else [_text(each) for each in item.example.references],
                "summaries": [None if each is None else _summary_data(each) for each in item.summaries],
            }
            for item in reading.dialogues
        ],
    }


def _summary_data(summary: Summary) -> list[Any]:
    return [_text(summary.text), _rounded(summary.scores), _rounded(summary.mean), list(summary.remarks)]


def _rounded(scores: Scores | None) -> list[float] | None:
    return None if scores is None else [round(score, 2) for score in scores]


def _text(text: str) -> str:
    return visible_lines(shortened(text, _ONE_TEXT))
