"""Two ranks for tests, each in a process of its own: on the CPU, on two GPUs by NCCL, or both on the one GPU there is."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist

WORLD = 2


def joined(rank: int, folder: Path, device: str) -> str:
    """Make this process one of WORLD ranks, which meet by a file in `folder`; the device that it shall use.

    NCCL refuses two ranks on one GPU; there the ranks talk by gloo, which copies through the host.
    """
    torch.set_num_threads(1)
    own = f"cuda:{rank}" if device != "cpu" and torch.cuda.device_count() >= WORLD else device
    backend = "nccl" if own != "cpu" and torch.cuda.device_count() >= WORLD else "gloo"
    if own != "cpu":
        torch.cuda.set_device(own)
    dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    return own
