"""A training that was broken off and goes on from its checkpoint is the training that nobody broke off."""

import hashlib
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from harness.desk import Machine
from harness.engine import checkpoints
from harness.engine.adapting import Adapter, attach
from harness.engine.checkpoints import PAGE, CheckpointFiles, Measured, Page
from harness.engine.keeping import Beside, Keeper
from harness.engine.loading import Base
from harness.engine.stepping import Stepper
from harness.engine.training import Recipe, Trained, train
from harness.engine.trying import probe_arm
from harness.gpu import GpuPeak
from harness.messages import PhaseEnded, Resumed, decode_event
from harness.messages import encode as encoded_message
from harness.outcomes import Completed
from harness.resuming import SOURCE, no_checkpoints, remove, sweep, whole
from harness.runlog import RunLog
from harness.scores import Scorer
from reports.measured_tables import process_peak
from results.layout import SET_ASIDE, StudyFolder
from results.schema import EnergyPart
from results.store import write_atomically
from run_study import main
from study.arms import Precision
from study.examples import Example
from study.runs import Purpose, Stage
from study.settings import EngineSettings, Training
from study.space import Hyperparameters
from tests.unit.harness.conftest import encode, training
from tests.unit.harness.test_pruning import block, grid_of
from tests.unit.results.records import confirm

Load = Callable[[Precision], Base]
SET = Hyperparameters(rank=4, alpha=8, learning_rate=1e-2)
RUN_ID = "0123456789abcdef"
HERE = {"device": "cpu", "torch": torch.__version__}
STEPS = 8


_UNDISTURBED: dict[object, tuple[Trained, list[torch.Tensor]]] = {}


class PowerCut(BaseException):
    """Nothing of the training goes on after it."""


class Noted:
    """Keeps what is said of checkpoints."""

    def __init__(self) -> None:
        self.pages: list[Page] = []
        self.troubles: list[tuple[str, str]] = []

    def measured(self) -> Measured:
        return Measured(seconds=10.0, allocated_bytes=None, reserved_bytes=None, host_rss_bytes=1000)

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def breakdown(self) -> dict[str, int] | None:
        return {"adapters": 7}

    def resumed(self, page: Page) -> None:
        self.pages.append(page)

    def failed(self, what: str, why: str) -> None:
        self.troubles.append((what, why))


class Bench:
    """Trains adapters on one precision, each time in what stands for a fresh process."""

    def __init__(self, load: Load, examples: tuple[Example, ...], folder: Path) -> None:
        self._load = load
        self._examples = examples
        self.folder = folder
        self.noted = Noted()
        self.precision = Precision.FP32
        self.settings = training(steps=STEPS)
        self.dropout = 0.0
        folder.mkdir(parents=True)

    def keeper(self, every: int = 3, run_id: str = RUN_ID, made_on: dict[str, str] = HERE) -> Keeper:
        return Keeper(CheckpointFiles(self.folder, run_id, made_on), every, self.noted)

    def train(self, keeper: Keeper | None = None, cut_after: int | None = None) -> tuple[Trained, list[torch.Tensor]]:
        base = self._load(self.precision)
        arm = replace(probe_arm(self.precision), dropout=self.dropout)
        adapter: Adapter = attach(base, arm, SET, self.settings, seed=7)
        encoded = encode(base, self._examples, self.settings)

        def on_step(step: int, *_: object) -> None:
            if step == cut_after:
                raise PowerCut

        recipe = Recipe(self.settings, 1e-2, seed=7)
        trained = train(base, adapter, encoded, recipe, on_step, Beside(keeper=keeper))
        return trained, [p.detach().clone() for p in adapter.model.parameters() if p.requires_grad]

    def undisturbed(self) -> tuple[Trained, list[torch.Tensor]]:
        """The training that nobody breaks off, made once for all tests of its settings."""
        key = (self.precision, self.settings, self.dropout)
        if key not in _UNDISTURBED:
            _UNDISTURBED[key] = self.train()
        return _UNDISTURBED[key]

    def cut(self, after: int, every: int = 3) -> None:
        """A training that ends without a word after so many steps; what the process knew is gone."""
        with pytest.raises(PowerCut):
            self.train(self.keeper(every), cut_after=after)
        torch.manual_seed(99)

    def page(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / PAGE).read_text())
        return content


@pytest.fixture
def bench(load: Load, examples: tuple[Example, ...], tmp_path: Path) -> Bench:
    return Bench(load, examples, tmp_path / "checkpoints" / RUN_ID)


def assert_same(first: tuple[Trained, list[torch.Tensor]], second: tuple[Trained, list[torch.Tensor]]) -> None:
    (one, weights), (other, others) = first, second
    assert one.losses == other.losses
    assert replace(one, first_seconds=0.0, first_tokens=0) == replace(other, first_seconds=0.0, first_tokens=0)
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))


CASES = {
    "fp32": (Precision.FP32, training(steps=STEPS)),
    "bf16": (Precision.BF16, training(steps=STEPS, adapter_dtype="compute")),
    "fp16, whose gradients are scaled": (Precision.FP16, training(steps=STEPS)),
    "micro-batches, weight decay, cosine": (
        Precision.FP32,
        training(steps=STEPS, micro_batch_size=2, weight_decay=0.1, schedule="cosine", warmup_ratio=0.5),
    ),
    "a bound on a pass's tokens": (
        Precision.BF16,
        training(steps=STEPS, engine=EngineSettings(cuda_graphs=None, pass_tokens=700)),
    ),
    "a paged optimizer, which on a CPU pages nothing": (
        Precision.FP32,
        training(steps=STEPS, optimizer="paged_adamw_8bit"),
    ),
}


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_a_resumed_training_equals_the_one_that_nobody_broke_off(bench: Bench, case: str) -> None:
    # Dropout: each step depends on the random state that the steps before it have left.
    bench.precision, bench.settings = CASES[case]
    bench.dropout = 0.2
    undisturbed = bench.undisturbed()
    assert len(set(undisturbed[0].losses)) == STEPS
    bench.cut(after=5)
    assert bench.page()["step"] == 3
    bench.cut(after=7)
    assert bench.page()["step"] == 6
    assert_same(undisturbed, bench.train(bench.keeper()))
    assert [page.step for page in bench.noted.pages] == [3, 6]
    assert bench.noted.troubles == []


def test_keeping_checkpoints_changes_no_number(bench: Bench) -> None:
    bench.dropout = 0.2
    assert_same(bench.undisturbed(), bench.train(bench.keeper(every=1)))
    assert sorted(path.name for path in bench.folder.iterdir()) == [PAGE, f"step-{STEPS}.safetensors"]


def test_a_training_that_was_over_is_not_made_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = bench.train(bench.keeper(every=4))
    monkeypatch.setattr(Stepper, "step", lambda *_: pytest.fail("a step was made"))
    assert_same(undisturbed, bench.train(bench.keeper(every=4)))


def test_a_resumed_training_makes_only_the_steps_that_are_missing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.cut(after=5)
    made: list[object] = []
    step = Stepper.step

    def counted(stepper: Stepper, batches: Any) -> float:
        made.append(batches)
        return step(stepper, batches)

    monkeypatch.setattr(Stepper, "step", counted)
    bench.train(bench.keeper())
    assert len(made) == STEPS - 3


def test_what_is_not_put_back_would_be_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.dropout = 0.2
    undisturbed = bench.undisturbed()
    bench.cut(after=5)
    monkeypatch.setattr(torch, "set_rng_state", lambda _: None)
    losses = bench.train(bench.keeper())[0].losses
    assert losses[:3] == undisturbed[0].losses[:3]
    assert losses[3] != undisturbed[0].losses[3]


def test_updates_that_fp16_left_out_are_counted_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.precision = Precision.FP16
    seen: list[int] = []
    watch = Stepper._watch

    def watched(stepper: Stepper, norm: float) -> None:
        watch(stepper, float("inf"))
        seen.append(stepper.skipped)

    monkeypatch.setattr(Stepper, "_watch", watched)
    bench.cut(after=4)
    assert bench.page()["skipped"] == 3
    bench.train(bench.keeper())
    assert seen == [1, 2, 3, 4, 4, 5, 6, 7, 8]


def test_seconds_add_up_without_what_was_made_again_and_peaks_are_the_highest(bench: Bench) -> None:
    bench.cut(after=5)
    bench.cut(after=7)
    assert Page.model_validate(bench.page()).measured == Measured(
        seconds=20.0, allocated_bytes=None, reserved_bytes=None, host_rss_bytes=1000
    )
    assert bench.page()["breakdown"] == {"adapters": 7}
    end = PhaseEnded("train", 5.0, 700, None, 900)
    earlier = Resumed(6, 8, 20.0, 800, None, None)
    assert decode_event(encoded_message(earlier)) == earlier
    assert whole(end, earlier) == PhaseEnded("train", 25.0, 800, None, 900)


def test_figures_that_nobody_took_of_all_parts_are_missing_in_the_record_of_a_resumed_run() -> None:
    trial = block(grid_of())[0]
    test_split = replace(trial.evaluated, split="test")
    spec = replace(trial, stage=Stage.CONFIRM, trial=None, purpose=Purpose.TUNED, evaluated=test_split)
    records = []
    for resumed in (None, Resumed(6, 8, 20.0, 800, 850, None)):
        log = RunLog(spec, "paper", {}, Scorer(), warm=False, energy_of_run=EnergyPart(joules=9.0, seconds=3.0))
        log.resumed = resumed
        peak, energy = GpuPeak(1_900, 1_950, 40, 0, "process"), EnergyPart(joules=1.0, seconds=1.0)
        log.add_phase(PhaseEnded("load", 2.0, 300, 310, 900), peak, energy)
        log.add_phase(PhaseEnded("train", 5.0, 700, 900, 950), peak, energy)
        records.append(log.record(Completed(1.0), {}, 8.0))
    alone, record = records
    assert "resumed_from_step" not in alone.checks
    assert record.checks["resumed_from_step"] == 6
    assert (alone.seconds.train, alone.seconds.total, record.seconds.train, record.seconds.total) == (5, 8, 25, 28)
    assert (alone.energy_j, set(alone.energy)) == (9.0, {"load", "train"})
    assert (record.energy_j, record.energy_window_s, set(record.energy)) == (None, None, {"load"})
    train = record.memory.train
    assert train is not None
    assert (train.allocated_bytes, train.reserved_bytes, train.host_rss_bytes) == (800, 900, 950)
    # The earlier part of a trial may have been made in a warm worker, whose reserved bytes are those of many runs.
    log = RunLog(trial, "paper", {}, Scorer(), warm=False, resumed=Resumed(6, 8, 20.0, 800, 5_000, None))
    log.add_phase(PhaseEnded("train", 5.0, 700, 900, 950), None, None)
    of_trial = log.record(Completed(1.0), {}, 8.0).memory.train
    assert of_trial is not None
    assert (of_trial.allocated_bytes, of_trial.reserved_bytes) == (800, None)
    assert (train.process_bytes, train.device_bytes, train.source) == (None, None, SOURCE)
    assert record.memory.load == alone.memory.load
    assert (process_peak(alone), process_peak(record)) == (1_900, None)


# --- checkpoints that are not gone on from ---


def rewritten(**changes: object) -> Callable[[Bench], None]:
    def spoil(bench: Bench) -> None:
        (bench.folder / PAGE).write_text(json.dumps(bench.page() | changes))

    return spoil


def torn_page(bench: Bench) -> None:
    path = bench.folder / PAGE
    path.write_bytes(path.read_bytes()[:-40])


def torn_tensors(bench: Bench) -> None:
    path = bench.folder / "step-3.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def a_bit_flipped(bench: Bench) -> None:
    path = bench.folder / "step-3.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def no_tensors(bench: Bench) -> None:
    (bench.folder / "step-3.safetensors").unlink()


def other_tensors(bench: Bench) -> None:
    path = bench.folder / "step-3.safetensors"
    tensors = safetensors.torch.load(path.read_bytes())
    name = next(name for name in tensors if name.startswith("weight."))
    data = safetensors.torch.save(tensors | {name: tensors[name].to(torch.float16)})
    path.write_bytes(data)
    rewritten(sha256=hashlib.sha256(data).hexdigest())(bench)


def a_pickle(bench: Bench) -> None:
    path = bench.folder / "step-3.safetensors"
    torch.save({"weight": torch.zeros(2)}, path)
    rewritten(sha256=hashlib.sha256(path.read_bytes()).hexdigest())(bench)


def a_page_of_brackets(bench: Bench) -> None:
    (bench.folder / PAGE).write_text("[" * 100_000)


SPOILT = {
    "checkpoint.json is torn or damaged": torn_page,
    "its tensors are not those that were written": torn_tensors,
    "its tensors are not those": a_bit_flipped,
    "its tensors cannot be read: No such file": no_tensors,
    "its tensors are of another training: weight.": other_tensors,
    "its tensors cannot be read: Error while deser": a_pickle,
    "it is of run 'fedcba9876543210'": rewritten(run_id="fedcba9876543210"),
    "device was 'NVIDIA H100' and is 'cpu'": rewritten(made_on=HERE | {"device": "NVIDIA H100"}),
    "checkpoint.json: schema_version 2 is newer than this program's 1": rewritten(
        schema_version=2, words="of another kind"
    ),
    "checkpoint.json: content: Value error, 3 losses at step 2 of 8": rewritten(step=2),
    "it is of a training of 9 steps": rewritten(steps=9),
    "its loss scale is of another training": rewritten(scaler={"scale": 1.0}),
    "checkpoint.json: words: Extra inputs": rewritten(words="of another kind"),
    "checkpoint.json is torn": a_page_of_brackets,
}


@pytest.mark.parametrize("said", SPOILT)
def test_a_checkpoint_that_is_damaged_or_foreign_is_set_aside_and_the_run_starts_anew(bench: Bench, said: str) -> None:
    undisturbed = bench.undisturbed()
    bench.cut(after=4)
    SPOILT[said](bench)
    assert_same(undisturbed, bench.train(bench.keeper()))
    assert bench.noted.pages == []
    ((what, why),) = bench.noted.troubles
    assert what == "checkpoint_not_used"
    assert why.startswith(said)
    aside = bench.folder.with_name(RUN_ID + SET_ASIDE)
    assert (aside / PAGE).exists()
    # What follows has checkpoints again.
    assert bench.page()["step"] == 6


@pytest.mark.parametrize("kept", ["tensors alone", "a part of a file"])
def test_what_a_kill_leaves_while_the_first_checkpoint_is_written_is_no_checkpoint(bench: Bench, kept: str) -> None:
    undisturbed = bench.undisturbed()
    bench.cut(after=4)
    (bench.folder / PAGE).unlink()
    if kept == "a part of a file":
        (bench.folder / "step-3.safetensors").rename(bench.folder / ".step-3.safetensors.77.tmp")
    assert_same(undisturbed, bench.train(bench.keeper()))
    assert (bench.noted.pages, bench.noted.troubles) == ([], [])
    assert sorted(path.name for path in bench.folder.iterdir()) == [PAGE, "step-6.safetensors"]


def test_a_kill_between_the_tensors_and_their_page_leaves_the_older_checkpoint(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = bench.undisturbed()

    def killed(path: Path, data: bytes) -> None:
        if path.name == PAGE and json.loads(data)["step"] == 6:
            raise PowerCut
        write_atomically(path, data)

    monkeypatch.setattr(checkpoints, "write_atomically", killed)
    bench.cut(after=STEPS)
    monkeypatch.undo()
    assert sorted(path.name for path in bench.folder.iterdir()) == [PAGE, "step-3.safetensors", "step-6.safetensors"]
    assert_same(undisturbed, bench.train(bench.keeper()))
    assert [page.step for page in bench.noted.pages] == [3]


# --- a disk without room, a folder that is gone ---


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    mine = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, mine[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, mine)


def test_a_checkpoint_that_finds_no_room_costs_neither_the_run_nor_the_one_before(bench: Bench) -> None:
    undisturbed = bench.undisturbed()
    bench.cut(after=4)
    before = {path.name: path.read_bytes() for path in bench.folder.iterdir()}
    with files_of_at_most(8192):
        assert_same(undisturbed, bench.train(bench.keeper()))
    assert bench.noted.troubles == [("checkpoint_not_saved", "File too large")]
    assert {path.name: path.read_bytes() for path in bench.folder.iterdir()} == before


def test_a_folder_that_is_removed_under_way_is_not_made_anew(bench: Bench) -> None:
    undisturbed = bench.undisturbed()
    bench.folder.rmdir()
    bench.folder.parent.rmdir()
    assert_same(undisturbed, bench.train(bench.keeper(every=5)))
    assert bench.noted.troubles == [("checkpoint_not_saved", "No such file or directory")]
    assert not bench.folder.parent.exists()


# --- where they are, and for how long ---


def test_a_checkpoint_holds_no_pickle_and_its_place_is_inside_of_the_study(bench: Bench, tmp_path: Path) -> None:
    bench.cut(after=4)
    names = safetensors.torch.load((bench.folder / "step-3.safetensors").read_bytes()).keys()
    assert {name.split(".")[0] for name in names} == {"weight", "optimizer", "random"}
    folder = StudyFolder(tmp_path)
    assert folder.checkpoint(RUN_ID) == bench.folder
    for name in ("", "..", "../../elsewhere", "0123456789ABCDEF", RUN_ID + "/..", RUN_ID + "\n"):
        with pytest.raises(ValueError, match="is no run id"):
            folder.checkpoint(name)


def test_leftovers_of_runs_that_are_over_are_removed_and_those_that_go_on_are_kept(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "study")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("of somebody else")
    statuses = {"1" * 16: "completed", "2" * 16: "interrupted", "3" * 16: None, "4" * 16: "completed"}
    for run_id in ("1" * 16, "2" * 16, "3" * 16):
        folder.checkpoint(run_id).mkdir(parents=True)
        (folder.checkpoint(run_id) / PAGE).write_text("{}")
    (folder.checkpoints / ("1" * 16 + SET_ASIDE)).mkdir()
    folder.checkpoint("4" * 16).symlink_to(outside)
    last = {
        run_id: confirm(run_id=run_id) if status == "completed" else confirm(run_id=run_id, status=status, quality=None)
        for run_id, status in statuses.items()
        if status is not None
    }
    sweep(folder, last)
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["2" * 16, "3" * 16]
    assert (outside / "file").exists()
    remove(folder, "2" * 16)
    remove(folder, "3" * 16)
    assert not folder.checkpoints.exists()
    sweep(folder, last)


def test_a_state_that_is_paged_on_a_gpu_has_no_checkpoints() -> None:
    paged: Training = training(optimizer="paged_adamw_8bit")
    assert no_checkpoints(training(), "cuda") is None
    assert no_checkpoints(paged, "cpu") is None
    assert "paged_adamw_8bit" in (no_checkpoints(paged, "cuda") or "")
    assert Machine("cpu", None, {}).checkpoint_every is None


@pytest.mark.parametrize("value", ["0", "-5", "2.5", "many", "", "٣"])
def test_an_interval_that_is_none_is_told_in_one_line(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--grid", "quickstart.yaml", f"--checkpoint-every={value}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.endswith(f"argument --checkpoint-every: {value!r}: choose a number of optimizer steps from 1")
