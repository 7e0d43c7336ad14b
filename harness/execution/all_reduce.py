"""The sum of a bucket of gradients over all devices of this machine, in processes of their own as a run's ranks are.

Of three sizes, so that a bucket can be chosen (compute.bucket_mb): the smallest whose sum takes hardly longer by the byte than
that of a large one, since what is summed in small parts overlaps with more of the backward pass.
"""

from __future__ import annotations

import multiprocessing
import queue
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.contract import Figure
from harness.execution import process_group
from harness.system import accelerator

# What DistributedDataParallel sums at once unless it is told otherwise; gradients are float32
USUAL_MB = 25
BUCKETS_MB = (USUAL_MB, 5, 80)  # 80: all of SSD300's at once
BEFORE, SAMPLES = 5, 30  # the same on every rank, whatever the time; the slowest known (gloo) takes some 50 ms
LIMIT_S = 120.0  # for starting the processes, the group and all of it: one that hangs is the finding


def figures(kind: str, ranks: int) -> list[Figure]:
    """Milliseconds on rank 0 until its device has the sum. RuntimeError, with the reason, where there is none."""
    spawn = multiprocessing.get_context("spawn")
    answers: Any = spawn.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        processes = [
            spawn.Process(target=_rank, args=(kind, rank, ranks, store, answers), daemon=True) for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        try:
            found = answers.get(timeout=LIMIT_S)  # rank 0's samples, or the first reason that any rank has
        except queue.Empty:
            found = f"no answer from {ranks} ranks within {LIMIT_S:g} s"
        for process in processes:
            process.join(5.0 if isinstance(found, dict) else 0.0)
            process.kill()
            process.join()
    if isinstance(found, str):
        raise RuntimeError(found)
    return [
        Figure(
            "all_reduce" if mb == USUAL_MB else f"all_reduce_{mb}_mib",
            "ms",
            [1000 * each for each in samples],
            f"{mb} MiB, {ranks} ranks",
        )
        for mb, samples in found.items()
    ]


def _rank(kind: str, rank: int, ranks: int, store: Path, answers: Any) -> None:
    try:
        samples = _samples(kind, rank, ranks, store)
    except Exception as error:  # noqa: BLE001 - it is told to the process that asked, which says it
        answers.put(f"rank {rank}: {type(error).__name__}: {error}")
        return
    if rank == 0:
        answers.put(samples)


def _samples(kind: str, rank: int, ranks: int, store: Path) -> dict[int, list[float]]:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    device = torch.device(kind) if kind == accelerator.CPU else torch.device(kind, rank)
    module = None if kind == accelerator.CPU else torch.get_device_module(device)
    if module is not None:
        module.set_device(rank)
    backend = process_group.backend_for(kind)
    dist.init_process_group(
        backend,
        init_method=store.as_uri(),
        rank=rank,
        world_size=ranks,
        device_id=None if module is None else device,
    )
    found: dict[int, list[float]] = {}
    for mb in BUCKETS_MB:
        bucket = torch.zeros(mb << 18, device=device)
        samples = found[mb] = []
        for number in range(BEFORE + SAMPLES):
            dist.barrier()
            if module is not None:
                module.synchronize(device)
            begun = time.perf_counter()
            dist.all_reduce(bucket)
            if module is not None:
                module.synchronize(device)
            if number >= BEFORE:
                samples.append(time.perf_counter() - begun)
    dist.barrier()
    dist.destroy_process_group()
    return found
