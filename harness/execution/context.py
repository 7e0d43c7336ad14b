"""Ranks and devices: where this process stands in a run. The only reader of the environment inside a run.

The variables are torchrun's own (RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, with MASTER_ADDR and MASTER_PORT that
torch reads itself), and four of ours that a launcher sets: HARNESS_LOG, the log, made by the launcher and shared by the ranks
of this machine;
HARNESS_CACHES_CLEARED, "1" when the page cache was dropped just before; HARNESS_PARENT, the process that starts this one and
whose end is this one's too; HARNESS_LAUNCHER, what started it from another machine, and closes the log when it ends it. Of a
run on several machines where each starts its own ranks, NODE_RANK says which this one is.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.config import Configuration
from harness.contract import Context, NotSuitable, Plain
from harness.execution import binding, console, lifeline, meeting
from harness.system import accelerator, facts, places, preflight
from harness.system.facts import Machine

NODE_RANK, MASTER_ADDR, MASTER_PORT = "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"
# A rank that waits this long for another has lost it. Longer than a series' watchdog waits, which names the one that hangs
COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=40)
# Of the libraries that move tensors between ranks: what they are told by the environment
COLLECTIVES = ("NCCL_", "TORCH_NCCL_", "RCCL_", "CCL_", "GLOO_", "UCX_", "FI_", "OFI_", "MCCL_", "HCCL_")


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
    parent: int | None = None  # the process of ours that started this one and is to outlive it
    launcher: str = ""  # what of another machine started this one and closes the log: "slurm"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Launch:
        """ValueError when torchrun's variables are incomplete, not numbers, or place this process nowhere.

        Where RANK and WORLD_SIZE are all there is (Kubeflow), each rank has a machine, or a container, of its own.
        """
        caches_cleared = environment.get("HARNESS_CACHES_CLEARED") == "1"
        parent = int(environment["HARNESS_PARENT"]) if environment.get("HARNESS_PARENT", "").isdecimal() else None
        if "RANK" not in environment:
            if environment.get("WORLD_SIZE", "1") != "1":
                raise ValueError(
                    f"WORLD_SIZE={environment['WORLD_SIZE']} is set, so this is taken for one rank of several, but RANK is "
                    "not: set RANK, MASTER_ADDR and MASTER_PORT as torchrun does, or unset WORLD_SIZE to start a run of its own"
                )
            return cls(caches_cleared=caches_cleared, parent=parent)
        alone = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        found = environment if alone.keys() & environment.keys() else {**environment, **alone}
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
        taken = "RANK is set, so this is taken for a rank of torchrun"
        fix = "set them as torchrun does, or unset RANK to start a run of its own"
        try:
            rank, local_rank, world_size, local_world_size = (int(found[name]) for name in names)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{taken}, but {', '.join(names)} are not all numbers: {error}; {fix}") from error
        if not (0 <= local_rank < local_world_size <= world_size and local_rank <= rank < world_size):
            given = ", ".join(f"{name}={found[name]}" for name in names)
            raise ValueError(f"{taken}, but there is no such rank: {given}; {fix}")
        log = Path(environment["HARNESS_LOG"]) if environment.get("HARNESS_LOG") else None
        launcher = environment.get("HARNESS_LAUNCHER", "")
        return cls(rank, local_rank, world_size, local_world_size, True, log, caches_cleared, parent, launcher)


@dataclass(frozen=True)
class Node:
    """One machine of several, which starts the ranks of its own accelerators."""

    rank: int
    address: str  # of node 0
    port: int

    @classmethod
    def from_environment(cls, nodes: int, environment: Mapping[str, str] = os.environ) -> Node | None:
        """None where nobody says which machine this is. ValueError when what is said places it nowhere."""
        if NODE_RANK not in environment:
            return None
        found = {name: environment.get(name, "") for name in (NODE_RANK, MASTER_ADDR, MASTER_PORT)}
        rank, port = found[NODE_RANK], found[MASTER_PORT]
        if not (rank.isdecimal() and int(rank) < nodes and port.isdecimal() and 0 < int(port) < 1 << 16):
            given = ", ".join(f"{name}={value}" for name, value in found.items())
            raise ValueError(
                f"{given}: no node of a run of {nodes}: {NODE_RANK} is a number from 0 to {nodes - 1}, {MASTER_ADDR} and "
                f"{MASTER_PORT} are where node 0 is reached"
            )
        if not found[MASTER_ADDR]:
            raise ValueError(f"{NODE_RANK}={rank}, but {MASTER_ADDR} does not say where node 0 is")
        return cls(int(rank), found[MASTER_ADDR], int(port))


def this_machine(device: str = accelerator.ANY, usable: int | None = None) -> Machine:
    """What the log says of the machine: processor, driver as really loaded, accelerators, image. `device` is run.device.

    `usable`: processors that the run was given, where this process has bound itself to fewer.
    """
    # a run on the processor tells what else the machine has
    found = facts.read(os.environ, accelerator.ANY if device == accelerator.CPU else device)
    if usable is None:
        return found
    return replace(found, host=replace(found.host, cpu=replace(found.host.cpu, usable=usable)))


def build(
    configuration: Configuration,
    launch: Launch,
    *,
    seed: int,
    data_dir: Path | None = None,
    initial_weights: Path | None = None,
    deterministic: bool = False,
    chosen: str | None = None,
) -> Context:
    """The Context of this rank. NotSuitable when the device that the configuration asks for is not there."""
    run = configuration.run
    if launch.world_size != run.world_size:
        raise ValueError(
            f"{launch.world_size} ranks were started, but {configuration.source} says run.nodes = {run.nodes} x "
            f"run.accelerators_per_node = {run.accelerators_per_node}"
        )
    if deterministic:  # read by cuBLAS when it starts; without it torch refuses its deterministic algorithms
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device, vendor = device_of(run.device, launch)
    return Context(
        device=device,
        vendor=vendor,
        rank=launch.rank,
        local_rank=launch.local_rank,
        world_size=launch.world_size,
        seed=seed,
        data_dir=data_dir,
        initial_weights=initial_weights,
        threads=binding.threads(len(os.sched_getaffinity(0)), launch.local_world_size, launch.local_world_size),
        log_every_steps=1 if deterministic else run.log_every_steps,
        deterministic=deterministic,
        chosen={} if chosen is None else _chosen(chosen),
    )


def _chosen(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--chosen {text}: is not JSON ({error}); a log has it in its line `chosen`") from error
    if not isinstance(found, dict):
        raise ValueError(f"--chosen {text}: an object is needed, as a log has it in its line `chosen`")
    return found


def keep_compiled(cache_dir: Path) -> None:
    """Where PyTorch, Triton and the driver keep what they compile: with this user's cache, so that the next init finds it.

    Their own places are in /tmp or in a home that a container loses. Whatever the caller names is left as it is.
    """
    kept = places.made_own(cache_dir.absolute(), places.COMPILED)
    if kept is not None:
        for name, folder in (
            ("TORCHINDUCTOR_CACHE_DIR", "inductor"),
            ("TRITON_CACHE_DIR", "triton"),
            ("CUDA_CACHE_PATH", "cuda"),
        ):
            os.environ.setdefault(name, str(kept / folder))


def device_of(kind: str, launch: Launch) -> tuple[str, str]:
    """Torch's name for this rank's device, and who made it. NotSuitable when it is not there."""
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


def alone(kind: str) -> Context:
    """One device for this process, which is no rank of a run, with the threads that it may use. NotSuitable without it."""
    name, vendor = device_of(kind, Launch())
    import torch

    threads = binding.threads(len(os.sched_getaffinity(0)))
    torch.set_num_threads(threads)
    device = torch.device(name)
    if device.type != accelerator.CPU:
        torch.get_device_module(device).set_device(device.index)
    return Context(device=name, vendor=vendor, seed=1, threads=threads)


@contextmanager
def process_group(context: Context, patience_s: float = meeting.PATIENCE_S) -> Iterator[Any]:
    """The device and, for more than one rank, torch.distributed's group and its store, for as long as the block runs.

    `patience_s`: for rank 0's place to be reached; ValueError where it is not.
    """
    import torch
    import torch.distributed as dist

    device = torch.device(context.device)
    on_cpu = device.type == accelerator.CPU
    if not on_cpu:
        torch.get_device_module(device).set_device(device.index)
    store = None
    if context.world_size > 1:
        backend = process_group_backend(device.type)
        store = _meeting(context, patience_s)
        dist.init_process_group(
            backend,
            store=store,
            rank=context.rank,
            world_size=context.world_size,
            timeout=COLLECTIVE_TIMEOUT,
            device_id=None if on_cpu else device,
        )
    try:
        yield store
    finally:
        if context.world_size > 1:
            dist.destroy_process_group()


def watched_machines(
    store: Any, context: Context, launch: Launch, hosts: Sequence[str], lost: Callable[[str], None]
) -> AbstractContextManager[None]:
    """Inside the block `lost` is told of a machine of the run that answers no more."""
    first = {rank: hosts[rank] for rank in range(0, launch.world_size, launch.local_world_size)}
    return lifeline.kept(store, context.rank, first, os.environ.get(MASTER_ADDR, ""), lost=lost, say=console.complain)


def _meeting(context: Context, patience_s: float) -> Any:
    """The ranks' store, once all of them are there. ValueError that says who is not, or why they cannot meet."""
    address, port = (os.environ.get(name, "") for name in (MASTER_ADDR, MASTER_PORT))
    if not address or not port.isdecimal():
        raise ValueError(
            f"the ranks cannot meet at {address or '?'}:{port or '?'} (MASTER_ADDR, MASTER_PORT): both must be set, as "
            "torchrun does"
        )
    store = meeting.of_ranks(
        meeting.Place(address, int(port), patience_s),
        context.rank,
        context.world_size,
        # torchrun's own process keeps the store on that port, else rank 0 does
        keeps=context.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        say=console.complain
        if context.local_rank == 0
        else lambda _: None,  # the others of a machine would say the same
    )
    store.set_timeout(COLLECTIVE_TIMEOUT)
    return store


def process_group_backend(kind: str) -> str:
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


def agreed(context: Context, asked: Mapping[str, object]) -> tuple[Context, list[str]]:
    """The Context with rank 0's seed, on every rank, and where the ranks run. ValueError where they were asked for different
    things."""
    here = platform.node()
    if context.world_size == 1:
        return context, [here]
    import torch.distributed as dist

    everyone: list[Any] = [None] * context.world_size
    dist.all_gather_object(everyone, (dict(asked), context.seed, here))
    first, seed, _ = everyone[0]
    for rank, (other, _, host) in enumerate(everyone):
        for name, value in other.items():
            if value != first[name]:
                raise ValueError(
                    f"rank {rank} was started with {name} {value} on {host}, rank 0 with {first[name]}: all ranks of a run "
                    "need the same"
                )
    return replace(context, seed=seed), [host for *_, host in everyone]


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
    """By what tensors go between the ranks, and what the environment tells it."""
    import torch.distributed as dist

    told: dict[str, Plain] = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(COLLECTIVES)}
    return {"backend": dist.get_backend(), "environment": told}


def barrier(context: Context) -> None:
    """Wait for all ranks."""
    if context.world_size > 1:
        import torch.distributed as dist

        dist.barrier()
