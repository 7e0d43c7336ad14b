"""The most memory that PyTorch had of a rank's device in the timed part of a run, on every device whose module counts it.

From run_start on: init tries number formats and cuDNN's plans, and its most, fp32's for a run in bf16, is of no training. What
others have there, the data path's decoders for example, PyTorch does not count; telemetry has all, as the driver sees it.
"""

from __future__ import annotations

from typing import Any

from harness.system import accelerator

NO_POOL = (0, 0)  # whose memory is everybody's


def count_from_here(device: str) -> bool:
    """Forget what was the most before. False where nothing is counted: no run fails for this figure.

    What lends memory may be another than PyTorch's own (backend:cudaMallocAsync, a CUDAPluggableAllocator), and then some of
    what is asked of it here is a RuntimeError.
    """
    if (module := _counting(device)) is None:
        return False
    try:
        module.reset_peak_memory_stats(device)
    except RuntimeError:
        return False
    return True


def most_bytes(device: str) -> int | None:
    """Since a `count_from_here` that was True. None where it cannot be told, or not of all memory.

    A step recorded as a graph computes in memory of its own, which is no longer lent to anybody when it is replayed.
    """
    module = _counting(device)
    try:
        if module is None or _has_graphs(module):
            return None
        return int(module.max_memory_allocated(device)) or None
    except RuntimeError:
        return None


def _counting(device: str) -> Any | None:
    """PyTorch's module for the device, where it has this."""
    import torch

    where = torch.device(device)
    if where.type == accelerator.CPU:
        return None
    module = torch.get_device_module(where)
    has_both = hasattr(module, "reset_peak_memory_stats") and hasattr(module, "max_memory_allocated")
    return module if has_both else None


def _has_graphs(module: Any) -> bool:
    if not hasattr(module, "memory_snapshot"):
        return False
    return any(tuple(each.get("segment_pool_id", NO_POOL)) != NO_POOL for each in module.memory_snapshot())
