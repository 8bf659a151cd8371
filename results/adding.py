"""`python -m results add-predictions`: what a system from elsewhere wrote, scored as this project's runs are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.external import FILE_NAME, ExternalPrediction, ExternalRun, quality_of, read_external, write_external
from results.layout import StudyFolder
from results.schema import Plan
from results.store import ResultsError, read_frozen, read_plan, read_records
from study.claims import EXTERNAL_PREFIX
from study.examples import Example, digest
from study.problems import choices, shown
from study.rouge import Rouge
from study.rows import RowError, examples_of, merged, text_lines

_ID_FIELDS = ("id", "example_id")


class AddingError(ResultsError):
    """Predictions that cannot be added to a study: one line that says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Given:
    """What is added: a system by name, one of its training seeds, and the two files."""

    name: str
    seed: int
    label: str | None
    predictions: Path
    data: Path
    replace: bool


@dataclass(frozen=True, slots=True)
class Added:
    """What came of it: the system as it is kept now, and in words what was done."""

    run: ExternalRun
    done: str

    def __str__(self) -> str:
        quoted = ", ".join(f"{key} {self.run.quality[key]:.2f}" for key in ("rouge1", "rouge2", "rougeL"))
        return f"{self.done} {self.run.arm}, seed {self.run.seed}: {len(self.run.predictions)} dialogues, {quoted}"


def add_predictions(folder: StudyFolder, given: Given) -> Added:
    """Scores what a system wrote for the test split of a study, and keeps it beside the study's records.

    The same predictions again change nothing but the label, where one is given.

    Raises:
        AddingError: the files do not fit the study or each other, or other predictions stand there already.
        ResultsError: something of the study cannot be read or written.
    """
    plan = _plan(folder)
    _check_name(plan, given.name)
    examples = _test_split(folder, plan, given.data)
    texts = _in_order(given.predictions, examples, given.data)
    there = _there(folder, given)
    if there is not None and _same(there, examples, texts):
        return _labelled(folder, there, given.label)
    if there is not None and not given.replace:
        raise AddingError(
            f"--arm {shown(given.name)}: seed {given.seed} was added before with other predictions; "
            "--replace puts these in their place, another --seed beside them"
        )
    run = _scored(folder, given, examples, texts)
    write_external(folder, run)
    return Added(run, "added" if there is None else "replaced")


def _plan(folder: StudyFolder) -> Plan:
    plan = read_plan(folder)
    if plan is None:
        raise AddingError(f"--study {shown(folder.root.name)}: it has no {folder.plan.name}: run its grid first")
    return plan


def _check_name(plan: Plan, name: str) -> None:
    names = {text for arm in plan.arms for text in (arm.name, arm.family)}
    if name in names:
        raise AddingError(f"--arm {shown(name)}: an arm of this study has that name; give the system another one")


def _test_split(folder: StudyFolder, plan: Plan, data: Path) -> list[Example]:
    """The dialogues of `data`, once they are known to be a test split that this study used."""
    frozen, records = read_frozen(folder), read_records(folder).all
    weights = {record.model.weights for record in records} | ({frozen.model.weights} if frozen is not None else set())
    if weights == {"random"}:
        raise AddingError(f"--study {shown(folder.root.name)}: its weights are random, so that it has no scores")
    known = {plan.floors_of: None} | {
        record.data.evaluated_hash: record.data.evaluated_size for record in records if record.split == "test"
    }
    examples = read_examples(data)
    if len({example.id for example in examples}) < len(examples):
        raise AddingError(f"--data {data.name}: two dialogues have one id, so that nothing can be told apart")
    found = digest(examples)
    if found in known:
        return examples
    expected, size = list(known.items())[-1]
    own = folder.examples("test", expected)
    raise AddingError(
        f"--data {data.name}: its {len(examples)} dialogues (digest {found[:12]}) are not the test split of this study "
        f"({'digest' if size is None else f'{size} dialogues, digest'} {expected[:12]}): the same rows in the same "
        "order are needed" + (f"; {own} holds them" if own.is_file() else "")
    )


def read_examples(path: Path) -> list[Example]:
    """The dialogues of a JSONL file as a test split holds them: rows of one dialogue are one example.

    A row has `dialogue` and `summary` or `summary1`, `summary2`, …; or `references`, as a study's own copy has.

    Raises:
        AddingError: it cannot be read, or a row is no dialogue with references.
    """
    rows = [_object(line, f"--data {path.name}, line {number}") for number, line in _lines("--data", path)]
    if not rows:
        raise AddingError(f"--data {path.name}: holds no dialogue")
    try:
        if all("references" in row for row in rows):
            return [Example(str(row["id"]), row["dialogue"], tuple(row["references"])) for row in rows]
        return merged(list(examples_of(rows, "dialogue", None, f"--data {path.name}")))
    except RowError as error:
        raise AddingError(str(error)) from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise AddingError(f"--data {path.name}: no dialogues with references: {error}") from error


def _lines(option: str, path: Path) -> list[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers from 1."""
    return [(number, line) for number, line in enumerate(text_lines(_text(option, path)), start=1) if line.strip()]


def _text(option: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise AddingError(f"{option} {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AddingError(f"{option} {path}: cannot be read: it is not UTF-8") from error


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise AddingError(f"{where}: no JSON") from error
    if not isinstance(row, dict):
        raise AddingError(f"{where}: no JSON object")
    return row


def _in_order(path: Path, examples: Sequence[Example], data: Path) -> list[str]:
    """One prediction a dialogue, in the order of the dialogues."""
    option = f"--predictions {path.name}"
    if not _is_jsonl(path):
        texts = text_lines(_text("--predictions", path))
        if len(texts) != len(examples):
            raise AddingError(f"{option}: {len(texts)} predictions, {data.name} has {len(examples)} dialogues")
        return texts
    rows = [(number, _object(line, f"{option}, line {number}")) for number, line in _lines("--predictions", path)]
    found = [_prediction(row, f"{option}, line {number}") for number, row in rows]
    if len(found) != len(examples):
        raise AddingError(f"{option}: {len(found)} predictions, {data.name} has {len(examples)} dialogues")
    if all(identity is None for identity, _ in found):
        return [text for _, text in found]
    return _by_id(found, examples, option)


def _is_jsonl(path: Path) -> bool:
    """Whether predictions are objects: the name says so, or the first line is one that has a prediction."""
    if path.suffix in (".jsonl", ".json"):
        return True
    first = next((line for _, line in _lines("--predictions", path)), "")
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "prediction" in row


def _prediction(row: Mapping[str, Any], where: str) -> tuple[str | None, str]:
    """Id (None where there is none) and text of one object."""
    text = row.get("prediction")
    if not isinstance(text, str):
        raise AddingError(f"{where}: no text in 'prediction' (it has {', '.join(sorted(row)) or 'nothing'})")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise AddingError(f"{where}: the prediction holds half a character, which no file can") from error
    ids = [row[field] for field in _ID_FIELDS if isinstance(row.get(field), str | int)]
    return (str(ids[0]) if ids else None), text


def _by_id(found: Sequence[tuple[str | None, str]], examples: Sequence[Example], option: str) -> list[str]:
    """The texts in the order of the examples.

    Raises:
        AddingError: a prediction without id, an id that is unknown or comes twice.
    """
    ids = {example.id for example in examples}
    texts: dict[str, str] = {}
    for identity, text in found:
        if identity is None:
            raise AddingError(f"{option}: some predictions have an id and some have none")
        if identity not in ids:
            raise AddingError(f"{option}: {shown(identity)} is no dialogue of the test split")
        if identity in texts:
            raise AddingError(f"{option}: {shown(identity)} has two predictions")
        texts[identity] = text
    missing = [example.id for example in examples if example.id not in texts]
    if missing:
        raise AddingError(f"{option}: no prediction for {choices(missing).removeprefix('choose from ')}")
    return [texts[example.id] for example in examples]


def _there(folder: StudyFolder, given: Given) -> ExternalRun | None:
    """What was added under that name and seed before; None where there is nothing, or damage that is to be replaced."""
    path = folder.external(given.name, given.seed)
    if not path.exists():
        return None
    try:
        return read_external(folder, path.name)
    except ResultsError:
        if given.replace:
            return None
        raise


def _same(run: ExternalRun, examples: Sequence[Example], texts: Sequence[str]) -> bool:
    kept = [(item.example_id, item.prediction) for item in run.predictions]
    return run.test_hash == digest(examples) and kept == [
        (example.id, text) for example, text in zip(examples, texts, strict=True)
    ]


def _labelled(folder: StudyFolder, run: ExternalRun, label: str | None) -> Added:
    if label is None or label == run.label:
        return Added(run, "already there:")
    changed = ExternalRun.model_validate(run.model_dump() | {"label": label})
    write_external(folder, changed)
    return Added(changed, "new label for")


def _scored(folder: StudyFolder, given: Given, examples: Sequence[Example], texts: Sequence[str]) -> ExternalRun:
    rouge = Rouge()
    scored = [rouge.score(text, example.references) for example, text in zip(examples, texts, strict=True)]
    return ExternalRun(
        study=folder.root.name,
        name=given.name,
        label=given.label,
        seed=given.seed,
        test_hash=digest(examples),
        quality={key: round(value, 6) for key, value in quality_of(scored).items()},
        predictions=tuple(
            ExternalPrediction(example_id=example.id, prediction=text, scores=scores)
            for example, text, scores in zip(examples, texts, scored, strict=True)
        ),
    )


def system_name(text: str) -> str:
    """The name of a system as --arm gives it, with or without `external/`.

    Raises:
        ValueError: no such name; says what one is.
    """
    name = text.removeprefix(EXTERNAL_PREFIX)
    if FILE_NAME.fullmatch(f"{name}.0.json") is None:
        raise ValueError(f"{shown(text)}: use letters, digits, - and _ (at most 64, a letter or digit first)")
    return name
