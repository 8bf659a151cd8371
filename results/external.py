"""Systems that this project did not train: what they wrote for a study's test split, and what it scored.

One file a system and training seed, `external/<name>.<seed>.json`. Format history (`external_version`):

1. First version (0.2.0).
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from results.layout import StudyFolder
from results.schema import Part
from results.store import ResultsError, parsed, write_atomically
from study.claims import EXTERNAL_PREFIX
from study.metrics import METRICS, ROUGE_TYPES
from study.problems import one_line
from study.rouge import Triple, means
from study.schema import Name

EXTERNAL_VERSION: Literal[1] = 1
# The members of `external/`, by name and seed; a name holds no dot.
FILE_NAME = re.compile(r"([A-Za-z0-9][\w-]{0,63})\.(0|[1-9][0-9]{0,9})\.json", re.ASCII)


class ExternalPrediction(Part):
    """One dialogue: what was written, and one [precision, recall, F] in points a reference for each ROUGE type."""

    example_id: str
    prediction: str
    scores: dict[str, tuple[Triple, ...]]


class ExternalRun(Part):
    """One training seed of one system; `predictions` are in the order of the test split, whose digest is `test_hash`.

    `label` is how tables describe it; `quality` as in a record, without a loss.
    """

    external_version: Literal[1] = EXTERNAL_VERSION
    study: str
    name: Name
    label: Annotated[str, Field(min_length=1, max_length=200)] | None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)]
    test_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    quality: dict[str, float]
    predictions: Annotated[tuple[ExternalPrediction, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if len({item.example_id for item in self.predictions}) < len(self.predictions):
            raise ValueError("a dialogue has two predictions")
        if not all(item.scores.get(kind) for item in self.predictions for kind in ROUGE_TYPES):
            raise ValueError("a prediction has no scores")
        return self

    @property
    def arm(self) -> str:
        """How tables and claims name the system."""
        return EXTERNAL_PREFIX + self.name

    @property
    def run_id(self) -> str:
        """Sixteen hex digits over everything that the scores come from, in the form of a run's id."""
        texts = [(item.example_id, item.prediction) for item in self.predictions]
        content = json.dumps(["external", self.name, self.seed, self.test_hash, texts], separators=(",", ":"))
        return hashlib.sha256(content.encode("ascii")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Externals:
    """The systems of a study by name and seed, and a line for each file that cannot be used."""

    runs: tuple[ExternalRun, ...]
    faults: tuple[str, ...]


def quality_of(scored: Sequence[Mapping[str, Sequence[Triple]]]) -> dict[str, float]:
    """The ROUGE metrics of the table, in points."""
    found: dict[str, float] = {}
    for key, metric in METRICS.items():
        if metric.rule is not None:
            found[key] = means(scored, metric.rule)[key.removesuffix("_max")]
    return found


def read_externals(folder: StudyFolder) -> Externals:
    """Every system from elsewhere, sorted by name and seed; none where nothing was added. Nothing is changed on disk.

    Raises:
        ResultsError: the folder cannot be listed.
    """
    runs: list[ExternalRun] = []
    faults: list[str] = []
    for name in external_names(folder):
        try:
            runs.append(read_external(folder, name))
        except ResultsError as error:
            faults.append(one_line(str(error)))
    return Externals(tuple(sorted(runs, key=lambda run: (run.name, run.seed))), tuple(faults))


def external_names(folder: StudyFolder) -> list[str]:
    """The names of the files in `external/`, sorted; what is hidden (an unfinished write) is none.

    Raises:
        ResultsError: the folder cannot be listed.
    """
    root = folder.external("any", 0).parent
    try:
        return sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ResultsError(f"{root} cannot be read: {error.strerror}") from error


def read_external(folder: StudyFolder, file_name: str) -> ExternalRun:
    """The content of one file of `external/`.

    Raises:
        ResultsError: it cannot be read, or is no system of this study; says why.
    """
    path = folder.external("any", 0).with_name(file_name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}") from error
    return checked_external(data, file_name, folder.root.name, str(path))


def checked_external(data: bytes, file_name: str, study: str, where: str) -> ExternalRun:
    """The system in `data`, once it is of `study` and what `file_name` says; `where` is its place in messages.

    Raises:
        ResultsError: it is not.
    """
    run = parsed(ExternalRun, data, where)
    if f"{run.name}.{run.seed}.json" != file_name:
        raise ResultsError(f"{where}: holds seed {run.seed} of {run.name}, which is not what its name says")
    if run.study != study:
        raise ResultsError(f"{where}: of study {run.study!r}, not {study}")
    return run


def write_external(folder: StudyFolder, run: ExternalRun) -> None:
    """Writes one system in one step.

    Raises:
        ResultsError: it could not be written; what stood there before is untouched.
    """
    write_atomically(folder.external(run.name, run.seed), run.model_dump_json().encode() + b"\n")
