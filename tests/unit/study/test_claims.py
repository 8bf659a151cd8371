"""Claims: their margins, and how a family's name becomes one claim a member."""

from typing import Any

import pytest

from study.arms import Arm
from study.claiming import Contestants, resolve_claims
from study.claims import Claim, FixedMargin, RetainMargin
from study.matrix import expand
from study.schema import ArmSection, ClaimSection, TrainingSection

LORA = {"name": "lora", "precision": "bf16", "axes": {"targets": ["all-linear", "attention"]}}
QLORA = {
    "name": "qlora",
    "precision": "nf4",
    "axes": {"targets": ["all-linear", "attention"], "double_quant": [True, False]},
}
PLAIN = {"name": "plain", "precision": "int8"}
ZERO = {"name": "zero", "precision": "bf16", "method": "none"}


def arms(*sections: dict[str, Any]) -> tuple[Arm, ...]:
    return expand([ArmSection.model_validate(section, strict=False) for section in sections], TrainingSection()).arms


def resolved(section: dict[str, Any], *sections: dict[str, Any]) -> tuple[tuple[Claim, ...], list[str]]:
    claims, problems = resolve_claims([ClaimSection(**section)], Contestants(arms(*sections), ()))
    return claims, [str(problem) for problem in problems]


def test_a_family_is_held_member_by_member_against_the_reference_whose_axes_agree() -> None:
    claims, problems = resolved({"candidate": "qlora", "reference": "lora"}, LORA, QLORA)
    assert problems == []
    assert [(claim.candidate, claim.reference) for claim in claims] == [
        (f"qlora@targets={targets},double_quant={double}", f"lora@targets={targets}")
        for targets in ("all-linear", "attention")
        for double in ("true", "false")
    ]
    assert claims[1].name == "qlora-matches-lora@targets=all-linear,double_quant=false"


def test_a_reference_without_axes_is_held_against_every_member() -> None:
    claims, problems = resolved({"name": "c", "candidate": "lora", "reference": "plain"}, LORA, PLAIN)
    assert problems == []
    assert [(claim.name, claim.reference) for claim in claims] == [
        ("c@targets=all-linear", "plain"),
        ("c@targets=attention", "plain"),
    ]


def test_a_claim_about_one_arm_keeps_its_name() -> None:
    section = {
        "name": "c",
        "candidate": "qlora@targets=attention,double_quant=false",
        "reference": "lora",
        "metrics": ["rouge1", "rouge2"],
        "margin": 0.5,
        "confidence": 0.9,
        "drop_in": True,
    }
    claims, problems = resolved(section, LORA, QLORA)
    assert problems == []
    assert claims == (
        Claim(
            name="c",
            candidate="qlora@targets=attention,double_quant=false",
            reference="lora@targets=attention",
            metrics=("rouge1", "rouge2"),
            margin=FixedMargin(0.5),
            confidence=0.9,
            drop_in=True,
        ),
    )


def test_members_of_one_family_can_be_named_against_each_other() -> None:
    first, second = (f"qlora@targets=attention,double_quant={value}" for value in ("true", "false"))
    claims, problems = resolved({"candidate": first, "reference": second}, QLORA)
    assert problems == []
    assert [(claim.candidate, claim.reference) for claim in claims] == [(first, second)]


def test_a_member_that_agrees_with_no_reference_is_told() -> None:
    other = {**LORA, "axes": {"targets": ["all-linear", "mlp"]}}
    claims, problems = resolved({"candidate": "qlora", "reference": "lora"}, other, QLORA)
    assert [claim.candidate for claim in claims] == [
        "qlora@targets=all-linear,double_quant=true",
        "qlora@targets=all-linear,double_quant=false",
    ]
    assert problems == [
        "claims[0].reference 'lora': gives 0 arms to hold 'qlora@targets=attention,double_quant="
        f"{value}' against, exactly one is needed: choose from lora@targets=all-linear, lora@targets=mlp"
        for value in ("true", "false")
    ]


def test_a_reference_with_more_axes_than_the_candidate_is_told() -> None:
    _, problems = resolved({"candidate": "plain", "reference": "lora"}, LORA, PLAIN)
    assert len(problems) == 1
    assert "gives 2 arms to hold 'plain' against, exactly one is needed" in problems[0]


def test_a_margin_to_retain_needs_the_references_own_zero_shot() -> None:
    section = {"candidate": "plain", "reference": "one", "margin": {"retain": 0.95}}
    one = {"name": "one", "precision": "bf16"}
    claims, problems = resolved(section, one, PLAIN, ZERO)
    assert problems == []
    assert claims[0].margin == RetainMargin(0.95)
    _, problems = resolved(section, one, PLAIN, {**ZERO, "precision": "int8"})
    assert problems == ["claims[0].margin: retain needs a zero-shot arm (method none) on the base of 'one'"]


@pytest.mark.parametrize(
    ("reference", "zero_shot", "points"),
    [(40.0, 20.0, 1.0), (40.0, 26.0, 0.7), (40.0, 35.0, 0.5), (40.0, 45.0, 0.5), (0.0, 0.0, 0.5)],
)
def test_the_retain_rule_keeps_a_share_of_the_gain_within_its_bounds(
    reference: float, zero_shot: float, points: float
) -> None:
    assert RetainMargin(0.95).points(reference, zero_shot) == pytest.approx(points)


def test_a_system_from_elsewhere_may_stand_on_either_side() -> None:
    claims, problems = resolved({"candidate": "lora", "reference": "external/pegasus"}, LORA)
    assert problems == []
    assert [(claim.candidate, claim.reference) for claim in claims] == [
        ("lora@targets=all-linear", "external/pegasus"),
        ("lora@targets=attention", "external/pegasus"),
    ]
    claims, problems = resolved({"candidate": "external/pegasus", "reference": "plain"}, PLAIN)
    assert problems == []
    assert [(claim.name, claim.candidate) for claim in claims] == [
        ("external/pegasus-matches-plain", "external/pegasus")
    ]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"reference": "external/a b"},
            "claims[0].reference 'external/a b': is no name for a system from elsewhere: external/NAME, of letters, "
            "digits, - and _",
        ),
        (
            {"reference": "extrenal/x"},
            "claims[0].reference 'extrenal/x': is no arm of this grid: choose from plain; a system from elsewhere is "
            "external/NAME",
        ),
        (
            {"reference": "external/x", "drop_in": True},
            "claims[0].drop_in: reference 'external/x' is from elsewhere and has no hyperparameters",
        ),
        (
            {"reference": "external/x", "margin": {"retain": 0.95}},
            "claims[0].margin: retain needs a reference that this study tunes, and 'external/x' is from elsewhere",
        ),
        (
            {"candidate": "external/x", "reference": "external/x"},
            "claims[0].reference 'external/x': is the candidate 'external/x' itself",
        ),
    ],
)
def test_what_a_system_from_elsewhere_cannot_be_asked_for_is_told(section: dict[str, Any], message: str) -> None:
    assert resolved({"candidate": "plain"} | section, PLAIN)[1] == [message]
