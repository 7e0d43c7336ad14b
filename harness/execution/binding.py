"""The processors and the memory of each rank: as the configuration asks for (run.cpu_binding), and as the log says they are.

What numactl does for a process that it starts, done by the rank itself, whoever started it: every thread of it, and those to
come, on its processors, and its memory taken from their NUMA node as long as that has some. What a launcher has bound before
(srun, numactl) is left alone unless the configuration asks too, and is in the log either way.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import os
import platform
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.contract import Context, NotSuitable, Plain
from harness.system import accelerator, host, numa

# set_mempolicy and get_mempolicy of the kernel, which libc has no functions for; numactl's library need not be there
CALLS = {"x86_64": (238, 239), "aarch64": (237, 236)}
POLICIES = (
    "default",
    "prefer",
    "bind",
    "interleave",
    "local",
    "prefer",
    "weighted interleave",
)  # by the kernel's number
PREFER, MASK_BITS = 1, 1024


@dataclass(frozen=True)
class Bound:
    """Where this rank may run."""

    asked: numa.Way
    found: frozenset[int]  # processors that whoever started the rank left to it
    cpus: frozenset[int]  # that it uses
    memory: str  # the kernel's policy, in force: "prefer 1", "default"


def bind(way: numa.Way, context: Context, local_world_size: int) -> Bound:
    """Do what run.cpu_binding asks, for this process. NotSuitable where the machine cannot."""
    found = frozenset(os.sched_getaffinity(0))
    if way == "none":
        return Bound(way, found, found, memory_policy())
    there = numa.nodes(found)
    homes = _homes(context.device, local_world_size, there)
    cpus = numa.share(way, there, homes, context.local_rank)
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it ended in this moment
            os.sched_setaffinity(int(thread.name), cpus)
    prefer_memory(homes[context.local_rank])
    return Bound(way, found, frozenset(os.sched_getaffinity(0)), memory_policy())


def load_torch(cpus: Collection[int] | None = None) -> None:
    """Import PyTorch, and leave this thread on `cpus`, or where it may run now.

    To be called before anything else imports it. Where the environment tells OpenMP to bind threads (OMP_PROC_BIND, OMP_PLACES,
    GOMP_CPU_AFFINITY), the one that loads it is put onto a single processor, which all threads and processes made later would
    inherit, those for data too. OpenMP's own threads keep their places.
    """
    cpus = os.sched_getaffinity(0) if cpus is None else cpus
    importlib.import_module("torch")
    if os.sched_getaffinity(0) != cpus:
        os.sched_setaffinity(0, cpus)


def settled(context: Context, bound: Bound) -> tuple[Context, dict[str, Plain]]:
    """The Context with this rank's share of threads, which torch is told, and for the log where every rank runs.

    Called on all ranks. ValueError where ranks were bound by their launcher already and the configuration asks again.
    """
    # not by ranks' numbers: srun -m cyclic deals them out to machines in turn
    everyone = _gathered(context, (f"{platform.node()} {host.read().boot_id}", bound))
    sharing, on_machine = among(everyone, context.rank)
    import torch

    context = replace(context, threads=threads(len(bound.cpus), sharing, on_machine))
    torch.set_num_threads(context.threads)
    ranks: dict[str, Plain] = {
        str(rank): {"cpus": numa.listed(each.cpus), "memory": each.memory} for rank, (_, each) in enumerate(everyone)
    }
    return context, {"asked": bound.asked, "ranks": ranks}


def among(everyone: Sequence[tuple[str, Bound]], rank: int) -> tuple[int, int]:
    """Of one rank: how many ranks use its processors, itself included, and how many its machine has.

    `everyone`: of each rank its machine, by whatever tells it from others, and where it is. ValueError where ranks were bound
    twice.
    """
    machine, bound = everyone[rank]
    mine = [(number, each) for number, (there, each) in enumerate(everyone) if there == machine]
    first, one = mine[0]
    apart = next(((number, each) for number, each in mine if each.found != one.found), None)
    if bound.asked != "none" and apart is not None:
        raise ValueError(
            f'run.cpu_binding = "{bound.asked}": whoever started the ranks has bound them already, rank {first} to processors '
            f"{numa.listed(one.found)} and rank {apart[0]} to {numa.listed(apart[1].found)}; leave it to one of the two: say "
            '"none", or start them unbound (srun --cpu-bind=none)'
        )
    return sum(bool(each.cpus & bound.cpus) for _, each in mine), len(mine)


def threads(cpus: int, sharing: int = 1, on_machine: int = 1) -> int:
    """Threads of one of so many ranks that share so many processors, within the time that a container's quota allows."""
    quota = host.read().cpu.quota
    each = cpus // sharing
    return max(1, each if quota is None else min(each, int(quota) // on_machine))


def _gathered(context: Context, mine: Any) -> list[Any]:
    if context.world_size == 1:
        return [mine]
    import torch.distributed as dist

    everyone: list[Any] = [None] * context.world_size
    dist.all_gather_object(everyone, mine)
    return everyone


def _homes(device: str, ranks: int, there: Sequence[numa.NumaNode]) -> list[int]:
    """The NUMA node of each rank of this machine: its device's, or one of the nodes in turn."""
    kind = device.partition(":")[0]
    if kind == accelerator.CPU:
        return numa.spread(ranks, there)
    return [numa.of_device(_bus(kind, index)) for index in range(ranks)]


def _bus(kind: str, index: int) -> str:
    """A device's place on the PCI bus as the kernel writes it. NotSuitable where its PyTorch does not tell."""
    import torch

    found: Any = torch.get_device_module(kind).get_device_properties(index)
    numbers = [getattr(found, f"pci_{part}_id", None) for part in ("domain", "bus", "device")]
    if None in numbers:
        raise NotSuitable(
            f"run.cpu_binding: PyTorch {torch.__version__} does not tell where {kind}:{index} is on the PCI bus, and so not "
            'beside which processors; say "none", or let the launcher bind the ranks (numactl, srun --cpu-bind)'
        )
    domain, bus, slot = numbers
    return f"{domain:04x}:{bus:02x}:{slot:02x}.0"


# --- the kernel's memory policy --------------------------------------------------------------------------------------


def prefer_memory(node: int) -> None:
    """Take this process's memory from a node while it has some. NotSuitable where that is not allowed here.

    Preferred, and not bound to it: a node that is full costs speed then, and not the run.
    """
    mask = (ctypes.c_ulong * (MASK_BITS // 64))()
    mask[node // 64] = 1 << node % 64
    failed = _call(0, PREFER, mask, MASK_BITS)
    if failed is None:
        return
    way_out = {
        errno.EPERM: "a container needs --cap-add=SYS_NICE for it, which `run --image` gives it",
        errno.EINVAL: "it has none, or this process may use none of it: give the container or job that node (--cpuset-mems)",
    }.get(failed, "this kernel has no NUMA")
    raise NotSuitable(
        f"run.cpu_binding: memory cannot be taken from NUMA node {node} (set_mempolicy: {os.strerror(failed)}): "
        f'{way_out}; or say "none"'
    )


def memory_policy() -> str:
    """The policy in force: "default", "prefer 0", "bind 0-1"; "unknown" where the kernel does not say."""
    mode, mask = ctypes.c_int(), (ctypes.c_ulong * (MASK_BITS // 64))()
    if _call(1, ctypes.byref(mode), mask, MASK_BITS, None, 0) is not None:
        return "unknown"
    number = mode.value & 0xFF  # flags stand above
    name = POLICIES[number] if number < len(POLICIES) else str(number)
    set_nodes = {64 * word + bit for word, bits in enumerate(mask) for bit in range(64) if bits >> bit & 1}
    return f"{name} {numa.listed(set_nodes)}".strip()


def _call(which: int, *arguments: Any) -> int | None:
    """None, or errno."""
    numbers = CALLS.get(platform.machine())
    if numbers is None:
        return errno.ENOSYS
    libc = ctypes.CDLL(None, use_errno=True)
    return None if libc.syscall(numbers[which], *arguments) == 0 else ctypes.get_errno()
