"""Expansion: arms times axes."""

from typing import Any

import pytest

from study.arms import Arm, Dtype, Method, Precision
from study.matrix import Expansion, axis_text, expand
from study.schema import ArmSection, TrainingSection

TRAINING = TrainingSection(steps=1, dropout=0.05, checkpointing=True)


def expanded(*sections: dict[str, Any], training: TrainingSection = TRAINING) -> Expansion:
    return expand([ArmSection.model_validate(section, strict=False) for section in sections], training)


def arms(*sections: dict[str, Any]) -> tuple[Arm, ...]:
    expansion = expanded(*sections)
    assert [str(problem) for problem in expansion.problems] == []
    return expansion.arms


def test_an_arm_without_axes_is_one_arm_under_its_own_name() -> None:
    (arm,) = arms({"name": "lora", "precision": "bf16"})
    assert arm == Arm(
        name="lora",
        family="lora",
        axes=(),
        precision=Precision.BF16,
        method=Method.LORA,
        compute_dtype=Dtype.BF16,
        double_quant=None,
        targets=("all-linear",),
        dropout=0.05,
        checkpointing=True,
    )


def test_crossed_axes_multiply_and_every_value_is_part_of_the_name() -> None:
    found = arms(
        {
            "name": "qlora",
            "precision": "nf4",
            "axes": {"targets": ["attention", ["q_proj", "v_proj"]], "double_quant": [True, False]},
        }
    )
    assert [arm.name for arm in found] == [
        "qlora@targets=attention,double_quant=true",
        "qlora@targets=attention,double_quant=false",
        "qlora@targets=q_proj+v_proj,double_quant=true",
        "qlora@targets=q_proj+v_proj,double_quant=false",
    ]
    assert [(arm.targets, arm.double_quant) for arm in found] == [
        (("attention",), True),
        (("attention",), False),
        (("q_proj", "v_proj"), True),
        (("q_proj", "v_proj"), False),
    ]
    assert found[3].axes == (("targets", "q_proj+v_proj"), ("double_quant", "false"))
    assert {arm.family for arm in found} == {"qlora"}


def test_the_lists_of_a_paired_group_advance_together_and_cross_the_axes() -> None:
    found = arms(
        {
            "name": "a",
            "precision": "bf16",
            "axes": {"targets": ["attention", "mlp"]},
            "paired": [{"rank": [4, 8, 16], "alpha": [8, 16, 32]}],
        }
    )
    assert [(arm.targets[0], arm.rank, arm.alpha) for arm in found] == [
        (targets, rank, 2 * rank) for targets in ("attention", "mlp") for rank in (4, 8, 16)
    ]


def test_two_paired_groups_cross_each_other() -> None:
    found = arms(
        {
            "name": "a",
            "paired": [
                {"precision": ["bf16", "nf4"], "compute_dtype": ["bf16", "fp16"]},
                {"rank": [4, 8], "alpha": [8, 16]},
            ],
        }
    )
    assert [(arm.precision.value, arm.compute_dtype.value, arm.rank, arm.alpha) for arm in found] == [
        ("bf16", "bf16", 4, 8),
        ("bf16", "bf16", 8, 16),
        ("nf4", "fp16", 4, 8),
        ("nf4", "fp16", 8, 16),
    ]


def test_precision_itself_may_be_an_axis() -> None:
    found = arms({"name": "lora", "axes": {"precision": ["bf16", "int8", "fp4"]}})
    assert [(arm.name, arm.double_quant) for arm in found] == [
        ("lora@precision=bf16", None),
        ("lora@precision=int8", None),
        ("lora@precision=fp4", True),
    ]


@pytest.mark.parametrize("precision", Precision)
def test_every_precision_has_a_compute_dtype_and_double_quantisation_only_where_it_is_4_bit(
    precision: Precision,
) -> None:
    (arm,) = arms({"name": "a", "precision": precision.value})
    expected = precision.value if not precision.is_quantised else "bf16"
    assert arm.compute_dtype == expected
    assert arm.double_quant is (True if precision in (Precision.NF4, Precision.FP4) else None)


def test_what_an_arm_states_goes_before_the_training_section() -> None:
    (arm,) = arms({"name": "a", "precision": "bf16", "dropout": 0.0, "checkpointing": False})
    assert (arm.dropout, arm.checkpointing) == (0.0, False)


def test_a_zero_shot_arm_has_nothing_that_belongs_to_training() -> None:
    (arm,) = arms({"name": "zero", "precision": "nf4", "method": "none", "double_quant": False})
    assert not arm.trains
    assert (arm.targets, arm.dropout, arm.checkpointing, arm.rank) == ((), 0.0, False, None)
    assert arm.base == (Precision.NF4, Dtype.BF16, False)


def test_modules_in_another_order_are_the_same_arm() -> None:
    expansion = expanded(
        {"name": "a", "precision": "bf16", "targets": ["q_proj", "v_proj"]},
        {"name": "b", "precision": "bf16", "targets": ["v_proj", "q_proj"]},
    )
    assert [str(problem) for problem in expansion.problems] == [
        "arms[1] (b): 'b' is the same arm as 'a' under another name"
    ]


def test_a_value_that_the_training_section_gives_too_makes_the_same_arm() -> None:
    sections = ({"name": "a", "precision": "bf16"}, {"name": "b", "precision": "bf16", "dropout": 0.05})
    assert len(expanded(*sections).problems) == 1
    assert expanded(*sections, training=TrainingSection(steps=1)).problems == ()


def test_a_fault_of_one_member_leaves_out_its_section_alone() -> None:
    expansion = expanded(
        {"name": "a", "axes": {"precision": ["nf4", "bf16"]}, "double_quant": True}, {"name": "b", "precision": "bf16"}
    )
    assert [arm.name for arm in expansion.arms] == ["b"]
    assert [problem.path for problem in expansion.problems] == ["arms[0] (a).double_quant"]


def test_a_section_that_could_not_be_read_keeps_its_number() -> None:
    expansion = expand([None, ArmSection(name="a")], TRAINING)
    assert [problem.path for problem in expansion.problems] == ["arms[1] (a).precision"]


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (["q_proj", "v_proj"], "q_proj+v_proj"), (8, "8"), (1e-4, "0.0001"), ("x", "x")]
)
def test_an_axis_value_is_written_as_a_grid_would_write_it(value: object, text: str) -> None:
    assert axis_text(value) == text
