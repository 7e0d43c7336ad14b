"""The things in the embedded images: outline and details of each, as fields over the thing's own plane. No colours, no pixels.

A field takes u (to the right) and v (downwards), both -1 to 1 over the thing before it is turned and scaled, and is positive
inside. Outlines decide the boxes, so they are computed in float64 and use no drawing library: two machines agree on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, hypot, pi, sin
from typing import Any

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[Any]  # float64 for boxes, float32 for painting
Field = Callable[[Plane, Plane], Plane]

UPRIGHT, LEANING, ANY = 0.25, 0.6, pi  # radians that a thing may be turned to either side


@dataclass(frozen=True)
class Shape:
    """One kind of thing. `details` are drawn inside the outline, each in a tone of its own, named for the painter."""

    name: str
    category_id: int | None  # None: clutter, which no box stands for
    outline: Field
    details: tuple[tuple[str, Field], ...] = ()
    turn: float = ANY


def disc(u0: float, v0: float, radius: float) -> Field:
    return lambda u, v: radius - np.sqrt((u - u0) ** 2 + (v - v0) ** 2)


def box(u0: float, v0: float, half_width: float, half_height: float) -> Field:
    return lambda u, v: np.minimum(half_width - np.abs(u - u0), half_height - np.abs(v - v0))


def ellipse(u0: float, v0: float, half_width: float, half_height: float) -> Field:
    return lambda u, v: 1 - ((u - u0) / half_width) ** 2 - ((v - v0) / half_height) ** 2


def convex(*corners: tuple[float, float]) -> Field:
    """A convex polygon, corners clockwise as seen on the screen."""
    edges = list(zip(corners, corners[1:] + corners[:1], strict=True))

    def field(u: Plane, v: Plane) -> Plane:
        sides = [
            ((x2 - x1) * (v - y1) - (y2 - y1) * (u - x1)) / hypot(x2 - x1, y2 - y1) for (x1, y1), (x2, y2) in edges
        ]
        inside: Plane = np.minimum.reduce(sides)
        return inside

    return field


def either(*fields: Field) -> Field:
    return lambda u, v: np.maximum.reduce([field(u, v) for field in fields])


def both(*fields: Field) -> Field:
    return lambda u, v: np.minimum.reduce([field(u, v) for field in fields])


def outside(inner: Field) -> Field:
    return lambda u, v: -inner(u, v)


def radial(radius: Callable[[Plane], Plane]) -> Field:
    """The region within radius(angle)."""
    return lambda u, v: radius(np.arctan2(v, u)) - np.sqrt(u * u + v * v)


def _star(u: Plane, v: Plane) -> Plane:
    points, inner = 5, 0.45
    wedge = pi / points
    angle = np.abs((np.arctan2(u, -v) + wedge) % (2 * wedge) - wedge)  # 0 at a point, `wedge` in a notch
    r = np.sqrt(u * u + v * v)
    x, y = r * np.cos(angle), r * np.sin(angle)
    dx, dy = inner * cos(wedge) - 1, inner * sin(wedge)  # along the edge from point to notch
    inside: Plane = (dx * y - dy * (x - 1)) / hypot(dx, dy)
    return inside


def _heart(u: Plane, v: Plane) -> Plane:
    x, y = 1.18 * u, -1.15 * v + 0.12
    rest = x * x + y * y - 1
    return x * x * y * y * y - rest * rest * rest


def _wave(count: int, low: float, high: float) -> Field:
    """Petals: a radius that swings `count` times between low and high."""
    return radial(lambda angle: low + (high - low) * np.abs(np.sin(count / 2 * angle)) ** 0.7)


def _teeth(angle: Plane) -> Plane:
    radius: Plane = 0.78 + 0.2 * np.clip(0.5 + 2.5 * np.cos(8 * angle), 0, 1)
    return radius


def _pebble(angle: Plane) -> Plane:
    radius: Plane = 0.8 + 0.09 * np.cos(2 * angle + 1) + 0.06 * np.cos(3 * angle) + 0.05 * np.cos(5 * angle + 2)
    return radius


_GLINT = (("glint", either(ellipse(-0.34, -0.38, 0.2, 0.15), disc(0.38, 0.42, 0.06))),)

# Ids as awkward as a data set's may be: neither sorted, nor dense, nor from 1
CATEGORIES = (
    Shape("star", 44, _star),
    Shape("heart", 3, _heart, turn=LEANING),
    Shape("ring", 90, both(disc(0, 0, 0.98), outside(disc(0, 0, 0.5)))),
    Shape("moon", 17, both(disc(0.12, 0, 0.98), outside(disc(0.62, 0, 0.78)))),
    Shape("cross", 61, either(box(0, 0, 0.32, 0.95), box(0, 0, 0.95, 0.32))),
    Shape(
        "gear",
        8,
        both(radial(_teeth), outside(disc(0, 0, 0.3))),
        (("light", both(disc(0, 0, 0.56), outside(disc(0, 0, 0.48)))),),
    ),
    Shape(
        "drop",
        25,
        either(disc(0, 0.35, 0.62), convex((0.0, -1.0), (0.53, 0.03), (0.6, 0.35), (-0.6, 0.35), (-0.53, 0.03))),
        (("white", ellipse(-0.22, 0.3, 0.12, 0.24)),),
        LEANING,
    ),
    Shape("flower", 52, _wave(6, 0.46, 0.98), (("yolk", disc(0, 0, 0.3)),)),
    Shape(
        "fish",
        5,
        either(ellipse(-0.22, 0, 0.76, 0.5), convex((0.3, 0.0), (0.98, -0.52), (0.84, 0.0), (0.98, 0.52))),
        (
            (
                "light",
                both(
                    ellipse(-0.22, 0, 0.76, 0.5),
                    convex((-0.3, 0.5), (-0.12, 0.0), (-0.3, -0.5), (0.0, -0.5), (0.16, 0.0), (0.0, 0.5)),
                ),
            ),
            ("white", disc(-0.62, -0.12, 0.13)),
            ("dark", disc(-0.64, -0.12, 0.07)),
        ),
        LEANING,
    ),
    Shape(
        "mushroom",
        73,
        either(both(ellipse(0, 0.05, 0.95, 0.95), box(0, -0.45, 1, 0.5)), box(0, 0.45, 0.26, 0.48)),
        (
            ("cream", box(0, 0.5, 0.26, 0.45)),
            ("white", either(disc(-0.45, -0.25, 0.16), disc(0.08, -0.55, 0.18), disc(0.52, -0.22, 0.14))),
        ),
        LEANING,
    ),
    Shape(
        "house",
        36,
        either(box(0, 0.38, 0.68, 0.56), convex((0.0, -0.95), (0.95, -0.1), (-0.95, -0.1))),
        (
            ("roof", convex((0.0, -0.95), (0.95, -0.1), (-0.95, -0.1))),
            ("dark", box(-0.25, 0.6, 0.17, 0.34)),
            ("glass", box(0.3, 0.35, 0.18, 0.18)),
        ),
        UPRIGHT,
    ),
    Shape(
        "die",
        12,
        both(box(0, 0, 0.76, 0.76), disc(0, 0, 1.0)),
        (
            (
                "pips",
                either(*(disc(0.45 * x, 0.45 * y, 0.15) for x, y in ((-1, -1), (1, -1), (0, 0), (-1, 1), (1, 1)))),
            ),
        ),
    ),
    # told apart by colour alone: a pipeline that swaps channels, or looks at brightness only, loses both
    Shape("red marble", 81, disc(0, 0, 0.9), _GLINT),
    Shape("blue marble", 29, disc(0, 0, 0.9), _GLINT),
)

CLUTTER = (
    Shape("stick", None, box(0, 0, 0.98, 0.07)),
    Shape("pebble", None, radial(_pebble)),
    Shape(
        "card",
        None,
        box(0, 0, 0.62, 0.9),
        (("lines", lambda u, v: np.minimum(np.sin(24 * v) - 0.45, 0.45 - np.abs(u))),),
    ),
    Shape("shard", None, convex((-0.9, -0.6), (0.8, -0.75), (0.1, 0.85))),
)

SHAPES = {shape.name: shape for shape in CATEGORIES + CLUTTER}
