"""Systems from elsewhere in a report: a row with scores and no memory, and a side of a claim where it has seeds."""

from pathlib import Path

import numpy as np
import pytest

from reports.claiming import ClaimResult, judge_claims
from reports.evidence import Evidence, gather
from reports.report import write_report
from reports.scores import Unscored
from reports.tables import MISSING, main_table
from reports.verdict import Verdict
from results.external import ExternalPrediction, ExternalRun, quality_of, write_external
from results.layout import StudyFolder
from study.metrics import ROUGE_TYPES
from tests.unit.reports.records import BELOW, TEST_HASH, claim, write_study

DIALOGUES = 40


def add(
    folder: StudyFolder, name: str = "pegasus", seed: int = 0, mean: float = 40.0, **changes: object
) -> ExternalRun:
    """Puts a system beside a simulated study: dialogues as hard as for its arms, with some noise of its own."""
    hardness = np.random.default_rng(7).normal(0.0, 6.0, DIALOGUES)
    noise = np.random.default_rng([seed, 99]).normal(0.0, 2.0, DIALOGUES)
    values = mean + hardness - hardness.mean() + noise - noise.mean()
    predictions = tuple(
        ExternalPrediction(
            example_id=f"dialogue-{number}",
            prediction="from elsewhere",
            scores={kind: ((50.0, 50.0, float(value) - BELOW[kind]),) for kind in ROUGE_TYPES},
        )
        for number, value in enumerate(values)
    )
    fields = {"study": folder.root.name, "name": name, "label": None, "seed": seed, "test_hash": TEST_HASH}
    quality = quality_of([item.scores for item in predictions])
    run = ExternalRun.model_validate(fields | {"quality": quality, "predictions": predictions} | changes)
    write_external(folder, run)
    return run


def judged(folder: StudyFolder) -> tuple[Evidence, ClaimResult]:
    evidence = gather(folder)
    (result,) = judge_claims(evidence)
    return evidence, result


def test_a_system_is_a_row_with_scores_and_without_memory(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    run = add(folder, label="PEGASUS (Zhang 2020)")
    table = main_table(gather(folder))
    headers = [column.header for column in table.columns]
    names = [row[0].text for row in table.rows]
    assert names == ["zero-shot", "lora", "qlora", "external/pegasus", "constant summary", "first 3 turns"]
    row = dict(zip(headers, table.rows[3], strict=True))
    assert row["method"].text == "PEGASUS (Zhang 2020)"
    assert row["ROUGE-1"].text.startswith("40.00 ± ")
    assert row["ROUGE-1"].run_ids == (run.run_id,)
    assert row["seeds"].text == "1"
    for header in ("peak memory (GPU allocated)", "training", "rank", "learning rate", "test runs"):
        assert row[header].text == MISSING


def test_a_study_without_systems_from_elsewhere_says_nothing_of_them(tmp_path: Path) -> None:
    evidence = gather(write_study(tmp_path))
    assert evidence.external == ()
    assert "elsewhere" not in main_table(evidence).caption


def test_one_set_of_predictions_is_no_verdict(tmp_path: Path) -> None:
    folder = write_study(tmp_path, claims=(claim(reference="external/pegasus"),))
    add(folder)
    _, result = judged(folder)
    assert result.judgement.verdict is Verdict.NO_VERDICT
    assert (result.seeds["external/pegasus"].planned, result.seeds["external/pegasus"].scored) == (1, 1)


@pytest.mark.parametrize(("mean", "verdict"), [(40.0, Verdict.SUPPORTED), (43.0, Verdict.REFUTED)])
def test_several_prediction_files_are_seeds_and_are_judged(tmp_path: Path, mean: float, verdict: Verdict) -> None:
    folder = write_study(tmp_path, claims=(claim(reference="external/pegasus"),))
    runs = [add(folder, seed=seed, mean=mean) for seed in (1, 2, 3)]
    _, result = judged(folder)
    assert result.judgement.verdict is verdict
    assert result.seeds["external/pegasus"].scored == 3
    assert {run.run_id for run in runs} < set(result.run_ids)


def test_a_system_may_be_the_candidate(tmp_path: Path) -> None:
    folder = write_study(tmp_path, claims=(claim(candidate="external/pegasus"),))
    for seed in (1, 2, 3):
        add(folder, seed=seed, mean=37.0)
    _, result = judged(folder)
    comparison = result.metrics[0].comparison
    assert comparison is not None
    assert comparison.difference == pytest.approx(-3.0)
    assert result.judgement.verdict is Verdict.REFUTED


def test_a_misspelt_system_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    folder = write_study(tmp_path, claims=(claim(reference="external/pegsus"),))
    _, result = judged(folder)
    assert result.judgement.reason.endswith("(python -m results add-predictions): there is none")
    add(folder)
    _, result = judged(folder)
    assert result.judgement.verdict is Verdict.NO_VERDICT
    assert result.judgement.reason.endswith(
        "external/pegsus is no system whose predictions were added (python -m results add-predictions): "
        "choose from external/pegasus"
    )


def test_predictions_of_other_dialogues_are_left_out_with_their_reason(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    run = add(folder, test_hash="9" * 64)
    evidence = gather(folder)
    assert isinstance(evidence.external[0].test, Unscored)
    (left,) = evidence.left_out
    assert left.run_ids == (run.run_id,)
    assert "other dialogues than the runs" in left.reason


def test_a_damaged_file_is_told_and_does_not_cost_the_report(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    add(folder)
    folder.external("torn", 0).write_bytes(b"{")
    evidence = gather(folder)
    assert [arm.part.name for arm in evidence.external] == ["external/pegasus"]
    (told,) = evidence.damaged
    assert "torn.0.json" in told


def test_hostile_labels_and_predictions_are_inert_in_the_report(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "data")
    add(folder, label=r"<script>alert(1)</script> \input{x} =cmd()")
    report = write_report(tmp_path / "data", "study", tmp_path / "out")
    page = report.index.read_text()
    assert "<script>alert(1)" not in page
    assert "external/pegasus" in page
    assert r"\textbackslash{}input\{x\}" in (report.folder / "tables/main.tex").read_text()
    assert any("external/pegasus: ROUGE-1 40.00" in line for line in report.summary)
