"""Ranks and devices: where this process stands in a run. The reader of the environment inside a
run, except for where the ranks meet and what their collectives are told, which process_group.py reads.

The variables are torchrun's own (RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE), and four of ours that a launcher sets:
HARNESS_LOG, the log, made by the launcher and shared by the ranks of this machine; HARNESS_CACHES_CLEARED, "1" when the page
cache was dropped just before; HARNESS_PARENT, the process that starts this one and whose end is this one's too;
HARNESS_LAUNCHER, what started it from another machine, and closes the log when it ends it. Of a run on several machines where
each starts its own ranks, NODE_RANK says which this one is, and MASTER_ADDR and MASTER_PORT where node 0 is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import outside
from harness.config import Configuration
from harness.contract import Context, NotSuitable
from harness.execution import binding
from harness.system import accelerator, facts, places, preflight, torch_build
from harness.system.facts import Machine

NODE_RANK, MASTER_ADDR, MASTER_PORT = "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"

# By which launchers that know nothing of torchrun's variables tell a process that it is one of several: how many, which, who
OF_SEVERAL = (
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "srun"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "mpirun"),
    ("PMI_SIZE", "PMI_RANK", "mpiexec"),
)
OF_A_TERMINAL = "SLURM_PTY_PORT"  # of `srun --pty`, whose one shell may have been given several tasks
SHOWN = 200  # characters of a --chosen that is none


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
    def of_series(cls, environment: Mapping[str, str] = os.environ) -> Launch:
        """Of what starts runs itself. ValueError as below."""
        _must_be_one(environment)
        return cls()

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
            _must_be_one(environment)
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


def _must_be_one(environment: Mapping[str, str]) -> None:
    """ValueError for one task of several that were told nothing of ranks: each would be a whole run, beside the others."""
    if NODE_RANK in environment or OF_A_TERMINAL in environment:
        return
    for count, which, launcher in OF_SEVERAL:
        if environment.get(count, "") not in ("", "0", "1"):
            raise ValueError(
                f"this is task {environment.get(which, '?')} of {environment[count]} that {launcher} started, and each of them "
                f"would be a whole run of its own: start it once, it starts its ranks itself (of several machines: --engine "
                f"slurm, or {NODE_RANK}). Where the tasks are to be the ranks, set RANK, LOCAL_RANK, WORLD_SIZE, "
                f"LOCAL_WORLD_SIZE, {MASTER_ADDR} and {MASTER_PORT} for each as torchrun does; where each is meant to be a run "
                f"of its own, take the variable away: env -u {count}"
            )


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
    """What the log says of the machine: processor, driver as really loaded, accelerators, image, and variables of the
    environment. `device` is run.device.

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
        initial_weights=initial_weights,
        threads=binding.threads(len(os.sched_getaffinity(0)), launch.local_world_size, launch.local_world_size),
        log_every_steps=1 if deterministic else run.log_every_steps,
        deterministic=deterministic,
        chosen={} if chosen is None else _chosen(chosen),
    )


def _chosen(text: str) -> dict[str, Any]:
    try:
        found = outside.parse_json(text)
    except ValueError as error:
        raise ValueError(f"--chosen {text[:SHOWN]}: {error}; a log has it in its line `chosen`") from error
    if not isinstance(found, dict):
        raise ValueError(f"--chosen {text[:SHOWN]}: an object is needed, as a log has it in its line `chosen`")
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
    binding.load_torch()
    import torch

    try:
        module = torch.get_device_module(found.device)
    except RuntimeError as error:
        raise NotSuitable(
            f'{found.vendor}\'s devices are here, and PyTorch {torch.__version__} has no device "{found.device}": install the '
            "maker's own build of PyTorch, or its package for this one"
        ) from error
    if launch.local_rank >= module.device_count():
        names = [str(module.get_device_name(index)) for index in range(module.device_count())]
        raise NotSuitable(preflight.too_few(launch.local_world_size, names))
    return f"{found.device}:{launch.local_rank}", found.vendor


def uuid_of(device: str) -> str | None:
    """Of the device that torch calls so, in its driver's digits; None where torch tells none. It has been loaded."""
    import torch

    where = torch.device(device)
    if where.type == accelerator.CPU:
        return None
    try:
        properties = torch.get_device_module(where).get_device_properties(where.index)
    except Exception:  # noqa: BLE001 - not every vendor's extension has it, and each fails in its own way
        return None
    found = getattr(properties, "uuid", None)
    return None if found is None else torch_build.uuid(str(found), torch.version.hip)


def part_of_a_device(device: str) -> bool:
    """Whether what torch calls so is a MIG instance, of which a GPU has several."""
    import torch

    where = torch.device(device)
    return where.type == "cuda" and " MIG " in torch.cuda.get_device_name(where)


def alone(kind: str) -> Context:
    """One device for this process, which is no rank of a run, with the threads that it may use. NotSuitable without it."""
    name, vendor = device_of(kind, Launch())
    binding.load_torch()
    import torch

    threads = binding.threads(len(os.sched_getaffinity(0)))
    torch.set_num_threads(threads)
    device = torch.device(name)
    if device.type != accelerator.CPU:
        torch.get_device_module(device).set_device(device.index)
    return Context(device=name, vendor=vendor, seed=1, threads=threads)
