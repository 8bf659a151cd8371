"""Records what NVML says of a GPU while a process allocates and frees, for the contract tests to replay.

On a GPU host, from the root of the repository:

    python -m tests.gpu.record_readings tests/contract/data/h200.jsonl 6
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.adapters.nvml import open_gpus
from harness.gpu import RATE_HZ, GpuError, GpuReader, visible
from tests.contract.recording import RecordingGpus

UNKNOWN = "GPU-00000000-0000-0000-0000-000000000000"
# It says when its imports are done and waits for a line, so that the recording holds its work and not its imports.
CHILD = """
import sys, time, torch
hold_seconds = float(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
held = [torch.empty(512 * 2**20, dtype=torch.uint8, device="cuda")]
time.sleep(hold_seconds)
held.append(torch.empty(2 * 2**30, dtype=torch.uint8, device="cuda"))
time.sleep(hold_seconds)
held.clear()
torch.cuda.empty_cache()
time.sleep(hold_seconds)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Records NVML's answers while a process allocates and frees.")
    parser.add_argument("output", type=Path, help="the recording, one JSON object a line; must not be there yet")
    parser.add_argument("seconds", type=float, nargs="?", default=6.0, help="how long to read at 25 Hz")
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"{arguments.output} is there already")
    gpus = open_gpus()
    if gpus is None:
        parser.error("NVML finds no GPU here")
    device = gpus.devices()[0]
    if device not in visible(gpus.devices(), os.environ.get("CUDA_VISIBLE_DEVICES")):
        parser.error("CUDA_VISIBLE_DEVICES hides the first GPU, and that is the one that the contract tests look at")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    recorder = RecordingGpus(gpus, arguments.output)
    record(recorder, device.uuid, arguments.seconds)
    print(f"{arguments.output}: {len(arguments.output.read_text().splitlines())} calls on {device.name}")


def record(gpus: GpuReader, uuid: str, seconds: float) -> None:
    """The device before the child, while it works and after it, and at the end a device that is not there."""
    gpus.devices()
    gpus.read(uuid)
    with child(uuid, hold_seconds=seconds / 8) as start:
        start()
        sample(gpus, uuid, seconds)
    gpus.read(uuid)
    with suppress(GpuError):
        gpus.read(UNKNOWN)


def sample(gpus: GpuReader, uuid: str, seconds: float) -> None:
    """Reads at RATE_HZ for some seconds, with energy and state once a second."""
    began = time.monotonic()
    for number in range(int(seconds * RATE_HZ)):
        time.sleep(max(0.0, began + number / RATE_HZ - time.monotonic()))
        gpus.read(uuid)
        if number % int(RATE_HZ) == 0:
            gpus.energy_j(uuid)
            gpus.state(uuid)


@contextmanager
def child(uuid: str, *, hold_seconds: float) -> Iterator[Callable[[], None]]:
    """A process that has imported torch; gives what starts its work, and waits for its end.

    Raises SystemExit where it does not come so far, or fails at its work.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(hold_seconds)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": uuid},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise SystemExit("the child that allocates did not start; its error stands above")
        yield lambda: _say_go(process)
        if process.wait(timeout=60) != 0:
            raise SystemExit("the child that allocates failed; its error stands above")
    finally:
        process.kill()
        process.communicate()


def _say_go(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.write("go\n")
        process.stdin.flush()


if __name__ == "__main__":
    main()
