"""Axes of pictures, in the units of an SVG viewBox: where a value stands, and round figures to read it by."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

TICKS = 5  # about so many
DRAWN = (1e-9, 1e12)  # what a chart has room for
LONG = 100_000.0  # steps from which whole numbers run into one another

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


def inside(low: float, high: float, start: float, end: float, about: int = TICKS) -> tuple[Scale, tuple[Tick, ...]]:
    """Linear from `low` at `start` to `high` at `end`, ticks between them."""
    span = _span(low, high)
    step = _step(span, about)

    def scale(value: float) -> float:
        return round(start + (value - low) / span * (end - start), 2)

    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first
    values = (step * (first + index) for index in range(count + 1))
    return scale, tuple(Tick(scale(value), _text(value, step)) for value in values)


def rounded_up(low: float, high: float, start: float, end: float) -> tuple[Scale, tuple[Tick, ...]]:
    """Linear from a round number at or below `low` at `start` to one at or above `high` at `end`, a tick at both."""
    span = _span(low, high)
    step = _step(span, TICKS)
    below = step * math.floor(low / step + 1e-9)
    above = below + step * math.ceil((low + span - below) / step - 1e-9)

    def scale(value: float) -> float:
        return start + (value - below) / (above - below) * (end - start)

    values = (below + step * index for index in range(round((above - below) / step) + 1))
    return scale, tuple(Tick(scale(value), _text(value, step)) for value in values)


def powers(values: Sequence[float], start: float, end: float, base: int) -> tuple[Scale, tuple[Tick, ...]]:
    """Logarithmic, between the whole powers of `base` around `values`, a tick at each."""
    low = math.floor(math.log(min(values), base) + 1e-9)
    high = math.ceil(math.log(max(values), base) - 1e-9)
    high = max(high, low + 1)

    def scale(value: float) -> float:
        return start + (end - start) * float((math.log(value, base) - low) / (high - low))

    ticks = [float(base) ** power for power in range(low, high + 1)]
    return scale, tuple(Tick(scale(value), _short(value)) for value in ticks)


def _span(low: float, high: float) -> float:
    """1 where there is none to speak of: the smallest numbers have no step."""
    return high - low if high - low >= DRAWN[0] else 1.0


def _step(span: float, about: int) -> float:
    """1, 2 or 5 of a power of ten, that `span` has some `about` of."""
    power = 10.0 ** math.floor(math.log10(span / about))
    return next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= about + 1)


def _text(value: float, step: float) -> str:
    if step >= LONG:
        return _short(value)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:z,.{decimals}f}"


def _short(value: float) -> str:
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:,.10g}M"
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:,g}"
