"""What captions say of runs that shared their machine, and of arms that lacked a lever of the engine."""

from types import SimpleNamespace
from typing import Any

import pytest

from reports.remarks import engine_remark, resumed_remark, side_by_side_remark

ON = {"fused": True, "fused_not": None, "cuda_graphs": 7, "cuda_graphs_not": None}


def seen(arm: str, **checks: Any) -> Any:
    return SimpleNamespace(arm=arm, checks=checks, run_id=arm)


@pytest.mark.parametrize(("counts", "said"), [((1, 1), ""), ((None, 1), ""), ((1, 3, 2), "Up to 3 runs")])
def test_times_that_were_taken_side_by_side_are_told(counts: tuple[int | None, ...], said: str) -> None:
    remark = side_by_side_remark(seen("lora", side_by_side=count) for count in counts)
    assert said in remark
    assert bool(said) == bool(remark)


def test_an_arm_that_lacked_a_lever_is_told_with_its_reason() -> None:
    int8 = {**ON, "cuda_graphs": 0, "cuda_graphs_not": "LLM.int8 asks the host"}
    remark = engine_remark([seen("lora", engine=ON), seen("int8", engine=int8), seen("int8", engine=int8)])
    assert remark == " Not all arms had the same engine: int8 without CUDA graphs (LLM.int8 asks the host)."


def test_what_no_arm_had_is_no_difference_and_old_records_say_nothing() -> None:
    off = {**ON, "cuda_graphs": 0, "cuda_graphs_not": "no GPU"}
    assert engine_remark([seen("lora", engine=off), seen("int8", engine=off)]) == ""
    assert engine_remark([seen("lora"), seen("int8")]) == ""
    assert engine_remark([]) == ""


def test_runs_that_went_on_from_a_checkpoint_are_told() -> None:
    records = [seen("lora", resumed_from_step=40), seen("lora", resumed_from_step=40), seen("qlora")]
    assert resumed_remark(records).startswith(" 1 of these runs was interrupted and went on from a checkpoint: ")
    assert resumed_remark([*records, seen("int8", resumed_from_step=8)]).startswith(" 2 of these runs were ")
    assert resumed_remark([seen("qlora")]) == ""


@pytest.mark.parametrize("odd", ["many", 2.5, [3], {"a": 1}, True])
def test_checks_of_any_form_are_no_reason_to_fail(odd: object) -> None:
    assert side_by_side_remark([seen("lora", side_by_side=odd)]) == ""
    assert resumed_remark([seen("lora", resumed_from_step=odd)]) == ""
    assert engine_remark([seen("lora", engine=odd)]) == ""
