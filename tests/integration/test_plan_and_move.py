"""What a study will take, told before it runs; and a study that goes on elsewhere."""

import re
from pathlib import Path

import pytest

from results.layout import StudyFolder
from results.store import read_records
from tests.integration.commands import ROOT, run

TINY = str(ROOT / "tests" / "grids" / "tiny.yaml")


def forecast(output: str, arm: str) -> list[str]:
    """The cells of an arm's row in the second table of a plan."""
    rows = [line.split() for line in output.split("\nforecast")[1].splitlines() if line.startswith(f"{arm} ")]
    assert len(rows) == 1
    return rows[0]


def test_a_laptop_is_told_which_card_the_paper_s_study_needs(tmp_path: Path) -> None:
    options = ["--grid", "ablation", "--plan", "--gpu", "24GiB", "--results", str(tmp_path)]
    done = run("run_study.py", *options)
    assert done.returncode == 0, done.stderr
    lora = forecast(done.stdout, "lora-bf16@targets=all-linear")
    # Phi-2's weights are 5.2 GiB, adapters of rank 64 with gradients and moments 1.4; a pass of 4,096 tokens keeps
    # about 9 GiB of activations (75 KB a token and layer, as fused layers keep).
    assert 14 < float(lora[1]) < 18
    assert lora[4:7] == ["40", "80", "no"]
    smaller = run("run_study.py", *options, "--set", "generation.batch_size=32")
    qlora = forecast(smaller.stdout, "qlora-nf4@targets=attention,double_quant=true")
    assert {"24", "yes"} <= set(qlora[4:])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--plan", "--gpu", "24"], "--gpu '24': write a number with its unit: 8GiB, 24GB or 512MiB"),
        (["--memory-limit", "much"], "training.memory_limit 'much': write a number with its unit"),
        (["--memory-limit", "8GiB"], "training.memory_limit: only a GPU's memory can be limited"),
    ],
)
def test_a_size_that_is_none_or_cannot_be_kept_is_refused_in_one_line(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    done = run("run_study.py", "--grid", TINY, *arguments, "--results", str(tmp_path), "--set", "training.device=cpu")
    assert done.returncode == 2
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*/records.jsonl"))


def test_a_calibration_tells_a_plan_its_times(tmp_path: Path) -> None:
    before = run("run_study.py", "--grid", TINY, "--plan", "--results", str(tmp_path))
    assert forecast(before.stdout, "lora")[-2:] == ["—", "—"]
    options = ["--results", str(tmp_path), "--out", str(tmp_path / "out")]
    calibrated = run("run_study.py", "--grid", TINY, "--calibrate", *options)
    assert calibrated.returncode == 0, calibrated.stderr
    assert (tmp_path / "tiny-calibration" / "records.jsonl").exists()
    assert not (tmp_path / "tiny").exists()
    after = run("run_study.py", "--grid", TINY, "--plan", "--results", str(tmp_path))
    cells = forecast(after.stdout, "lora")
    assert re.fullmatch(r"[\d.]+", cells[-3])
    assert cells[-2] == "min"
    assert "3 of 3 arms had runs of just their kind" in after.stdout


def test_a_study_is_made_in_pieces_on_two_machines(tmp_path: Path) -> None:
    here, there = str(tmp_path / "here"), str(tmp_path / "there")
    out = ["--out", str(tmp_path / "out")]
    first = run("run_study.py", "--grid", TINY, "--results", here, *out, "--only", "lora", "zero-shot")
    assert first.returncode == 1, first.stderr
    archive = str(tmp_path / "tiny.tar.gz")
    assert run("-m", "results", "export", "tiny", archive, "--results", here).returncode == 0
    moved = run("-m", "results", "import", archive, "--results", there)
    assert moved.returncode == 0, moved.stderr
    known = read_records(StudyFolder.of(tmp_path / "there", "tiny")).last
    assert known == read_records(StudyFolder.of(tmp_path / "here", "tiny")).last
    rest = run("run_study.py", "--grid", TINY, "--results", there, *out)
    assert rest.returncode == 0, rest.stderr
    records = read_records(StudyFolder.of(tmp_path / "there", "tiny"))
    assert len(records.all) == len(records.last) == 17
    assert {run_id: records.last[run_id] for run_id in known} == known
    # And home again: what is there already stays as it is.
    back = str(tmp_path / "back.tar.gz")
    assert run("-m", "results", "export", "tiny", back, "--results", there).returncode == 0
    assert run("-m", "results", "import", back, "--results", here).returncode == 0
    assert read_records(StudyFolder.of(tmp_path / "here", "tiny")).last == records.last
    assert run("-m", "results", "verify", "tiny", "--results", here).returncode == 0
