"""In which order tests share the GPU."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that use CUDA in this process come last: other tests' runs would find a foreign process on the card."""
    items.sort(key=lambda item: getattr(getattr(item, "module", None), "USES_CUDA_HERE", False))
