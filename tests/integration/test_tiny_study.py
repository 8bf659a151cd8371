"""A whole study in every precision: interrupted, resumed, repeated, extended, reported."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from harness.engine.sources import model_folder
from results.layout import StudyFolder
from results.schema import Record
from results.store import read_frozen, read_records
from study.arms import Precision
from tests.integration.commands import ROOT, command, environment, run

TRAINED = [f"lora-{precision}" for precision in Precision]


@dataclass(frozen=True)
class Finished:
    """A study that was interrupted once and then run to its end."""

    grid: Path
    results: Path
    out: Path
    interrupted_exit: int
    orphans: int
    before: tuple[Record, ...]
    resumed: subprocess.CompletedProcess[str]

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder.of(self.results, "all-precisions")

    def start(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run(*self.line(*arguments))

    def line(self, *arguments: str) -> list[str]:
        options = ["--results", str(self.results), "--out", str(self.out)]
        return ["run_study.py", "--grid", str(self.grid), *options, *arguments]


def grid_text(model: str) -> str:
    """Every precision, two trials, three seeds; a folder of weights counts as pretrained, so that runs are scored."""
    arms = "\n".join(f"  - {{name: lora-{precision}, precision: {precision}}}" for precision in Precision)
    return f"""
study: all-precisions
model: {{id: {model}}}
data:
  source: generated
  limits: {{train: 16, validation: 4, test: 6}}
  generated: {{seed: 3, turns: [4, 5]}}
prompt: {{template: summarize}}
arms:
  - {{name: zero-shot, precision: bf16, method: none}}
{arms}
space: {{rank: 4, alpha: [8, 16], learning_rate: {{low: 1e-3, high: 1e-2}}}}
tune: {{trials: 2}}
seeds: [11, 12, 13]
training: {{device: cpu, steps: 3, batch_size: 4, max_tokens: 512}}
generation: {{max_new_tokens: 6, batch_size: 6}}
claims:
  - name: qlora
    candidate: lora-nf4
    reference: lora-bf16
    metrics: [rouge1]
    margin: {{retain: 0.95}}
    drop_in: true
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("study")
    grid = root / "grid.yaml"
    grid.write_text(grid_text(model_folder("random/tiny-phi", None, "cpu").folder))
    study = Finished(grid, root / "results", root / "out", 0, 0, (), run("-c", "pass"))
    process = subprocess.Popen(
        command(*study.line()),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    children = _until(study, process, records=4)
    process.send_signal(signal.SIGINT)
    exit_code = process.wait(timeout=20)
    _, alive = psutil.wait_procs(children, timeout=10)
    orphans = sum(child.status() != psutil.STATUS_ZOMBIE for child in alive)
    before = read_records(study.folder).all
    return Finished(grid, study.results, study.out, exit_code, orphans, before, study.start())


def _until(study: Finished, process: "subprocess.Popen[bytes]", records: int) -> list[psutil.Process]:
    """Waits for so many records, then for the next run to be under way."""
    deadline = time.monotonic() + 200
    while len(read_records(study.folder).all) < records:
        assert process.poll() is None, "the study ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    return psutil.Process(process.pid).children(recursive=True)


def test_an_interrupted_study_exits_130_and_leaves_no_process(finished: Finished) -> None:
    assert finished.interrupted_exit == 130
    assert finished.orphans == 0


def test_the_same_command_goes_on_and_ends_with_0(finished: Finished) -> None:
    assert finished.resumed.returncode == 0, finished.resumed.stdout + finished.resumed.stderr


def test_no_run_is_lost_and_none_is_made_twice(finished: Finished) -> None:
    records = read_records(finished.folder)
    assert records.damaged == ()
    counts = Counter(record.run_id for record in records.all if record.status == "completed")
    assert set(counts.values()) == {1}
    kept = {record.run_id for record in finished.before if record.status == "completed"}
    assert len(kept) >= 4
    assert {record.status for record in records.last.values()} == {"completed"}
    # 1 validation and 1 test baseline, 6 arms × 2 trials, 6 arms × 3 seeds, 3 drop-in runs.
    assert len(records.last) == 2 + 12 + 18 + 3


def test_every_precision_trained_counted_and_scored(finished: Finished) -> None:
    confirmed = [record for record in read_records(finished.folder).last.values() if record.stage == "confirm"]
    assert {record.arm for record in confirmed} == set(TRAINED)
    assert len({record.parameters.trainable for record in confirmed if record.parameters}) == 1
    for record in confirmed:
        assert record.checks["lora_b_moved"] == 1.0
        assert record.checks["warm_worker"] is False
        assert record.adapter.target_modules == ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")
        assert record.quality is not None
        assert 0.0 <= record.quality["rouge1"] <= 100.0
        assert record.memory.train is not None
        assert record.memory.train.allocated_bytes is None
        assert (record.memory.train.host_rss_bytes or 0) > 10 * 1024**2
        assert record.seconds.train
        assert record.energy_j is None


def test_every_arm_got_the_same_hyperparameter_sets(finished: Finished) -> None:
    tuned: dict[str, list[tuple[object, ...]]] = {}
    for record in read_records(finished.folder).last.values():
        if record.stage == "tune":
            chosen = (record.trial, record.adapter.rank, record.adapter.alpha, record.learning_rate)
            tuned.setdefault(record.arm, []).append(chosen)
    assert set(tuned) == set(TRAINED)
    assert len({tuple(sorted(sets, key=str)) for sets in tuned.values()}) == 1


def test_seeds_change_the_numbers_and_a_frozen_choice_is_the_best_trial(finished: Finished) -> None:
    last = read_records(finished.folder).last
    losses = {
        tuple(record.checks["losses"])
        for record in last.values()
        if record.arm == "lora-fp32" and record.stage == "confirm"
    }
    assert len(losses) == 3
    frozen = read_frozen(finished.folder)
    assert frozen is not None
    for choice in frozen.choices:
        trials = [record for record in last.values() if record.arm == choice.arm and record.stage == "tune"]
        assert choice.score == max(record.quality["rougeL"] for record in trials if record.quality)
    assert frozen.claims[0].margin == 0.5 or 0.5 < frozen.claims[0].margin <= 1.0


def test_the_report_is_whole(finished: Finished) -> None:
    out = finished.out / "all-precisions"
    verdict = json.loads((out / "verdict.json").read_text())
    claim = verdict["claims"][0]
    assert claim["verdict"] in ("supported", "refuted", "inconclusive")
    assert claim["metrics"]["rouge1"]["dialogues"] == 6
    assert claim["drop_in"]["rouge1"]["seeds_candidate"] == 3
    assert len(claim["run_ids"]) == 6
    for name in ("main.csv", "main.md", "main.tex", "trials.csv"):
        assert (out / "tables" / name).stat().st_size > 100
    for suffix in ("pdf", "png", "svg"):
        assert (out / "figures" / f"memory_vs_rouge.{suffix}").stat().st_size > 1000
    assert "lora-nf4" in (out / "index.html").read_text()
    assert "report:" in finished.resumed.stdout


def test_a_further_start_runs_nothing_and_says_so(finished: Finished) -> None:
    before = finished.folder.records.read_bytes()
    again = finished.start()
    assert again.returncode == 0
    assert "nothing to run: all 35 planned runs are recorded" in again.stdout
    assert finished.folder.records.read_bytes() == before


def test_verify_finds_everything_whole(finished: Finished) -> None:
    done = run("-m", "results", "verify", "all-precisions", "--results", str(finished.results))
    assert done.returncode == 0, done.stdout
    assert "0 faults" in done.stdout


def test_the_report_can_be_made_again_without_torch_and_byte_for_byte(finished: Finished) -> None:
    out = finished.out / "again"
    done = run("-m", "reports", "all-precisions", "--results", str(finished.results), "--out", str(out))
    assert done.returncode == 0, done.stderr
    first = {
        path.relative_to(finished.out / "all-precisions"): path.read_bytes()
        for path in _files(finished.out / "all-precisions")
    }
    second = {path.relative_to(out / "all-precisions"): path.read_bytes() for path in _files(out / "all-precisions")}
    assert first == second
    assert not any(str(finished.out).encode() in data for data in first.values())
    check = "import sys, reports.report; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert run("-c", check).returncode == 0


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_conductor_never_imports_torch() -> None:
    check = "import sys, run_study; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert run("-c", check).returncode == 0


def test_a_new_seed_runs_that_seed_alone(finished: Finished) -> None:
    before = len(read_records(finished.folder).all)
    more = finished.start("--set", "seeds=[11, 12, 13, 14]", "--only", "lora-bf16")
    records = read_records(finished.folder).all[before:]
    assert [(record.arm, record.seed) for record in records] == [("lora-bf16", 14)]
    # The other arms' seed 14 is planned too, and not run yet.
    assert more.returncode == 1
    assert "lora-nf4 · seed 14: not run" in more.stdout


def test_a_worker_that_is_killed_leaves_a_record_and_the_study_goes_on(finished: Finished) -> None:
    process = subprocess.Popen(
        command(*finished.line("--set", "seeds=[11, 12, 13, 15]", "--set", "training.steps=3", "--only", "lora-fp32")),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    killed = False
    while not killed and time.monotonic() < deadline and process.poll() is None:
        # A process may end between being listed and being asked.
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            for child in psutil.Process(process.pid).children(recursive=True):
                # The template's children are the workers; the one that prepares the model has no run.
                for worker in child.children():
                    if any(re.fullmatch(r"[0-9a-f]{16}\.log", Path(file.path).name) for file in worker.open_files()):
                        os.kill(worker.pid, signal.SIGKILL)
                        killed = True
        time.sleep(0.02)
    output, _ = process.communicate(timeout=120)
    assert killed, output
    assert process.returncode == 1, output
    last = [record for record in read_records(finished.folder).all if record.seed == 15][-1]
    assert last.status == "killed"
    assert "SIGKILL" in (last.error.message if last.error else "")
    again = finished.start("--set", "seeds=[11, 12, 13, 15]", "--only", "lora-fp32")
    assert "confirm lora-fp32 · seed 15" in again.stdout
    assert [record.status for record in read_records(finished.folder).all if record.seed == 15][-1] == "completed"
