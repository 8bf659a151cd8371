"""What a worker reports of its phases, also of one that fails."""

import mmap
from contextlib import nullcontext
from pathlib import Path

import pytest

from harness.engine.meters import PhaseMeter, host_rss_peak_bytes, reset_host_rss_peak
from harness.messages import Event, Phase, PhaseEnded, PhaseStarted, decode_event, encode


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def meter(told: list[Event]) -> PhaseMeter:
    return PhaseMeter("cpu", told.append)


def running(meter: PhaseMeter) -> Phase | None:
    return meter.phase


def last(told: list[Event]) -> PhaseEnded:
    assert isinstance(told[-1], PhaseEnded)
    return told[-1]


def test_a_phase_is_told_when_it_begins_and_when_it_is_over(meter: PhaseMeter, told: list[Event]) -> None:
    with meter.measure("load"):
        assert told == [PhaseStarted("load")]
        assert running(meter) == "load"
    assert running(meter) is None
    ended = last(told)
    assert (ended.phase, ended.failed) == ("load", False)
    assert ended.seconds > 0
    # On the CPU there is no allocator to ask.
    assert (ended.allocated_bytes, ended.reserved_bytes) == (None, None)


@pytest.mark.parametrize("error", [RuntimeError("no"), MemoryError("no"), KeyboardInterrupt()])
def test_a_phase_that_fails_is_told_with_what_it_got_to_and_stays(
    meter: PhaseMeter, told: list[Event], error: BaseException
) -> None:
    with pytest.raises(type(error)), meter.measure("train"):
        raise error
    ended = last(told)
    assert [type(event) for event in told] == [PhaseStarted, PhaseEnded]
    assert (ended.phase, ended.failed, meter.phase) == ("train", True, "train")
    assert ended.seconds > 0
    assert decode_event(encode(ended)) == ended


def test_the_phase_after_a_failed_one_is_told_as_its_own(meter: PhaseMeter, told: list[Event]) -> None:
    with pytest.raises(RuntimeError), meter.measure("train"):
        raise RuntimeError
    with meter.measure("evaluate"):
        pass
    assert (last(told).phase, last(told).failed, meter.phase) == ("evaluate", False, None)


def resident(size: int) -> mmap.mmap:
    """So many bytes of memory that nothing had before: what malloc hands out may have been resident all along."""
    block = mmap.mmap(-1, size)
    for page in range(0, size, mmap.PAGESIZE):
        block[page] = 1
    return block


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists() or not reset_host_rss_peak(), reason="the kernel keeps its peak"
)
def test_a_failed_phase_has_the_peak_of_the_host_memory_that_it_took(meter: PhaseMeter, told: list[Event]) -> None:
    size = 64 * 1024**2
    before = host_rss_peak_bytes() or 0

    def take_and_fail() -> None:
        block = resident(size)
        raise MemoryError(f"{len(block)} bytes were too many")

    with pytest.raises(MemoryError), meter.measure("train"):
        take_and_fail()
    failed = last(told).host_rss_bytes or 0
    with meter.measure("evaluate"):
        pass
    after = last(told).host_rss_bytes or 0
    assert failed > before + size // 2
    assert after < failed - size // 2


def test_what_is_aside_has_a_peak_of_its_own(meter: PhaseMeter, told: list[Event]) -> None:
    if not reset_host_rss_peak():
        pytest.skip("the kernel does not start the peak of resident memory anew")
    peaks = []
    for aside in (False, True):
        with meter.measure("train"):
            resident(64 * 2**20).close()
            with meter.aside() if aside else nullcontext():
                resident(192 * 2**20).close()
        ended = told[-1]
        assert isinstance(ended, PhaseEnded)
        peaks.append(ended.host_rss_bytes or 0)
    assert peaks[0] - peaks[1] > 96 * 2**20
    # What the phase itself had needed before is not forgotten.
    assert peaks[1] - (host_rss_peak_bytes() or 0) > 32 * 2**20
