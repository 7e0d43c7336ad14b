"""Images per second between points at which the device was synchronised: what was trained, over the time that passed.

Rates are taken from the Intervals that training itself yields; nothing is timed beside it. Host clock: monotonic.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from harness.contract import Interval


@dataclass(frozen=True)
class Rate:
    """Of one interval or one epoch."""

    images: int
    seconds: float
    data_wait_s: float

    @property
    def images_per_s(self) -> float:
        return self.images / self.seconds

    @property
    def data_wait_share(self) -> float:
        """Share of the time that the host spent waiting for the next batch, 0 to 1."""
        return min(1.0, self.data_wait_s / self.seconds)


@dataclass
class EpochClock:
    """Runs from the start of an epoch; `interval` is called as each one is yielded."""

    started: float = field(default_factory=time.perf_counter)
    last: float = field(init=False)
    images: int = 0
    data_wait_s: float = 0.0

    def __post_init__(self) -> None:
        self.last = self.started

    def interval(self, interval: Interval) -> Rate:
        now = time.perf_counter()
        rate = Rate(interval.images, now - self.last, interval.data_wait_s)
        self.last = now
        self.images += interval.images
        self.data_wait_s += interval.data_wait_s
        return rate

    def epoch(self) -> Rate:
        """Of all intervals so far."""
        return Rate(self.images, self.last - self.started, self.data_wait_s)
