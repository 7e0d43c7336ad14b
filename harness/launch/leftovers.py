"""The processes that belong to a trial, wherever they ended up: found by a variable of their environment.

A rank has a session of its own and outlives the process that started it, so neither the process tree nor a process group holds
a trial together. What a process has been started with, all it starts has too.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness import clocks

VARIABLE = "HARNESS_TRIAL"
POLL_S = 0.1


@dataclass(frozen=True)
class TrialMark:
    """Which trial a process is of."""

    series: str
    number: int
    launcher: int  # the process that runs the series
    folder: Path

    def __str__(self) -> str:
        return f"{self.series}:{self.number}:{self.launcher}:{self.folder}"

    @classmethod
    def of(cls, process: psutil.Process) -> TrialMark | None:
        """None for a process of no trial, one that is gone, and one that is not ours to see."""
        try:
            series, number, launcher, folder = process.environ().get(VARIABLE, "").split(":", 3)
            return cls(series, int(number), int(launcher), Path(folder))
        except (ValueError, psutil.Error, OSError):
            return None


def marked(belongs: Callable[[TrialMark], bool]) -> list[psutil.Process]:
    """Every living process, except for this one, whose mark says so."""
    return [process for mark, process in _of_trials() if belongs(mark)]


def _of_trials() -> Iterator[tuple[TrialMark, psutil.Process]]:
    for process in psutil.process_iter():
        mark = TrialMark.of(process) if process.pid != os.getpid() else None
        if mark is not None and _lives(process):
            yield mark, process


def stop(processes: Callable[[], list[psutil.Process]], grace_s: float) -> list[psutil.Process]:
    """End all that `processes` finds: SIGTERM to those that none of them started, time to close their logs, then SIGKILL.

    Returns those that were there.
    """
    there = processes()
    for each in _heads(there) if grace_s else []:
        _ignoring_the_gone(each.terminate)
    awake = clocks.Awake(grace_s)
    # Looked for again and again: what was started meanwhile is found too, and an exit code stays for whoever waits for it
    while alive := processes():
        if awake() >= grace_s:
            for each in alive:
                _ignoring_the_gone(each.kill)
        time.sleep(POLL_S)
    return there


def remove(series: str, folder: Path, grace_s: float) -> list[str]:
    """End what earlier trials of this series, or series that are gone, have left running. Says what, for people.

    `folder` is the caller's own, whose ledger it holds. What the caller itself is part of is left alone.
    """
    own = TrialMark.of(psutil.Process())

    def left(mark: TrialMark, process: psutil.Process) -> bool:
        if mark == own or mark.series == series:
            return mark != own
        # a container's trial says its launcher's number, and its folder, as the container has them
        return _numbered_alike(process) and (mark.folder == folder or not _is_there(mark.launcher))

    def everything_left() -> list[psutil.Process]:
        return [process for mark, process in _of_trials() if left(mark, process)]

    return [f"process {each.pid}" for each in stop(everything_left, grace_s)]


def _numbered_alike(process: psutil.Process) -> bool:
    """Whether it is in this process's PID namespace, so that numbers mean the same to both. False where nobody can tell."""
    try:
        return Path(f"/proc/{process.pid}/ns/pid").readlink() == Path("/proc/self/ns/pid").readlink()
    except OSError:
        return False


def _is_there(number: int) -> bool:
    """Whether a process lives; one that ended, and whose end nobody has asked for, does not."""
    try:
        return _lives(psutil.Process(number))
    except psutil.NoSuchProcess:
        return False


def _heads(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    numbers = {each.pid for each in processes}
    heads = []
    for each in processes:
        try:
            if each.ppid() not in numbers:
                heads.append(each)
        except psutil.NoSuchProcess:
            continue
    return heads


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _ignoring_the_gone(action: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        action()
