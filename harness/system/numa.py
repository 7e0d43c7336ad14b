"""Which processors lie beside which memory, and how ranks share them. Read from /sys, whose texts tests replay.

A rank that runs far from its accelerator pays for it at each copy, and one that wanders between sockets loses its caches. The
kernel's lists have the form "0-3,8,10-11".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness import outside
from harness.contract import NotSuitable

# node: all of its NUMA node's processors, shared with the node's other ranks; cores: a part of its node's cores that is its own
Way = Literal["none", "node", "cores"]


@dataclass(frozen=True)
class NumaNode:
    """One NUMA node's processors, as far as this process may use them: by core, in order."""

    number: int
    cores: tuple[tuple[int, ...], ...]  # the hardware threads of each

    @property
    def cpus(self) -> frozenset[int]:
        return frozenset(cpu for core in self.cores for cpu in core)


def nodes(usable: Collection[int], root: Path = Path("/")) -> list[NumaNode]:
    """The nodes with a processor of `usable`, in order. A kernel that shows none has one."""
    folder = root / "sys/devices/system"
    found = []
    for number, cpus in sorted((with_processors(root) or {0: set(usable)}).items()):
        cores = {_core(folder, cpu) & set(usable) or {cpu} for cpu in cpus & set(usable)}
        if cores:
            found.append(NumaNode(number, tuple(sorted(tuple(sorted(core)) for core in cores))))
    return found


def with_processors(root: Path = Path("/")) -> dict[int, set[int]]:
    """Of each node that has any: the memory of a GPU (Grace Hopper) or of CXL is a node without. {} where none is shown."""
    lists = {
        int(path.parent.name.removeprefix("node")): cpus_of(outside.text(path))
        for path in (root / "sys/devices/system/node").glob("node[0-9]*/cpulist")
    }
    return {number: cpus for number, cpus in lists.items() if cpus}


def of_device(bus: str, root: Path = Path("/")) -> int:
    """The node that a PCI device ("0000:c1:00.0") hangs on. NotSuitable where the machine does not say which of several."""
    said = outside.text(root / "sys/bus/pci/devices" / bus / "numa_node")
    if said.isdecimal():
        return int(said)
    there = with_processors(root)
    if len(there) <= 1:  # the kernel says -1 of devices on a machine of one
        return next(iter(there), 0)
    raise NotSuitable(
        f"run.cpu_binding: this machine has {len(there)} NUMA nodes and does not say on which {bus} is (its numa_node is "
        f'{said or "not there"}), as many virtual machines do; say "none", or let the launcher bind the ranks'
    )


def spread(ranks: int, there: Sequence[NumaNode]) -> list[int]:
    """A node for each rank of a machine whose ranks have no device, in order: neighbours get the same one."""
    return [there[rank * len(there) // ranks].number for rank in range(ranks)]


def share(way: Way, there: Sequence[NumaNode], homes: Sequence[int], local_rank: int) -> frozenset[int]:
    """The processors of one rank. `homes` are the nodes of all ranks of this machine. NotSuitable where they do not suffice."""
    home = homes[local_rank]
    node = next((each for each in there if each.number == home), None)
    if node is None:
        raise NotSuitable(
            f'run.cpu_binding = "{way}": rank {local_rank} of this machine belongs to NUMA node {home}, of which this '
            f"process may use no processor (it may use those of {', '.join(str(each.number) for each in there)}); give the "
            'container or job processors there, or say "none"'
        )
    if way == "node":
        return node.cpus
    beside = [rank for rank, each in enumerate(homes) if each == home]
    if len(node.cores) < len(beside):
        raise NotSuitable(
            f'run.cpu_binding = "cores": NUMA node {home} has {len(node.cores)} cores that this process may use, for '
            f'{len(beside)} ranks; say "node", which lets them share, or "none"'
        )
    place, cores = beside.index(local_rank), len(node.cores)
    mine = node.cores[place * cores // len(beside) : (place + 1) * cores // len(beside)]
    return frozenset(cpu for core in mine for cpu in core)


def cpus_of(listed: str) -> set[int]:
    """The kernel's "0-3,8" as numbers."""
    found: set[int] = set()
    for part in filter(None, listed.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def listed(cpus: Collection[int]) -> str:
    """Numbers as the kernel writes them."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and parts[-1][1] == cpu - 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _core(folder: Path, cpu: int) -> frozenset[int]:
    return frozenset(cpus_of(outside.text(folder / f"cpu/cpu{cpu}/topology/thread_siblings_list"))) or frozenset({cpu})
