"""The commands as a person meets them, right and wrong."""

import json
import re
from pathlib import Path

import pytest

from harness.adapters.nvml import open_gpus
from tests.integration.commands import ROOT, run

TINY = ROOT / "tests" / "grids" / "tiny.yaml"


def test_the_plan_of_the_paper_s_study_needs_no_network_no_gpu_and_no_data(tmp_path: Path) -> None:
    done = run("run_study.py", "--grid", "ablation.yaml", "--plan", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for expected in ("microsoft/phi-2", "qlora-nf4@targets=all-linear,double_quant=true", "5.178", "1.699", "power"):
        assert expected in text
    assert not (tmp_path / "ablation").exists()


@pytest.mark.skipif(open_gpus() is not None, reason="there is a GPU here")
def test_a_grid_that_asks_for_a_gpu_is_refused_in_one_line_before_anything_else(tmp_path: Path) -> None:
    done = run("run_study.py", "--grid", "ablation.yaml", "--results", str(tmp_path), timeout=60)
    assert done.returncode == 2
    assert re.fullmatch(r"training\.device 'gpu': no NVIDIA GPU here; [^\n]*--allow-cpu[^\n]*\n", done.stderr)
    assert done.stdout == ""
    assert not (tmp_path / "ablation").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "nowhere.yaml"], r"--grid 'nowhere.yaml': no such file; choose from ablation\.yaml, quickstart"),
        (["--grid", str(TINY), "--only", "nobody"], r"--only 'nobody': choose from zero-shot, lora"),
        (["--grid", str(TINY), "--set", "arms.qlora.precision=int3"], r"precision 'int3': choose from fp32"),
        (["--grid", str(TINY), "--set", "training.stepz=3"], r"training\.stepz: unknown key"),
        (["--grid", str(TINY), "--set", "data.source=local"], r"data\.local: missing"),
        (["--grid", str(TINY), "--set", "nonsense"], r"--set 'nonsense': write key=value"),
    ],
)
@pytest.mark.parametrize("plan", [True, False])
def test_bad_input_is_one_clear_line_and_exit_2(arguments: list[str], message: str, plan: bool, tmp_path: Path) -> None:
    done = run("run_study.py", *arguments, "--results", str(tmp_path), *(["--plan"] if plan else []))
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_one_set_takes_several_changes(tmp_path: Path) -> None:
    changes = ["seeds=[11, 12]", "arms.qlora.precision=fp4"]
    done = run("run_study.py", "--grid", str(TINY), "--plan", "--results", str(tmp_path), "--set", *changes)
    assert done.returncode == 0, done.stderr
    assert "seeds: [11, 12]" in done.stdout
    assert re.search(r"qlora +fp4\+dq", done.stdout)


def test_a_study_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    for module, arguments in (("reports", ["nope"]), ("results", ["verify", "nope"])):
        done = run("-m", module, *arguments, "--results", str(tmp_path))
        assert done.returncode == 2
        assert "'nope'" in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_doctor_tries_every_precision() -> None:
    done = run("-m", "harness", "doctor")
    assert done.returncode == 0, done.stderr
    for precision in ("fp32", "fp16", "bf16", "int8", "nf4", "fp4"):
        assert re.search(rf"ok +{precision} +loads and trains on", done.stdout), done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_local_files_stand_in_for_the_generated_dialogues(tmp_path: Path) -> None:
    dialogues = [f"Ann: Is it {n * 3} or {n * 5}?\nBen: {n} times {n + 2}." for n in range(20)]
    rows = [{"id": f"d{n}", "dialogue": text, "summary": f"Ann asks {n}."} for n, text in enumerate(dialogues)]
    data = tmp_path / "dev.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    local = f"{{train: '{data}[:12]', validation: '{data}[12:16]', test: '{data}[-4:]'}}"
    done = run(
        "run_study.py",
        *("--grid", str(TINY), "--results", str(tmp_path / "results"), "--out", str(tmp_path / "out")),
        *("--set", "data.source=local", "--set", f"data.local={local}", "--set", "seeds=[11]"),
        *("--set", "tune.trials=1", "--only", "lora"),
    )
    assert "data: local files: 12 train, 4 validation, 4 test" in done.stdout, done.stdout + done.stderr
    assert "confirm lora · seed 11" not in done.stderr
    assert done.returncode == 1
    assert "not run" in done.stdout
