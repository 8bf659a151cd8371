"""Attaching one fresh adapter to a frozen base, and proving that it is the one that was asked for."""

import errno
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import nn

from harness.engine.loading import TORCH_DTYPES, Base, decoder_linears
from study.arms import Arm, Method
from study.models import ModelSpec
from study.settings import Training
from study.space import Hyperparameters


class AdapterError(RuntimeError):
    """The adapter that came out is not the adapter that was asked for."""


class AdapterLinear(nn.Linear):
    """An adapter's matrix, kept in its own dtype and multiplied in that of the activations.

    This is what autocast does, for the adapter alone. Autocast over the whole model would also turn norms to fp32 and
    make the activations after a quantised layer fp32, but not those after a bf16 layer: unequal arms.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.linear(input, self.weight.to(input.dtype))


@dataclass(slots=True)
class Adapter:
    """A model with its adapter, and what was adapted. One with a `padded_rank` has that rank and stands for adapters of
    any rank up to it, one after another (`harness.engine.padding`)."""

    model: Any
    target_modules: tuple[str, ...]
    parameters: dict[str, int]
    padded_rank: int | None = None


def resolve_targets(linears: Mapping[str, list[str]], targets: tuple[str, ...]) -> tuple[str, ...]:
    """Module names that a group (`all-linear`, `attention`, `mlp`) or a list of names means.

    Raises:
        AdapterError: a name or group that the model lacks. PEFT would adapt the rest and say nothing.
    """
    chosen: dict[str, None] = {}
    for target in targets:
        found = [name for name, groups in linears.items() if target in ("all-linear", name, *groups)]
        if not found:
            raise AdapterError(f"targets {target!r}: the model's linear layers are {', '.join(linears)}")
        chosen |= dict.fromkeys(found)
    return tuple(chosen)


def attach(
    base: Base,
    arm: Arm,
    hyperparameters: Hyperparameters,
    training: Training,
    seed: int,
    padded_rank: int | None = None,
) -> Adapter:
    """A fresh adapter on `base`; its initialisation follows from `seed` alone.

    With a `padded_rank` it has that rank, and no start yet: `harness.engine.padding` sets each training's.

    Raises:
        AdapterError: modules adapted differ from modules asked for, or something else is trainable.
    """
    names = resolve_targets(decoder_linears(base), arm.targets)
    config = peft.LoraConfig(
        r=hyperparameters.rank if padded_rank is None else padded_rank,
        lora_alpha=hyperparameters.alpha,
        lora_dropout=arm.dropout,
        target_modules=list(names),
        use_rslora=arm.method is Method.RSLORA,
        use_dora=arm.method is Method.DORA,
        bias="none",
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    model = peft.get_peft_model(base.model, config)
    dtype = torch.float32 if training.adapter_dtype == "fp32" else TORCH_DTYPES[arm.compute_dtype]
    for module in model.modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            module.cast_input_dtype_enabled = False
            for matrix in (*module.lora_A.values(), *module.lora_B.values()):
                matrix.to(dtype)
                if arm.method is not Method.DORA:
                    matrix.__class__ = AdapterLinear
            if arm.method is Method.DORA:
                module.cast_input_dtype_enabled = True
    adapter = Adapter(model, names, _parameters(model), padded_rank)
    _check(model, base, names)
    return adapter


def detach(adapter: Adapter) -> Any:
    """The base without its adapter, ready for the next one."""
    return adapter.model.unload()


def save(adapter: Adapter, folder: Path, model: ModelSpec) -> None:
    """Writes the adapter as PEFT loads it (safetensors, no pickle), whole or not at all; an older one is replaced.

    The base is named as the study names it: the folder that it was loaded from is nobody's business.

    Raises:
        OSError: it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        config = adapter.model.peft_config[adapter.model.active_adapter]
        config.base_model_name_or_path, config.revision = model.id, model.revision
        # "auto" would look the base up on the Hub to see whether its embeddings were resized; LoRA here has none.
        try:
            adapter.model.save_pretrained(str(making), safe_serialization=True, save_embedding_layers=False)
        except SafetensorError as error:
            # A full disk, in the library's own words.
            raise OSError(errno.EIO, str(error)) from error
        (making / "README.md").unlink(missing_ok=True)
        making.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _parameters(model: Any) -> dict[str, int]:
    # PEFT counts a packed 4-bit weight as the values it stands for; numel() would count bytes and double the share.
    trainable, total = model.get_nb_trainable_parameters()
    adapter_bytes = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return {"trainable": int(trainable), "total": int(total), "adapter_bytes": int(adapter_bytes)}


def _check(model: Any, base: Base, names: tuple[str, ...]) -> None:
    adapted: dict[str, int] = {}
    for path, module in model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            name = path.rsplit(".", 1)[-1]
            adapted[name] = adapted.get(name, 0) + 1
    layers = len(base.decoder.layers)
    if adapted != dict.fromkeys(names, layers):
        raise AdapterError(f"asked for {', '.join(names)} in {layers} layers, adapted {adapted}")
    strangers = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and "lora_" not in name
    ]
    if strangers:
        raise AdapterError(f"trainable outside the adapter: {', '.join(strangers[:5])}")


def base_parameters(base: Base) -> dict[str, int]:
    """Parameter counts of a zero-shot model: nothing trainable, packed weights counted as what they stand for."""
    total = 0
    for parameter in base.model.parameters():
        state = getattr(parameter, "quant_state", None)
        total += int(torch.Size(state.shape).numel()) if state is not None else parameter.numel()
    return {"trainable": 0, "total": total, "adapter_bytes": 0}


def moved(adapter: Adapter) -> float:
    """Share of lora_B matrices that left zero: 0 means that nothing was learned."""
    matrices = [p for name, p in adapter.model.named_parameters() if "lora_B" in name]
    return sum(bool(p.detach().count_nonzero()) for p in matrices) / max(len(matrices), 1)
