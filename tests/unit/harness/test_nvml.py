"""The NVML edge, over a stand-in for the driver: pynvml's own functions are replaced, its errors are the real ones."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from harness.adapters.nvml import Nvml, open_gpus
from harness.gpu import GpuDevice, GpuError, GpuProcess, GpuReading
from results.schema import GpuStatePart

MIB = 1024**2
UNKNOWN = "GPU-00000000-0000-0000-0000-000000000000"


def memory(total: int, used: int, reserved: int | None = None) -> SimpleNamespace:
    """Memory as NVML gives it, in MiB: version 2 with a reserve, version 1 without."""
    answer = SimpleNamespace(total=total * MIB, used=used * MIB, free=(total - used) * MIB)
    if reserved is not None:
        answer.reserved = reserved * MIB
    return answer


def process(pid: int, used: int | None) -> SimpleNamespace:
    """A process as NVML lists it, its memory in MiB."""
    return SimpleNamespace(pid=pid, usedGpuMemory=None if used is None else used * MIB)


@dataclass
class Board:
    """One GPU or MIG instance; the handle that the stand-in gives is the board itself. An answer may be an error."""

    uuid: str
    name: Any = "NVIDIA H200"
    memory_v2: Any = field(default_factory=lambda: memory(143_771, 1_000, 618))
    memory_v1: Any = field(default_factory=lambda: memory(143_771, 1_618))
    processes: Any = ()
    mig_mode: Any = field(default_factory=lambda: [pynvml.NVML_DEVICE_MIG_DISABLE, pynvml.NVML_DEVICE_MIG_ENABLE])
    instances: Any = ()
    energy: Any = 5_000_500
    utilisation: Any = field(default_factory=lambda: SimpleNamespace(gpu=87, memory=31))
    clocks: Any = field(
        default_factory=lambda: {
            pynvml.NVML_CLOCK_SM: 1_980,
            pynvml.NVML_CLOCK_MEM: 3_201,
            pynvml.NVML_CLOCK_GRAPHICS: 7,
        }
    )
    temperature: Any = 41
    power: Any = 312_500
    power_limit: Any = 700_000


@dataclass
class Driver:
    """The stand-in: its boards in NVML's order, and how often each function was asked."""

    boards: list[Any]
    version: Any = "580.95.05"
    asked: list[str] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Puts it in the place of pynvml's functions; a call of any other fails, as without a driver."""
        answers: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: None,
            "nvmlSystemGetDriverVersion": lambda: self.version,
            "nvmlDeviceGetCount": lambda: len(self.boards),
            "nvmlDeviceGetHandleByIndex": lambda index: self.boards[index],
            "nvmlDeviceGetHandleByUUID": self.by_uuid,
            "nvmlDeviceGetUUID": lambda board: board.uuid,
            "nvmlDeviceGetName": lambda board: board.name,
            "nvmlDeviceGetMemoryInfo": self.memory,
            "nvmlDeviceGetMigMode": lambda board: board.mig_mode,
            "nvmlDeviceGetMaxMigDeviceCount": lambda board: len(board.instances),
            "nvmlDeviceGetMigDeviceHandleByIndex": lambda board, index: board.instances[index],
            "nvmlDeviceGetComputeRunningProcesses": lambda board: board.processes,
            "nvmlDeviceGetTotalEnergyConsumption": lambda board: board.energy,
            "nvmlDeviceGetUtilizationRates": lambda board: board.utilisation,
            "nvmlDeviceGetClockInfo": lambda board, kind: _raised(board.clocks)[kind],
            "nvmlDeviceGetTemperature": lambda board, kind: {pynvml.NVML_TEMPERATURE_GPU: board.temperature}[kind],
            "nvmlDeviceGetPowerUsage": lambda board: board.power,
            "nvmlDeviceGetEnforcedPowerLimit": lambda board: board.power_limit,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(pynvml, name, self.counted(name, answer))

    def counted(self, name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        def function(*arguments: Any, **named: Any) -> Any:
            self.asked.append(name)
            return _raised(answer(*arguments, **named))

        return function

    def by_uuid(self, uuid: str) -> Any:
        known = [board for board in self.boards if isinstance(board, Board)]
        found = [each for board in known for each in (board, *board.instances) if getattr(each, "uuid", None) == uuid]
        return found[0] if found else pynvml.NVMLError_NotFound()

    @staticmethod
    def memory(board: Board, version: int | None = None) -> Any:
        return board.memory_v1 if version is None else {pynvml.nvmlMemory_v2: board.memory_v2}[version]


def _raised(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.fixture
def board() -> Board:
    return Board("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6")


@pytest.fixture
def driver(board: Board, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """One H200, readable in every way."""
    driver = Driver([board])
    driver.install(monkeypatch)
    return driver


@pytest.fixture
def gpus(driver: Driver) -> Nvml:
    return Nvml()


def test_a_device_has_its_name_memory_and_driver(gpus: Nvml, board: Board) -> None:
    assert gpus.devices() == (GpuDevice(board.uuid, "NVIDIA H200", 143_771 * MIB, "580.95.05"),)


def test_bytes_are_read_like_text(gpus: Nvml, driver: Driver, board: Board) -> None:
    uuid, board.uuid, board.name, driver.version = board.uuid, board.uuid.encode(), b"NVIDIA H200", b"580.95.05"  # type: ignore[assignment]
    assert gpus.devices() == (GpuDevice(uuid, "NVIDIA H200", 143_771 * MIB, "580.95.05"),)


def test_memory_is_read_with_the_driver_s_reserve_apart(gpus: Nvml, board: Board) -> None:
    board.processes = [process(42, 900), process(43, None)]
    assert gpus.read(board.uuid) == GpuReading(
        1_000 * MIB, 618 * MIB, (GpuProcess(42, 900 * MIB), GpuProcess(43, None))
    )


NO_VERSION_2 = [
    pynvml.NVMLError_FunctionNotFound,
    pynvml.NVMLError_NotSupported,
    pynvml.NVMLError_ArgumentVersionMismatch,
]


@pytest.mark.parametrize("error", NO_VERSION_2)
def test_where_the_driver_cannot_tell_its_reserve_it_is_unknown(
    gpus: Nvml, board: Board, error: type[Exception]
) -> None:
    board.memory_v2 = error()
    assert gpus.read(board.uuid) == GpuReading(1_618 * MIB, None, ())
    assert gpus.devices()[0].total_bytes == 143_771 * MIB


@pytest.mark.parametrize("error", [pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound])
def test_where_the_driver_lists_no_processes_the_device_s_memory_is_still_read(
    gpus: Nvml, board: Board, error: type[Exception]
) -> None:
    board.processes = error()
    assert gpus.read(board.uuid) == GpuReading(1_000 * MIB, 618 * MIB, ())


def test_a_steady_reading_takes_two_calls(gpus: Nvml, driver: Driver, board: Board) -> None:
    gpus.read(board.uuid)
    assert driver.asked.count("nvmlDeviceGetHandleByUUID") == 1
    driver.asked.clear()
    gpus.read(board.uuid)
    assert sorted(driver.asked) == ["nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetMemoryInfo"]


def test_a_listed_device_s_handle_is_kept(gpus: Nvml, driver: Driver, board: Board) -> None:
    gpus.devices()
    gpus.read(board.uuid)
    assert "nvmlDeviceGetHandleByUUID" not in driver.asked


def test_a_board_that_may_not_be_used_is_left_out(gpus: Nvml, driver: Driver, board: Board) -> None:
    driver.boards.insert(0, pynvml.NVMLError_NoPermission())
    assert [device.uuid for device in gpus.devices()] == [board.uuid]


@pytest.mark.parametrize("error", [pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound])
def test_a_board_that_knows_no_mig_is_a_device(gpus: Nvml, board: Board, error: type[Exception]) -> None:
    board.mig_mode = error()
    assert [(device.uuid, device.parent) for device in gpus.devices()] == [(board.uuid, None)]


class TestMig:
    """A board in MIG mode with two instances, between two whole boards."""

    INSTANCES = ("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb")

    @pytest.fixture
    def split(self, driver: Driver) -> Board:
        first, second = (
            Board(uuid, "NVIDIA H200 MIG 1g.18gb", memory(16_384, used, 10))
            for uuid, used in zip(self.INSTANCES, (7, 9), strict=True)
        )
        # Asked about the board, an instance has no sensor; the counter that it might give is the board's.
        first.utilisation = first.temperature = pynvml.NVMLError_NotSupported()
        first.clocks = first.power = first.power_limit = pynvml.NVMLError_InvalidArgument()
        split = Board("GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77")
        split.mig_mode = [pynvml.NVML_DEVICE_MIG_ENABLE, pynvml.NVML_DEVICE_MIG_ENABLE]
        split.instances = [
            first,
            pynvml.NVMLError_NotFound(),
            second,
            pynvml.NVMLError_NoPermission(),
            pynvml.NVMLError_NotFound(),
        ]
        driver.boards += [split, Board("GPU-00112233-d72c-4106-c12f-20bd9faed9f6")]
        return split

    def test_the_instances_stand_in_the_board_s_place(self, gpus: Nvml, board: Board, split: Board) -> None:
        devices = gpus.devices()
        assert [(device.uuid, device.parent) for device in devices] == [
            (board.uuid, None),
            (self.INSTANCES[0], split.uuid),
            (self.INSTANCES[1], split.uuid),
            ("GPU-00112233-d72c-4106-c12f-20bd9faed9f6", None),
        ]
        assert devices[1] == GpuDevice(
            self.INSTANCES[0], "NVIDIA H200 MIG 1g.18gb", 16_384 * MIB, "580.95.05", split.uuid
        )

    def test_a_board_in_mig_mode_without_instances_is_no_device(self, gpus: Nvml, split: Board) -> None:
        split.instances = ()
        assert split.uuid not in {device.uuid for device in gpus.devices()}
        assert len(gpus.devices()) == 2

    @pytest.mark.parametrize("listed_before", [True, False])
    def test_an_instance_is_read_as_itself(self, gpus: Nvml, split: Board, *, listed_before: bool) -> None:
        if listed_before:
            gpus.devices()
        assert [gpus.read(uuid).device_bytes for uuid in self.INSTANCES] == [7 * MIB, 9 * MIB]

    def test_an_instance_has_no_energy_counter_of_its_own(self, gpus: Nvml, split: Board) -> None:
        assert gpus.energy_j(self.INSTANCES[0]) is None
        assert gpus.energy_j(split.uuid) == 5_000.5

    def test_an_instance_s_missing_sensors_are_unknown(self, gpus: Nvml, split: Board) -> None:
        assert gpus.state(self.INSTANCES[0]) == GpuStatePart()

    def test_an_unknown_instance_is_an_error_also_for_its_energy(self, gpus: Nvml, split: Board) -> None:
        with pytest.raises(GpuError, match="MIG-0"):
            gpus.energy_j("MIG-0")


def test_energy_is_given_in_joules(gpus: Nvml, board: Board) -> None:
    assert gpus.energy_j(board.uuid) == 5_000.5
    board.energy = 0
    assert gpus.energy_j(board.uuid) == 0.0


def test_the_state_is_given_in_percent_megahertz_degrees_and_watts(gpus: Nvml, board: Board) -> None:
    assert gpus.state(board.uuid) == GpuStatePart(
        utilisation_percent=87,
        memory_utilisation_percent=31,
        sm_clock_mhz=1_980,
        memory_clock_mhz=3_201,
        temperature_c=41,
        power_w=312.5,
        power_limit_w=700.0,
    )


NO_SENSOR = [
    pynvml.NVMLError_NotSupported,
    pynvml.NVMLError_FunctionNotFound,
    pynvml.NVMLError_InvalidArgument,
    pynvml.NVMLError_NoPermission,
    pynvml.NVMLError_NoData,
]


@pytest.mark.parametrize("error", NO_SENSOR)
def test_what_a_board_does_not_count_is_unknown_and_not_zero(gpus: Nvml, board: Board, error: type[Exception]) -> None:
    board.energy = error()
    assert gpus.energy_j(board.uuid) is None


@pytest.mark.parametrize("error", NO_SENSOR)
@pytest.mark.parametrize(
    ("sensor", "missing"),
    [
        ("utilisation", {"utilisation_percent", "memory_utilisation_percent"}),
        ("clocks", {"sm_clock_mhz", "memory_clock_mhz"}),
        ("temperature", {"temperature_c"}),
        ("power", {"power_w"}),
        ("power_limit", {"power_limit_w"}),
    ],
)
def test_a_sensor_that_a_board_lacks_takes_no_other_with_it(
    gpus: Nvml, board: Board, sensor: str, missing: set[str], error: type[Exception]
) -> None:
    setattr(board, sensor, error())
    state = gpus.state(board.uuid)
    assert {name for name in GpuStatePart.model_fields if getattr(state, name) is None} == missing


def every_error() -> list[type[Exception]]:
    """The classes that pynvml makes, one for each of NVML's errors, and its own two."""
    made = [value for name, value in vars(pynvml).items() if re.fullmatch(r"NVMLError_\w+", name)]
    return [*made, pynvml.NVMLLibraryMismatchError]


def an_error(kind: type[Exception]) -> Exception:
    return kind("two\nlines") if kind is pynvml.NVMLLibraryMismatchError else kind()


def asks(gpus: Nvml, board: Board) -> dict[str, Callable[[], object]]:
    """What is asked of the port, and of what NVML function alone the answer then hangs."""
    return {
        "nvmlSystemGetDriverVersion": gpus.devices,
        "nvmlDeviceGetCount": gpus.devices,
        "nvmlDeviceGetHandleByIndex": gpus.devices,
        "nvmlDeviceGetMigMode": gpus.devices,
        "nvmlDeviceGetMaxMigDeviceCount": gpus.devices,
        "nvmlDeviceGetMigDeviceHandleByIndex": gpus.devices,
        "nvmlDeviceGetUUID": gpus.devices,
        "nvmlDeviceGetName": gpus.devices,
        "nvmlDeviceGetHandleByUUID": lambda: gpus.read(board.uuid),
        "nvmlDeviceGetMemoryInfo": lambda: gpus.read(board.uuid),
        "nvmlDeviceGetComputeRunningProcesses": lambda: gpus.read(board.uuid),
        "nvmlDeviceGetTotalEnergyConsumption": lambda: gpus.energy_j(board.uuid),
        "nvmlDeviceGetUtilizationRates": lambda: gpus.state(board.uuid),
        "nvmlDeviceGetClockInfo": lambda: gpus.state(board.uuid),
        "nvmlDeviceGetTemperature": lambda: gpus.state(board.uuid),
        "nvmlDeviceGetPowerUsage": lambda: gpus.state(board.uuid),
        "nvmlDeviceGetEnforcedPowerLimit": lambda: gpus.state(board.uuid),
    }


QUESTIONS = tuple(asks(Nvml.__new__(Nvml), Board("")))
# Where an error is an answer: the thing asked for is not there, and the rest is.
ANSWERS = {
    "nvmlDeviceGetHandleByIndex": {"NoPermission"},
    "nvmlDeviceGetMigMode": {"NotSupported", "FunctionNotFound"},
    "nvmlDeviceGetMigDeviceHandleByIndex": {"NotFound", "NoPermission"},
    "nvmlDeviceGetComputeRunningProcesses": {"NotSupported", "FunctionNotFound"},
} | {
    name: {error.__name__.removeprefix("NVMLError_") for error in NO_SENSOR}
    for name in QUESTIONS[QUESTIONS.index("nvmlDeviceGetTotalEnergyConsumption") :]
}


@pytest.mark.parametrize("function", QUESTIONS)
def test_every_other_error_of_nvml_is_one_of_the_house_in_one_line(
    gpus: Nvml, board: Board, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "Mig" in function:
        board.mig_mode, board.instances = [pynvml.NVML_DEVICE_MIG_ENABLE] * 2, [Board("MIG-1")]
        if function == "nvmlDeviceGetMigMode":
            board.instances = ()
    ask = asks(gpus, board)[function]
    said: dict[str, str | None] = {}
    for kind in every_error():
        error = an_error(kind)

        def failing(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(pynvml, function, failing)
        name, words = kind.__name__.removeprefix("NVMLError_"), " ".join(str(error).split())
        try:
            ask()
            said[name] = None
        except GpuError as caught:
            said[name] = str(caught).replace(words, "<words>")
    form = re.compile(r"NVML, asked for .+ of (this machine|.*GPU .+|GPU-\S+), answers: <words>")
    assert [text for text in said.values() if text is not None and not form.fullmatch(text)] == []
    assert {name for name, text in said.items() if text is None} == ANSWERS.get(function, set())


@pytest.mark.parametrize("kind", [kind for kind in every_error() if kind not in NO_VERSION_2])
def test_version_1_is_not_asked_where_version_2_fails_for_another_reason(
    gpus: Nvml, board: Board, kind: type[Exception]
) -> None:
    board.memory_v2 = an_error(kind)
    with pytest.raises(GpuError, match=f"^NVML, asked for the memory of {board.uuid}, answers: "):
        gpus.read(board.uuid)


def test_an_error_names_the_question_the_device_and_nvml_s_words(gpus: Nvml, board: Board) -> None:
    board.processes = pynvml.NVMLError_GpuIsLost()
    with pytest.raises(GpuError) as caught:
        gpus.read(board.uuid)
    assert str(caught.value) == f"NVML, asked for the processes of {board.uuid}, answers: GPU is lost"


@pytest.mark.parametrize("method", ["read", "energy_j", "state"])
def test_a_device_that_is_not_there_is_an_error_that_names_it(gpus: Nvml, method: str) -> None:
    with pytest.raises(GpuError, match=f"{UNKNOWN}, answers: Not Found$"):
        getattr(gpus, method)(UNKNOWN)


@pytest.mark.parametrize("kind", every_error())
def test_without_a_driver_there_are_no_gpus(
    driver: Driver, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", driver.counted("nvmlInit", lambda: an_error(kind)))
    with pytest.raises(GpuError, match="its library"):
        Nvml()
    assert open_gpus() is None


def test_a_driver_without_boards_is_no_gpus(driver: Driver) -> None:
    driver.boards.clear()
    assert open_gpus() is None


def test_boards_that_cannot_be_listed_are_no_gpus(driver: Driver) -> None:
    driver.version = pynvml.NVMLError_GpuIsLost()
    assert open_gpus() is None


def test_a_machine_s_gpus_are_opened(driver: Driver, board: Board) -> None:
    gpus = open_gpus()
    assert gpus is not None
    assert [device.uuid for device in gpus.devices()] == [board.uuid]
