"""What a warm worker keeps between two trials, and when it may."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.engine import session as engine
from harness.engine import shelving
from harness.engine.generating import Writer
from harness.engine.loading import Base
from harness.engine.rigging import Rig
from harness.engine.session import Session
from harness.engine.shelving import Shelf, fits
from harness.engine.stepping import Diverged
from harness.flow import examples_text
from harness.messages import Answers, Checkpoints, Event, Facts, Finished, Job, Raised, Waypoint
from study.arms import Arm, Method, Precision
from study.runs import RunSpec, Stage
from study.settings import EngineSettings
from tests.unit.harness.test_pruning import EXAMPLES, block, grid_of
from tests.unit.harness.test_rigging import changed

GIB = 2**30
RATES = (2e-3, 8e-3)


@pytest.mark.parametrize(
    ("resting", "need", "room", "expected"),
    [
        (20 * GIB, 50 * GIB, 80 * GIB, True),
        (20 * GIB, 53 * GIB, 80 * GIB, False),
        (40 * GIB, 41 * GIB, 80 * GIB, False),
        (0, 0, 0, True),
        (GIB, 0, GIB, False),
    ],
)
def test_a_tenth_more_than_what_was_measured_must_fit(resting: int, need: int, room: int, expected: bool) -> None:
    assert fits(resting, need, room) is expected


class Card:
    """Stands for the GPU's memory, in bytes."""

    def __init__(self) -> None:
        self.room = 80 * GIB
        self.reserved = 20 * GIB
        self.peak_reserved = 70 * GIB
        self.peak_allocated = 18 * GIB
        self.allocated = 10 * GIB


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    card = Card()
    monkeypatch.setattr(shelving, "room", lambda: card.room)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: card.reserved)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: card.peak_reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: card.allocated)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: card.peak_allocated)
    return card


class FakeRig:
    """A rig of which graphs are kept; `adapter` tells whether it was taken off."""

    def __init__(self) -> None:
        self.reusable = True
        self.moved = False
        self.detached = False
        self.adapter = self
        self.model = self

    def unload(self) -> None:
        self.detached = True

    def lay_by(self) -> None:
        self.moved = False

    def in_place(self) -> bool:
        return not self.moved


def kept(shelf: Shelf, rig: FakeRig, evaluation: object | None = None) -> bool:
    return shelf.keep("key", rig, evaluation)  # type: ignore[arg-type]


def test_a_rig_is_handed_out_once_for_its_own_key(card: Card) -> None:
    shelf, rig = Shelf(), FakeRig()
    assert kept(shelf, rig)
    found: object = shelf.taken("key")
    assert found is rig
    assert shelf.taken("key") is None
    assert not rig.detached


@pytest.mark.parametrize("why", ["another key", "no key", "weights moved", "cleared"])
def test_what_cannot_be_used_is_taken_off_the_base(card: Card, why: str) -> None:
    shelf, rig = Shelf(), FakeRig()
    assert kept(shelf, rig)
    rig.moved = why == "weights moved"
    if why == "cleared":
        shelf.clear()
    else:
        key = {"another key": "other", "no key": None}.get(why, "key")
        assert shelf.taken(key) is None
    assert rig.detached
    assert shelf.taken("key") is None


def test_an_evaluation_nobody_has_measured_has_all_of_the_card(card: Card) -> None:
    shelf, rig = Shelf(), FakeRig()
    assert not kept(shelf, rig, "evaluation")
    with shelf.evaluating("evaluation"):
        pass
    # It took 50 GiB beside what was there, which are 20 with the rig: 77 with a tenth as a margin.
    assert kept(shelf, rig, "evaluation")
    assert not kept(Shelf(), rig, "evaluation")


def test_an_evaluation_is_measured_once_and_not_where_it_failed(card: Card) -> None:
    shelf = Shelf()
    with pytest.raises(ValueError, match="no"), shelf.evaluating("evaluation"):
        raise ValueError("no")
    assert not kept(shelf, FakeRig(), "evaluation")
    with shelf.evaluating("evaluation"):
        pass
    card.peak_reserved = 79 * GIB
    with shelf.evaluating("evaluation"):
        pass
    assert kept(shelf, FakeRig(), "evaluation")


def test_what_leaves_too_little_for_the_evaluation_or_the_next_first_step_is_not_kept(card: Card) -> None:
    shelf = Shelf()
    with shelf.evaluating("evaluation"):
        pass
    card.room = 76 * GIB
    assert not kept(shelf, FakeRig(), "evaluation")
    # Where none follows, as after a trial that was pruned, the step alone counts: 8 GiB beside 20.
    assert kept(shelf, FakeRig())
    card.room = 30 * GIB
    assert not kept(shelf, FakeRig())


def test_a_rig_that_is_of_no_use_is_not_kept(card: Card) -> None:
    rig = FakeRig()
    rig.reusable = False
    assert not kept(Shelf(), rig)


# --- a session ---


class Bench:
    """Jobs on the tiny Phi for sessions that reuse what they can, as on a GPU, but without graphs."""

    def __init__(self, folder: Path, model: str) -> None:
        self._model = model
        self._files = {split: folder / f"{split}.jsonl" for split in ("train", "validation")}
        for split, file in self._files.items():
            file.write_text(examples_text(EXAMPLES[split]))
        spec = block(grid_of())[0]
        assert spec.training is not None
        self.spec = replace(spec, training=replace(spec.training, steps=4, batch_size=2))

    def job(self, spec: RunSpec, **changes: object) -> Job:
        train = None if spec.train is None else str(self._files["train"])
        job = Job(spec, self._model, train, str(self._files["validation"]), "cpu")
        return replace(job, **changes)  # type: ignore[arg-type]

    def rate(self, rate: float) -> Job:
        return self.job(changed(self.spec, learning_rate=rate))

    @property
    def baseline(self) -> Job:
        bare = replace(self.spec, stage=Stage.BASELINE, hyperparameters=None, train=None, training=None, trial=None)
        return self.job(bare)


class Told:
    """A session, and what it said of its last job; `facts` by section."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self.session = Session(self._events.append)

    def run(self, job: Job) -> tuple[object, ...]:
        """Losses of the steps, loss of the validation and answers."""
        self._events.clear()
        self.session.run(job)
        self.facts: dict[str, dict[str, Any]] = {}
        for event in self._events:
            if isinstance(event, Facts):
                self.facts.setdefault(event.section, {}).update(event.values)
        end = self._events[-1]
        if isinstance(end, Raised):
            return end.outcome, end.message
        assert isinstance(end, Finished)
        answers = [answer.text for event in self._events if isinstance(event, Answers) for answer in event.answers]
        return self.facts["checks"].get("losses"), end.validation_loss, answers

    @property
    def padded_rank(self) -> int | None:
        rank: int | None = self.facts["checks"].get("engine", {}).get("padded_rank")
        return rank

    def keeps(self) -> Rig | None:
        kept = self.session._shelf._kept
        return None if kept is None else kept[1]


@pytest.fixture
def bench(tmp_path: Path, tiny_folder: str) -> Bench:
    return Bench(tmp_path, tiny_folder)


@pytest.fixture
def _as_on_a_gpu(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    card.peak_reserved = card.reserved
    monkeypatch.setattr(engine, "_is_trial_on_gpu", lambda job: job.spec.stage is Stage.TUNE)
    monkeypatch.setattr(Rig, "reusable", property(lambda rig: rig._again and not rig.worn))


@pytest.mark.usefixtures("_as_on_a_gpu")
def test_trials_that_differ_in_learning_rate_share_a_rig_and_lose_what_each_loses_alone(bench: Bench) -> None:
    alone = {rate: Told().run(bench.rate(rate)) for rate in RATES}
    assert alone[RATES[0]] != alone[RATES[1]]
    told = Told()
    # The first shows what an evaluation takes, and keeps nothing.
    assert told.run(bench.rate(RATES[0])) == alone[RATES[0]]
    assert told.keeps() is None
    assert told.run(bench.rate(RATES[1])) == alone[RATES[1]]
    rig = told.keeps()
    assert rig is not None
    for rate in (*RATES, RATES[0]):
        assert told.run(bench.rate(rate)) == alone[rate]
        assert told.keeps() is rig


@pytest.mark.usefixtures("_as_on_a_gpu")
@pytest.mark.parametrize("other", ["rank", "seed", "a run whose figures may be quoted", "zero-shot"])
def test_another_run_finds_the_base_without_what_was_kept(bench: Bench, other: str) -> None:
    jobs: dict[str, Callable[[], Job]] = {
        "rank": lambda: bench.job(changed(bench.spec, rank=3)),
        "seed": lambda: bench.job(replace(bench.spec, seed=5)),
        "a run whose figures may be quoted": lambda: replace(bench.rate(RATES[0]), measured=True),
        "zero-shot": lambda: bench.baseline,
    }
    told = Told()
    for _ in range(2):
        told.run(bench.rate(RATES[0]))
    before = told.keeps()
    assert before is not None
    job = jobs[other]()
    assert told.run(job) == Told().run(job)
    assert told.keeps() is not before
    assert (told.keeps() is None) == (other in ("a run whose figures may be quoted", "zero-shot"))


@pytest.mark.usefixtures("_as_on_a_gpu")
def test_a_pruned_trial_leaves_what_the_next_one_needs(bench: Bench) -> None:
    alone = Told().run(bench.rate(RATES[1]))
    told = Told()
    pruned = replace(bench.rate(RATES[0]), waypoints=(Waypoint(0.5, 0.1, 4),))
    assert told.run(pruned)[0] == "pruned"
    rig = told.keeps()
    assert rig is not None
    # Nobody knows yet what an evaluation takes.
    assert told.run(bench.rate(RATES[1])) == alone
    assert told.keeps() is None
    assert told.run(pruned)[0] == "pruned"
    assert told.run(bench.rate(RATES[1])) == alone
    assert told.keeps() is not None


@pytest.mark.usefixtures("_as_on_a_gpu")
def test_a_trial_that_fails_in_its_evaluation_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    for _ in range(2):
        told.run(bench.rate(RATES[0]))
    assert told.keeps() is not None
    with monkeypatch.context() as patch:
        patch.setattr(engine, "validation_loss", lambda *_: float("nan"))
        patch.setattr(Writer, "scores", property(lambda _: False))
        assert told.run(bench.rate(RATES[1]))[0] == "diverged"
    assert told.keeps() is None
    assert told.run(bench.baseline) == Told().run(bench.baseline)


@pytest.mark.usefixtures("_as_on_a_gpu")
def test_a_training_that_goes_on_from_a_checkpoint_shares_nothing(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    job = replace(bench.rate(RATES[0]), checkpoints=Checkpoints(str(folder), 2))
    alone = Told().run(bench.rate(RATES[0]))
    told = Told()
    # The first keeps some; it has begun without.
    assert told.run(job) == alone
    for _ in range(2):
        assert told.run(replace(job, checkpoints=None)) == alone
        assert told.keeps() is not None
    assert told.run(job) == alone
    assert told.keeps() is None


def test_without_a_gpu_or_without_graphs_nothing_is_kept(bench: Bench) -> None:
    assert engine._kind(bench.rate(RATES[0])) is None
    on_gpu = replace(bench.rate(RATES[0]), device="cuda")
    assert engine._kind(on_gpu) is not None
    assert on_gpu.spec.training is not None
    off = replace(on_gpu.spec.training, engine=EngineSettings(cuda_graphs=None))
    others = [
        replace(on_gpu, measured=True),
        replace(on_gpu, spec=replace(on_gpu.spec, stage=Stage.CONFIRM)),
        replace(on_gpu, spec=replace(on_gpu.spec, training=off)),
        replace(on_gpu, train_file=None),
    ]
    assert [engine._kind(job) for job in others] == [None] * 4


# --- trials of one arm with different ranks ---

SETS = ((4, 8), (2, 16), (8, 8), (2, 16))


@pytest.fixture
def _as_if_captured(_as_on_a_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "unpaddable", lambda base, arm, training: None)


def of_set(bench: Bench, rank: int, alpha: int) -> Job:
    return bench.job(changed(bench.spec, rank=rank, alpha=alpha), padded_rank=8)


@pytest.mark.usefixtures("_as_if_captured")
def test_trials_of_different_ranks_share_a_rig_and_lose_what_each_loses_alone(bench: Bench) -> None:
    alone = []
    for one in SETS:
        fresh = Told()
        alone.append((fresh.run(of_set(bench, *one)), fresh.facts))
        # The first of its arm tells what the arm takes.
        assert fresh.padded_rank is None
        assert "first_step_s" in fresh.facts["checks"]
    told = Told()
    assert told.run(of_set(bench, *SETS[0])) == alone[0][0]
    again: dict[tuple[int, int], tuple[object, ...]] = {}
    rigs = []
    for one, (expected, facts) in zip(SETS, alone, strict=True):
        found = told.run(of_set(bench, *one))
        rigs.append(told.keeps())
        assert told.padded_rank == 8
        assert found[0] == pytest.approx(expected[0], rel=5e-3)
        assert found[1] == pytest.approx(expected[1], rel=5e-3)
        assert found == again.setdefault(one, found)
        assert told.facts["parameters"] == facts["parameters"]
        assert told.facts["checks"]["dtypes"] == facts["checks"]["dtypes"]
        assert not {"first_step_s", "first_step_tokens"} & set(told.facts["checks"])
    assert rigs[0] is not None
    assert set(rigs) == {rigs[0]}
    # A run of its own finds the base without it.
    assert told.run(replace(of_set(bench, *SETS[1]), measured=True)) == alone[1][0]
    assert told.padded_rank is None


@pytest.mark.usefixtures("_as_if_captured")
def test_the_first_training_of_each_arm_is_one_of_its_own_rank(bench: Bench) -> None:
    told, ranks = Told(), []
    other = replace(bench.spec, arm=replace(bench.spec.arm, name="other", targets=("attention",)))
    hopeless = (Waypoint(0.5, 0.1, 4),)
    for job in (
        bench.baseline,
        # What was pruned tells nothing.
        replace(of_set(bench, 4, 8), waypoints=hopeless),
        replace(of_set(bench, 4, 8), measured=True),
        of_set(bench, 2, 8),
        bench.job(other, padded_rank=8),
        bench.job(other, padded_rank=8),
        of_set(bench, 2, 8),
        replace(of_set(bench, 2, 8), measured=True),
        bench.job(bench.spec),
        replace(of_set(bench, 4, 8), waypoints=hopeless),
    ):
        told.run(job)
        ranks.append(told.padded_rank)
    assert ranks == [None, None, None, 8, None, 8, 8, None, None, 8]


@pytest.mark.usefixtures("_as_on_a_gpu")
def test_an_arm_that_cannot_share_says_why(bench: Bench) -> None:
    told, before = Told(), []
    for _ in range(2):
        told.run(of_set(bench, 4, 8))
        before.append(told.facts["checks"].get("graphs_not_shared"))
    assert before == [None, "no GPU"]
    assert told.padded_rank is None


def test_without_a_gpu_a_rank_to_pad_to_changes_nothing(bench: Bench) -> None:
    told, alone = Told(), Told()
    for _ in range(2):
        assert told.run(of_set(bench, 4, 8)) == alone.run(replace(of_set(bench, 4, 8), padded_rank=None))
        assert told.facts["checks"]["engine"] == alone.facts["checks"]["engine"]
        assert "graphs_not_shared" not in told.facts["checks"]


@pytest.mark.usefixtures("_as_if_captured")
def test_a_training_does_not_go_on_from_the_checkpoint_of_a_padded_one(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    alone, told = Told().run(of_set(bench, 2, 8)), Told()
    job = replace(of_set(bench, 2, 8), checkpoints=Checkpoints(str(folder), 2))
    told.run(of_set(bench, 4, 8))
    told.run(job)
    assert told.padded_rank == 8
    fresh = Told()
    assert fresh.run(replace(job, measured=True)) == alone
    assert fresh.facts["checks"]["checkpoint_not_used"] == "padded_rank was '8' and is None"
    # Nor is what goes on from one of its own padded.
    assert told.run(job) == alone
    assert told.padded_rank is None


# --- on weights that are kept unpacked ---


@pytest.fixture
def four_bit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench whose trials are in NF4, on a card with room and with kernels, as far as anybody can tell."""
    bench.spec = replace(bench.spec, arm=replace(bench.spec.arm, precision=Precision.NF4))
    monkeypatch.setattr(engine, "room", lambda: 80 * GIB)
    monkeypatch.setattr(engine, "missing", lambda *_, **__: None)
    return bench


def made(told: Told, four_bit: Bench, spec: RunSpec) -> tuple[bool, object, int]:
    """Whether a trial was made on unpacked weights, why not, and how many of their bytes are left."""
    told.run(four_bit.job(spec, unpacked=True))
    checks = told.facts["checks"]
    kept = told.session._unpacked
    left = 0 if kept is None else sum(weights.nbytes for weights in kept.unpacked.values())
    return bool(checks["engine"].get("unpacked_base")), checks.get("base_not_unpacked"), left


@pytest.mark.usefixtures("_as_on_a_gpu")
def test_what_is_kept_unpacked_is_gone_before_a_run_that_tells_its_figures(
    four_bit: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def same(_base: Base, arm: Arm, *_: object) -> None:
        asked.append(arm.name)

    monkeypatch.setattr(engine, "difference", same)
    told, first = Told(), four_bit.spec
    other = replace(first, arm=replace(first.arm, name="other", targets=("attention",)))
    dora = replace(first, arm=replace(first.arm, name="dora", method=Method.DORA))
    assert made(told, four_bit, first) == (False, None, 0)
    on, why_not, left = made(told, four_bit, first)
    assert (on, why_not) == (True, None)
    assert left > 0
    # The first trial of another arm tells what it takes; the proof is the arm's own.
    assert made(told, four_bit, other) == (False, None, 0)
    assert made(told, four_bit, other) == (True, None, left)
    assert made(told, four_bit, first) == (True, None, left)
    assert asked == [first.arm.name, "other"]
    assert made(told, four_bit, dora) == (False, None, 0)
    assert made(told, four_bit, dora) == (False, "layers are not fused", 0)


@pytest.mark.usefixtures("_as_on_a_gpu")
@pytest.mark.parametrize("error", [Diverged("the loss is nan"), torch.OutOfMemoryError("none left")])
def test_a_comparison_that_ends_early_is_no_end_of_the_trial(
    four_bit: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def ends(*_: object) -> None:
        raise error

    monkeypatch.setattr(engine, "difference", ends)
    told = Told()
    assert made(told, four_bit, four_bit.spec) == (False, None, 0)
    why_not = f"the comparison ended early: {type(error).__name__}"
    for _ in range(2):
        assert made(told, four_bit, four_bit.spec) == (False, why_not, 0)
