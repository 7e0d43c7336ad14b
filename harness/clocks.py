"""When a run's two clocks contradict each other: the wall clock, which somebody may set, and one that only goes on."""

from __future__ import annotations

APART_S, APART = 0.1, 0.001  # both must be exceeded: stamping takes milliseconds, drift is 0.05 % at most


def contradict(apart_s: float, monotonic_s: float) -> bool:
    """Whether they differ by more than stamping and drift do over so many seconds: somebody set one, or the machine slept."""
    return abs(apart_s) > max(APART_S, APART * abs(monotonic_s))
