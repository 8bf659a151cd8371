"""What every test may use: so far the `golden` fixture."""

import difflib
import itertools
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
SHOWN_LINES = 200


class Golden:
    """Compares text with the file `folder / name`; with `update`, writes the file instead.

    Use: `golden("table.md", text)`. Type the fixture as `from tests.conftest import Golden`.
    """

    def __init__(self, folder: Path, *, update: bool) -> None:
        self.folder = folder
        self.update = update

    def __call__(self, name: str, actual: str) -> None:
        """Fail the test unless `actual` is, byte for byte, what the golden file `name` holds.

        Raises:
            ValueError: `name` points out of the folder.
        """
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise ValueError(f"golden file {name!r}: choose a path inside {self.folder}")
        expected = path.read_bytes().decode() if path.is_file() else None
        if actual == expected:
            return
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(actual.encode())
            return
        if expected is None:
            pytest.fail(f"there is no golden file {name!r}; make golden writes it", pytrace=False)
        pytest.fail(difference(name, expected, actual), pytrace=False)


def difference(name: str, expected: str, actual: str) -> str:
    """The unified diff from `expected` to `actual`, cut after `SHOWN_LINES` lines."""
    lines = difflib.unified_diff(
        _visible_lines(expected),
        _visible_lines(actual),
        fromfile=f"tests/golden/{name}",
        tofile="this run",
        lineterm="",
    )
    shown = list(itertools.islice(lines, SHOWN_LINES + 1))
    if len(shown) > SHOWN_LINES:
        shown[SHOWN_LINES:] = [f"… cut after {SHOWN_LINES} lines"]
    return "\n".join([f"golden file {name!r} differs; if it should, run make golden and read the diff", *shown])


def _visible_lines(text: str) -> list[str]:
    """The lines of `text`, with signs where an eye would miss a carriage return or the lack of a last newline."""
    *lines, last = text.replace("\r", "␍").split("\n")
    return [*lines, last + "⏎ missing"] if last else lines


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files instead of comparing with them"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # First, for -m to see the marker: make golden runs the tests that use the fixture, wherever they are.
    for item in items:
        if isinstance(item, pytest.Function) and "golden" in item.fixturenames:
            item.add_marker("golden")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compares text with a file in tests/golden: `golden("table.md", text)`."""
    return Golden(GOLDEN, update=request.config.getoption("--update-golden"))
