"""Whether training has become much slower than the same step was in init, and what else the machine does then.

A neighbour on the same processors, a clock held down by heat, memory that is swapped: a run goes on through all of it, at a
fraction of its speed, and nobody who was not watching would know. It is said once; `data_wait_share` says how long it waits
for data, and that time does not count here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from harness.contract import Plain
from harness.execution.throughput import STARVED, Rate
from harness.system.neighbours import Neighbours

# Of init's speed. Training shares the machine with its own data path: a processor's step keeps some 80 % of it beside that
FRACTION = 0.5


class Pace:
    """Looks at each interval; two slow ones in turn are a slow run, and the second tells who was there meanwhile."""

    def __init__(self, init_images_per_s: float | None, ours: Callable[[psutil.Process], bool]) -> None:
        self._expected, self._ours = init_images_per_s, ours
        self._beside: Neighbours | None = None  # from the end of the first slow interval on

    @classmethod
    def of(cls, properties: Mapping[str, Plain], parent: int | None) -> Pace:
        """As the session tells its speed in init, if it does. `parent` started the ranks of this run."""
        told = properties.get("init_images_per_s")
        return cls(
            told if isinstance(told, float) and told > 0 else None, lambda process: _of_this_run(process, parent)
        )

    def look(self, rate: Rate) -> dict[str, Any] | None:
        """What is to be said, once in a run: None as a rule."""
        computing_s = rate.seconds - rate.phases.get(STARVED, 0.0)
        if self._expected is None or computing_s <= 0:
            return None
        images_per_s = rate.images / computing_s
        if images_per_s >= FRACTION * self._expected:
            self._beside = None
            return None
        if self._beside is None:
            self._beside = Neighbours(self._ours, accelerators=False)
            return None
        seen = self._beside.seen()
        expected, self._expected = self._expected, None
        return {
            "images_per_s": round(images_per_s, 3),
            "init_images_per_s": expected,
            "load": seen["load_after"],
            "processors": len(os.sched_getaffinity(0)),
            "other_processes": seen["other_processes"],
        }


def told(found: Mapping[str, Any]) -> str:
    """For people."""
    others = [f"{each['name']} ({each['process']}) {each['processors']:g}" for each in found["other_processes"]]
    beside = f"others use processors: {', '.join(others)}" if others else "no other process is seen to use them"
    rates = (found["images_per_s"], found["init_images_per_s"])
    slow, expected = (f"{each:,.0f}" if each >= 9_999.5 else f"{each:,.4g}" for each in rates)
    return (
        f"training has become slow: {slow} images/s, without the wait for data, where init's step made "
        f"{expected}; the load is {found['load']:g} on {found['processors']} processors, {beside}"
    )


def _of_this_run(process: psutil.Process, parent: int | None) -> bool:
    mine = {os.getpid(), parent} - {None}
    try:
        return process.pid in mine or any(each.pid in mine for each in process.parents())
    except psutil.Error:
        return False
