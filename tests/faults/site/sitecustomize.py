"""Faults inside a training step. Python imports this module in every process whose PYTHONPATH holds its folder.

QLORA_STEP_FAULTS is a JSON object: the id of a run (as a worker's log is called) to the name of a fault and the number
of the backward pass, counted over the life of the worker, before which it happens. All of them happen for real, but for
the two errors that only a GPU can raise: those are raised here as torch would raise them.

QLORA_HUNG_AFTER_S is how many seconds a conductor waits for a sign of life, instead of minutes.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any


def _cuda_error() -> None:
    import torch

    # An exception of torch 2.9 and later; before that a RuntimeError.
    kind: type[Exception] = getattr(torch, "AcceleratorError", RuntimeError)
    raise kind("CUDA error: an illegal memory access was encountered")


def _cuda_oom() -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12.00 MiB.")


def _host_oom() -> None:
    """The process may have what it has, and no byte more; the next product is larger than what lies free in it."""
    import torch

    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))
    torch.ones(4096, 4096)


def _signal(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


FAULTS: dict[str, Any] = {
    "sigkill": lambda: _signal(signal.SIGKILL),
    "segfault": lambda: _signal(signal.SIGSEGV),
    "sigstop": lambda: _signal(signal.SIGSTOP),
    "hang": lambda: time.sleep(3600),
    "cuda_error": _cuda_error,
    "cuda_oom": _cuda_oom,
    "host_oom": _host_oom,
}


def _arm(faults: dict[str, tuple[str, int]]) -> None:
    import torch

    tensor: Any = torch.Tensor
    backward = tensor.backward
    passes = 0

    def counted(*arguments: Any, **named: Any) -> None:
        nonlocal passes
        passes += 1
        fault, turn = faults.get(Path(os.readlink("/proc/self/fd/1")).stem, ("", 0))
        if passes == turn:
            FAULTS[fault]()
        backward(*arguments, **named)

    tensor.backward = counted


# The conductor, which must not take as long as a study's does to find that a worker gives no sign of life.
if "QLORA_HUNG_AFTER_S" in os.environ and any(word.endswith("run_study.py") for word in sys.orig_argv):
    import harness.workers

    harness.workers.BEAT_S = 0.5
    harness.workers.HUNG_AFTER_S = float(os.environ["QLORA_HUNG_AFTER_S"])
# The template, from which workers are forked: the conductor never loads torch.
if "forkserver" in " ".join(sys.orig_argv) and "QLORA_STEP_FAULTS" in os.environ:
    _arm(json.loads(os.environ["QLORA_STEP_FAULTS"]))
