"""The machine under the GPUs: processor, memory, kernel, limits. Read from /proc and /sys, whose texts tests replay."""

from __future__ import annotations

import os
import platform
import re
import resource
from dataclasses import dataclass
from pathlib import Path

from harness import outside
from harness.system import cgroup

GIB = 1 << 30
CONTAINER_MARKS = (".dockerenv", "run/.containerenv")  # Docker's and Podman's


@dataclass(frozen=True)
class Cpu:
    """The processors of the machine, and how many of them this process may use."""

    model: str
    sockets: int
    cores: int
    threads: int
    usable: int  # by affinity
    quota: float | None  # processors' worth of time by cgroup
    governors: tuple[str, ...]  # of all processors, each once; empty where the kernel shows none
    numa_nodes: int


@dataclass(frozen=True)
class Host:
    """The machine without its GPUs."""

    cpu: Cpu
    memory_gib: float
    memory_limit_gib: float | None  # by cgroup
    kernel: str
    os: str  # inside a container: the image's
    container: bool
    memlock: int | None  # bytes that may be locked; None is unlimited
    boot_id: str | None  # the kernel's, another after each boot, the host's in a container too; None where it has none


def read(root: Path = Path("/")) -> Host:
    """Ask the kernel. `root` is for tests."""
    memlock = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return Host(
        cpu=_cpu(root),
        memory_gib=round(_memory_kib(root) * 1024 / GIB, 1),
        memory_limit_gib=_memory_limit_gib(root),
        kernel=platform.release(),
        os=_os(root),
        container=in_container(root),
        memlock=None if memlock == resource.RLIM_INFINITY else memlock,
        boot_id=outside.text(root / "proc/sys/kernel/random/boot_id") or None,
    )


def in_container(root: Path = Path("/")) -> bool:
    """Whether this is a container of Docker or Podman, or one that says so itself."""
    return any((root / mark).exists() for mark in CONTAINER_MARKS) or "container=" in outside.text(
        root / "proc/1/environ"
    )


def _cpu(root: Path) -> Cpu:
    text = outside.text(root / "proc/cpuinfo")
    blocks = [dict(re.findall(r"^([^\t:\n]+?)[ \t]*:[ \t]*(.*)$", block, re.MULTILINE)) for block in text.split("\n\n")]
    processors = [block for block in blocks if "processor" in block]
    packages = {block.get("physical id", "0") for block in processors}
    cores = {(block.get("physical id", "0"), block.get("core id", block["processor"])) for block in processors}
    folder = root / "sys/devices/system"
    governors = {outside.text(path) for path in folder.glob("cpu/cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    return Cpu(
        model=_model(processors[0] if processors else {}),
        sockets=len(packages),
        cores=len(cores),
        threads=len(processors),
        usable=len(os.sched_getaffinity(0)),
        quota=cgroup.cpu_quota(root),
        governors=tuple(sorted(governors)),
        numa_nodes=len(list(folder.glob("node/node[0-9]*"))) or 1,
    )


def _model(block: dict[str, str]) -> str:
    if "model name" in block:
        return re.sub(r"\s+", " ", block["model name"])
    if "CPU implementer" in block:  # Arm tells numbers only
        return f"{platform.machine()} implementer {block['CPU implementer']} part {block.get('CPU part', '?')}"
    return platform.machine()


def _memory_kib(root: Path) -> int:
    match = re.search(r"^MemTotal:\s+(\d+) kB", outside.text(root / "proc/meminfo"), re.MULTILINE)
    return int(match[1]) if match else 0


def _memory_limit_gib(root: Path) -> float | None:
    limit = cgroup.memory_bytes(root)
    return None if limit is None or limit >= _memory_kib(root) * 1024 else round(limit / GIB, 1)


def _os(root: Path) -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', outside.text(root / "etc/os-release"), re.MULTILINE)
    return match[1] if match else platform.system()
