"""The sum of one bucket of gradients over all devices of this machine, in processes of their own as a run's ranks are."""

from __future__ import annotations

import multiprocessing
import queue
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.contract import Figure
from harness.execution import context
from harness.system import accelerator

# What DistributedDataParallel sums at once unless it is told otherwise, as no benchmark here does; gradients are float32
BUCKET_BYTES = 25 << 20
BEFORE, SAMPLES = 5, 30  # the same on every rank, whatever the time; the slowest known (gloo) takes some 50 ms
LIMIT_S = 120.0  # for starting the processes, the group and all of it: one that hangs is the finding


def figure(kind: str, ranks: int) -> Figure:
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
            process.join(5.0 if isinstance(found, list) else 0.0)
            process.kill()
            process.join()
    if isinstance(found, str):
        raise RuntimeError(found)
    return Figure("all_reduce", "ms", [1000 * each for each in found], f"{BUCKET_BYTES >> 20} MiB, {ranks} ranks")


def _rank(kind: str, rank: int, ranks: int, store: Path, answers: Any) -> None:
    try:
        samples = _samples(kind, rank, ranks, store)
    except Exception as error:  # noqa: BLE001 - it is told to the process that asked, which says it
        answers.put(f"rank {rank}: {type(error).__name__}: {error}")
        return
    if rank == 0:
        answers.put(samples)


def _samples(kind: str, rank: int, ranks: int, store: Path) -> list[float]:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    device = torch.device(kind) if kind == accelerator.CPU else torch.device(kind, rank)
    module = None if kind == accelerator.CPU else torch.get_device_module(device)
    if module is not None:
        module.set_device(rank)
    backend = context.process_group_backend(kind)
    dist.init_process_group(
        backend,
        init_method=store.as_uri(),
        rank=rank,
        world_size=ranks,
        device_id=None if module is None else device,
    )
    bucket = torch.zeros(BUCKET_BYTES // 4, device=device)
    samples = []
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
    return samples
