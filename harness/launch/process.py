"""A trial as a process of this machine."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psutil

from harness.config import ROOT
from harness.launch import stacks
from harness.launch.reaper import Reaper, end, family
from harness.launch.record import Order

Command = Callable[[Order], list[str]]


class LocalLauncher:
    """Starts each trial as a fresh process in a session of its own, so that a Ctrl-C reaches it by us alone."""

    where = "local"

    def __init__(self, command: Command, environment: Mapping[str, str], reaper: Reaper) -> None:
        self._command, self._environment, self._reaper = command, environment, reaper

    def facts(self) -> dict[str, str]:
        """For the ledger."""
        return {"where": self.where}

    def start(self, order: Order) -> LocalProcess:
        """The trial, running. OSError when its program cannot be started."""
        command = self._command(order)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**self._environment, **order.environment},
            cwd=ROOT,
            start_new_session=True,
        )
        self._reaper.watch_process(process.pid)
        return LocalProcess(process, command)


class LocalProcess:
    """One trial; see watchdog.Running."""

    def __init__(self, process: subprocess.Popen[str], command: list[str]) -> None:
        self._process, self._command = process, command
        self._head = psutil.Process(process.pid)  # lives, or is a zombie that only we can reap
        self._family: list[psutil.Process] = []

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
        return stacks.told(stacks.ask(each.pid for each in family(self._head)))

    def terminate(self) -> None:
        self._family = family(self._head)
        self._process.terminate()

    def kill(self) -> None:
        end([*self._family, *family(self._head)])

    def why(self) -> str:
        return ""

    def facts(self) -> dict[str, Any]:
        """For the record."""
        return {"process": {"id": self._process.pid, "command": shlex.join(self._command)}}

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
            self._process.wait()
