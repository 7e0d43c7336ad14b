"""The ranks of a run together: how they meet, what they must agree on, and what they tell one another.

Where they meet is said by torchrun's variables, MASTER_ADDR and MASTER_PORT, whoever set them. One rank is no group: everything
here is then answered at once.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from harness.contract import COLLECTIVE_TIMEOUT, Context, NotSuitable, Plain
from harness.execution import console, lifeline, meeting
from harness.execution.context import MASTER_ADDR, MASTER_PORT, part_of_a_device, uuid_of
from harness.system import accelerator, variables


@dataclass(frozen=True)
class Ranks:
    """What the ranks of a run told of themselves, by rank."""

    hosts: Sequence[str] = ()
    uuids: Sequence[str | None] = ()  # of their devices, as torch spells them; None where it tells none
    variables: Sequence[Mapping[str, Plain]] = ()  # of the environment, that change speed or numbers
    local_ranks: Sequence[int] = ()  # of each on its machine

    @property
    def machines(self) -> dict[int, str]:
        """The first rank of each machine -> its name; srun may have dealt ranks out to machines in turn."""
        return {
            rank: host
            for rank, (host, local) in enumerate(zip(self.hosts, self.local_ranks, strict=True))
            if local == 0
        }


@contextmanager
def joined(context: Context, patience_s: float = meeting.PATIENCE_S) -> Iterator[Any]:
    """The device and, for more than one rank, torch.distributed's group and its store, for as long as the block runs.

    Where the block raises, the group stays until the process ends: NCCL's is not destroyed before all ranks do so, and the
    others may be in a collective that this one never joins. `patience_s`: for rank 0's place to be reached; ValueError where it
    is not.
    """
    import torch
    import torch.distributed as dist

    device = torch.device(context.device)
    on_cpu = device.type == accelerator.CPU
    if not on_cpu:
        torch.get_device_module(device).set_device(device.index)
    store = None
    if context.world_size > 1:
        backend = backend_for(device.type)
        store = _meeting(context, patience_s)
        dist.init_process_group(
            backend,
            store=store,
            rank=context.rank,
            world_size=context.world_size,
            timeout=COLLECTIVE_TIMEOUT,
            device_id=None if on_cpu else device,
        )
    yield store
    if context.world_size > 1:
        dist.destroy_process_group()


def watched_machines(
    store: Any, context: Context, ranks: Ranks, lost: Callable[[str], None]
) -> AbstractContextManager[None]:
    """Inside the block `lost` is told of a machine of the run that answers no more."""
    return lifeline.kept(
        store, context.rank, ranks.machines, os.environ.get(MASTER_ADDR, ""), lost=lost, say=console.complain
    )


def _meeting(context: Context, patience_s: float) -> Any:
    """The ranks' store, once all of them are there. ValueError that says who is not, or why they cannot meet."""
    address, port = (os.environ.get(name, "") for name in (MASTER_ADDR, MASTER_PORT))
    if not address or not port.isdecimal():
        raise ValueError(
            f"the ranks cannot meet at {address or '?'}:{port or '?'} (MASTER_ADDR, MASTER_PORT): both must be set, as "
            "torchrun does"
        )
    store = meeting.of_ranks(
        meeting.MeetingPlace(address, int(port), patience_s),
        context.rank,
        context.world_size,
        # torchrun's own process keeps the store on that port, else rank 0 does
        keeps=context.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        say=console.complain
        if context.local_rank == 0
        else lambda _: None,  # the others of a machine would say the same
        attempt=os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"),
    )
    store.set_timeout(COLLECTIVE_TIMEOUT)
    return store


def backend_for(kind: str) -> str:
    """torch.distributed's backend for a device type. NotSuitable where nobody knows one."""
    import torch.distributed as dist

    known = accelerator.process_group(kind)
    if known is not None:
        return known
    try:
        return str(dist.get_default_backend_for_device(kind))
    except (ValueError, RuntimeError) as error:  # the latter for a word that torch does not know at all
        raise NotSuitable(
            f"torch.distributed has no backend for {kind}: use a configuration of one accelerator, or install the vendor's"
        ) from error


def agreed(
    context: Context, asked: Mapping[str, object], machine: Mapping[str, object] | None = None
) -> tuple[Context, Ranks]:
    """The Context with rank 0's seed, on every rank, and what the ranks are. ValueError where they were asked for different
    things or are two on one device, NotSuitable where they are on machines of another kind."""
    here = platform.node(), uuid_of(context.device), variables.told(os.environ), context.local_rank
    if context.world_size == 1:
        return context, _ranks([here])
    import torch.distributed as dist

    everyone: list[Any] = [None] * context.world_size
    dist.all_gather_object(everyone, (dict(asked), dict(machine or {}), context.seed, here))
    first, its_machine, seed, _ = everyone[0]
    for rank, (other, other_machine, _, (host, *_)) in enumerate(everyone):
        for name, value in other_machine.items():
            if value != its_machine[name]:
                raise NotSuitable(
                    f"{host}, of rank {rank}, has {name} {value}, that of rank 0 {its_machine[name]}: a log describes one kind "
                    "of machine, so choose nodes that are alike (in Slurm by --constraint, in Kubernetes by a node selector)"
                )
        for name, value in other.items():
            if value != first[name]:
                raise ValueError(
                    f"rank {rank} was started with {name} {value} on {host}, rank 0 with {first[name]}: all ranks of a run "
                    "need the same"
                )
    ranks = _ranks([each for *_, each in everyone])
    if not part_of_a_device(context.device):  # whose UUID may be the whole one's
        _refuse_one_device_for_two(ranks)
    return replace(context, seed=seed), ranks


def _refuse_one_device_for_two(ranks: Ranks) -> None:
    """NCCL does within one container; in two of one machine both would compute there, at half the speed.

    Ranks of one container have devices of their own by number, which may have one UUID where they are parts of one.
    """
    first: dict[str, int] = {}
    places = list(zip(ranks.hosts, ranks.local_ranks, strict=True))
    for rank, uuid in enumerate(ranks.uuids):
        other = rank if uuid is None else first.setdefault(uuid, rank)
        beside_it = places[other][0] == places[rank][0] and places[other][1] != places[rank][1]
        if other != rank and not beside_it:
            raise ValueError(
                f"rank {other} on {ranks.hosts[other]} and rank {rank} on {ranks.hosts[rank]} were given one device, of UUID "
                f"{uuid}: give each rank its own (CUDA_VISIBLE_DEVICES, a container's --gpus)"
            )


def _ranks(each: Sequence[tuple[str, str | None, Mapping[str, Plain], int]]) -> Ranks:
    hosts, uuids, told, local = zip(*each, strict=True)
    return Ranks(hosts, uuids, told, local)


def gathered(context: Context, value: float) -> list[float]:
    """Every rank's value, on every rank: one collective."""
    if context.world_size == 1:
        return [value]
    import torch
    import torch.distributed as dist

    values = torch.zeros(context.world_size, dtype=torch.float64, device=_exchanged_on(context))
    values[context.rank] = value
    dist.all_reduce(values)
    return [float(each) for each in values.tolist()]


def _exchanged_on(context: Context) -> str:
    import torch.distributed as dist

    return accelerator.CPU if "gloo" in dist.get_backend() else context.device


def collectives() -> dict[str, Plain]:
    """By what tensors go between the ranks; what the environment tells it is in the log's `environment`."""
    import torch.distributed as dist

    return {"backend": dist.get_backend()}


def barrier(context: Context) -> None:
    """Wait for all ranks."""
    if context.world_size > 1:
        import torch.distributed as dist

        dist.barrier()
