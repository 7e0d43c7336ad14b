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
    def apart_s(self) -> float:
        """By how much more the wall clock has gone on since then."""
        # the nearest of three looks: this process may have had to wait between its two clocks
        return min((time.time() - self.wall_s - self.seconds for _ in range(3)), key=abs)

    @property
    def wall_ahead_s(self) -> float:
        """Likewise: 0 unless the two contradict each other."""
        return self.if_it_contradicts(self.apart_s)

    def if_it_contradicts(self, apart_s: float) -> float:
        """`apart_s`, which was seen since then; 0 where it is no more than so many seconds as have passed by now may have."""
        return apart_s if clocks.contradict(apart_s, self.seconds) else 0.0


@dataclass
class WallClock:
    """The clock that stamps a log, looked at with each line: one that is set and set right again shows nothing at the end."""

    since: Moment
    farthest_s: float = 0.0  # apart, of all looks so far

    def look(self) -> None:
        self.farthest_s = max(self.farthest_s, self.since.apart_s, key=abs)

    @property
    def wall_ahead_s(self) -> float:
        """Moment's, of all looks: judged by the whole of the time, as the log's readers judge it."""
        self.look()
        return self.since.if_it_contradicts(self.farthest_s)
