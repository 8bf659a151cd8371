"""Loading the frozen base in the precision of an arm."""

import importlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import nn

from harness.engine.sources import ModelError
from harness.messages import Device
from study.arms import Arm, Dtype, Precision

TORCH_DTYPES: dict[Dtype, torch.dtype] = {
    Dtype.FP32: torch.float32,
    Dtype.FP16: torch.float16,
    Dtype.BF16: torch.bfloat16,
}
# Outputs that some architectures scale after the head; the loss on completion logits does not know them.
_SCALED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier_scale")


@dataclass(slots=True)
class Base:
    """A frozen model on its device, its tokenizer, and the dtype that its activations have."""

    model: Any
    tokenizer: Any
    device: Device
    dtype: torch.dtype
    # Weights (outputs, inputs) of 4-bit layers that are kept unpacked for training, by the id of the layer.
    unpacked: Mapping[int, torch.Tensor] = field(default_factory=dict)

    @property
    def decoder(self) -> Any:
        """The stack without the head: token ids in, hidden states (batch, tokens, hidden) out."""
        return self.model.get_decoder()

    @property
    def head(self) -> Any:
        """Hidden states in, logits (…, vocabulary) out."""
        return self.model.get_output_embeddings()


def load_base(folder: str, arm: Arm, device: Device, *, model_dropout: bool) -> Base:
    """The base of `arm`, frozen, with one dtype policy in all arms: what is not quantised has the compute dtype.

    `prepare_model_for_kbit_training` is not called: it casts norms, embeddings and head to fp32 in quantised arms
    only, and would decide the memory comparison by itself.

    Raises:
        ModelError: the folder's model scales its logits in a way that the training loss would miss.
    """
    quiet_libraries()
    dtype = TORCH_DTYPES[arm.compute_dtype]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise ModelError("the tokenizer names no end-of-sequence token: generation could not learn to stop")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        quantization_config=_quantisation(arm, dtype),
        device_map={"": 0 if device == "cuda" else "cpu"},
        attn_implementation="sdpa",
        trust_remote_code=False,
        # Never a pickle (pytorch_model.bin), not even one that torch would read weights alone from.
        use_safetensors=True,
    )
    scaled = [name for name in _SCALED_LOGITS if getattr(model.config, name, None) not in (None, 1, 1.0)]
    if scaled:
        raise ModelError(f"models of type {model.config.model_type!r} scale their logits ({scaled[0]}): not supported")
    model.requires_grad_(False)
    if not model_dropout:
        disable_dropout(model)
    for module in model.modules():
        # On CPUs with AVX512-BF16 an evaluated Linear4bit would repack its weights for good, with absmax rounded to
        # bf16 and no way back to training: numbers would depend on the CPU and on what ran before.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - torch types module attributes as tensors
    return Base(model, tokenizer, device, dtype)


def quiet_libraries() -> None:
    """Silences two notices that are understood and would repeat in every worker and at every layer.

    bitsandbytes: LLM.int8 computes in fp16 by design (Dettmers et al. 2022), and says so at each call with bf16 input;
    the CPU kernel it misses is the one that `load_base` switches off.
    """
    transformers.utils.logging.disable_progress_bar()
    for name in ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _quantisation(arm: Arm, dtype: torch.dtype) -> Any:
    if arm.precision is Precision.INT8:
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    if arm.precision.is_4bit:
        return transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=str(arm.precision),
            bnb_4bit_use_double_quant=bool(arm.double_quant),
            bnb_4bit_compute_dtype=dtype,
        )
    return None


def disable_dropout(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def decoder_linears(base: Base) -> dict[str, list[str]]:
    """Linear layers inside the decoder layers: module name (`q_proj`) to the groups it belongs to."""
    layers = base.decoder.layers
    found: dict[str, list[str]] = {}
    for path, module in layers[0].named_modules():
        if isinstance(module, nn.Linear):
            name = path.rsplit(".", 1)[-1]
            found[name] = ["attention" if "attn" in path or "attention" in path else "mlp"]
    return found


def asks_the_host(model: Any) -> str | None:
    """Why no CUDA graph can hold a model's products; None where one can."""
    kind = importlib.import_module("bitsandbytes.nn").Linear8bitLt
    # On the meta device a stand-in says so itself.
    if any(isinstance(module, kind) or getattr(module, "int8", False) for module in model.modules()):
        return "LLM.int8 reads on the host which columns are outliers"
    return None


def multiplies_in_bf16() -> bool:
    """Whether this CPU has instructions for products of bf16 numbers."""
    # Not part of torch's documented surface, but all that tells; torch itself chooses its kernels by it.
    return bool(torch.cpu._is_avx512_bf16_supported())


def dtype_census(model: Any) -> dict[str, dict[str, int]]:
    """How many parameters each role (base, adapter) keeps in each dtype: the proof that arms were treated alike."""
    census: dict[str, Counter[str]] = {"base": Counter(), "adapter": Counter()}
    for name, parameter in model.named_parameters():
        role = "adapter" if "lora_" in name else "base"
        census[role][str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    return {role: dict(sorted(counts.items())) for role, counts in census.items()}


def device_facts(device: Device) -> dict[str, Any]:
    """GPU, compute library and threads as torch sees them."""
    facts: dict[str, Any] = {"device": device, "torch_threads": torch.get_num_threads()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu": properties.name,
            "gpu_memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "allocator": torch.cuda.get_allocator_backend(),
        }
    return facts


@contextmanager
def computing_in(base: Base, dtype: torch.dtype) -> Iterator[None]:
    """Computes in `dtype` inside the block: weights that are not quantised are cast, and cast back exactly.

    Every step up (bf16 or fp16 to fp32) is exact, and so is the way back. It is for evaluation on a CPU, where bf16
    arithmetic can be several times slower than fp32; where the dtype is the base's own nothing is touched.
    """
    if dtype == base.dtype:
        yield
        return
    kept = {
        name: tensor.dtype
        for name, tensor in _tensors(base.model)
        if tensor.is_floating_point() and "lora_" not in name and tensor.dtype == base.dtype
    }
    quantised = [module for module in base.model.modules() if hasattr(module, "compute_dtype")]
    compute_dtypes = [module.compute_dtype for module in quantised]
    try:
        for name, tensor in _tensors(base.model):
            if name in kept:
                tensor.data = tensor.data.to(dtype)
        for module in quantised:
            module.compute_dtype = dtype
        yield
    finally:
        for name, tensor in _tensors(base.model):
            if name in kept:
                tensor.data = tensor.data.to(kept[name])
        for module, compute_dtype in zip(quantised, compute_dtypes, strict=True):
            module.compute_dtype = compute_dtype


def _tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
