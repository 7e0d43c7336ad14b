"""A trial as a process of this machine."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from harness import ROOT
from harness.launch import caches, killed, leftovers, stacks
from harness.launch.leftovers import TrialMark
from harness.launch.reaper import GRACE_S, Reaper
from harness.launch.trial import Order

Command = Callable[[Order], list[str]]


class LocalLauncher:
    """Starts each trial as a fresh process in a session of its own, so that a Ctrl-C reaches it by us alone."""

    where, here = "local", True

    def __init__(self, command: Command, environment: Mapping[str, str], reaper: Reaper, series: str) -> None:
        self._command, self._environment, self._reaper, self._series = command, environment, reaper, series

    def facts(self) -> dict[str, str]:
        """For the ledger."""
        return {"where": self.where}

    def clear(self, folder: Path) -> list[str]:
        """End what earlier trials have left running. Says what."""
        return leftovers.remove(self._series, folder, GRACE_S)

    def ready(self, order: Order) -> None:
        """Nothing: this machine is there."""

    def drop_caches(self) -> caches.Dropped:
        """This machine's."""
        return caches.drop()

    def start(self, order: Order) -> LocalProcess:
        """The trial, running. OSError when its program cannot be started."""
        mark = TrialMark(self._series, order.number, os.getpid(), order.folder)
        self._reaper.watch_processes(self._series)
        command, kills = self._command(order), killed.MemoryKills()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={
                **self._environment,
                **order.environment,
                leftovers.VARIABLE: str(mark),
                "HARNESS_PARENT": str(os.getpid()),
            },
            cwd=ROOT,
            start_new_session=True,
        )
        return LocalProcess(process, command, mark, kills)


class LocalProcess:
    """One trial; see watchdog.Running. It is all the processes that bear its mark."""

    def __init__(
        self, process: subprocess.Popen[str], command: list[str], mark: TrialMark, kills: killed.MemoryKills
    ) -> None:
        self._process, self._command, self._mark, self._kills = process, command, mark, kills
        self._outlived = 0
        self._ours = False  # whether it was we who killed it

    def lines(self) -> Iterator[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield line.rstrip("\n")

    def poll(self) -> int | None:
        code = self._process.poll()
        if code is None:
            return None
        return 128 - code if code < 0 else code

    def ask_for_stacks(self) -> str:
        return stacks.told(stacks.ask(each.pid for each in self._everyone()))

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._ours = True
        leftovers.stop(self._everyone, 0)

    def why(self) -> str:
        reasons = (
            (self._outlived, f"{self._outlived} of its processes outlived it and were ended"),
            (self.poll() == killed.CODE and not self._ours, self._kills.why()),
        )
        return "; ".join(text for true, text in reasons if true)

    def owns(self, process: psutil.Process) -> bool:
        return TrialMark.of(process) == self._mark

    def facts(self) -> dict[str, Any]:
        """For the record."""
        return {"process": {"id": self._process.pid, "command": shlex.join(self._command)}}

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
            self._process.wait()
        self._outlived += len(leftovers.stop(self._everyone, GRACE_S))

    def _everyone(self) -> list[psutil.Process]:
        return leftovers.marked(lambda mark: mark == self._mark)
