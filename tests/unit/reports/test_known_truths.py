"""Studies whose truth is known, from records to files: verdict, table and terminal say exactly that, and agree."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reports.report import write_report
from tests.unit.reports.records import LORA, SEEDS, ZERO_SHOT, Arm, tuned_id, write_study


@dataclass(frozen=True)
class Told:
    """What a report says of its only claim, in its three places."""

    file: dict[str, Any]
    claim: dict[str, Any]
    row: dict[str, str]
    summary: tuple[str, ...]
    page: str


def told(results: Path, **changes: Any) -> Told:
    write_study(results, **changes)
    report = write_report(results, "study", results / "out")
    file = json.loads((report.folder / "verdict.json").read_text())
    (claim,) = file["claims"]
    with open(report.folder / "tables" / "verdicts.csv", newline="") as lines:
        (row,) = csv.DictReader(lines)
    return Told(file, claim, row, report.summary, report.index.read_text())


def qlora(**changes: Any) -> dict[str, Any]:
    return {"arms": (ZERO_SHOT, LORA, Arm("qlora", precision="nf4", memory=6.1, **changes))}


def table_interval(row: dict[str, str]) -> tuple[float, float]:
    low, high = row["90% interval, points"].strip("[]").split(", ")
    return float(low), float(high)


TRUTHS = [
    pytest.param({}, "supported", id="match"),
    pytest.param(qlora(mean=38.0), "refuted", id="two-points-less"),
    pytest.param({"seeds": (11, 12)}, "no_verdict", id="too-few-seeds"),
    pytest.param(qlora(statuses=dict.fromkeys(SEEDS, "out_of_memory")), "no_verdict", id="did-not-fit"),
    pytest.param(qlora(statuses={13: "diverged"}), "supported", id="a-seed-missing"),
    pytest.param({"residual": 9.0}, "inconclusive", id="too-noisy"),
]


@pytest.mark.parametrize(("changes", "verdict"), TRUTHS)
def test_file_table_terminal_and_page_say_the_same(tmp_path: Path, changes: dict[str, Any], verdict: str) -> None:
    seen = told(tmp_path, **changes)
    assert seen.file["verdict"] == seen.claim["verdict"] == verdict
    words = verdict.replace("_", " ")
    assert seen.row["verdict"] == words
    assert seen.summary[0] == f"qlora matches lora within ±1 points: {words}."
    assert seen.summary[0] in seen.page
    assert seen.claim["reason"] == seen.summary[1].strip()
    metric = seen.claim["metrics"]["rouge1"]
    if "low90" in metric:
        assert table_interval(seen.row) == pytest.approx((metric["low90"], metric["high90"]), abs=0.0051)
    if verdict != "no_verdict":
        assert f"[{metric['low90']:z.2f}, {metric['high90']:z.2f}]" in seen.summary[1]


def test_a_match_is_supported_with_its_interval_inside_the_margin(tmp_path: Path) -> None:
    seen = told(tmp_path)
    metric = seen.claim["metrics"]["rouge1"]
    assert metric["difference"] == pytest.approx(0.0, abs=1e-6)
    assert -1.0 < metric["low90"] < metric["high90"] < 1.0
    assert metric["p_tost"] < 0.05
    assert (seen.claim["flags"], seen.file["not_completed"], seen.file["left_out"]) == ([], [], [])
    assert seen.claim["smallest_margin"] < 1.0


def test_two_points_less_are_refuted_as_worse_by_two_points(tmp_path: Path) -> None:
    seen = told(tmp_path, **qlora(mean=38.0))
    metric = seen.claim["metrics"]["rouge1"]
    assert metric["difference"] == pytest.approx(-2.0, abs=1e-6)
    assert metric["high90"] < -1.0
    assert seen.claim["flags"] == ["refuted_worse"]
    assert seen.row["difference, points"] == "-2.00"
    assert "worse by more than the margin" in seen.summary[1]


def test_two_seeds_give_no_verdict_and_say_how_many_are_needed(tmp_path: Path) -> None:
    seen = told(tmp_path, seeds=(11, 12))
    assert seen.summary[1].strip() == (
        "no verdict: 2 seeds of the candidate and 2 of the reference on 40 dialogues, "
        "and each arm needs at least 3 seeds"
    )
    assert seen.claim["seeds"]["qlora"] == {"planned": 2, "scored": 2, "missing": {}}
    assert seen.claim["flags"] == []


def test_an_arm_that_did_not_fit_is_a_finding_in_every_place(tmp_path: Path) -> None:
    seen = told(tmp_path, **qlora(statuses=dict.fromkeys(SEEDS, "out_of_memory")))
    assert seen.summary[1].strip() == "no verdict: qlora has no completed test run (5 out_of_memory)"
    assert [item["run_id"] for item in seen.file["not_completed"]] == [tuned_id("qlora", seed) for seed in SEEDS]
    assert {item["status"] for item in seen.file["not_completed"]} == {"out_of_memory"}
    assert seen.row["difference, points"] == ""
    assert "did not fit" in (tmp_path / "out" / "study" / "tables" / "main.csv").read_text()
    assert "  qlora: — no scores (5 out_of_memory)" in seen.summary


def test_a_missing_seed_is_counted_named_and_not_made_up(tmp_path: Path) -> None:
    seen = told(tmp_path, **qlora(statuses={13: "diverged"}))
    assert seen.claim["seeds"]["qlora"]["planned"] == 5
    assert seen.claim["seeds"]["qlora"]["scored"] == 4
    assert seen.claim["seeds"]["qlora"]["missing"] == {"13": "diverged"}
    assert tuned_id("qlora", 13) not in seen.claim["run_ids"]
    metric = seen.claim["metrics"]["rouge1"]
    assert (metric["seeds_candidate"], metric["seeds_reference"]) == (4, 5)
    assert "4 and 5 seeds, 40 dialogues" in seen.summary[1]
    assert "  note: qlora: planned seeds without a score: 13 (diverged)" in seen.summary


def test_noise_is_inconclusive_and_says_what_it_would_take(tmp_path: Path) -> None:
    seen = told(tmp_path, residual=9.0)
    needed = seen.claim["metrics"]["rouge1"]["needed"]
    (line,) = [line for line in seen.summary if line.startswith("  what it would need: ")]
    assert str(needed["seeds"] or needed["dialogues"]) in line
    assert seen.claim["metrics"]["rouge1"]["power"] < 0.5


def test_one_dialogue_has_scores_and_no_verdict(tmp_path: Path) -> None:
    seen = told(tmp_path, dialogues=1)
    assert seen.file["verdict"] == "no_verdict"
    assert "5 seeds and 1 dialogues" in seen.summary[1]
    (line,) = [line for line in seen.summary if line.startswith("  qlora: ")]
    assert line.startswith("  qlora: ROUGE-1 40.00, ROUGE-2 ")
    assert line.endswith(" (5 seeds)")
