"""What a trial's container is: as arguments for the Docker SDK, and as the `docker run` line that does the same.

It gets the accelerators that the configuration asks for, the configuration itself and the data read-only, the results folder, a
cache that it shares with other trials' containers alone, the host's shared memory, an init process that reaps and passes
signals on, and the caller's user id; and does not get a network, capabilities, new privileges, a restart, or a life after its
trial.
"""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from harness.config import RunTable
from harness.contract import NotSuitable
from harness.launch import engine
from harness.launch.trial import Order
from harness.request import Request
from harness.system.accelerator import CPU, ContainerNeeds
from harness.system.image import ID_VARIABLE

# Where things are inside, beside what request.py says of the paths that it is asked for
RESULTS, CONFIGURATION = PurePosixPath("/results"), PurePosixPath("/configuration")
STACK_BYTES = 64 << 20


@dataclass(frozen=True)
class Gpus:
    """Which accelerators a container gets, and by which of the engine's ways."""

    by: str = "none"  # "none" | "cdi" | "device request" | "nodes"
    devices: tuple[str, ...] = ()  # names or numbers, or device nodes; empty: the first `count`
    count: int = 0
    kind: str = ""  # of CDI: "nvidia.com/gpu"
    groups: tuple[int, ...] = ()  # that own the nodes


@dataclass(frozen=True)
class Mount:
    """A file or folder of the host, seen inside."""

    source: Path
    target: PurePosixPath
    read_only: bool = True

    def option(self) -> str:
        """Of `docker run`, which reads it as a line of CSV."""
        words = [
            "type=bind",
            f"source={self.source}",
            f"target={self.target}",
            *(["readonly"] if self.read_only else []),
        ]
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(words)
        return f"--mount={line.getvalue()}"


@dataclass(frozen=True)
class ContainerSpec:
    """All that decides what a container is, except for its name and labels."""

    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    mounts: tuple[Mount, ...]
    user: str
    gpus: Gpus = Gpus()
    groups: tuple[int, ...] = ()
    shm_size: str | None = None  # "8g"; None: the host's shared memory
    lift_limits: bool = True  # a rootless engine cannot
    host_user_ids: bool = False  # where the engine maps them to others
    security: tuple[str, ...] = ("no-new-privileges",)
    capabilities: tuple[str, ...] = ()  # kept; all others are dropped

    def arguments(self) -> dict[str, Any]:
        """For the SDK's containers.create."""
        from docker.types import DeviceRequest, Mount, Ulimit

        requests = {
            "none": [],
            "nodes": [],
            "cdi": [DeviceRequest(driver="cdi", device_ids=[f"{self.gpus.kind}={each}" for each in self.gpus.devices])],
            "device request": [
                DeviceRequest(device_ids=list(self.gpus.devices), capabilities=[["gpu"]])
                if self.gpus.devices
                else DeviceRequest(count=self.gpus.count, capabilities=[["gpu"]])
            ],
        }[self.gpus.by]
        ulimits = [Ulimit(name="memlock", soft=-1, hard=-1), Ulimit(name="stack", soft=STACK_BYTES, hard=STACK_BYTES)]
        return {
            "image": self.image,
            "command": list(self.command),
            "environment": dict(self.environment),
            "mounts": [Mount(str(m.target), str(m.source), "bind", read_only=m.read_only) for m in self.mounts],
            "user": self.user,
            "group_add": [str(each) for each in (*self.groups, *self.gpus.groups)],
            "device_requests": requests,
            "devices": [f"{each}:{each}:rwm" for each in self.gpus.devices] if self.gpus.by == "nodes" else [],
            "init": True,
            "network_mode": "none",
            "security_opt": list(self.security),
            "cap_drop": ["ALL"],
            "cap_add": list(self.capabilities),
            "ulimits": ulimits if self.lift_limits else [],
            **({"shm_size": self.shm_size} if self.shm_size else {"ipc_mode": "host"}),
            **({"userns_mode": "host"} if self.host_user_ids else {}),
        }

    def line(self) -> str:
        """The same for a shell."""
        gpus = {
            "none": [],
            "nodes": [f"--device={each}" for each in self.gpus.devices],
            "cdi": [f"--device={self.gpus.kind}={each}" for each in self.gpus.devices],
            "device request": [
                f'--gpus="device={",".join(self.gpus.devices)}"' if self.gpus.devices else f"--gpus={self.gpus.count}"
            ],
        }[self.gpus.by]
        words = [
            *("docker", "run", "--rm", "--init", "--network=none", f"--user={self.user}"),
            *(f"--group-add={each}" for each in (*self.groups, *self.gpus.groups)),
            *(f"--security-opt={each}" for each in self.security),
            "--cap-drop=ALL",
            *(f"--cap-add={each}" for each in self.capabilities),
            f"--shm-size={self.shm_size}" if self.shm_size else "--ipc=host",
            *(("--ulimit=memlock=-1:-1", f"--ulimit=stack={STACK_BYTES}:{STACK_BYTES}") if self.lift_limits else ()),
            *(("--userns=host",) if self.host_user_ids else ()),
            *gpus,
            *(each.option() for each in self.mounts),
            *(f"--env={name}={value}" for name, value in self.environment.items()),
            self.image,
            *self.command,
        ]
        return shlex.join(words)


def gpus(run: RunTable, info: Mapping[str, Any], needs: ContainerNeeds, there: int | None, asked: str = "") -> Gpus:
    """The accelerators for one trial: those of `asked` ("6, 7"), else the first that the configuration asks for.

    `needs` is the vendor's word; `there` is how many the host's driver knows, None where that cannot be seen. ValueError when
    `asked` does not fit, NotSuitable when there are too few, or no way to hand them over.
    """
    chosen = [each.strip() for each in asked.split(",") if each.strip()]
    if run.device == CPU:
        if chosen:
            raise ValueError('accelerators were chosen, but the configuration says run.device = "cpu"')
        return Gpus()
    wanted = run.accelerators_per_node
    if chosen and len(chosen) != wanted:
        raise ValueError(
            f"{len(chosen)} accelerators were chosen ({', '.join(chosen)}), but the configuration says "
            f"run.accelerators_per_node = {wanted}"
        )
    names = engine.cdi_gpus(dict(info), needs.cdi_kind) if needs.cdi_kind else None
    numbers = sorted((each for each in names or [] if each.isdecimal()), key=int)
    known = len(numbers) if numbers else there
    if known is not None and known < wanted:
        raise NotSuitable(
            f"the configuration asks for {wanted} accelerators (run.accelerators_per_node) and this machine has {known}: "
            "choose a configuration for fewer"
        )
    if names and (chosen or numbers):
        return Gpus("cdi", tuple(chosen or numbers[:wanted]), kind=needs.cdi_kind)
    if needs.device_request:
        return Gpus("device request", tuple(chosen), 0 if chosen else wanted)
    return _by_nodes(needs, chosen)


def _by_nodes(needs: ContainerNeeds, chosen: Sequence[str], root: Path = Path("/")) -> Gpus:
    """All of the vendor's device nodes, where the engine has no way of its own; which of them a run takes is its matter."""
    nodes = [path for pattern in needs.nodes for path in sorted(root.glob(pattern.removeprefix("/")))]
    if not nodes:
        raise NotSuitable(
            "neither the engine nor this machine's /dev shows an accelerator to hand to a container; `python -m harness "
            "doctor` says what is here, and without --image the same command runs outside containers"
        )
    if chosen:
        raise ValueError(
            "single accelerators can be chosen by CDI or the engine's --gpus alone, and it has neither for these"
        )
    groups = tuple(sorted({path.stat().st_gid for path in nodes} - {0}))
    return Gpus("nodes", tuple(str(path) for path in nodes), groups=groups)


@dataclass(frozen=True)
class EngineHost:
    """What a container depends on apart from what was asked for: the engine and who asks."""

    info: Mapping[str, Any]
    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def here(cls, info: Mapping[str, Any]) -> EngineHost:
        return cls(info, os.getuid(), os.getgid(), tuple(sorted(set(os.getgroups()) - {os.getgid()})))


def spec_of(
    host: EngineHost,
    image: str,
    order: Order,
    request: Request,
    *,
    image_id: str,
    gpus: Gpus = Gpus(),
    binds_memory: bool = False,
    variables: Mapping[str, str] = {},
) -> ContainerSpec:
    """The container for one trial of a settled request. `binds_memory`: its ranks ask the kernel for a NUMA node's memory.

    `variables`: beside the image's own and those that a trial is told by.
    """
    asked = request.of_trial(order.number, order.folder, order.seed)
    configuration = Path(str(asked.configuration))
    inside = CONFIGURATION / configuration.name
    told, mounted = asked.inside(inside, RESULTS)
    rootless = engine.has(dict(host.info), "rootless")
    selinux = ("label=disable",) if engine.has(dict(host.info), "selinux") else ()  # else the mounts cannot be read
    return ContainerSpec(
        image=image,
        command=("python", "-m", "harness", *told.argv()),
        environment={**variables, **order.environment, "HOME": "/tmp", ID_VARIABLE: image_id},
        mounts=(
            Mount(configuration, inside),
            Mount(order.folder, RESULTS, read_only=False),
            *(Mount(each, seen.of(each), read_only=not seen.writable) for each, seen in mounted),
        ),
        user="0:0" if rootless else f"{host.uid}:{host.gid}",  # a rootless engine's root is the caller
        groups=() if rootless else host.groups,
        gpus=gpus,
        shm_size=request.shm_size,
        lift_limits=not rootless,
        host_user_ids=engine.has(dict(host.info), "userns"),
        security=("no-new-privileges", *selinux),
        # root's right to others' files is a capability, and a root who may not read his own data set would be surprised
        capabilities=(
            *(("CAP_DAC_OVERRIDE",) if rootless or host.uid == 0 else ()),
            *(
                ("CAP_SYS_NICE",) if binds_memory else ()
            ),  # without it the engine's seccomp profile forbids set_mempolicy
        ),
    )
