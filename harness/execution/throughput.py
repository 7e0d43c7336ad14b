"""Images per second between points at which the device was synchronised: what was trained, over the time that passed.

Rates are taken from the Intervals that training itself yields; nothing is timed beside it. Host clock: monotonic.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.contract import Interval

STARVED = "data_starved"
FOR_OTHERS = "all_reduce_wait"


@dataclass(frozen=True)
class Rate:
    """Of one interval or one epoch."""

    images: int
    seconds: float
    phases: Mapping[str, float]  # seconds of each, of this rank: see harness.contract.Interval

    @property
    def images_per_s(self) -> float:
        return self.images / self.seconds

    @property
    def data_wait_share(self) -> float:
        """Share of the time that the device had nothing to do for lack of a batch, 0 to 1."""
        return min(1.0, self.phases[STARVED] / self.seconds)

    @property
    def own_seconds(self) -> float:
        """Without what this rank waited for the others."""
        return max(0.0, self.seconds - self.phases.get(FOR_OTHERS, 0.0))


@dataclass
class EpochClock:
    """Runs from the start of an epoch; `interval` is called as each one is yielded."""

    started: float = field(default_factory=time.perf_counter)
    last: float = field(init=False)
    images: int = 0
    phases: dict[str, float] = field(default_factory=lambda: {STARVED: 0.0})

    def __post_init__(self) -> None:
        self.last = self.started

    def interval(self, interval: Interval) -> Rate:
        """What the interval that ended now means; call it at once, while the device is synchronised."""
        now = time.perf_counter()
        rate = Rate(interval.images, now - self.last, interval.phases)
        self.last = now
        self.images += interval.images
        for name, seconds in interval.phases.items():
            self.phases[name] = self.phases.get(name, 0.0) + seconds
        return rate

    def epoch(self) -> Rate:
        """Of all intervals so far."""
        return Rate(self.images, self.last - self.started, self.phases)
