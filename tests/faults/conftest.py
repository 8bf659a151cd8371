"""What the tests of faults share: one study that nobody disturbed."""

import pytest

from tests.faults.starts import Undisturbed, grid_text, undisturbed


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The short study, run once from start to end. Never to be written to."""
    root = tmp_path_factory.mktemp("undisturbed")
    grid = root / "grid.yaml"
    grid.write_text(grid_text(whole=False))
    return undisturbed(grid, root)
