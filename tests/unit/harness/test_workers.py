"""Worker processes as they are started, and what they say when they hang."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from harness import workers
from harness.messages import TryPrecisions
from harness.workers import Allowance, Hung, Silent, Template, Worker
from tests.integration.commands import ROOT, environment

MAIN = """
import sys
from pathlib import Path

with open({seen!r}, "a") as file:
    file.write(__name__ + "\\n")

from harness.workers import Template

if __name__ == "__main__":
    template = Template()
    template.prepare()
    for number in range(2):
        worker = template.start("cpu", Path({log!r}))
        assert worker.next_event().kind == "hello"
        worker.dismiss()
        worker.end()
    assert sys.modules["__main__"].template is template
"""


def test_a_worker_does_not_import_the_conductor_s_main_module(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    main = tmp_path / "main.py"
    main.write_text(MAIN.format(seen=str(seen), log=str(tmp_path / "worker.log")))
    subprocess.run([sys.executable, str(main)], cwd=ROOT, env=environment(), check=True, timeout=120)
    assert seen.read_text().split() == ["__main__"]


def test_what_workers_are_forked_from_leaves_the_compiler_out() -> None:
    told = "import sys, harness.engine.preload, harness.engine.session as _; print(sorted(sys.modules))"
    with workers._worker_environment():
        done = subprocess.run([sys.executable, "-c", told], capture_output=True, check=True, text=True, timeout=120)
    assert "'bitsandbytes'" in done.stdout
    assert "'torch._inductor.compile_fx'" not in done.stdout


def test_a_worker_that_says_nothing_hangs_only_where_it_gives_no_sign_of_life(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(workers, "BEAT_S", 0.2)
    worker = Template().start("cpu", tmp_path / "worker.log")
    try:
        assert worker.next_event().kind == "hello"
        monkeypatch.setattr(workers, "HUNG_AFTER_S", 3.0)
        # It has nothing to do, and nothing to say.
        with pytest.raises(Silent) as told:
            worker.next_event(Allowance(6.0))
        assert not isinstance(told.value, Hung)
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(Hung, match="no sign of life for 3 s"):
            worker.next_event()
        # What lies in the pipe already comes although nothing more is allowed.
        os.kill(worker.pid, signal.SIGCONT)
        worker.send(TryPrecisions((), "cpu"))
        told_late = None
        while told_late is None:
            time.sleep(0.1)
            with suppress(Silent):
                told_late = worker.next_event(Allowance(-1.0))
        assert told_late.kind == "precisions_tried"
    finally:
        worker.end()


HANGS = """
import faulthandler, signal, sys, time
faulthandler.register(signal.SIGUSR1, sys.stderr)
print("ready", flush=True)
time.sleep(60)
"""


class Held:
    """A process as `Worker` holds it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.pid = process.pid


def test_a_stopped_process_writes_its_stacks_too(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with log.open("wb") as file, subprocess.Popen([sys.executable, "-c", HANGS], stdout=file, stderr=file) as process:
        while b"ready" not in log.read_bytes():
            time.sleep(0.02)
        worker = Worker(Held(process), cast(Any, None), log)
        os.kill(process.pid, signal.SIGSTOP)
        worker.dump_stacks()
        assert b"most recent call first" in log.read_bytes()
        process.kill()
    # One that is gone by then is not waited for.
    began = time.monotonic()
    Worker(Held(process), cast(Any, None), log).dump_stacks()
    assert time.monotonic() - began < 1.0
