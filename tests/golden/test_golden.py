"""What people read of the shipped grids, byte for byte: a change here is a change of what users see."""

import io

import pytest
from rich.console import Console

from harness.planning import make_plan, print_plan
from harness.specs import Specs
from harness.start import GRIDS
from study.grid import load_grid
from tests.conftest import Golden


@pytest.mark.parametrize("name", ["ablation", "quickstart", "seed"])
def test_the_plan_of_a_shipped_grid_reads_as_before(name: str, golden: Golden) -> None:
    grid = load_grid((GRIDS / f"{name}.yaml").read_text())
    out = io.StringIO()
    print_plan(make_plan(grid, Specs(grid, {}).confirm_count(), None), Console(file=out))
    golden(f"plan-{name}.txt", "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n")
