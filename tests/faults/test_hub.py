"""A Hub that refuses, breaks off or is not there: one line that says what to do, and nothing torn is ever used.

The libraries talk to a Hub of this machine (hub_server.py), which serves the tiny random model.
"""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.engine.sources import model_folder
from results.layout import StudyFolder
from results.store import read_records
from tests.faults.hub_server import Hub, Repo, serving
from tests.integration.commands import ROOT, command, environment

WEIGHTS = "model.safetensors"
GRID = """
study: fromhub
model: {id: o/good, revision: main}
data:
  source: generated
  limits: {train: 4, validation: 2, test: 2}
  generated: {seed: 3, turns: [4, 5]}
prompt: {template: summarize}
arms:
  - {name: lora, precision: bf16}
space: {rank: 4, alpha: 8, learning_rate: 1e-3}
tune: {trials: 0}
seeds: [11]
training: {device: cpu, steps: 1, batch_size: 4, max_tokens: 512}
generation: {max_new_tokens: 2, batch_size: 4}
"""
SPLITS = {"train": "train[:6]", "validation": "train[6:9]", "test": "train[9:12]"}
# Several starts in one process, as run_study.py would make them: their exit codes and what they said.
STARTS = """
import contextlib, io, json, sys
import run_study
if __name__ == "__main__":
    for line in json.loads(sys.argv[1]):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = run_study.main(line)
        print(json.dumps([code, said.getvalue()]))
"""
# Loads of one data set after another: how many rows each split has, or why there are none.
LOADS = """
import json, sys
from harness.adapters.sources import DataError, load
from study.datasets import DataSpec, HubData
for name, revision in json.loads(sys.argv[1]):
    source = HubData(name, revision, tuple(json.loads(sys.argv[2]).items()), "dialogue", None)
    try:
        loaded = load(DataSpec(source, tuple((split, None) for split in json.loads(sys.argv[2])), "refuse"))
        print(json.dumps([example.id for split in loaded.splits.values() for example in split]))
    except DataError as error:
        print(json.dumps(str(error)))
"""
MODEL = """
import sys
from harness.engine.sources import model_folder
print(model_folder(sys.argv[1], "main", "cpu").folder)
"""


def rows(extra: int = 0) -> bytes:
    """A data set of twelve dialogues and more, as JSON lines."""
    found = [
        {"fname": f"d{n}", "dialogue": f"A: Is {n * 7} for topic {n}?\nB: Yes, {n}.", "summary": f"About {n}."}
        for n in range(12 + extra)
    ]
    return "".join(json.dumps(row) + "\n" for row in found).encode()


@pytest.fixture(scope="module")
def weights() -> dict[str, bytes]:
    folder = Path(model_folder("random/tiny-phi", None, "cpu").folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as found:
        yield found


class Home:
    """A user's home with caches of its own, a secret token, and a study."""

    def __init__(self, root: Path, hub: Hub) -> None:
        self.root = root
        self.canary = f"hf_canary{secrets.token_hex(8)}"
        self.grid = root / "grid.yaml"
        self.grid.write_text(GRID)
        self.study = StudyFolder.of(root / "results", "fromhub")
        self.env = {
            **environment(),
            "HF_HOME": str(root / "hf"),
            "HF_ENDPOINT": hub.address,
            "HF_TOKEN": self.canary,
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def line(self, *changes: str) -> list[str]:
        """The arguments of a start, with changes of the grid."""
        places = ["--grid", str(self.grid), "--results", str(self.root / "results"), "--out", str(self.root / "out")]
        return [*places, *(["--set", *changes] if changes else [])]

    def run(self, *line: str, variables: Mapping[str, str] | None = None) -> tuple[int, str]:
        """A command's exit code, and what it said; never the token."""
        done = subprocess.run(
            command(*line),
            cwd=ROOT,
            env={**self.env, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert self.canary not in done.stdout
        return done.returncode, done.stdout

    def start(self, *changes: str, variables: Mapping[str, str] | None = None) -> tuple[int, str]:
        """A start of the study."""
        return self.run("run_study.py", *self.line(*changes), variables=variables)

    def starts(
        self, changes: Sequence[Sequence[str]], variables: Mapping[str, str] | None = None
    ) -> list[tuple[int, str]]:
        """Several starts."""
        lines = json.dumps([self.line(*each) for each in changes])
        script = self.root / "starts.py"
        script.write_text(STARTS)
        code, said = self.run(str(script), lines, variables=variables)
        assert code == 0, said
        return [tuple(json.loads(line)) for line in said.splitlines()]

    def loads(self, wanted: Sequence[tuple[str, str]], variables: Mapping[str, str] | None = None) -> list[Any]:
        """Several loads of data sets, by id and revision."""
        code, said = self.run("-c", LOADS, json.dumps(wanted), json.dumps(SPLITS), variables=variables)
        assert code == 0, said
        return [json.loads(line) for line in said.splitlines() if line[:1] in '["']

    def blob(self, name: str, kind: str = "models", repo: str = "o--good") -> Path:
        """The content of a file in the Hub's cache."""
        (found,) = (self.root / "hf" / "hub" / f"{kind}--{repo}" / "snapshots").glob(f"*/{name}")
        return found.resolve()

    def secret_files(self) -> list[str]:
        """Files that hold the token."""
        found = (path for path in self.root.rglob("*") if path.is_file())
        return [path.name for path in found if self.canary.encode() in path.read_bytes()]


@pytest.fixture
def home(tmp_path: Path, hub: Hub) -> Home:
    return Home(tmp_path, hub)


def one_line(said: str, told: str) -> None:
    """There is one line about the trouble, the last one, and no traceback."""
    assert "Traceback" not in said
    lines = said.strip().splitlines()
    assert told in lines[-1], said
    # Before it come only notes on the data, the model and the stage.
    assert all(line.startswith(("data: ", "model ", "frozen ", "confirm: ")) for line in lines[:-1]), said
    assert sum(" at revision " in line for line in lines) == 1


def nothing_listens() -> str:
    """An address of this machine where nobody answers."""
    with serving() as gone:
        return gone.address


def test_a_download_that_breaks_off_is_one_line_and_the_next_start_has_the_same_bytes(
    home: Home, hub: Hub, weights: dict[str, bytes]
) -> None:
    """Broken, then good, then torn in the cache without a network and with one."""
    repo = hub.repos["o/good"] = Repo(weights, breaks={WEIGHTS: 50_000})
    code, said = home.start()
    assert code == 2
    one_line(said, "model.id 'o/good' at revision 'main' cannot be downloaded: the connection broke off")
    assert not home.study.records.exists()
    snapshots = home.root / "hf" / "hub" / "models--o--good" / "snapshots"
    assert not list(snapshots.glob(f"*/{WEIGHTS}"))

    repo.breaks.clear()
    code, said = home.start()
    assert code == 0, said
    assert home.blob(WEIGHTS).read_bytes() == weights[WEIGHTS]
    (record,) = read_records(home.study).last.values()
    assert (record.status, record.model.id, record.model.weights) == ("completed", "o/good", "pretrained")
    assert {each.authorization for each in hub.downloads(WEIGHTS)} == {f"Bearer {home.canary}"}

    recorded = home.study.records.read_bytes()
    os.truncate(home.blob(WEIGHTS), 100_000)
    code, said = home.start("seeds=[11, 12]", variables={"HF_HUB_OFFLINE": "1"})
    assert code == 2
    one_line(said, "is not whole in the local cache, and HF_HUB_OFFLINE is set: unset it, or download it first")
    assert home.study.records.read_bytes() == recorded

    before = len(hub.downloads(WEIGHTS))
    code, said = home.start("seeds=[11, 12]")
    assert code == 0, said
    assert len(hub.downloads(WEIGHTS)) == before + 1
    assert home.blob(WEIGHTS).read_bytes() == weights[WEIGHTS]
    assert home.study.records.read_bytes().startswith(recorded)
    assert [record.status for record in read_records(home.study).all] == ["completed", "completed"]
    assert home.secret_files() == []


def test_a_connection_that_breaks_once_costs_one_more_request(home: Home, hub: Hub, weights: dict[str, bytes]) -> None:
    hub.repos["o/good"] = Repo(weights, breaks={WEIGHTS: 50_000}, break_times=1)
    code, said = home.run("-c", MODEL, "o/good")
    assert code == 0, said
    assert len(hub.downloads(WEIGHTS)) == 2
    assert home.blob(WEIGHTS).read_bytes() == weights[WEIGHTS]


MODEL_REFUSALS = [
    ("o/gated", "main", "is gated: accept its terms at the model's page on the Hub, and set HF_TOKEN to a token"),
    ("o/gated401", "main", "is gated: accept its terms at the model's page on the Hub, and set HF_TOKEN to a token"),
    ("o/nowhere", "main", "the Hub has no such model, or it is private; check the name, or set HF_TOKEN"),
    ("o/good", "v9", "the Hub knows it, but no such revision; check the revision"),
    ("o/good", "0" * 40, "the Hub knows it, but no such revision; check the revision"),
    ("o/down", "main", "the Hub answers HTTP 500; try again later, or download it first"),
    ("o/denied", "main", "is refused by the Hub (HTTP 403): the token in HF_TOKEN is not valid or may not read it"),
    ("o/pickled", "main", "cannot be used: no .safetensors in that folder (pickled weights are not read)"),
]
DATA_REFUSALS = [
    ("d/gated", "main", "is gated: accept its terms at the dataset's page on the Hub, and set HF_TOKEN to a token"),
    ("d/nowhere", "main", "the Hub has no such dataset, or it is private; check the name, or set HF_TOKEN"),
    ("d/good", "v9", "the Hub knows it, but no such revision; check the revision"),
    ("d/down", "main", "the Hub answers HTTP 500; try again later, or download it first"),
    ("d/broken", "main", "cannot be downloaded: the connection broke off"),
]


def repositories(weights: Mapping[str, bytes]) -> dict[str, Repo]:
    """Models and data sets that are refused in every way."""
    pickled = {name: data for name, data in weights.items() if name != WEIGHTS}
    data = {"train.jsonl": rows()}
    return {
        "o/good": Repo(weights),
        "o/gated": Repo(weights, gated=403),
        "o/gated401": Repo(weights, gated=401),
        "o/down": Repo(weights, down=500),
        "o/denied": Repo(weights, down=403),
        "o/pickled": Repo(pickled),
        "d/good": Repo(data, "datasets"),
        "d/gated": Repo(data, "datasets", gated=403),
        "d/down": Repo(data, "datasets", down=500),
        "d/broken": Repo(data, "datasets", breaks={"train.jsonl": 100}),
    }


def of_model(name: str, revision: str) -> list[str]:
    return [f"model.id={name}", f"model.revision='{revision}'"]


def of_data(name: str, revision: str) -> list[str]:
    splits = ", ".join(f"{split}: '{text}'" for split, text in SPLITS.items())
    return ["data.source=hub", f"data.hub={{id: {name}, revision: '{revision}', {splits}}}"]


def test_whatever_the_hub_refuses_is_one_line_that_says_what_to_do(
    home: Home, hub: Hub, weights: dict[str, bytes]
) -> None:
    hub.repos |= repositories(weights)
    kinds = [("model.id", of_model, MODEL_REFUSALS), ("data.hub.id", of_data, DATA_REFUSALS)]
    wanted = [(key, changes(*case[:2]), case) for key, changes, cases in kinds for case in cases]
    starts = home.starts([changes for _, changes, _ in wanted])
    assert len(starts) == len(wanted)
    for (key, _, (name, revision, told)), (code, said) in zip(wanted, starts, strict=True):
        assert code == 2, said
        one_line(said, told)
        assert said.strip().splitlines()[-1].startswith(f"{key} '{name}' at revision '{revision}' ")
    assert not home.study.records.exists()
    assert home.secret_files() == []


@pytest.mark.parametrize("how", ["HF_HUB_OFFLINE", "no network"])
def test_without_a_network_there_is_one_line_for_what_is_not_here(home: Home, how: str) -> None:
    offline = how == "HF_HUB_OFFLINE"
    variables = {"HF_HUB_OFFLINE": "1"} if offline else {"HF_ENDPOINT": nothing_listens()}
    told = "HF_HUB_OFFLINE is set: unset it, or" if offline else "the Hub cannot be reached: check the network, or"
    for code, said in home.starts([of_model("o/good", "main"), of_data("d/good", "main")], variables):
        assert code == 2, said
        one_line(said, f"is not whole in the local cache, and {told} download it first on a machine with a network")
    assert not home.study.records.exists()


def test_rows_come_from_the_hub_and_later_from_the_cache_and_never_from_another_revision(home: Home, hub: Hub) -> None:
    repo = hub.repos["d/good"] = Repo({"train.jsonl": rows()}, "datasets")
    first, offline = repo.commit, {"HF_HUB_OFFLINE": "1"}
    whole = [f"d{n}" for n in range(12)]
    assert home.loads([("d/good", "main")]) == [whole]
    repo.files = {"train.jsonl": rows(extra=3)}
    # The library itself would take the rows that it has, whatever their revision.
    loads = home.loads([("d/good", "main"), ("d/good", first), ("d/good", repo.commit), ("d/good", "v2")], offline)
    assert loads[:2] == [whole, whole]
    assert all("is not whole in the local cache, and HF_HUB_OFFLINE is set" in each for each in loads[2:]), loads


def test_rows_that_a_crash_left_torn_are_downloaded_again(home: Home, hub: Hub) -> None:
    hub.repos["d/good"] = Repo({"train.jsonl": rows()}, "datasets")
    whole = [f"d{n}" for n in range(12)]
    assert home.loads([("d/good", "main")]) == [whole]
    blob = home.blob("train.jsonl", "datasets", "d--good")
    # At the end of a row: nothing in the file itself tells that it was longer.
    os.truncate(blob, rows().index(b'{"fname": "d10"'))
    made = next((home.root / "hf" / "datasets").glob("d___good/*/*/*/*.arrow"))
    for path in made.parent.iterdir():
        path.unlink()
    made.parent.rmdir()
    assert home.loads([("d/good", "main")]) == [whole]
    assert home.blob("train.jsonl", "datasets", "d--good").read_bytes() == rows()
    # And what the library made of it, wherever it ends: its reader tells that in errors of several kinds.
    size = made.stat().st_size
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        os.truncate(made, int(share * size))
        assert home.loads([("d/good", "main")]) == [whole], share


@pytest.mark.faults
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json", "config.json"])
def test_a_file_that_breaks_anywhere_is_never_used_torn(
    home: Home, hub: Hub, weights: dict[str, bytes], name: str, share: float
) -> None:
    repo = hub.repos["o/good"] = Repo(weights, breaks={name: int(share * len(weights[name]))})
    code, said = home.start()
    assert code == 2
    one_line(said, "cannot be downloaded: the connection broke off")
    repo.breaks.clear()
    code, said = home.run("-c", MODEL, "o/good")
    assert code == 0, said
    for each, data in weights.items():
        assert home.blob(each).read_bytes() == data
    os.truncate(home.blob(name), int(share * len(weights[name])))
    code, said = home.run("-c", MODEL, "o/good")
    assert code == 0, said
    assert home.blob(name).read_bytes() == weights[name]
