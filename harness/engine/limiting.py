"""Playing a smaller card: a cap on what this process may take of the GPU's memory."""

import torch

from harness.messages import MemoryLimit


def play_card(limit: MemoryLimit) -> dict[str, int]:
    """Caps this process so that a card of `limit_bytes` would just hold it; returns what was reckoned with, in bytes.

    On a card of that size the driver's reserve and the CUDA context come first, and the allocator gets what is left.
    torch's cap does not count the context, so that it is measured here: what is gone of the device's free memory once
    this process can compute, and has the library handles that computing makes.

    Raises:
        torch.OutOfMemoryError: reserve and context alone are larger than the card.
    """
    one = torch.ones((16, 16), device="cuda", dtype=torch.bfloat16)
    (one @ one).sum().item()
    free, _ = torch.cuda.mem_get_info()
    context = max(0, limit.free_before - free - torch.cuda.memory_reserved())
    total = torch.cuda.get_device_properties(0).total_memory
    room = limit.limit_bytes - limit.driver_reserve - context
    if room <= 0:
        raise torch.OutOfMemoryError(
            f"driver reserve ({limit.driver_reserve} bytes) and CUDA context ({context} bytes) "
            f"leave nothing of {limit.limit_bytes} bytes"
        )
    torch.cuda.set_per_process_memory_fraction(min(1.0, room / total))
    return {
        "limit_bytes": limit.limit_bytes,
        "context_bytes": context,
        "driver_reserve_bytes": limit.driver_reserve,
        "allocator_bytes": min(room, total),
    }
