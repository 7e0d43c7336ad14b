"""With how many threads of a processor PyTorch computes: as configured, or as many as this machine trains fastest with now.

Threads that wait for each other after each operator wait for the slowest: with another busy process on two cores a step of two
threads took four times as long as one of a single thread (4.6 against 18.5 images/s); on quiet cores two are the faster.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Below this gain fewer threads are not worth it, and noise could decide
WORTHWHILE_GAIN = 1.05
# So much slower than the best, and fewer still will not be faster: the search ends
HOPELESS = 1.3
LONG_S = 2.0  # of a step: one is enough to go by


def fastest(
    step: Callable[[int], None], usable: int, agreed: Callable[[Any], Any], repeats: int = 3
) -> tuple[int, dict[int, float]]:
    """The number of threads with which `step` runs fastest, and the median seconds of each that was tried.

    From all that are usable to ever fewer halves. Fewer are taken only where one more turn of both says so too: a burst of
    other work that was over by then slowed those alone that came first. `step` trains one batch with so many threads; ranks
    wait for each other's gradients, and so it is called equally often on all of them: `agreed` gives every rank what rank 0
    says.
    """
    samples: dict[int, list[float]] = {}
    count = agreed(usable)
    while True:
        first = _timed(step, count)  # memory, threads
        samples[count] = [_timed(step, count) for _ in range(1 if agreed(first) > LONG_S else repeats)]
        seconds = _medians(samples)
        hopeful = seconds[count] < HOPELESS * min(seconds.values())
        if count == 1 or not agreed(hopeful):
            break
        count //= 2
    most, *fewer = seconds
    best = min(fewer, key=lambda each: seconds[each], default=most)
    best = agreed(best if seconds[best] * WORTHWHILE_GAIN < seconds[most] else most)
    if best != most:
        again = {each: _timed(step, each) for each in (most, best)}
        for each, spent in again.items():
            samples[each].append(spent)
        best = agreed(best if again[best] * WORTHWHILE_GAIN < again[most] else most)
    return best, _medians(samples)


def _medians(samples: Mapping[int, Sequence[float]]) -> dict[int, float]:
    return {count: statistics.median(spent) for count, spent in samples.items()}


def _timed(step: Callable[[int], None], threads: int) -> float:
    start = time.perf_counter()
    step(threads)
    return time.perf_counter() - start
