"""Ranks and devices: where this process stands in a run. The only reader of the environment inside a run.

The variables are torchrun's own (RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, with MASTER_ADDR and MASTER_PORT that
torch reads itself), and two of ours that a launcher sets: HARNESS_LOG, the log, made by the launcher and shared by the ranks
of this machine;
HARNESS_CACHES_CLEARED, "1" when the page cache was dropped just before.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.config import Configuration
from harness.contract import Context, NotSuitable
from harness.system import accelerator, facts, preflight
from harness.system.facts import Machine

# A rank that waits this long for another has lost it. Long enough for rank 0's evaluation of full COCO
COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=20)


@dataclass(frozen=True)
class Launch:
    """How this process was started. Not launched as a rank: one process is the whole run."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    as_rank: bool = False
    log: Path | None = None
    caches_cleared: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Launch:
        """ValueError when torchrun's variables are incomplete or not numbers."""
        caches_cleared = environment.get("HARNESS_CACHES_CLEARED") == "1"
        if "RANK" not in environment:
            return cls(caches_cleared=caches_cleared)
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
        try:
            rank, local_rank, world_size, local_world_size = (int(environment[name]) for name in names)
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"RANK is set, so this is taken for a rank of torchrun, but {', '.join(names)} are not all numbers: {error}"
            ) from error
        log = Path(environment["HARNESS_LOG"]) if "HARNESS_LOG" in environment else None
        return cls(rank, local_rank, world_size, local_world_size, True, log, caches_cleared)


def this_machine(device: str = accelerator.ANY) -> Machine:
    """What the log says of the machine: processor, driver as really loaded, accelerators, image. `device` is run.device."""
    # a run on the processor tells what else the machine has
    return facts.read(os.environ, accelerator.ANY if device == accelerator.CPU else device)


def build(
    configuration: Configuration,
    launch: Launch,
    *,
    seed: int,
    data_dir: Path | None = None,
    initial_weights: Path | None = None,
) -> Context:
    """The Context of this rank. NotSuitable when the device that the configuration asks for is not there."""
    run = configuration.run
    if launch.world_size != run.world_size:
        raise ValueError(
            f"{launch.world_size} ranks were started, but {configuration.source} says run.nodes = {run.nodes} x "
            f"run.accelerators_per_node = {run.accelerators_per_node}"
        )
    device, vendor = _device(run.device, launch)
    return Context(
        device=device,
        vendor=vendor,
        rank=launch.rank,
        local_rank=launch.local_rank,
        world_size=launch.world_size,
        seed=seed,
        data_dir=data_dir,
        initial_weights=initial_weights,
        threads=max(1, len(os.sched_getaffinity(0)) // launch.local_world_size),
        log_every_steps=run.log_every_steps,
    )


def _device(kind: str, launch: Launch) -> tuple[str, str]:
    """Torch's name for this rank's device, and who made it."""
    # before a framework is loaded, and with the reason where torch has none
    found = preflight.check(kind, launch.local_world_size)
    if found is None:
        return accelerator.CPU, ""
    import torch

    module = torch.get_device_module(found.device)
    if launch.local_rank >= module.device_count():
        names = [str(module.get_device_name(index)) for index in range(module.device_count())]
        raise NotSuitable(preflight.too_few(launch.local_world_size, names))
    return f"{found.device}:{launch.local_rank}", found.vendor


@contextmanager
def process_group(context: Context) -> Iterator[None]:
    """Threads, device and, for more than one rank, torch.distributed's group, for as long as the block runs."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(context.threads)
    device = torch.device(context.device)
    on_cpu = device.type == accelerator.CPU
    if not on_cpu:
        torch.get_device_module(device).set_device(device.index)
    if context.world_size > 1:
        backend = process_group_backend(device.type)
        dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT, device_id=None if on_cpu else device)
    try:
        yield
    finally:
        if context.world_size > 1:
            dist.destroy_process_group()


def process_group_backend(kind: str) -> str:
    """torch.distributed's backend for a device type. NotSuitable where nobody knows one."""
    import torch.distributed as dist

    known = accelerator.process_group(kind)
    if known is not None:
        return known
    try:
        return str(dist.get_default_backend_for_device(kind))
    except ValueError as error:
        raise NotSuitable(
            f"torch.distributed has no backend for {kind}: use a configuration of one accelerator, or install the vendor's"
        ) from error


def barrier(context: Context) -> None:
    """Wait for all ranks."""
    if context.world_size > 1:
        import torch.distributed as dist

        dist.barrier()
