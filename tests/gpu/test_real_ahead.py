"""What only a GPU can show of workers that are started ahead: they hold nothing of it until their first run."""

from pathlib import Path

import pytest

from harness.adapters.nvml import open_gpus
from harness.ahead import WorkerAhead
from harness.gpu import GpuDevice, GpuReader
from harness.messages import Finished, Hello, Job, Prepare, Raised
from harness.workers import Template, Worker
from results.schema import Record
from tests.gpu.bench import bench, tiny_grid

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpus() -> GpuReader:
    reader = open_gpus()
    assert reader is not None
    return reader


def last_word(worker: Worker) -> Finished | Raised:
    """How a worker's run ended."""
    while not isinstance(event := worker.next_event(), Finished | Raised):
        pass
    return event


def test_a_prepared_worker_is_not_seen_on_the_gpu_and_then_works_there(gpus: GpuReader, tmp_path: Path) -> None:
    grid = tiny_grid()
    with bench(grid, tmp_path) as (conductor, specs):
        spec = specs.trial(grid.arm("qlora"), 0, grid.block(grid.arm("qlora"))[0])
        model, (train, evaluated) = conductor._model_ready(), conductor._files(spec)
        devices: tuple[GpuDevice, ...] = gpus.devices()
        before = {device.uuid: gpus.read(device.uuid) for device in devices}
        ahead = WorkerAhead(Template(), tmp_path / "log", None, Prepare(spec, model.folder, train, evaluated, "cuda"))
        ahead.start()
        assert ahead.ready_for(spec), (tmp_path / "log").read_text()
        for device in devices:
            after = gpus.read(device.uuid)
            assert after.processes == before[device.uuid].processes
            # Less than any context takes.
            assert after.device_bytes - before[device.uuid].device_bytes < 8 * 2**20
        taken = ahead.take()
        assert taken is not None
        worker, hello = taken
        try:
            assert hello.gpu_uuid is not None
            worker.send(Job(spec, model.folder, train, evaluated, "cuda"))
            assert isinstance(last_word(worker), Finished)
        finally:
            worker.end()


def test_trials_on_either_side_of_a_worker_ahead_are_alone_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = tiny_grid("training.steps=40")
    records: list[Record] = []
    taken = []
    take = WorkerAhead.take

    def noted(self: WorkerAhead) -> tuple[Worker, Hello] | None:
        taken.append(take(self))
        return taken[-1]

    monkeypatch.setattr(WorkerAhead, "take", noted)
    with bench(grid, tmp_path) as (conductor, specs):
        trials = [spec for arm in ("lora", "qlora") for spec in specs.block(grid.arm(arm))]
        conductor.run_all(trials, records.append)
    assert [record.status for record in records] == ["completed"] * 4
    assert [record.checks["warm_worker"] for record in records] == [False, True, False, True]
    assert all(record.gpu is not None and record.gpu.alone for record in records)
    # The second arm's at least; the first one's too, where the model took long enough to be found.
    assert taken
    assert all(one is not None for one in taken)
