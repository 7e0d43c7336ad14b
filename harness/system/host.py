"""The machine under the GPUs: processor, memory, kernel, limits. Read from /proc and /sys, whose texts tests replay."""

from __future__ import annotations

import os
import platform
import re
import resource
from dataclasses import dataclass
from pathlib import Path

from harness import outside
from harness.system import cgroup, numa

GIB = 1 << 30
CONTAINER_MARKS = (  # Docker's, Podman's, nspawn's, Apptainer's, Kubernetes'
    *(".dockerenv", "run/.containerenv", "run/host/container-manager", ".singularity.d"),
    *("run/secrets/kubernetes.io", "var/run/secrets/kubernetes.io"),
)
# Whoever starts a container may tell it so by the variable `container`
MANAGERS = (
    "apptainer",
    "docker",
    "flatpak",
    "lxc",
    "lxc-libvirt",
    "oci",
    "podman",
    "rkt",
    "singularity",
    "systemd-nspawn",
)
SYSTEMD_SAYS = "run/systemd/container"  # "lxc", "systemd-nspawn", ...; WSL is a machine
OF_A_POD = "# Kubernetes-managed hosts file"  # in /etc/hosts, also of a pod without a service account
# As lscpu has them; Arm's kernel tells numbers only
ARM_CORES = {
    ("0x41", "0xd0c"): "Arm Neoverse-N1",
    ("0x41", "0xd40"): "Arm Neoverse-V1",
    ("0x41", "0xd49"): "Arm Neoverse-N2",
    ("0x41", "0xd4f"): "Arm Neoverse-V2",
    ("0xc0", "0xac3"): "Ampere-1",
}


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
    """Whether this is a container by its marks, by its first process's control group, or because it says so itself."""
    first, own = (outside.text(root / f"proc/{process}/environ").split("\0") for process in ("1", "self"))
    return (
        any(os.path.lexists(root / mark) for mark in CONTAINER_MARKS)
        or any(each.startswith("container=") for each in first)
        or any(f"container={each}" in own for each in MANAGERS)  # a job's own variable may have that name
        or re.search(r"/(docker|kubepods|libpod|lxc)\b", outside.text(root / "proc/1/cgroup")) is not None
        or outside.text(root / "etc/hosts").startswith(OF_A_POD)
        or outside.text(root / SYSTEMD_SAYS) not in ("", "wsl")
    )


def _cpu(root: Path) -> Cpu:
    text = outside.text(root / "proc/cpuinfo")
    blocks = [dict(re.findall(r"^([^\t:\n]+?)[ \t]*:[ \t]*(.*)$", block, re.MULTILINE)) for block in text.split("\n\n")]
    processors = [block for block in blocks if "processor" in block]
    sockets, cores = _topology(root, processors)
    folder = root / "sys/devices/system"
    governors = {outside.text(path) for path in folder.glob("cpu/cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    return Cpu(
        model=_model(processors[0] if processors else {}),
        sockets=sockets,
        cores=cores,
        threads=len(processors),
        usable=len(os.sched_getaffinity(0)),
        quota=cgroup.cpu_quota(root),
        governors=tuple(sorted(governors)),
        numa_nodes=len(numa.with_processors(root)) or 1,
    )


def _topology(root: Path, processors: list[dict[str, str]]) -> tuple[int, int]:
    """Sockets and cores. /proc tells them of x86 alone, so that all threads of another were cores of one socket."""
    folders = [root / f"sys/devices/system/cpu/cpu{block['processor']}/topology" for block in processors]
    # of a container that has been given some processors, /proc may count those alone, and /sys the host's
    told = [[block.get("physical id", ""), block.get("core id", "")] for block in processors]
    if not all(map(all, told)):
        names = ("physical_package_id", "thread_siblings_list")
        told = [[outside.text(each / name) for name in names] for each in folders]
    if not all(map(all, told)):
        told = [["0", block["processor"]] for block in processors]
    return len({package for package, _ in told}), len({(package, core) for package, core in told})


def _model(block: dict[str, str]) -> str:
    if "model name" in block:
        return re.sub(r"\s+", " ", block["model name"])
    if "CPU implementer" in block:
        known = ARM_CORES.get((block["CPU implementer"], block.get("CPU part", "")))
        return known or f"{platform.machine()} implementer {block['CPU implementer']} part {block.get('CPU part', '?')}"
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
