"""What the peak of a training step consists of, from the allocator's own history of that step.

The allocator records every block that it hands out and takes back; played back, that history gives the moment of the
peak and the blocks alive then. Blocks with a known owner (weights, scales, adapters, moments, gradients) are told by
address, all others by the part of the step that was being computed when they were made.
"""

import bisect
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.engine.adapting import Adapter
from harness.engine.ledger import CATEGORIES
from harness.engine.loading import Base
from harness.engine.sections import Section, adapter_gradients, watched

# Far more than a step of any model here makes (Phi-2: about 30,000); a history that was cut short is not used.
MOST_ENTRIES = 4_000_000
# The history goes by the wall clock. Where that is set by more within a step, its moments are not the marks' moments.
SAME_CLOCK_S = 0.01


@dataclass(slots=True)
class Marks:
    """When each section of a step began, and at which address a gradient was seen when: microseconds since the epoch,
    as in the allocator's history."""

    times: list[int] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    gradients: dict[int, int] = field(default_factory=dict)

    def enter(self, section: Section) -> None:
        """Another section begins now."""
        self.times.append(time.time_ns() // 1000)
        self.sections.append(section)

    def saw_gradient(self, gradient: torch.Tensor) -> None:
        """A gradient has its final place."""
        self.gradients[_address(gradient)] = time.time_ns() // 1000

    def at(self, moment: int) -> Section:
        """The section in which something happened."""
        index = bisect.bisect_right(self.times, moment) - 1
        return self.sections[index] if index >= 0 else "rest"


@dataclass(slots=True)
class Census:
    """What was seen of a step; `seconds` is what looking took, beside the step itself."""

    seconds: float = 0.0
    seen: tuple[dict[int, int], list[Mapping[str, Any]], dict[int, str], Marks, int] | None = None

    def parts(self) -> dict[str, int] | None:
        """The breakdown of the step's peak in bytes; None where the allocator could not say."""
        if self.seen is None or len(self.seen[1]) >= MOST_ENTRIES:
            return None
        return breakdown(*self.seen)


@contextmanager
def counted(base: Base, adapter: Adapter, optimizer: Any, into: Census) -> Iterator[None]:
    """Watches one training step on the GPU and puts the breakdown of its peak into `into`.

    Python stacks are not recorded, so that the step takes hardly longer. Where the allocator cannot say (its history
    is full, another allocator, a clock that was set meanwhile) there is no breakdown.
    """
    if torch.cuda.get_allocator_backend() != "native":
        yield
        return
    begun = time.monotonic()
    make_workspaces()
    marks = Marks()
    hooks = adapter_gradients(adapter.model, marks.saw_gradient)
    try:
        torch.cuda.synchronize()
        torch.cuda.memory._record_memory_history("all", context=None, stacks="python", max_entries=MOST_ENTRIES)
        held = dict(_held(torch.cuda.memory._snapshot()))
        clocks = _between_clocks()
        torch.cuda.reset_peak_memory_stats()
        into.seconds += time.monotonic() - begun
        with watched(base, marks.enter):
            yield
        torch.cuda.synchronize()
        begun = time.monotonic()
        trace = torch.cuda.memory._snapshot()["device_traces"][torch.cuda.current_device()]
        if abs(_between_clocks() - clocks) < SAME_CLOCK_S:
            into.seen = (held, trace, _owners(base, adapter, optimizer), marks, torch.cuda.max_memory_allocated())
        into.seconds += time.monotonic() - begun
    finally:
        torch.cuda.memory._record_memory_history(None)
        for hook in hooks:
            hook.remove()


def _between_clocks() -> float:
    """Seconds between the wall clock and the monotonic one: a difference in them is a clock that was set."""
    return time.time() - time.monotonic()


def make_workspaces() -> None:
    """Has cuBLAS allocate its workspaces, one for each of the two threads that multiply, before anything is counted:
    they belong to no part of a step. A step makes the second one with its first product on the way back, which may be
    past its peak."""
    one = torch.ones((16, 16), device="cuda", dtype=torch.bfloat16, requires_grad=True)
    (one @ one).sum().backward()


def breakdown(
    held: Mapping[int, int], trace: Iterable[Mapping[str, Any]], owners: Mapping[int, str], marks: Marks, peak: int
) -> dict[str, int]:
    """Bytes at the peak by category; they sum to `peak`.

    Args:
        held: address and bytes of every block that was alive before the history begins.
        trace: the allocator's history: `action`, `addr`, `size` (bytes) and `time_us` of each event.
        owners: address to category, for blocks whose owner is known.
        marks: the sections of the step.
        peak: the allocator's own figure; what it exceeds the blocks by is its rounding, and part of `rest`.
    """
    events = list(trace)
    top = _moment_of_peak(held, events)
    gradients = _gradient_events(events, marks)
    alive = {address: (size, owners.get(address, "rest")) for address, size in held.items()}
    for number, event in enumerate(events[: top + 1]):
        address = event["addr"]
        if event["action"] == "alloc":
            made_in = owners.get(address) or marks.at(event["time_us"])
            alive[address] = (event["size"], "gradients" if number in gradients else made_in)
        elif event["action"] == "free_completed":
            alive.pop(address, None)
    parts: dict[str, int] = dict.fromkeys(CATEGORIES, 0)
    for size, category in alive.values():
        parts[category] += size
    parts["rest"] = max(0, peak - (sum(parts.values()) - parts["rest"]))
    return parts


def _moment_of_peak(held: Mapping[int, int], events: Sequence[Mapping[str, Any]]) -> int:
    """The index of the event after which most bytes are alive; -1 where nothing exceeds what was held."""
    sizes = dict(held)
    current = highest = sum(held.values())
    top = -1
    for number, event in enumerate(events):
        if event["action"] == "alloc":
            sizes[event["addr"]] = event["size"]
            current += event["size"]
            if current > highest:
                highest, top = current, number
        elif event["action"] == "free_completed":
            current -= sizes.pop(event["addr"], 0)
    return top


def _gradient_events(events: Sequence[Mapping[str, Any]], marks: Marks) -> frozenset[int]:
    """The events that made the final gradients: at each of their addresses the last one before it was seen there."""
    last: dict[int, int] = {}
    for number, event in enumerate(events):
        seen = marks.gradients.get(event["addr"])
        if event["action"] == "alloc" and seen is not None and event["time_us"] <= seen:
            last[event["addr"]] = number
    return frozenset(last.values())


def _held(snapshot: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    for segment in snapshot["segments"]:
        for block in segment["blocks"]:
            if block["state"] == "active_allocated":
                yield block["address"], block.get("requested_size", block["size"])


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _owners(base: Base, adapter: Adapter, optimizer: Any) -> dict[int, str]:
    owners: dict[int, str] = {}
    for tensor in (*base.model.parameters(), *base.model.buffers()):
        owners[_address(tensor.data)] = "adapters" if tensor.requires_grad else "base_weights"
    for parameter in adapter.model.parameters():
        if parameter.requires_grad:
            owners[_address(parameter.data)] = "adapters"
            if parameter.grad is not None:
                # Where steps are captured, gradients have their place before the first.
                owners[_address(parameter.grad)] = "gradients"
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor) and value.is_cuda:
                owners[_address(value)] = "optimizer"
    for module in base.model.modules():
        for tensor in quantisation_tensors(module):
            owners[_address(tensor)] = "quantisation"
    return owners


def quantisation_tensors(module: Any) -> Iterator[torch.Tensor]:
    """What a quantised layer needs besides its packed weights: scales, code books, offsets (bitsandbytes)."""
    weight = getattr(module, "weight", None)
    holders: list[Any] = [getattr(weight, "quant_state", None)]
    holders.append(getattr(holders[0], "state2", None))
    for holder in holders:
        for value in vars(holder).values() if holder is not None else ():
            if isinstance(value, torch.Tensor):
                yield value
    for scales in (getattr(weight, "SCB", None), getattr(getattr(module, "state", None), "SCB", None)):
        if isinstance(scales, torch.Tensor):
            yield scales
