"""The card of a trained adapter in the Hub's format, filled from the records, beside the adapter itself."""

import argparse
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from reports.card_text import card
from reports.claiming import judge_claims
from reports.evidence import ArmEvidence, Evidence, NoStudy, gather
from results.layout import DEFAULT_RESULTS, StudyFolder
from results.schema import Record
from results.store import ResultsError
from study.metrics import METRICS
from study.problems import choices, one_line, shown

# What PEFT needs to load an adapter, and all that a published folder holds besides its card.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


class NoAdapter(RuntimeError):
    """There is no adapter to write a card for; one line that says why."""


@dataclass(frozen=True, slots=True)
class Winner:
    """The arm whose adapter is published, the run that it comes from, and the folder that holds it."""

    arm: ArmEvidence
    record: Record
    folder: Path


def winner(evidence: Evidence, folder: StudyFolder, arm: str | None = None) -> Winner:
    """The arm with the best validation score of those whose adapter was kept, or the arm that is named.

    The test split has no say in it: choosing by it would make its score an optimistic one.

    Raises:
        NoAdapter: there is none.
    """
    kept = [found for item in evidence.arms if (found := _kept(item, folder)) is not None]
    if not kept:
        raise NoAdapter("no adapter was kept: training.save_adapters says of which runs (of random weights never)")
    if arm is not None:
        named = [item for item in kept if item.arm.part.name == arm]
        if not named:
            raise NoAdapter(f"--arm {shown(arm)}: {choices(item.arm.part.name for item in kept)}")
        return named[0]
    select_by = METRICS["rougeL" if evidence.frozen is None else evidence.frozen.select_by]

    def rank(item: Winner) -> float:
        score = None if item.arm.choice is None else item.arm.choice.score
        return float("-inf") if score is None else select_by.sign * score

    return max(kept, key=rank)


def _kept(arm: ArmEvidence, folder: StudyFolder) -> Winner | None:
    for record in arm.runs:
        path = folder.adapter(record.run_id)
        if record.purpose == "tuned" and all((path / name).is_file() for name in ADAPTER_FILES):
            return Winner(arm, record, path)
    return None


def write_adapter(results: Path, study: str, into: Path, arm: str | None = None) -> Winner:
    """Writes `into` with the adapter and its card; what was there is replaced as a whole.

    Raises:
        NoStudy, NoAdapter, ResultsError: as they say.
    """
    folder = StudyFolder.planned(results, study)
    if folder is None:
        raise NoStudy(f"STUDY {shown(study)}: no study of that name in {results}")
    evidence = gather(folder)
    chosen = winner(evidence, folder, arm)
    if into.exists() and not (into / ADAPTER_FILES[0]).is_file() and any(into.iterdir()):
        raise NoAdapter(f"--out {shown(str(into))}: is there already and holds no adapter")
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
        try:
            for name in ADAPTER_FILES:
                shutil.copyfile(chosen.folder / name, making / name)
            (making / "README.md").write_text(
                card(evidence, judge_claims(evidence), chosen.arm, chosen.record), encoding="utf-8"
            )
            making.chmod(0o755)
            shutil.rmtree(into, ignore_errors=True)
            making.rename(into)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    except OSError as error:
        raise ResultsError(f"{into} cannot be written: {error.strerror}") from error
    return chosen


def main(arguments: list[str] | None = None) -> int:
    """`python -m reports card STUDY`. Exit codes: 0 written, 1 cannot be written, 2 nothing to write."""
    parser = argparse.ArgumentParser(prog="python -m reports card", description="An adapter folder with its card.")
    parser.add_argument("study", metavar="STUDY")
    parser.add_argument("--arm", metavar="ARM", help="this arm's adapter (default: the best on validation)")
    parser.add_argument("--results", type=Path, default=DEFAULT_RESULTS, metavar="DIR", help="where studies are kept")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder (reports/out/STUDY/adapter)")
    parsed = parser.parse_args(arguments)
    into = parsed.out or Path("reports/out") / parsed.study / "adapter"
    try:
        chosen = write_adapter(parsed.results, parsed.study, into, parsed.arm)
    except (NoStudy, NoAdapter) as error:
        print(one_line(str(error)), file=sys.stderr)
        return 2
    except ResultsError as error:
        print(one_line(f"no card: {error}"), file=sys.stderr)
        return 1
    print(f"adapter of {one_line(chosen.arm.part.name)}, run {chosen.record.run_id}: {one_line(str(into))}")
    return 0
