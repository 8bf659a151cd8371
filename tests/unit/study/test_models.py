"""Models: where weights come from, and the shapes known without loading anything."""

import pytest

from study.models import EMBEDDED, KNOWN_SHAPES, ModelSpec, is_hub_id

PHI_2 = KNOWN_SHAPES["microsoft/phi-2"]
SMOLLM2 = KNOWN_SHAPES[EMBEDDED]


@pytest.mark.parametrize(
    ("model", "source"),
    [
        ("microsoft/phi-2", "hub"),
        ("./phi-2", "local"),
        ("../phi-2", "local"),
        ("/models/phi-2", "local"),
        ("~/phi-2", "local"),
        (EMBEDDED, "embedded"),
        ("random/tiny-phi", "random"),
    ],
)
def test_an_id_says_where_the_weights_are(model: str, source: str) -> None:
    assert ModelSpec(model, None, "pretrained").source == source


@pytest.mark.parametrize("text", ["microsoft/phi-2", "a/b", "HuggingFaceTB/SmolLM2-135M", "a_b/c.d-e"])
def test_an_owner_and_a_name_are_a_hub_id(text: str) -> None:
    assert is_hub_id(text)


@pytest.mark.parametrize(
    "text", ["phi-2", "a/b/c", "/b", "a/", "a b/c", "../x", "a/..", "a/.b", "a/b\n", "a/b;c", "ä/b", "", "-a/b", "a/b-"]
)
def test_anything_else_is_no_hub_id(text: str) -> None:
    assert not is_hub_id(text)


def test_a_dataset_without_an_owner_is_an_id_where_that_is_allowed() -> None:
    assert is_hub_id("samsum", owner_needed=False)
    assert not is_hub_id("../samsum", owner_needed=False)


def test_the_shapes_have_the_published_numbers_of_parameters() -> None:
    assert PHI_2.parameters == 2_779_683_840
    assert PHI_2.linear_parameters == 2_516_582_400
    assert SMOLLM2.parameters == 134_515_008


@pytest.mark.parametrize(
    ("targets", "per_rank"), [(("q_proj", "k_proj", "v_proj", "dense"), 655_360), (("all-linear",), 1_474_560)]
)
def test_lora_on_phi_2_has_the_known_number_of_parameters_a_rank(targets: tuple[str, ...], per_rank: int) -> None:
    assert PHI_2.lora_parameters(targets, 1) == per_rank
    assert PHI_2.lora_parameters(targets, 32) == 32 * per_rank


def test_grouped_query_heads_narrow_keys_and_values() -> None:
    widths = {linear.name: linear.outputs for linear in SMOLLM2.linears}
    assert (widths["q_proj"], widths["k_proj"], widths["v_proj"]) == (576, 192, 192)


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (("attention",), ["q_proj", "k_proj", "v_proj", "dense"]),
        (("mlp",), ["fc1", "fc2"]),
        (("fc2", "q_proj"), ["fc2", "q_proj"]),
        (("all-linear", "q_proj"), ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"]),
        ((), []),
    ],
)
def test_targets_name_each_layer_once(targets: tuple[str, ...], names: list[str]) -> None:
    assert [linear.name for linear in PHI_2.targeted(targets)] == names


def test_a_target_that_no_layer_has_is_refused_with_the_choices() -> None:
    with pytest.raises(
        ValueError, match=r"no linear layer 'o_proj': choose from q_proj, k_proj, v_proj, dense, fc1, fc2"
    ):
        PHI_2.targeted(("q_proj", "o_proj"))
