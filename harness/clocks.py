"""When a run's two clocks contradict each other: the wall clock, which somebody may set, and one that only goes on. And a clock
for whoever waits with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable

MLPERF_S = 1_483_228_800  # 2017: MLPerf began in 2018
FRESH_S = 0.001  # long enough to be off the processor
AT_ONCE = 0.25  # of a limit: as much of it as one gap between two looks may use up
APART_S, APART = 0.1, 0.001  # both must be exceeded: stamping takes milliseconds, drift is 0.05 % at most


class Awake:
    """Seconds in which the one that waits for at most `limit_s` has run itself; it looks time and again.

    Who was stopped or frozen, as a rule together with what it waits for, finds every limit of time passed when it wakes. Of a
    gap between two looks no more than a part of the limit counts. Not fixed seconds: a look may ask a cluster, which answers
    after some.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] | None = None) -> None:
        self._clock, self._most_s = clock or time.monotonic, AT_ONCE * limit_s
        self._seconds, self._looked_s = 0.0, self._clock()

    def __call__(self) -> float:
        before_s, self._looked_s = self._looked_s, self._clock()
        self._seconds += min(self._most_s, self._looked_s - before_s)
        return self._seconds


def contradict(apart_s: float, monotonic_s: float) -> bool:
    """Whether they differ by more than stamping and drift do over so many seconds: somebody set one, or the machine slept."""
    return abs(apart_s) > max(APART_S, APART * abs(monotonic_s))


def before_mlperf(stamp_s: float) -> bool:
    """Whether a stamp is of no date on which MLPerf had rules: of a clock that nobody set, or in no milliseconds since 1970."""
    return stamp_s < MLPERF_S


def begin_a_time_slice() -> None:
    """Before two looks at clocks that must be one moment: a process that has just slept is not made to wait between them.

    One that computed until then was, on two processors with twelve busy processes: by over 50 ms in 2 of 2,573 pairs, by 392 ms
    in the worst, which reads as a clock that was set; after sleeping, by at most 4 ms in 1,800. A run is a millisecond longer
    for it. A container whose share of the processors is used up waits all the same.
    """
    time.sleep(FRESH_S)
