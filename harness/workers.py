"""Worker processes as the conductor holds them: start, talk, end."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.messages import Alive, Command, Device, Event, decode_event, encode
from harness.worker import serve

# The libraries, and what a worker runs itself.
PRELOAD = ("harness.engine.preload", "harness.worker")
ROOT = Path(__file__).resolve().parent.parent
# Tries to start a worker, each with a template of its own where the one before has died.
STARTS = 3
# Seconds that a worker has to write its stacks: a busy machine takes its time.
DUMP_WITHIN_S = 3.0
# Seconds between two signs of life of a worker, and how many without one say that it hangs: many, since a library may
# hold Python's lock for long, as with a file of gigabytes on a slow disk.
BEAT_S = 10.0
HUNG_AFTER_S = 300.0


class WorkerDied(RuntimeError):
    """The process ended without a last word; `exit_code` as multiprocessing gives it (negative: a signal)."""

    def __init__(self, exit_code: int | None) -> None:
        self.exit_code = exit_code
        super().__init__(describe_exit(exit_code))


class NoWorkers(RuntimeError):
    """No worker can be started here; one line that says why."""


@dataclass(slots=True)
class Allowance:
    """Seconds that may still be waited for something, over any number of waits."""

    left_s: float


class Silent(RuntimeError):
    """No event came within the time that was allowed."""


class Hung(Silent):
    """The process is there and gives no sign of life, whatever it is allowed."""


def describe_exit(exit_code: int | None) -> str:
    """An exit code in words: `ended by SIGKILL`, `exit code 1`."""
    if exit_code is not None and exit_code < 0:
        try:
            return f"ended by {signal.Signals(-exit_code).name}"
        except ValueError:
            return f"ended by signal {-exit_code}"
    return f"exit code {exit_code}"


class Template:
    """Makes workers, forked from a process that has imported the libraries once and never touched CUDA."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOAD))

    def prepare(self) -> None:
        """Starts the process that workers are forked from, and does not wait for its imports."""
        with _STARTING, _worker_environment():
            multiprocessing.forkserver.ensure_running()

    def start(self, device: Device, log: Path, gpu: str | None = None) -> "Worker":
        """A fresh process on `device`, which writes its standard error to `log`.

        Args:
            gpu: the UUID of the one GPU that it may see; None leaves it those that this process sees.

        Raises:
            NoWorkers: its log cannot be written, or the process that workers are forked from dies again and again.
        """
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NoWorkers(f"{log.parent} cannot be written: {error.strerror}") from error
        ours, theirs = self._context.Pipe(duplex=True)
        with _STARTING, _worker_environment(), _no_main_module():
            process = self._started(theirs, str(log), device, os.getpid(), gpu, BEAT_S)
        theirs.close()
        return Worker(process, ours, log)

    def _started(self, *arguments: object) -> Any:
        """A process that does `serve`. Whoever kills the template meanwhile has another one started in its place."""
        for attempt in range(STARTS):
            process = self._context.Process(target=serve, args=arguments, daemon=True, name="qlora-ablation-worker")
            try:
                process.start()
            except (EOFError, OSError) as error:
                if attempt == STARTS - 1:
                    why = f"{type(error).__name__} {error}".strip()
                    raise NoWorkers(f"no worker process can be started, in {STARTS} tries: {why}") from error
                # A process that was killed is there for a moment yet, and would be taken for one that lives.
                time.sleep(0.2 * (attempt + 1))
            else:
                break
        return process


# Starting changes what the whole process shares: one thread at a time.
_STARTING = threading.Lock()


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Hides the conductor's main module: a worker would import it once more, with the whole report behind it, which
    took a second of every start. `serve` is found without it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _worker_environment() -> Iterator[None]:
    """The environment that the template and its workers inherit; the conductor's own is put back."""
    wanted = {
        # Lets the template ask for GPUs without making a context, which its forks could not use.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        # Waiting threads sleep instead of spinning: beside one busy process a step of the embedded model on 2 cores
        # took 3.4 s so, and 6.1 s otherwise (2.2 s against 2.0 s on an idle machine). Recorded with every run.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        # The tokenizer's threads do not survive a fork.
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Nothing here is compiled. bitsandbytes would have its import load the compiler, which takes 1.3 s (0.1 s
        # without it) and could start a pool of processes.
        "TORCHDYNAMO_DISABLE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Worker:
    """One worker process."""

    def __init__(self, process: Any, connection: Connection, log: Path) -> None:
        self._process = process
        self._connection = connection
        self.log = log

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return int(self._process.pid)

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return bool(self._process.is_alive())

    def send(self, command: Command) -> None:
        """Hands a command over.

        Raises:
            WorkerDied: there is nobody left to take it.
        """
        try:
            self._connection.send_bytes(encode(command))
        except OSError as error:
            raise WorkerDied(self._exit_code()) from error

    def next_event(self, allowed: Allowance | None = None) -> Event:
        """The next event; waiting for it is taken from what is `allowed`, where that is limited.

        Raises:
            WorkerDied: the process is gone and has nothing left to say.
            Silent: nothing came in the time that was allowed.
            Hung: not even a sign of life came for a long time.
        """
        still = 0.0
        while still < HUNG_AFTER_S:
            patience = BEAT_S if allowed is None else min(BEAT_S, max(0.0, allowed.left_s))
            began = time.monotonic()
            ready = multiprocessing.connection.wait([self._connection, self._process.sentinel], patience)
            # Not all the time that passed: where this process and the worker were stopped together, both go on.
            waited = min(time.monotonic() - began, patience)
            if allowed is not None:
                allowed.left_s -= waited
            if self._connection in ready:
                try:
                    event = decode_event(self._connection.recv_bytes())
                except (EOFError, OSError) as error:
                    raise WorkerDied(self._exit_code()) from error
                if not isinstance(event, Alive):
                    return event
                still = 0.0
                continue
            if ready:
                raise WorkerDied(self._exit_code())
            if allowed is not None and allowed.left_s <= 0.0:
                raise Silent("no event came in time")
            still += waited
        raise Hung(f"no sign of life for {HUNG_AFTER_S:.0f} s")

    def dump_stacks(self) -> None:
        """Has the worker write the stacks of its threads to its log, and waits a while for them. A process that was
        stopped takes no signal before it goes on."""
        before = self._logged()
        deadline = time.monotonic() + DUMP_WITHIN_S
        try:
            os.kill(self.pid, signal.SIGUSR1)
            os.kill(self.pid, signal.SIGCONT)
        except ProcessLookupError:
            return
        while self._logged() == before and time.monotonic() < deadline:
            time.sleep(0.02)
        # The first line is there; the others follow at once.
        time.sleep(0.1)

    def _logged(self) -> int:
        try:
            return self.log.stat().st_size
        except OSError:
            return 0

    def dismiss(self) -> None:
        """Ends the process, whatever it is doing, and does not wait: a GPU takes its time to take back memory."""
        self._process.kill()

    def end(self) -> None:
        """Ends the process, whatever it is doing, and waits until it is gone."""
        self.dismiss()
        self._process.join()
        self._connection.close()

    def _exit_code(self) -> int | None:
        self._process.join(timeout=10)
        code: int | None = self._process.exitcode
        return code
