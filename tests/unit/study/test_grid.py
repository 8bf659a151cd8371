"""Whole grids: the studies that are published with the project, and what a grid answers."""

from pathlib import Path

import pytest

from study.arms import Dtype, Method, Precision
from study.claims import FixedMargin
from study.datasets import GeneratedData, HubData, LocalData
from study.grid import Grid, load_grid
from study.models import KNOWN_SHAPES, ModelSpec
from study.settings import Sampling
from study.space import Hyperparameters, Interval, Space
from tests.unit.study.small_grid import SMALL, faults

ROOT = Path(__file__).parents[3]
GRIDS = sorted([*(ROOT / "study" / "grids").glob("*.yaml"), *(ROOT / "tests" / "grids").glob("*.yaml")])
TOP_LEVEL = ("model", "data", "prompt", "arms", "space", "tune", "seeds", "training", "generation", "claims")


def published(name: str) -> Grid:
    return load_grid((ROOT / "study" / "grids" / f"{name}.yaml").read_text(encoding="utf-8"))


def small(*overrides: str) -> Grid:
    return load_grid(SMALL, overrides)


@pytest.mark.parametrize("path", GRIDS, ids=[path.stem for path in GRIDS])
def test_a_published_grid_is_good_and_named_as_its_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert load_grid(text).study == path.stem.replace("_", "-")
    # Tools that are no YAML parsers find each section at the start of a line.
    starts = [line.partition(":")[0] for line in text.splitlines()]
    assert [key for key in ("study", *TOP_LEVEL) if key not in starts] == []


def test_the_grids_that_are_published_are_all_looked_at() -> None:
    assert {path.stem for path in GRIDS} >= {"ablation", "quickstart", "seed", "tiny"}


def test_the_ablation_is_the_study_of_the_paper() -> None:
    grid = published("ablation")
    precisions = {Precision.BF16, Precision.INT8, Precision.NF4}
    assert {arm.precision for arm in grid.trained_arms} == precisions
    assert {arm.precision for arm in grid.arms if not arm.trains} == precisions
    assert all(grid.zero_shot_of(arm) is not None for arm in grid.trained_arms)
    assert {arm.targets for arm in grid.trained_arms} == {("all-linear",), ("attention",)}
    assert {arm.double_quant for arm in grid.trained_arms if arm.precision is Precision.NF4} == {True, False}
    assert (grid.tune.trials, len(grid.seeds), grid.protocol) == (16, 5, "paper")
    assert grid.space == Space((4, 8, 16, 32, 64), (16, 32, 64), Interval(2e-5, 2e-3, "log"))
    assert grid.model.id == "microsoft/phi-2"
    assert isinstance(grid.data.source, HubData)


def test_every_quantised_arm_of_the_ablation_is_held_against_full_precision_with_equal_targets() -> None:
    grid = published("ablation")
    pairs = [(grid.arm(claim.candidate), grid.arm(claim.reference)) for claim in grid.claims]
    assert [candidate for candidate, _ in pairs] == [
        arm for arm in sorted(grid.trained_arms, key=lambda arm: arm.family, reverse=True) if arm.precision != "bf16"
    ]
    assert all(reference.precision is Precision.BF16 for _, reference in pairs)
    assert all(candidate.targets == reference.targets for candidate, reference in pairs)
    assert {claim.margin for claim in grid.claims} == {FixedMargin(1.0)}


def test_the_seed_grid_is_the_notebook_as_it_was() -> None:
    grid = published("seed")
    (arm,) = grid.trained_arms
    assert grid.protocol == "seed"
    assert grid.generation.sampling == Sampling(temperature=1.0, top_p=1.0, top_k=50)
    assert (grid.prompts.training.name, grid.prompts.evaluation.name) == ("seed-train", "seed-test")
    assert (grid.training.optimizer, grid.training.steps, grid.training.loss_on) == ("paged_adamw_8bit", 1000, "all")
    assert (arm.precision, arm.compute_dtype, arm.double_quant) == (Precision.NF4, Dtype.FP16, False)
    assert arm.targets == ("q_proj", "k_proj", "v_proj", "dense")
    assert grid.block(arm) == (Hyperparameters(32, 32, 2e-4),)
    assert KNOWN_SHAPES[grid.model.id].lora_parameters(arm.targets, 32) == 20_971_520
    assert grid.claims == ()


def test_the_quickstart_needs_no_network_and_no_gpu() -> None:
    grid = published("quickstart")
    assert grid.model.source == "embedded"
    assert isinstance(grid.data.source, GeneratedData)
    assert grid.device == "auto"
    assert {arm.precision for arm in grid.trained_arms} == {Precision.BF16, Precision.INT8, Precision.NF4}


def test_what_a_grid_leaves_out_has_its_documented_value() -> None:
    grid = small()
    assert (grid.protocol, grid.device, grid.timeout_s, grid.repeats) == ("paper", "auto", None, 1)
    assert grid.model == ModelSpec("random/tiny-phi", None, "random")
    assert (grid.tune.tpe_trials, grid.tune.select_by, grid.tune.reselect_seeds) == (0, "rougeL", ())
    assert (grid.tune.pruning, grid.tune.share_graphs, grid.tune.unpacked_base) == (None, False, False)
    assert (grid.training.micro_batch_size, grid.training.adapter_dtype) == (4, "fp32")
    assert grid.prompts.training is grid.prompts.evaluation
    assert (grid.generation.sampling, grid.generation.dtype) == (None, None)
    assert grid.space == Space((4, 8), (8, 16), Interval(1e-4, 1e-2, "log"))


def test_settings_of_the_command_line_reach_the_grid() -> None:
    grid = small(
        "arms.qlora.precision=fp4",
        "seeds=[1,2]",
        "training.timeout_minutes=2",
        "training.repeats=3",
        "generation.dtype=fp16",
        "space={rank: 8, alpha: 16, learning_rate: [1e-4, 1e-3]}",
    )
    assert grid.arm("qlora@double_quant=true").precision is Precision.FP4
    assert grid.seeds == (1, 2)
    assert (grid.timeout_s, grid.repeats, grid.generation.dtype) == (120.0, 3, Dtype.FP16)
    assert grid.space == Space((8,), (16,), (1e-4, 1e-3))


def test_local_files_stand_in_for_the_hub() -> None:
    files = "{train: train.jsonl, validation: 'dev.jsonl[:400]', test: t.csv, summary_fields: [s1, s2]}"
    grid = small("data.source=local", f"data.local={files}", "data.limits={}")
    assert grid.data.source == LocalData(
        (("train", "train.jsonl"), ("validation", "dev.jsonl[:400]"), ("test", "t.csv")), "dialogue", ("s1", "s2")
    )
    assert grid.data.limit("test") is None


def test_a_dataset_of_the_hub_is_named_with_its_revision() -> None:
    grid = small("data.source=hub", "data.hub={id: knkarthick/dialogsum, revision: main, test: 'test[:10]'}")
    assert grid.data.source == HubData(
        "knkarthick/dialogsum",
        "main",
        (("train", "train"), ("validation", "validation"), ("test", "test[:10]")),
        "dialogue",
        None,
    )


def test_a_model_in_a_folder_may_have_random_weights() -> None:
    assert small("model={id: ./phi, weights: random}").model == ModelSpec("./phi", None, "random")


def test_a_template_of_the_grid_is_used_in_training_and_in_evaluation() -> None:
    template = "{name: own, text: 'Sum up: {dialogue}', tail: '##', stops: ['##']}"
    prompts = small(f"prompt.template={template}").prompts
    assert prompts.training is prompts.evaluation
    assert prompts.training.prompt("A: hi") == "Sum up: A: hi"
    assert prompts.training.answer(prompts.training.completion("They met.")) == "They met."


def test_the_seed_protocol_allows_what_a_study_must_not_do() -> None:
    overrides = (
        "prompt.evaluation_template=instruct",
        "generation.sampling={temperature: 0.7}",
        "training.optimizer=paged_adamw_8bit",
    )
    assert len(faults(SMALL, *overrides)) == 3
    grid = small(*overrides, "protocol=seed")
    assert grid.prompts.evaluation.name == "instruct"
    assert grid.generation.sampling == Sampling(0.7, 1.0, 50)


def test_every_arm_is_given_the_same_sets() -> None:
    grid = small("tune.trials=16")
    lora, first, second = grid.trained_arms
    assert len(grid.block(lora)) == 16
    assert grid.block(lora) == grid.block(first) == grid.block(second)


def test_the_block_follows_from_its_own_seed_alone() -> None:
    lora = small().arm("lora")
    assert small("tune.seed=5").block(lora) == small().block(lora)
    assert small("tune.sobol_seed=5").block(lora) != small().block(lora)


def test_an_arm_that_fixes_the_rank_sees_the_rest_of_the_same_sets() -> None:
    grid = small("arms.lora.rank=64")
    free, fixed = (grid.block(arm) for arm in (grid.arm("qlora@double_quant=true"), grid.arm("lora")))
    assert {chosen.rank for chosen in fixed} == {64}
    assert [(chosen.alpha, chosen.learning_rate) for chosen in fixed] == [
        (chosen.alpha, chosen.learning_rate) for chosen in free
    ]


def test_a_set_that_would_come_twice_is_one_trial() -> None:
    point = "space={rank: 8, alpha: 16, learning_rate: 1e-3}"
    grid = small(point)
    assert grid.block(grid.arm("lora")) == (Hyperparameters(8, 16, 1e-3),)
    grid = small("space={rank: [4, 8], alpha: 16, learning_rate: 1e-3}", "tune.trials=16")
    assert sorted(chosen.rank for chosen in grid.block(grid.arm("lora"))) == [4, 8]


def test_without_trials_single_values_are_the_one_set() -> None:
    grid = small("tune.trials=0", "space={rank: 8, alpha: 16, learning_rate: 1e-3}")
    assert grid.block(grid.arm("lora")) == (Hyperparameters(8, 16, 1e-3),)


def test_a_grid_of_zero_shot_arms_needs_no_space_and_no_trials() -> None:
    grid = small("arms=[{name: zero, precision: bf16, method: none}]", "space=null", "tune.trials=0", "claims=[]")
    assert grid.trained_arms == ()
    with pytest.raises(ValueError, match="no space"):
        grid.space_of(grid.arms[0])


def test_the_zero_shot_of_an_arm_is_the_one_on_the_same_base() -> None:
    grid = small("arms.zero-shot.precision=nf4")
    assert grid.zero_shot_of(grid.arm("qlora@double_quant=true")) == grid.arm("zero-shot")
    assert grid.zero_shot_of(grid.arm("qlora@double_quant=false")) is None
    assert grid.zero_shot_of(grid.arm("lora")) is None


def test_variants_of_lora_are_methods_of_an_arm() -> None:
    grid = small("arms.lora={name: lora, precision: bf16, axes: {method: [lora, rslora, dora]}}", "claims=[]")
    methods = {arm.name: arm.method for arm in grid.arms if arm.family == "lora"}
    assert methods == {f"lora@method={method}": method for method in (Method.LORA, Method.RSLORA, Method.DORA)}


def test_a_memory_limit_is_the_size_of_a_card_in_bytes() -> None:
    assert small().memory_limit_bytes is None
    assert small("training.memory_limit=8GiB").memory_limit_bytes == 8 * 1024**3
    assert small("training.memory_limit=24 GB").memory_limit_bytes == 24_000_000_000


def test_an_arm_s_repeats_stand_for_those_of_the_grid_in_every_member_of_its_family() -> None:
    def repeats(*overrides: str) -> dict[str, int]:
        grid = small(*overrides)
        return {arm.name: grid.repeats_for(arm) for arm in grid.trained_arms}

    names = ("lora", "qlora@double_quant=true", "qlora@double_quant=false")
    assert repeats() == dict.fromkeys(names, 1)
    assert repeats("training.repeats=4") == dict.fromkeys(names, 4)
    assert repeats("training.repeats=4", "arms.qlora.repeats=2") == dict(zip(names, (4, 2, 2), strict=True))
    assert repeats("training.repeats=4", "arms.lora.repeats=1") == dict(zip(names, (1, 4, 4), strict=True))
    assert repeats("training.repeats=4", "arms.lora.repeats=null") == dict.fromkeys(names, 4)
