"""Trainings on a GPU that replay what an earlier one has captured: the same numbers, bit for bit."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.engine import session, shelving
from harness.engine.adapting import attach, detach
from harness.engine.encoding import Encoder
from harness.engine.loading import load_base
from harness.engine.padding import start_of
from harness.engine.rigging import Rig
from harness.engine.session import Session
from harness.engine.sources import model_folder
from harness.engine.training import Recipe, Trained, rig_for, train, train_with
from harness.engine.trying import PROBE, probe_arm
from harness.flow import examples_text
from harness.messages import Answers, Event, Facts, Finished, Job
from harness.specs import Specs
from study.arms import DEFAULT_COMPUTE, Method, Precision
from study.dialogues import generate
from study.prompts import TEMPLATES
from study.runs import RunSpec
from study.settings import EngineSettings
from study.space import Hyperparameters
from tests.gpu.bench import tiny_grid

pytestmark = pytest.mark.gpu
USES_CUDA_HERE = True
SETTINGS = replace(
    PROBE,
    steps=30,
    batch_size=4,
    micro_batch_size=4,
    max_tokens=512,
    length_grouping=True,
    engine=EngineSettings(pad_to_multiple=32),
)
RATES = (2e-3, 5e-4)
# Rank, alpha and learning rate of trials that share their graphs; the first and the last are one and the same.
SETS = ((4, 16, 2e-3), (32, 16, 5e-4), (6, 64, 2e-3), (4, 64, 2e-3), (4, 16, 2e-3))
# How far losses may be from those of an adapter of its own rank: what rounding makes of them.
CLOSE = {Precision.FP32: 1e-4, Precision.BF16: 5e-3, Precision.INT8: 5e-3, Precision.NF4: 5e-3}


@pytest.fixture(autouse=True)
def _same_sums_every_time() -> Iterator[None]:
    """Attention's fast kernels add up gradients in the order in which their blocks happen to end."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def weights(model: Any) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters() if p.requires_grad]


def disturb() -> torch.Tensor:
    """What happens between two trainings: workspaces and cached memory go, and others take their place."""
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    torch.manual_seed(99)
    taken = torch.full((256 * 2**20,), 77, dtype=torch.uint8, device="cuda")
    one = torch.ones((512, 512), device="cuda", dtype=torch.bfloat16)
    (one @ one).sum().item()
    return taken


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16, Precision.INT8, Precision.NF4])
def test_replayed_graphs_of_an_earlier_training_give_the_numbers_of_new_ones(
    precision: Precision, dropout: float
) -> None:
    folder = model_folder("random/tiny-phi", None, "cuda").folder
    arm = replace(probe_arm(precision), dropout=dropout)
    base = load_base(folder, arm, "cuda", model_dropout=False)
    examples = generate(5, {"train": 64}, turns=(4, 8))["train"]
    encoded = Encoder(base.tokenizer, TEMPLATES["summarize"], SETTINGS.max_tokens).encode(examples)
    new: dict[float, tuple[Trained, list[torch.Tensor]]] = {}
    for rate in RATES:
        adapter = attach(base, arm, Hyperparameters(8, 16, rate), SETTINGS, seed=7)
        trained = train(base, adapter, encoded, Recipe(SETTINGS, rate, 7), lambda *_: None)
        new[rate] = trained, weights(adapter.model)
        detach(adapter)
    assert new[RATES[0]][0].losses != new[RATES[1]][0].losses
    adapter = attach(base, arm, Hyperparameters(8, 16, RATES[0]), SETTINGS, seed=7)
    rig: Rig = rig_for(base, adapter, encoded, Recipe(SETTINGS, RATES[0], 7), again=True)
    shapes = new[RATES[0]][0].levers.captured
    assert shapes >= 2
    for number, rate in enumerate((RATES[0], RATES[1], RATES[0])):
        taken = disturb()
        trained = train_with(rig, encoded, Recipe(SETTINGS, rate, 7), lambda *_: None)
        assert trained.levers.facts().get("graphs_reused", 0) == (shapes if number else 0)
        assert trained.levers.captured == shapes
        assert trained.losses == new[rate][0].losses
        assert all(torch.equal(one, other) for one, other in zip(weights(adapter.model), new[rate][1], strict=True))
        # Nothing but its own memory was written to.
        assert bool((taken == 77).all())
        assert rig.reusable
        assert not number or rig.in_place()
        rig.lay_by()


@pytest.mark.parametrize(
    ("precision", "method", "dropout"),
    [
        (Precision.FP32, Method.LORA, 0.0),
        (Precision.FP32, Method.RSLORA, 0.1),
        (Precision.BF16, Method.LORA, 0.0),
        (Precision.BF16, Method.RSLORA, 0.1),
        (Precision.INT8, Method.LORA, 0.0),
        (Precision.NF4, Method.RSLORA, 0.0),
    ],
)
def test_replayed_graphs_of_a_padded_adapter_serve_any_rank_and_alpha(
    precision: Precision, method: Method, dropout: float
) -> None:
    folder = model_folder("random/tiny-phi", None, "cuda").folder
    arm = replace(probe_arm(precision, method), dropout=dropout)
    base = load_base(folder, arm, "cuda", model_dropout=False)
    examples = generate(5, {"train": 64}, turns=(4, 8))["train"]
    encoded = Encoder(base.tokenizer, TEMPLATES["summarize"], SETTINGS.max_tokens).encode(examples)
    own: dict[tuple[int, int, float], Trained] = {}
    for rank, alpha, rate in SETS:
        adapter = attach(base, arm, Hyperparameters(rank, alpha, rate), SETTINGS, seed=7)
        own[rank, alpha, rate] = train(base, adapter, encoded, Recipe(SETTINGS, rate, 7), lambda *_: None)
        detach(adapter)
    adapter = attach(base, arm, Hyperparameters(4, 16, 2e-3), SETTINGS, seed=7, padded_rank=32)
    starts = [start_of(adapter, Hyperparameters(*one), seed=7) for one in SETS]
    recipes = [Recipe(SETTINGS, rate, 7, start=start) for (_, _, rate), start in zip(SETS, starts, strict=True)]
    rig: Rig = rig_for(base, adapter, encoded, recipes[0], again=True)
    seen: dict[tuple[int, int, float], tuple[tuple[float, ...], list[torch.Tensor]]] = {}
    for number, (one, recipe) in enumerate(zip(SETS, recipes, strict=True)):
        taken = disturb()
        trained = train_with(rig, encoded, recipe, lambda *_: None)
        facts = trained.levers.facts()
        assert facts.get("graphs_reused", 0) == (trained.levers.captured if number else 0)
        assert facts["padded_rank"] == 32
        assert trained.losses == pytest.approx(own[one].losses, rel=CLOSE[precision])
        # The same set again: the same bits, whatever was trained between.
        losses, matrices = seen.setdefault(one, (trained.losses, weights(adapter.model)))
        assert trained.losses == losses
        assert all(torch.equal(now, then) for now, then in zip(weights(adapter.model), matrices, strict=True))
        rank = one[0]
        for name, matrix in adapter.model.named_parameters():
            if "lora_A" in name:
                assert not matrix[rank:].any()
            elif "lora_B" in name:
                assert not matrix[:, rank:].any()
        assert bool((taken == 77).all())
        assert rig.reusable
    assert len({losses for losses, _ in seen.values()}) == len(SETS) - 1


class Bench:
    """A session on this GPU, and the jobs of one arm of the tiny grid."""

    def __init__(self, folder: Path, precision: Precision = Precision.BF16) -> None:
        grid = tiny_grid("training.steps=12", "training.engine={pad_to_multiple: 32}")
        examples = generate(3, {"train": 24, "validation": 6, "test": 8}, turns=(4, 6))
        specs = Specs.of(grid, examples)
        self._files = {split: folder / f"{split}.jsonl" for split in ("train", "validation")}
        for split, file in self._files.items():
            file.write_text(examples_text(examples[split]))
        self._model = model_folder("random/tiny-phi", None, "cuda").folder
        self.zero_shot = specs.baselines("validation")[0]
        arm = grid.arm("lora")
        trial = specs.trial(arm, 0, grid.block(arm)[0])
        dtype = DEFAULT_COMPUTE[precision]
        self.trial = replace(trial, arm=replace(arm, precision=precision, compute_dtype=dtype))
        self.checks: dict[str, Any] = {}
        self._events: list[Event] = []
        self.session = Session(self._events.append)

    def with_set(self, rank: int, alpha: int, rate: float) -> RunSpec:
        return replace(self.trial, hyperparameters=Hyperparameters(rank, alpha, rate))

    def run(
        self, spec: RunSpec, padded_rank: int | None = None, *, unpacked: bool = False
    ) -> tuple[int, tuple[Any, ...]]:
        """Shapes that were reused; losses of the steps, loss of the validation, answers."""
        train = None if spec.train is None else str(self._files["train"])
        self._events.clear()
        evaluated = str(self._files["validation"])
        self.session.run(Job(spec, self._model, train, evaluated, "cuda", padded_rank=padded_rank, unpacked=unpacked))
        end = self._events[-1]
        assert isinstance(end, Finished), end
        checks = self.checks = {}
        for event in self._events:
            if isinstance(event, Facts) and event.section == "checks":
                checks |= event.values
        answers = [answer.text for event in self._events if isinstance(event, Answers) for answer in event.answers]
        reused = checks.get("engine", {}).get("graphs_reused", 0)
        return reused, (checks.get("losses"), end.validation_loss, answers)


def test_trials_of_one_rank_share_their_graphs_and_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    first, second, other = (8, 16, 5e-3), (8, 16, 1e-3), (4, 16, 5e-3)
    bare = bench.run(bench.zero_shot)
    # The first trial shows what its evaluation takes, the second captures what is kept.
    reused, of_first = bench.run(bench.with_set(*first))
    assert reused == 0
    reused, of_second = bench.run(bench.with_set(*second))
    assert reused == 0
    assert of_first != of_second
    reused, again = bench.run(bench.with_set(*first))
    assert reused > 0
    assert again == of_first
    assert bench.run(bench.with_set(*second)) == (reused, of_second)
    held = torch.cuda.memory_reserved()
    assert bench.run(bench.with_set(*other))[0] == 0
    assert bench.run(bench.with_set(*first)) == (0, of_first)
    # A model without an adapter is the one before any was there.
    assert bench.run(bench.zero_shot) == bare
    assert bench.run(bench.with_set(*first)) == (0, of_first)
    assert torch.cuda.memory_reserved() < 1.5 * held
    monkeypatch.setattr(shelving, "room", lambda: 0)
    assert bench.run(bench.with_set(*first)) == (reused, of_first)
    assert bench.run(bench.with_set(*first)) == (0, of_first)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_trials_of_any_rank_and_alpha_share_their_graphs_where_they_are_padded(
    tmp_path: Path, precision: Precision
) -> None:
    folders = tmp_path / "own", tmp_path / "padded"
    for folder in folders:
        folder.mkdir()
    alone, bench = (Bench(folder, precision) for folder in folders)
    own = {one: alone.run(alone.with_set(*one))[1] for one in SETS}
    # The first of its arm tells what the arm takes, and shows what its evaluation does; the second captures.
    reused, found = bench.run(bench.with_set(*SETS[0]), padded_rank=32)
    assert "padded_rank" not in bench.checks["engine"]
    assert (reused, found) == (0, own[SETS[0]])
    seen: dict[tuple[int, int, float], tuple[Any, ...]] = {}
    for number, one in enumerate(SETS):
        reused, found = bench.run(bench.with_set(*one), padded_rank=32)
        assert (reused > 0) == (number > 0)
        assert bench.checks["engine"]["padded_rank"] == 32
        assert found[0] == pytest.approx(own[one][0], rel=CLOSE[precision])
        assert found[1] == pytest.approx(own[one][1], rel=CLOSE[precision])
        assert seen.setdefault(one, found) == found
    assert len({str(found) for found in seen.values()}) == len(SETS) - 1
    # What was shared is gone, and the base is as it was.
    assert bench.run(bench.with_set(*SETS[2])) == (0, own[SETS[2]])


@pytest.mark.parametrize("precision", [Precision.NF4, Precision.FP4])
def test_trials_on_a_base_that_is_kept_unpacked_have_the_bits_of_the_packed_one(
    tmp_path: Path, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, precision)
    first, second = (8, 16, 5e-3), (8, 16, 1e-3)
    packed = [bench.run(bench.with_set(*one))[1] for one in (first, second, first)]
    other = Bench(tmp_path, precision)
    # The first trial tells what the arm takes, and is made on the base as it is.
    assert other.run(other.with_set(*first), unpacked=True)[1] == packed[0]
    assert "unpacked_base" not in other.checks["engine"]
    for one, numbers in ((second, packed[1]), (first, packed[2])):
        reused, found = other.run(other.with_set(*one), unpacked=True)
        assert other.checks["engine"]["unpacked_base"]
        assert found == numbers
    assert reused > 0
    monkeypatch.setattr(session, "room", lambda: 0)
    last = Bench(tmp_path, precision)
    for _ in range(2):
        assert last.run(last.with_set(*first), unpacked=True)[1] == packed[0]
    assert last.checks["base_not_unpacked"] == "there is no room for it"
    assert "unpacked_base" not in last.checks["engine"]
