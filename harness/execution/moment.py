"""A moment by both clocks, and how far they are apart since: the wall clock stamps the log, and somebody may set it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from harness import clocks


@dataclass(frozen=True)
class Moment:
    """By the wall clock, which somebody may set, and by one that only goes on, except for when the machine sleeps."""

    wall_s: float = field(default_factory=time.time)
    steady_s: float = field(default_factory=time.perf_counter)

    @classmethod
    def fresh(cls) -> Moment:
        """One after which this process goes on for some milliseconds, so that a stamp may come right behind it."""
        clocks.begin_a_time_slice()
        return cls()

    @property
    def seconds(self) -> float:
        """Since then."""
        return time.perf_counter() - self.steady_s

    @property
    def wall_ahead_s(self) -> float:
        """By how much more the wall clock has gone on since then: 0 unless the two contradict each other."""
        # the nearest of three looks: this process may have had to wait between its two clocks
        ahead_s = min((time.time() - self.wall_s - self.seconds for _ in range(3)), key=abs)
        return ahead_s if clocks.contradict(ahead_s, self.seconds) else 0.0


@dataclass
class WallClock:
    """The clock that stamps a log, looked at with each line: one that is set and set right again shows nothing at the end."""

    since: Moment
    ahead_s: float = 0.0  # Moment's, the farthest of all looks so far

    def look(self) -> float:
        """Once more; the farthest so far."""
        self.ahead_s = max(self.ahead_s, self.since.wall_ahead_s, key=abs)
        return self.ahead_s
