"""Which rank of a run all others waited for, by what its log says once an epoch (harness/execution/slowest.py writes it)."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

STANDS_OUT = 1.1  # times the median rank's step: what a run says on its screen too


@dataclass(frozen=True, slots=True)
class Slowest:
    """Of one epoch."""

    rank: int
    host: str
    times: float  # its own time for a step, by the median rank's


@dataclass(frozen=True)
class SlowestRank:
    """Of a whole run: the rank that was it in most epochs."""

    rank: int
    host: str
    times: float  # the median over those epochs
    epochs: int
    of: int

    @property
    def stands_out(self) -> bool:
        return self.times > STANDS_OUT

    def __str__(self) -> str:
        often = f", in {self.epochs} of {self.of} epochs" if self.of > 1 else ""
        return f"rank {self.rank} on {self.host}, {self.times:.2f} times the median rank's step{often}"


def read(value: Any) -> Slowest | None:
    """One logged value; None for what is none."""
    if not isinstance(value, dict):
        return None
    rank, steps = value.get("slowest"), value.get("step_ms")
    if type(rank) is not int or not isinstance(steps, list) or not 0 <= rank < len(steps):
        return None
    own, median = _ms(steps[rank]), _ms(value.get("median_ms"))
    return None if own is None or median is None else Slowest(rank, str(value.get("host", "?"))[:200], own / median)


def _ms(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 < value < 1e12 else None


def of_run(epochs: Iterable[Slowest | None]) -> SlowestRank | None:
    """None for a run of one rank, and for one that does not say. The first epoch counts only where there is no other."""
    found = [each for each in epochs if each is not None]
    found = found[1:] or found
    if not found:
        return None
    (rank, host), count = collections.Counter((each.rank, each.host) for each in found).most_common(1)[0]
    times = statistics.median(each.times for each in found if (each.rank, each.host) == (rank, host))
    return SlowestRank(rank, host, times, count, len(found))
