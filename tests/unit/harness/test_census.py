"""The breakdown of a peak from the allocator's history: by hand, and against a replay that looks at every moment."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.engine.adapting import attach
from harness.engine.census import Marks, _held, _owners, breakdown, quantisation_tensors
from harness.engine.ledger import CATEGORIES
from harness.engine.loading import load_base
from harness.engine.sections import Section
from harness.engine.stepping import make_state
from harness.engine.trying import PROBE, probe_arm
from study.arms import Precision
from study.space import Hyperparameters

WEIGHTS, SCALES, ADAPTER, MOMENT, UNKNOWN = 0x100, 0x200, 0x300, 0x400, 0x500
HELD = {WEIGHTS: 1_000, SCALES: 50, ADAPTER: 20, MOMENT: 40, UNKNOWN: 7}
OWNERS = {WEIGHTS: "base_weights", SCALES: "quantisation", ADAPTER: "adapters", MOMENT: "optimizer"}
BEFORE = sum(HELD.values())
A, B, C, D = 0x1000, 0x2000, 0x3000, 0x4000


def alloc(moment: int, address: int, size: int) -> dict[str, Any]:
    return {"action": "alloc", "addr": address, "size": size, "time_us": moment, "stream": 0}


def free(moment: int, address: int, size: int = 0) -> list[dict[str, Any]]:
    """A block given back, as the allocator tells it: asked for, and done."""
    return [
        {"action": action, "addr": address, "size": size, "time_us": moment, "stream": 0}
        for action in ("free_requested", "free_completed")
    ]


def marks(*sections: tuple[int, Section], gradients: dict[int, int] | None = None) -> Marks:
    return Marks([moment for moment, _ in sections], [section for _, section in sections], gradients or {})


STEP = marks((10, "activations"), (20, "logits"), (30, "rest"), (40, "activations"), (50, "rest"))


def parts(trace: Sequence[dict[str, Any]], marked: Marks = STEP, peak: int | None = None) -> dict[str, int]:
    """What differs from zero; without a `peak` the allocator rounds nothing."""
    highest, sizes = BEFORE, dict(HELD)
    for event in trace:
        if event["action"] == "alloc":
            sizes[event["addr"]] = event["size"]
        elif event["action"] == "free_completed":
            sizes.pop(event["addr"], None)
        highest = max(highest, sum(sizes.values()))
    found = breakdown(HELD, trace, OWNERS, marked, highest if peak is None else peak)
    assert list(found) == list(CATEGORIES)
    return {category: size for category, size in found.items() if size}


LASTING = {"base_weights": 1_000, "quantisation": 50, "adapters": 20, "optimizer": 40}


def test_blocks_belong_to_the_section_in_which_they_were_made() -> None:
    trace = [alloc(5, A, 1), alloc(10, B, 100), alloc(25, C, 30), alloc(31, D, 8), alloc(45, 0x5000, 200)]
    assert parts(trace) == {**LASTING, "activations": 300, "logits": 30, "rest": UNKNOWN_BYTES + 1 + 8}


UNKNOWN_BYTES = HELD[UNKNOWN]


def test_what_was_given_back_before_the_peak_is_no_part_of_it() -> None:
    trace = [alloc(11, A, 500), *free(12, A), alloc(21, B, 600)]
    assert parts(trace) == {**LASTING, "logits": 600, "rest": UNKNOWN_BYTES}


def test_what_was_made_after_the_peak_is_no_part_of_it() -> None:
    trace = [alloc(11, A, 500), *free(12, A), alloc(21, B, 400)]
    assert parts(trace) == {**LASTING, "activations": 500, "rest": UNKNOWN_BYTES}


def test_of_two_equal_peaks_the_first_is_told() -> None:
    trace = [alloc(11, A, 500), *free(12, A), alloc(21, B, 500)]
    assert parts(trace) == {**LASTING, "activations": 500, "rest": UNKNOWN_BYTES}


def test_a_block_that_was_there_before_may_be_given_back() -> None:
    trace = [*free(11, UNKNOWN), alloc(12, A, 100)]
    assert parts(trace) == {**LASTING, "activations": 100}


def test_a_step_that_never_exceeds_what_was_held_consists_of_that() -> None:
    trace = [*free(11, WEIGHTS), alloc(12, A, 100), *free(13, A)]
    assert parts(trace) == {**LASTING, "rest": UNKNOWN_BYTES}
    assert parts([]) == {**LASTING, "rest": UNKNOWN_BYTES}


def test_what_the_allocator_rounds_up_is_rest() -> None:
    trace = [alloc(11, A, 100)]
    found = parts(trace, peak=BEFORE + 100 + 412)
    assert found == {**LASTING, "activations": 100, "rest": UNKNOWN_BYTES + 412}
    assert sum(found.values()) == BEFORE + 512


@pytest.mark.parametrize(
    "action", ["segment_alloc", "segment_free", "segment_map", "oom", "snapshot", "free_requested"]
)
def test_what_is_neither_alloc_nor_free_changes_nothing(action: str) -> None:
    trace = [alloc(11, A, 100), alloc(21, B, 30)]
    strange = {"action": action, "addr": A, "size": 9_999, "time_us": 15, "stream": 0}
    assert parts([trace[0], strange, trace[1], strange]) == parts(trace)


def test_a_free_of_a_block_that_nobody_knows_is_passed_over() -> None:
    trace = [*free(9, 0x9999, 5_000), alloc(11, A, 100)]
    assert parts(trace) == {**LASTING, "activations": 100, "rest": UNKNOWN_BYTES}


def test_an_owner_s_block_made_during_the_step_belongs_to_its_owner() -> None:
    trace = [*free(9, MOMENT), alloc(11, MOMENT, 64)]
    assert parts(trace) == {**LASTING, "optimizer": 64, "rest": UNKNOWN_BYTES}


def test_gradients_are_told_by_their_address() -> None:
    trace = [alloc(31, A, 16), alloc(45, B, 100), alloc(46, C, 16)]
    assert parts(trace, marks(*zip(STEP.times, STEP.sections, strict=True), gradients={A: 32, C: 47})) == {
        **LASTING,
        "gradients": 32,
        "activations": 100,
        "rest": UNKNOWN_BYTES,
    }


def test_a_temporary_at_an_address_where_a_gradient_comes_later_is_no_gradient() -> None:
    trace = [alloc(11, A, 500), *free(12, A), alloc(31, A, 16)]
    seen = marks(*zip(STEP.times, STEP.sections, strict=True), gradients={A: 32})
    assert parts(trace, seen) == {**LASTING, "activations": 500, "rest": UNKNOWN_BYTES}


def test_a_temporary_at_an_address_where_a_gradient_was_is_no_gradient() -> None:
    trace = [alloc(31, A, 16), *free(33, A), alloc(41, A, 500)]
    seen = marks(*zip(STEP.times, STEP.sections, strict=True), gradients={A: 32})
    assert parts(trace, seen) == {**LASTING, "activations": 500, "rest": UNKNOWN_BYTES}


def test_a_gradient_made_and_seen_in_the_same_microsecond_is_one() -> None:
    assert parts([alloc(31, A, 16)], marks(gradients={A: 31})) == {**LASTING, "gradients": 16, "rest": UNKNOWN_BYTES}


def test_sections_begin_at_their_moment() -> None:
    assert [STEP.at(moment) for moment in (0, 9, 10, 19, 20, 29, 30, 40, 49, 50, 10**12)] == [
        *("rest", "rest", "activations", "activations", "logits", "logits"),
        *("rest", "activations", "activations", "rest", "rest"),
    ]


def test_of_sections_that_begin_in_one_microsecond_the_last_counts() -> None:
    assert marks((10, "activations"), (10, "logits")).at(10) == "logits"
    assert Marks().at(10) == "rest"


def test_marks_are_made_in_the_order_of_time() -> None:
    made = Marks()
    made.enter("activations")
    gradient = torch.zeros(4)
    made.saw_gradient(gradient)
    made.enter("logits")
    assert made.sections == ["activations", "logits"]
    assert made.gradients.keys() == {gradient.data_ptr()}
    assert made.times[0] <= made.gradients[gradient.data_ptr()] <= made.times[1]


ADDRESSES = [WEIGHTS, MOMENT, UNKNOWN, A, B, C]
MOVES = st.lists(st.tuples(st.sampled_from(ADDRESSES), st.integers(1, 900), st.integers(0, 4)), max_size=40)
SECTIONS = st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["activations", "logits", "rest"])), max_size=6)
SEEN = st.dictionaries(st.sampled_from([A, B, C]), st.integers(0, 60), max_size=3)


def traced(moves: Sequence[tuple[int, int, int]]) -> list[dict[str, Any]]:
    """A history that an allocator can have: an address is taken if it is free, and given back if it is taken."""
    trace: list[dict[str, Any]] = []
    taken, moment = set(HELD), 0
    for address, size, later in moves:
        moment += later
        if address in taken:
            trace += free(moment, address)
            taken.remove(address)
        else:
            trace.append(alloc(moment, address, size))
            taken.add(address)
    return trace


def replayed(trace: Sequence[dict[str, Any]], marked: Marks) -> dict[str, int]:
    """The peak's parts, by looking at all blocks after every event; each block knows the event that made it."""
    blocks: dict[int, tuple[int, int]] = {address: (size, -1) for address, size in HELD.items()}
    moments = [dict(blocks)]
    for number, event in enumerate(trace):
        if event["action"] == "alloc":
            blocks[event["addr"]] = (event["size"], number)
        elif event["action"] == "free_completed":
            del blocks[event["addr"]]
        moments.append(dict(blocks))
    totals = [sum(size for size, _ in alive.values()) for alive in moments]
    result: dict[str, int] = dict.fromkeys(CATEGORIES, 0)
    for address, (size, number) in moments[totals.index(max(totals))].items():
        result[_category(address, number, trace, marked)] += size
    return result


def _category(address: int, number: int, trace: Sequence[dict[str, Any]], marked: Marks) -> Any:
    if number < 0 or address in OWNERS:
        return OWNERS.get(address, "rest")
    seen = marked.gradients.get(address)
    makers = [
        index
        for index, event in enumerate(trace)
        if event["action"] == "alloc" and event["addr"] == address and seen is not None and event["time_us"] <= seen
    ]
    if makers[-1:] == [number]:
        return "gradients"
    begun = [
        section for moment, section in zip(marked.times, marked.sections, strict=True) if moment <= _time(trace, number)
    ]
    return begun[-1] if begun else "rest"


def _time(trace: Sequence[dict[str, Any]], number: int) -> int:
    return int(trace[number]["time_us"])


@given(MOVES, SECTIONS, SEEN, st.integers(0, 5_000))
@settings(max_examples=400, deadline=None)
def test_a_breakdown_is_what_a_replay_of_every_moment_finds_and_sums_to_the_peak(
    moves: list[tuple[int, int, int]], sections: list[tuple[int, Section]], seen: dict[int, int], rounding: int
) -> None:
    trace = traced(moves)
    marked = marks(*sorted(sections, key=lambda item: item[0]), gradients=seen)
    expected = replayed(trace, marked)
    peak = sum(expected.values()) + rounding
    found = breakdown(HELD, trace, OWNERS, marked, peak)
    assert found == {**expected, "rest": expected["rest"] + rounding}
    assert sum(found.values()) == peak


def test_blocks_in_use_before_the_history_are_read_from_a_snapshot() -> None:
    blocks = [
        {"address": A, "size": 1_024, "requested_size": 1_000, "state": "active_allocated"},
        {"address": B, "size": 512, "requested_size": 500, "state": "active_pending_free"},
        {"address": C, "size": 512, "requested_size": 0, "state": "inactive"},
    ]
    older = [{"address": D, "size": 2_048, "state": "active_allocated"}]
    assert dict(_held({"segments": [{"blocks": blocks}, {"blocks": older}]})) == {A: 1_000, D: 2_048}


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.INT8, Precision.NF4])
def test_every_tensor_of_a_model_and_its_adapter_has_its_owner(tiny_folder: str, precision: Precision) -> None:
    arm = probe_arm(precision)
    base = load_base(tiny_folder, arm, "cpu", model_dropout=False)
    adapter = attach(base, arm, Hyperparameters(4, 4, 1e-3), PROBE, seed=0)
    trainable = [parameter for parameter in adapter.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable)
    make_state(optimizer)
    owners = _owners(base, adapter, optimizer)
    assert {owners[parameter.data_ptr()] for parameter in trainable} == {"adapters"}
    frozen = [parameter for parameter in base.model.parameters() if not parameter.requires_grad]
    assert {owners[parameter.data_ptr()] for parameter in frozen} == {"base_weights"}
    scales = [tensor for module in base.model.modules() for tensor in quantisation_tensors(module)]
    assert {owners[tensor.data_ptr()] for tensor in scales} == (
        {"quantisation"} if arm.precision.is_quantised else set()
    )
    # Without a GPU moments are on the CPU, where no history of the allocator would show them.
    assert set(owners.values()) <= {"adapters", "base_weights", "quantisation"}
