"""The worker process: takes commands from its pipe, does them one after another, and dies with the conductor."""

import ctypes
import faulthandler
import importlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from harness.messages import (
    Alive,
    Command,
    Device,
    Event,
    Hello,
    Job,
    ModelRequest,
    Prepare,
    Prepared,
    Raised,
    Rehearse,
    decode_command,
    encode,
)

_PR_SET_PDEATHSIG = 1
Emit = Callable[[Event], None]


def serve(
    connection: Connection, log_path: str, device: Device, parent_pid: int, gpu: str | None, beat_s: float
) -> None:
    """The body of a worker process. Standard output and error go to the log: the pipe alone carries meaning.

    `gpu` is the UUID of the only GPU that it may use; without one it takes the first of those in sight. Every `beat_s`
    seconds it gives a sign of life.
    """
    _die_with_parent(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if device == "cpu":
        # bitsandbytes looks for a GPU while it is imported: a context made by that would be in a measured run's way.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif gpu is not None:
        # The driver reads it when the first context is made: a template that has none leaves the choice open.
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # After a fork these still write to the template's descriptors in its buffers.
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.enable(sys.stderr)
    faulthandler.register(signal.SIGUSR1, sys.stderr)
    lock = threading.Lock()

    def emit(event: Event) -> None:
        with lock:
            connection.send_bytes(encode(event))

    commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, commands), daemon=True).start()
    threading.Thread(target=_beat, args=(emit, beat_s), daemon=True).start()
    # tqdm's own lock is a semaphore shared between processes, which a worker that is killed would leave behind.
    importlib.import_module("tqdm").tqdm.set_lock(threading.RLock())
    try:
        emit(_hello(device))
        if device == "cuda":
            # Where the template could not import it: while the first command is on its way.
            importlib.import_module("harness.engine.session")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        # Whoever sends the first command must find somebody there, and be told.
        commands.get()
        _give_up(error, emit)
    session: Any = None
    while True:
        command = commands.get()
        if isinstance(command, Job):
            session = session or _session(emit)
            session.run(command)
        elif isinstance(command, Prepare):
            session = _prepared_session(command, emit)
        elif isinstance(command, ModelRequest):
            _prepare_model(command, emit)
        elif isinstance(command, Rehearse):
            importlib.import_module("harness.engine.rehearsing").rehearse_all(command, emit)
        else:
            emit(importlib.import_module("harness.engine.trying").try_precisions(command))


def _session(emit: Emit) -> Any:
    """Where runs are made. Imported here and by name: the conductor imports this module too, and never loads torch."""
    try:
        return importlib.import_module("harness.engine.session").Session(emit)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        _give_up(error, emit)


def _prepared_session(command: Prepare, emit: Emit) -> Any:
    """A session for the job to come. A worker that cannot be prepared is of no use: another one is started then."""
    try:
        session = importlib.import_module("harness.engine.preparing").prepared_session(command, emit)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        _give_up(error, emit)
    emit(Prepared())
    return session


def _give_up(error: Exception, emit: Emit) -> NoReturn:
    """Says what was raised, in the log first: whoever hears of it ends this process at once."""
    traceback.print_exc()
    lines = str(error).strip().splitlines()
    emit(Raised("failed", type(error).__name__, lines[0][:500] if lines else "", None, begun=False))
    sys.exit(1)


def _listen(connection: Connection, commands: "queue.SimpleQueue[Command]") -> None:
    """Passes commands on. The end of the pipe is the end of the conductor, and so of this process, at once."""
    while True:
        try:
            data = connection.recv_bytes()
        except (EOFError, OSError):
            os._exit(0)
        commands.put(decode_command(data))


def _beat(emit: Emit, every_s: float) -> None:
    """Signs of life from a thread of its own: a long step gives them, a process that is stopped or stuck does not."""
    while True:
        time.sleep(every_s)
        try:
            emit(Alive())
        except OSError:
            # The conductor is gone, which _listen takes care of.
            return


def _prepare_model(request: ModelRequest, emit: Emit) -> None:
    sources = importlib.import_module("harness.engine.sources")
    try:
        emit(sources.model_folder(request.model_id, request.revision, request.device))
    except sources.ModelError as error:
        emit(Raised("failed", "ModelError", str(error), None))


def _hello(device: Device) -> Hello:
    torch = importlib.import_module("torch")
    facts = {
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
    }
    if device == "cpu":
        return Hello(os.getpid(), None, None, facts)
    properties = torch.cuda.get_device_properties(0)
    facts |= {"cuda": torch.version.cuda, "gpu_memory_bytes": properties.total_memory}
    return Hello(os.getpid(), f"GPU-{properties.uuid}", properties.name, facts)


def _die_with_parent(parent_pid: int) -> None:
    """Asks the kernel to end this process with its parent, the template, which in turn ends with the conductor."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The conductor may have died before this line: then the pipe is already at its end, and _listen ends us.
    if parent_pid and not os.path.exists(f"/proc/{parent_pid}"):
        os._exit(0)
