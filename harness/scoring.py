"""`harness score`: predictions from elsewhere against a data file, under the three reference rules."""

from pathlib import Path

from harness.adapters.sources import read_references
from harness.scores import Rouge, Rule, means
from study.metrics import ROUGE_TYPES
from study.rows import text_lines

RULES: tuple[Rule, ...] = ("mean", "max", "first")


class ScoringError(ValueError):
    """The files cannot be scored against each other."""


def score_files(predictions: Path, data: Path) -> dict[str, dict[str, float]]:
    """ROUGE type to rule (`mean_reference`, `max_reference`, `first_reference`) to F in points, exact means.

    Raises:
        ScoringError: no such file, or other numbers of predictions than of dialogues.
        DataError: the data file cannot be read or has rows without references.
    """
    lines = prediction_lines(predictions)
    references = read_references(data)
    if len(lines) != len(references):
        raise ScoringError(
            f"{predictions.name} has {len(lines)} predictions, {data.name} has {len(references)} dialogues"
        )
    rouge = Rouge()
    scored = [rouge.score(line, expected) for line, expected in zip(lines, references, strict=True)]
    by_rule = {rule: means(scored, rule) for rule in RULES}
    return {kind: {f"{rule}_reference": by_rule[rule][kind] for rule in RULES} for kind in ROUGE_TYPES}


def prediction_lines(path: Path) -> list[str]:
    """One prediction a line; an empty line is an empty prediction, a last line break ends the last one.

    Raises:
        ScoringError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ScoringError(f"{path} cannot be read: {error}") from error
    return text_lines(text)
