"""What is known of a process that SIGKILL ended: the kernel's counter of kills for want of memory, else what is usual."""

from __future__ import annotations

import signal

from harness.system import cgroup

CODE = 128 + signal.SIGKILL  # as a launcher has it
MOST_OFTEN = "whoever sends SIGKILL leaves no word: most often it is the kernel, for want of memory (dmesg says so)"
FOR_MEMORY = "the kernel killed it for want of memory: its control group has an out-of-memory kill more than before"


class MemoryKills:
    """Of the control group that this process and those that it starts are in, from now on."""

    def __init__(self) -> None:
        self._before = cgroup.memory_kills()

    def why(self) -> str:
        """Of one that SIGKILL ended meanwhile, which was not ours."""
        now = cgroup.memory_kills()
        return FOR_MEMORY if now is not None and self._before is not None and now > self._before else MOST_OFTEN
