"""How a worker's run ends where something around it fails."""

import errno
import os
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from harness.engine.adapting import Adapter
from harness.engine.session import Session, host_out_of_memory, out_of_memory
from harness.messages import Event, Facts
from study.models import ModelSpec


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12.00 MiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory of what was said"), False),
    ],
)
def test_a_card_without_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("std::bad_alloc"), True),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), True),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12.00 MiB."), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_a_host_without_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert host_out_of_memory(error) is expected


def test_an_adapter_that_cannot_be_saved_is_told_and_costs_no_run(tmp_path: Path) -> None:
    said: list[Event] = []
    file = tmp_path / "adapters"
    file.write_text("a file where the folder should be")
    adapter = Adapter(cast(Any, None), (), {})
    Session(said.append)._save(adapter, str(file / "run"), ModelSpec("random/tiny-phi", None, "random"))
    (told,) = said
    assert isinstance(told, Facts)
    assert list(told.values) == ["adapter_not_saved"]
