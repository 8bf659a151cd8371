"""Every engine in a process of its own, forked from one that has imported the libraries once and never touched CUDA."""

import importlib
import multiprocessing
import multiprocessing.connection
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from harness.engine.encoding import Encoded
from harness.engine.sources import model_folder
from harness.messages import Device
from tests.benchmarks.measuring import MATMUL, Job, Options, Row, matmul_rate, read_memory, row_of

# What the imports of all engines come to; a library that is missing fails in the row that needs it.
_MODULES = (
    "transformers.models.auto.modeling_auto",
    "transformers.models.phi.modeling_phi",
    "transformers.models.llama.modeling_llama",
    "transformers.trainer",
    "torch._inductor.compile_fx",
    "datasets",
    "bitsandbytes",
    "peft",
    "trl.trainer.sft_trainer",
)
# How CUDA says that a parent had used it already.
_FORKED = ("forked subprocess", "initialization error")


def preload() -> str:
    """Imports what the engines need; says how processes can be started now: `fork`, or `spawn` if CUDA was touched."""
    with _capability_by_nvml():
        for name in _MODULES:
            with suppress(ImportError):
                importlib.import_module(name)
    return "spawn" if torch.cuda.is_initialized() else "fork"


@contextmanager
def _capability_by_nvml() -> Iterator[None]:
    """Answers bitsandbytes, which asks for the GPU's compute capability when it is imported, without a context."""
    original = torch.cuda.get_device_capability
    if torch.cuda.is_available():
        try:
            nvml: Any = importlib.import_module("pynvml")
            nvml.nvmlInit()
            capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(nvml.nvmlDeviceGetHandleByIndex(0)))
            nvml.nvmlShutdown()
        except Exception as error:  # noqa: BLE001 - whatever NVML says, processes can still be spawned
            print(f"no capability from NVML ({error}): bitsandbytes may touch CUDA")
        else:
            setattr(torch.cuda, "get_device_capability", lambda device=None: capability)  # noqa: B010 - a stand-in
    try:
        yield
    finally:
        setattr(torch.cuda, "get_device_capability", original)  # noqa: B010


class Runner:
    """Runs jobs one after another."""

    def __init__(self, method: str, timeout: float, *, verbose: bool) -> None:
        self.method = method
        self._timeout = timeout
        self._verbose = verbose

    def folder(self, model: str, device: Device) -> str:
        """The model's folder, made on the device by a process of its own where it is not there yet."""
        done = self._run(_make, (model, device), 300.0)
        if not isinstance(done, str) or not Path(done).is_dir():
            raise SystemExit(f"{model}: {done}")
        return done

    def row(self, job: Job, options: Options, examples: Sequence[Encoded]) -> Row:
        """What came of a job; a process that died or was ended says so in its row."""
        start = time.monotonic()
        done = self._run(_work, (job, options, examples), self._timeout)
        row = done if isinstance(done, Row) else row_of(job, error=str(done))
        if self.method == "fork" and row.error and any(words in row.error for words in _FORKED):
            print(f"{job.label}: {row.error}; processes are spawned from here on")
            self.method = "spawn"
            return self.row(job, options, examples)
        row.wall_seconds = time.monotonic() - start
        return row

    def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout: float) -> Any:
        """What `function` returns in a process of its own, or why it did not."""
        context: Any = multiprocessing.get_context(self.method)
        ours, theirs = context.Pipe(duplex=False)
        with tempfile.TemporaryDirectory() as folder:
            log = None if self._verbose else str(Path(folder) / "log")
            process = context.Process(target=_child, args=(theirs, log, function, arguments))
            process.start()
            theirs.close()
            try:
                if not ours.poll(timeout):
                    return f"ended after {timeout:.0f} s{_last_line(log)}"
                return ours.recv()
            except EOFError:
                process.join(10)
                return f"died, exit code {process.exitcode}{_last_line(log)}"
            finally:
                if process.is_alive():
                    process.join(10)
                if process.is_alive():
                    process.kill()
                    process.join()
                ours.close()


def _last_line(log: str | None) -> str:
    if log is None or not Path(log).is_file():
        return ""
    lines = [line for line in Path(log).read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f": {lines[-1][:200]}" if lines else ""


def _child(connection: Connection, log: str | None, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if log is not None:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
    try:
        result = function(*arguments)
    except Exception as error:  # noqa: BLE001 - the parent prints it
        result = _said(error)
    connection.send(result)
    connection.close()


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _make(model: str, device: Device) -> str:
    return model_folder(model, None, device).folder


def _work(job: Job, options: Options, examples: Sequence[Encoded]) -> Row:
    if options.device == "cuda":
        torch.cuda.init()
    try:
        row = _runner(job.engine)(job, options, examples)
    except Exception as error:  # noqa: BLE001 - an engine that fails is a finding
        row = row_of(job, error=_said(error))
    read_memory(row, options.device)
    return row


def _runner(engine: str) -> Callable[[Job, Options, Sequence[Encoded]], Row]:
    if engine == MATMUL:
        return _run_matmul
    if engine == "ours":
        from tests.benchmarks.ours import run_ours

        return run_ours
    from tests.benchmarks import peers

    runners = {"trl": peers.run_trl, "hf": peers.run_hf, "eager": peers.run_eager}
    if engine not in runners:
        raise ValueError(f"engines are {MATMUL}, ours, {', '.join(runners)}, not {engine}")
    return runners[engine]


def _run_matmul(job: Job, options: Options, _examples: Sequence[Encoded]) -> Row:
    row = row_of(job)
    row.tflops = matmul_rate(options.device)
    row.facts["device"] = torch.cuda.get_device_name(0) if options.device == "cuda" else "CPU"
    return row
