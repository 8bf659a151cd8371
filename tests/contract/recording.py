"""What a GPU library answered once, in a file, and a reader that answers so again.

The file holds one JSON object a line, a line a call: `method`, `arguments`, `answer` or `error` (the text of a
GpuError) and `monotonic_s`, the seconds since the recording began. No board is named: UUIDs are numbered.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.gpu import GpuDevice, GpuError, GpuProcess, GpuReader, GpuReading
from results.schema import GpuStatePart

Answer = TypeVar("Answer")


class RecordingGpus:
    """Asks another reader, hands on what it answers and appends each call to a file."""

    def __init__(self, reader: GpuReader, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Asks for the devices at once: their UUIDs must be known before a line is written. Raises GpuError."""
        self._reader = reader
        self._path = path
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._aliases = _aliases(reader.devices())

    def alias(self, uuid: str) -> str:
        """The name under which a device stands in the file."""
        return self._aliases.get(uuid, uuid)

    def devices(self) -> tuple[GpuDevice, ...]:
        return self._record("devices", (), self._reader.devices, lambda devices: [asdict(device) for device in devices])

    def read(self, uuid: str) -> GpuReading:
        return self._record("read", (uuid,), lambda: self._reader.read(uuid), asdict)

    def energy_j(self, uuid: str) -> float | None:
        return self._record("energy_j", (uuid,), lambda: self._reader.energy_j(uuid), lambda energy: energy)

    def state(self, uuid: str) -> GpuStatePart:
        return self._record("state", (uuid,), lambda: self._reader.state(uuid), GpuStatePart.model_dump)

    def _record(
        self, method: str, arguments: tuple[str, ...], ask: Callable[[], Answer], plain: Callable[[Any], object]
    ) -> Answer:
        call = {"method": method, "arguments": arguments, "monotonic_s": round(self._clock() - self._began, 6)}
        try:
            answer = ask()
        except GpuError as error:
            self._append({**call, "error": str(error)})
            raise
        self._append({**call, "answer": plain(answer)})
        return answer

    def _append(self, call: dict[str, object]) -> None:
        line = json.dumps(call)
        # Longest first: older drivers name an instance by its board's UUID and more.
        for uuid in sorted(self._aliases, key=len, reverse=True):
            line = line.replace(uuid, self._aliases[uuid])
        with self._lock, self._path.open("a") as file:
            file.write(line + "\n")


def _aliases(devices: tuple[GpuDevice, ...]) -> dict[str, str]:
    """A number for every UUID, boards and instances counted together in the order in which they are met."""
    uuids = dict.fromkeys(uuid for device in devices for uuid in (device.parent, device.uuid) if uuid is not None)
    return {uuid: f"{uuid[:3]}-00000000-0000-0000-0000-{number:012d}" for number, uuid in enumerate(uuids, start=1)}


@dataclass(frozen=True, slots=True)
class _Outcome:
    answer: Any
    error: str | None


class ReplayedGpus:
    """Answers each question as the recording does, in its order, and stays at the last answer.

    Raises GpuError where the recording has an error, and for what was never asked.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._lock = threading.Lock()
        self._outcomes: dict[tuple[str, ...], deque[_Outcome]] = {}
        for line in path.read_text().splitlines():
            call = json.loads(line)
            asked = self._outcomes.setdefault((call["method"], *call["arguments"]), deque())
            asked.append(_Outcome(call.get("answer"), call.get("error")))

    def devices(self) -> tuple[GpuDevice, ...]:
        return tuple(GpuDevice(**device) for device in self._next("devices"))

    def read(self, uuid: str) -> GpuReading:
        answer = self._next("read", uuid)
        processes = tuple(GpuProcess(**process) for process in answer["processes"])
        return GpuReading(answer["device_bytes"], answer["reserved_bytes"], processes)

    def energy_j(self, uuid: str) -> float | None:
        answer: float | None = self._next("energy_j", uuid)
        return answer

    def state(self, uuid: str) -> GpuStatePart:
        return GpuStatePart(**self._next("state", uuid))

    def _next(self, *question: str) -> Any:
        with self._lock:
            outcomes = self._outcomes.get(question)
            if outcomes is None:
                raise GpuError(f"nobody asked for {' '.join(question)} when {self._name} was recorded")
            outcome = outcomes[0] if len(outcomes) == 1 else outcomes.popleft()
        if outcome.error is not None:
            raise GpuError(outcome.error)
        return outcome.answer
