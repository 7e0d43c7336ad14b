"""What else used the machine while something was timed: its load, other processes on processors and accelerators."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import psutil

from harness.contract import Plain
from harness.system import accelerator

SHARE = 0.02  # of one processor, below which a process is no neighbour
MOST = 5  # named

Seen = dict[tuple[int, float], tuple[str, float]]  # (pid, when it began) -> name, processor seconds so far


class Neighbours:
    """Watches from its making to `seen`. `ours` says which processes are not others'."""

    def __init__(self, ours: Callable[[psutil.Process], bool], *, accelerators: bool = True) -> None:
        self._ours = ours
        self._began = time.monotonic()
        self._before = _processor_time()
        self._load = os.getloadavg()[0]
        # before a trial begins: all that is there is another's
        self._on_accelerators = _on_accelerators() if accelerators else []

    def seen(self) -> dict[str, Any]:
        """For the record. A process that came and went in between is in the load alone."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        grown = []
        for key, (name, used) in _processor_time().items():
            share = (used - self._before.get(key, (name, 0.0))[1]) / seconds
            if share >= SHARE and key[0] != os.getpid() and not self._is_ours(key[0]):
                grown.append({"process": key[0], "name": name, "processors": round(share, 2)})
        grown.sort(key=lambda each: -float(str(each["processors"])))
        return {
            "load_before": round(self._load, 2),
            "load_after": round(os.getloadavg()[0], 2),
            "other_processes": grown[:MOST],
            "more_processes": max(0, len(grown) - MOST),
            "on_accelerators_before": self._on_accelerators,
        }

    def _is_ours(self, pid: int) -> bool:
        try:
            return self._ours(psutil.Process(pid))
        except psutil.NoSuchProcess:
            return False


def _on_accelerators() -> list[Plain]:
    """Other processes on the devices, as far as their driver tells."""
    devices = [each for found in accelerator.look(accelerator.Surroundings()) for each in found.details()]
    return [
        {"device": index, "processes": there} for index, each in enumerate(devices) if (there := each.get("processes"))
    ]


def _processor_time() -> Seen:
    found: Seen = {}
    for process in psutil.process_iter(["name", "cpu_times", "create_time"]):
        times = process.info["cpu_times"]
        if times is not None:
            found[process.pid, process.info["create_time"]] = (process.info["name"] or "?", times.user + times.system)
    return found
