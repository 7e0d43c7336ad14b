"""A network that several ranks train: their gradients are averaged while the backward pass goes on, or after it."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from benchmarks.detection.phases import Phases
from benchmarks.detection.tables import Compute

ALL_MB = 1 << 20  # of a bucket that no network fills: its sum begins with the last gradient


def averaged(network: nn.Module, compute: Compute, phases: Phases) -> DistributedDataParallel:
    """`network` with its gradients averaged over all ranks of the process group, in buckets as `compute` has them.

    What the last of them waits for is the phase "all_reduce_wait".
    """
    known = inspect.signature(DistributedDataParallel).parameters
    # of batch norm's running statistics, which each rank has its own of; torch 2.13 gave it another name
    in_step: dict[str, Any] = {
        "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False
    }
    parallel = DistributedDataParallel(
        network,
        gradient_as_bucket_view=True,
        static_graph=True,
        bucket_cap_mb=ALL_MB if compute.all_reduce == "delayed" else compute.bucket_mb,
        **in_step,
    )
    # a function without annotations: DDP reads them, and knows no postponed ones
    parallel.register_comm_hook(None, lambda _, bucket: _all_reduce(bucket, phases))
    return parallel


def _all_reduce(bucket: Any, phases: Phases) -> torch.futures.Future[Tensor]:
    """Called as each bucket of gradients is full; the last one's call is the end of the backward pass."""
    if bucket.is_last():
        phases.begin("all_reduce_wait")
    group = dist.group.WORLD
    assert group is not None
    return allreduce_hook(group, bucket)
