"""How a run ends whose worker is gone without a last word."""

import signal

import pytest

from harness.outcomes import of_death


@pytest.mark.parametrize(
    ("exit_code", "expected"),
    [
        # The kernel where memory runs out, a person, a scheduler.
        (-signal.SIGKILL, "killed"),
        (-signal.SIGTERM, "killed"),
        # A crash.
        (-signal.SIGSEGV, "failed"),
        (-signal.SIGABRT, "failed"),
        (1, "failed"),
        # The template died too, and nobody can tell.
        (255, "killed"),
        (None, "killed"),
        # The end of the conductor's pipe.
        (0, "killed"),
    ],
)
def test_a_crash_is_told_from_what_comes_from_outside(exit_code: int | None, expected: str) -> None:
    assert of_death(exit_code) == expected
