"""What the kernel's control groups leave this process of the machine: processors' time and memory, of either version.

A limit holds for all groups below it, so that the least from the process's own group up to the topmost that is to be seen
counts. A container may show its own group as the topmost; a job of Slurm's or a service of systemd's does not. Read from /proc
and /sys, whose texts tests replay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from harness import outside

MOUNTED = "sys/fs/cgroup"  # where nothing tells where they are
OUTSIDE = ".."  # a group outside of those that a container sees


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Processors' worth of time; None where nothing limits it."""
    found = []
    for group in _groups(root, "cpu"):
        quota, _, period = outside.text(group / "cpu.max").partition(" ")
        if not quota:  # version 1
            quota, period = outside.text(group / "cpu.cfs_quota_us"), outside.text(group / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):  # "max", -1 or none
            found.append(int(quota) / int(period))
    return min(found, default=None)


def memory_bytes(root: Path = Path("/")) -> int | None:
    """Likewise; version 1 says "none" by a number larger than any memory."""
    files = ("memory.max", "memory.limit_in_bytes")
    said = [outside.text(group / file) for group in _groups(root, "memory") for file in files]
    return min((int(each) for each in said if each.isdecimal()), default=None)


def most_processes(root: Path = Path("/")) -> int | None:
    """Processes and threads that may be there at a time; None where nothing limits it."""
    said = [outside.text(group / "pids.max") for group in _groups(root, "pids")]
    return min((int(each) for each in said if each.isdecimal()), default=None)


def memory_kills(root: Path = Path("/")) -> int | None:
    """How many processes of the own group the kernel has killed for want of memory; None where nothing tells.

    Those above count kills of other groups too, of version 2.
    """
    own = [
        group / file
        for group in _groups(root, "memory", above=False)
        for file in ("memory.events", "memory.oom_control")
    ]
    found = re.search(r"^oom_kill (\d+)$", "\n".join(map(outside.text, own)), re.MULTILINE)
    return int(found[1]) if found else None


def _groups(root: Path, controller: str, *, above: bool = True) -> Iterator[Path]:
    """Folders of the process's own group and of those above it, of version 2 and of this controller's of version 1."""
    own = dict(_own(root))
    mounts = [*_mounts(root)] or [("", MOUNTED, "/"), (controller, f"{MOUNTED}/{controller}", "/")]
    for controllers, place, top in mounts:
        if controllers and controller not in controllers.split(","):
            continue
        path = Path(own.get(controller if controllers else "", "/"))
        # a container that is told the host's paths has its own group mounted as the topmost
        below = path.relative_to(top) if path.is_relative_to(top) and OUTSIDE not in path.parts else Path()
        yield from (root / place / each for each in (below, *(below.parents if above else ())))


def _own(root: Path) -> Iterator[tuple[str, str]]:
    """Controller and path of the group; version 2's controller is "". A line is "4:cpu,cpuacct:/path"."""
    for line in outside.text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        yield from ((each, path) for each in controllers.split(","))


def _mounts(root: Path) -> Iterator[tuple[str, str, str]]:
    """Controllers ("" for version 2), where they are mounted, and which group is the topmost there."""
    for line in outside.text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            top, place = (_unescaped(each) for each in before.split(" ")[3:5])
            yield ("" if kind == "cgroup2" else options), place.lstrip("/"), top


def _unescaped(path: str) -> str:
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), path)
