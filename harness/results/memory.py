"""A machine's memory as its kernel tells it: less what the kernel keeps for itself, which varies from start to start."""

from __future__ import annotations

from collections.abc import Iterable

APART = 0.01  # of it; no two sizes that are sold are so near, and what a kernel keeps varies by far less


def as_one(sizes: Iterable[float]) -> dict[float, float]:
    """Each size as the largest of those that are the same memory. Rounding would part two of them wherever its edge is."""
    found: dict[float, float] = {}
    last = largest = None
    for size in sorted(sizes, reverse=True):
        largest = size if last is None or largest is None or last - size > APART * last else largest
        found[size] = largest
        last = size
    return found


def same(one: float | None, other: float | None) -> bool:
    """Of two machines; of one that does not tell it, whether the other does not either."""
    if one is None or other is None:
        return one is other
    return len(set(as_one((one, other)).values())) == 1
