"""What comes from outside runs no code, exhausts nothing and tells no secret."""

import ast
import os
import re
import secrets
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

import run_study
from harness.engine.sources import ModelError, model_folder
from tests.integration.commands import ROOT, command, environment
from tests.unit.study.small_grid import SMALL

ROOMS = ("study", "results", "harness", "reports")
SOURCES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
    for path in (ROOT / "run_study.py", *(path for room in ROOMS for path in (ROOT / room).rglob("*.py")))
}

# What reads a model, a tokenizer, a configuration or a data set, and could run code that lies beside it.
LOADERS = {"from_pretrained", "from_config", "load_dataset", "load_dataset_builder", "pipeline"}
# `multiprocessing` pickles too, and is trusted: it hands arguments from this program to a process that this program
# started, through a pipe that nobody else has. What workers and conductor say to each other later is JSON.
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
YAML_LOADERS = {"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all"}
RUNNERS = {"eval", "exec", "compile", "__import__"}


def is_false(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def dotted(node: ast.expr) -> str:
    """A called name as it is written: `torch.load`, `load`; the empty text for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(tree: ast.AST) -> Iterator[tuple[str, str, dict[str | None, ast.expr], int]]:
    """Every call: the whole name, its last part, its keywords and its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            yield name, name.rpartition(".")[2], keywords, node.lineno


def trusting(tree: ast.AST) -> Iterator[str]:
    """Loads of models and data that do not say that code beside them is never run."""
    for name, last, keywords, line in calls(tree):
        if last in LOADERS and not is_false(keywords.get("trust_remote_code")):
            yield f"line {line}: {name} without trust_remote_code=False"
        if "trust_remote_code" in keywords and not is_false(keywords["trust_remote_code"]):
            yield f"line {line}: {name} trusts"
    for node in ast.walk(tree):
        # As a key of a mapping it could be passed on unseen.
        if isinstance(node, ast.Constant) and node.value == "trust_remote_code":
            yield f"line {node.lineno}: 'trust_remote_code' as text"


def unpickling(tree: ast.AST) -> Iterator[str]:
    """Ways to run what a file or a text says."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (f"line {node.lineno}: {name}" for name in names if name.partition(".")[0] in PICKLES)
    for node in ast.walk(tree):
        # By name, too: importlib.import_module("pickle").
        if isinstance(node, ast.Constant) and node.value in PICKLES:
            yield f"line {node.lineno}: {node.value!r} as text"
    for name, last, keywords, line in calls(tree):
        root = name.partition(".")[0]
        if name == "torch.load" and not is_true(keywords.get("weights_only")):
            yield f"line {line}: torch.load without weights_only=True"
        if "allow_pickle" in keywords and not is_false(keywords["allow_pickle"]):
            yield f"line {line}: {name} with allow_pickle"
        if root == "yaml" and last in YAML_LOADERS:
            yield f"line {line}: {name}"
        if last in ("read_pickle", "recv") or name in RUNNERS or name in ("os.system", "os.popen"):
            yield f"line {line}: {name}"
        if "shell" in keywords and not is_false(keywords["shell"]):
            yield f"line {line}: {name} through a shell"
        if is_false(keywords.get("safe_serialization")) or is_false(keywords.get("use_safetensors")):
            yield f"line {line}: {name} without safetensors"


def found(look: Callable[[ast.AST], Iterator[str]]) -> list[str]:
    return [f"{path}, {fault}" for path, tree in SOURCES.items() for fault in look(tree)]


def test_no_load_runs_code_that_lies_beside_a_model_or_a_data_set() -> None:
    assert found(trusting) == []
    loads = [name for tree in SOURCES.values() for name, last, _, _ in calls(tree) if last in LOADERS]
    assert len(loads) >= 9


def test_nothing_in_the_program_unpickles_evaluates_or_starts_a_shell() -> None:
    assert found(unpickling) == []


@pytest.mark.parametrize(
    "code",
    [
        "AutoModel.from_pretrained(x)",
        "AutoModel.from_pretrained(x, trust_remote_code=flag)",
        "datasets.load_dataset(x, trust_remote_code=True)",
        "f(trust_remote_code=True)",
        "f(**{'trust_remote_code': True})",
    ],
)
def test_the_look_for_trust_finds_it(code: str) -> None:
    assert list(trusting(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import os, joblib",
        "from cloudpickle import loads",
        "importlib.import_module('dill')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "yaml.unsafe_load(text)",
        "pandas.read_pickle(path)",
        "connection.recv()",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "model.save_pretrained(path, safe_serialization=False)",
    ],
)
def test_the_look_for_pickles_finds_them(code: str) -> None:
    assert list(unpickling(ast.parse(code)))


def test_no_file_that_holds_code_or_a_pickle_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def download(model_id: str, **options: Any) -> str:
        asked.update(options)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    # There is nothing in the folder, which it says.
    with pytest.raises(ModelError, match=r"no config\.json in that folder"):
        model_folder("owner/name", "main", "cpu")
    for name in ("modeling.py", "pytorch_model.bin", "model.pt", "x.pkl", "x.pickle", "x.pth", "x.ckpt", "x.npy"):
        assert not any(fnmatch(name, pattern) for pattern in asked["allow_patterns"]), name


def test_a_folder_with_pickled_weights_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"no \.safetensors in that folder \(pickled weights are not read\)"):
        model_folder(str(tmp_path), None, "cpu")


# --- grids that would exhaust something ---

_MANY = ", ".join(map(str, range(1, 101)))
_LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
BOMBS = {
    "a text of a megabyte": ("# " + "x" * 10**6, "longer than the 200000 characters"),
    "aliases of aliases": (_LAUGHS, "YAML aliases (*name) are not allowed"),
    "nesting": ("study: " + "[" * 50_000, "nested deeper than 12 levels"),
    "nested mappings": ("study: " + "{a: " * 40_000, "nested deeper than 12 levels"),
    "many values": ("study: [" + "1," * 90_000 + "]", "at most 20000 values"),
    "a product of axes": (
        SMALL.replace(
            "{name: lora, precision: bf16}",
            f"{{name: lora, precision: bf16, axes: {{rank: [{_MANY}], alpha: [{_MANY}], dropout: [0.1, 0.2]}}}}",
        ),
        "20000: at most 512 arms",
    ),
    "a product of arms, seeds and repeats": (
        SMALL.replace("seeds: [11, 12, 13]", f"seeds: [{', '.join(map(str, range(1, 2001)))}]").replace(
            "steps: 4,", "steps: 4, repeats: 100,"
        ),
        "600013 runs (arms times trials, seeds and repeats): a study has at most 100000",
    ),
    "a character beyond Unicode": ('study: "\\UFFFFFFFF"', "not YAML: line 1: a number in an escape"),
    "a version of many digits": (f"%YAML 1.{'9' * 5000}\n---\nstudy: a", "not YAML: line 1: a number in an escape"),
}


@pytest.mark.parametrize("plan", [["--plan"], []], ids=["plan", "run"])
@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.timeout(30)
def test_a_grid_that_would_exhaust_something_is_refused_with_exit_code_2(
    kind: str, plan: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, told = BOMBS[kind]
    grid = tmp_path / "grid.yaml"
    grid.write_text(text)
    assert run_study.main(["--grid", str(grid), "--results", str(tmp_path / "results"), *plan]) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.out == ""
    assert all(line.isprintable() and len(line) < 1000 for line in captured.err.splitlines())
    assert not (tmp_path / "results").exists()


@pytest.mark.timeout(30)
def test_a_file_of_eight_gigabytes_is_no_grid_and_is_not_read_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = tmp_path / "grid.yaml"
    with grid.open("wb") as file:
        file.truncate(8 * 1024**3)
    assert run_study.main(["--grid", str(grid), "--plan"]) == 2
    assert capsys.readouterr().err.endswith("longer than the 200000 characters that a grid may have\n")


# --- secrets ---


def written(root: Path) -> Iterator[tuple[str, bytes]]:
    """Every file under `root`, the members of an archive one by one, by name."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(root)), path.read_bytes()
            if path.name.endswith(".tar.gz"):
                with tarfile.open(path) as tar:
                    for member in tar.getmembers():
                        stream = tar.extractfile(member)
                        yield f"{path.name}/{member.name}", b"" if stream is None else stream.read()


@pytest.mark.slow
def test_no_secret_of_the_environment_the_remote_or_the_command_line_is_written_anywhere(tmp_path: Path) -> None:
    """Two runs of the tiny study and its report, with secrets wherever a program could find them."""
    canary = f"canary{secrets.token_hex(8)}"
    hidden = environment() | {
        "HF_TOKEN": f"hf_{canary}",
        "HUGGING_FACE_HUB_TOKEN": f"hf_{canary}",
        "AWS_SECRET_ACCESS_KEY": canary,
        "WANDB_API_KEY": canary,
        "NOBODY_KNOWS_THIS_NAME": canary,
        "HTTPS_PROXY": f"http://user:{canary}@proxy.invalid:8080",
        "PIP_EXTRA_INDEX_URL": f"https://user:{canary}@host.invalid/simple",
        "HF_HUB_OFFLINE": "1",
        # A remote whose address holds a password, as git sees it, without a change to the repository.
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "remote.canary.url",
        "GIT_CONFIG_VALUE_0": f"https://user:{canary}@host.invalid/repository.git",
    }
    place = tmp_path / f"{canary}-folder"
    results, out = place / "results", place / "out"
    changes = [
        "arms=[{name: zero-shot, precision: bf16, method: none}, {name: lora, precision: bf16}]",
        "space={rank: 4, alpha: 8, learning_rate: 1e-3}",
        "tune={trials: 0}",
        "seeds=[11]",
        "claims=[]",
        "training.steps=1",
        "training.device=cpu",
        "data.limits={train: 4, validation: 2, test: 2}",
        "generation.max_new_tokens=2",
    ]
    grid = place / "grid.yaml"
    place.mkdir()
    grid.write_text((ROOT / "tests" / "grids" / "tiny.yaml").read_text())

    def start(*arguments: str) -> str:
        done = subprocess.run(
            command(*arguments), cwd=ROOT, env=hidden, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    said = start("run_study.py", "--grid", str(grid), "--results", str(results), "--out", str(out), "--set", *changes)
    said += start("-m", "results", "export", "tiny", str(place / "tiny.tar.gz"), "--results", str(results))
    # The paths that were asked for are said to who asked, on the terminal.
    assert canary not in said.replace(str(place), "")
    files = dict(written(place))
    assert {"results/tiny/records.jsonl", "results/tiny/plan.json", "out/tiny/index.html"} <= set(files)
    assert any(re.fullmatch(r"results/tiny/logs/[0-9a-f]{16}\.log", name) for name in files)
    assert len(files) > 30
    for name, data in files.items():
        assert canary.encode() not in data, name
        assert os.fsencode(str(tmp_path)) not in data, name
