"""Dropping the kernel's page cache before a trial, so that none reads from memory what the one before it read from disk."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

CONTROL = Path("/proc/sys/vm/drop_caches")
BY_SUDO = ("sudo", "-n", "/sbin/sysctl", "-q", "vm.drop_caches=3")


@dataclass(frozen=True)
class Dropped:
    """Whether it happened, and if not, why."""

    cleared: bool
    why_not: str = ""


def drop(control: Path = CONTROL, by_sudo: tuple[str, ...] = BY_SUDO) -> Dropped:
    """Write dirty pages back and drop the page cache, if this user may: as root, or by a sudo that asks for no password."""
    os.sync()
    try:
        control.write_text("3\n", encoding="ascii")
        return Dropped(True)
    except OSError as error:
        as_user = f"{control}: {error.strerror}"
    try:
        done = subprocess.run(by_sudo, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Dropped(False, f"{as_user}; sudo: {error}")
    if done.returncode == 0:
        return Dropped(True)
    return Dropped(False, f"{as_user}; {' '.join(by_sudo)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
