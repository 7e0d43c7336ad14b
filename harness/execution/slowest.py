"""Which rank of a run is the slowest: each one's own time for a step, without its waiting for the others, once an epoch.

Ranks leave every step together, so that their steps take equally long by the clock; the one that all wait for waits least.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.contract import Plain

STANDS_OUT = 1.1  # times the median; less is said in the log alone


@dataclass(frozen=True)
class Compared:
    """Of one epoch."""

    step_ms: tuple[float, ...]  # by rank
    hosts: tuple[str, ...]  # by rank

    @property
    def rank(self) -> int:
        """The slowest."""
        return max(range(len(self.step_ms)), key=self.step_ms.__getitem__)

    @property
    def median_ms(self) -> float:
        return statistics.median_low(self.step_ms)

    @property
    def stands_out(self) -> bool:
        return self.step_ms[self.rank] > STANDS_OUT * self.median_ms

    @property
    def logged(self) -> dict[str, Plain]:
        return {
            "slowest": self.rank,
            "host": self.hosts[self.rank],
            "median_ms": round(self.median_ms, 3),
            "step_ms": [round(each, 3) for each in self.step_ms],
        }

    def __str__(self) -> str:
        return (
            f"rank {self.rank} on {self.hosts[self.rank]} is the slowest: {self.step_ms[self.rank]:.0f} ms a step of its own, "
            f"the median rank {self.median_ms:.0f} ms"
        )


def compared(step_ms: Sequence[float], hosts: Sequence[str]) -> Compared:
    return Compared(tuple(step_ms), tuple(hosts))
