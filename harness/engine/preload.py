"""What the template process imports once, so that a fresh worker starts without paying for it.

Nothing here may touch CUDA: a forked process cannot use a context of its parent. bitsandbytes (and PEFT, which
imports it) asks the driver for the GPU's compute capability while it is imported, so both wait for the worker where
there is a GPU.
"""

import atexit
import importlib
import importlib.util
import logging
import os

import torch

# The template has nothing to put away. Taking all of this apart took 2 to 5 s on a busy machine, by which it outlived
# the conductor.
atexit.register(os._exit, 0)
# bitsandbytes misses an optional CPU kernel, which the engine does not use (see harness.engine.loading).
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

importlib.import_module("transformers.models.auto.modeling_auto")
importlib.import_module("transformers.models.phi.modeling_phi")
importlib.import_module("transformers.models.llama.modeling_llama")
if importlib.util.find_spec("triton") is not None:
    # For the project's kernels; it asks for no GPU before one of them is launched.
    importlib.import_module("triton")

# The conductor sets PYTORCH_NVML_BASED_CUDA_CHECK, which answers this without making a context.
if not torch.cuda.is_available():
    importlib.import_module("peft")
    importlib.import_module("bitsandbytes")
    # With both of them here nothing that a worker runs is left to import.
    importlib.import_module("harness.engine.session")
if torch.cuda.is_initialized():
    raise RuntimeError("the template process has touched CUDA: workers forked from it could not use the GPU")
