"""What is in each embedded image and where its boxes are: geometry and random numbers, without painting.

All that reaches the annotations is made here, from numpy's `random()` and float64 arithmetic alone, so that it does not depend
on the version of a drawing library. A box surrounds the pixels of a thing that are really seen, as COCO's do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import cos, exp, log, sin

import numpy as np
import numpy.typing as npt

from benchmarks.detection.embedded.shapes import CATEGORIES, CLUTTER, SHAPES, Plane, Shape

HALVES = ("train2017", "val2017")
FRAMES_PX = ((320, 240), (320, 240), (320, 240), (240, 320), (272, 272))  # width, height
EMPTY_EVERY, EMPTY_AT = 20, 6  # one image in so many has clutter only
GREY_IMAGE = 9  # of the training half
RADIUS_PX = (34.0, 76.0)
THINGS, CLUTTER_PIECES = (2, 4), (0, 2)  # fewest and most
LEAST_SEEN = 0.65  # of each thing, so that nobody need guess what it is
OVERLAPS = 0.4  # share of the items that may cover others
PLACEMENTS = 30  # tries for one item

Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]  # x, y, width, height in px


@dataclass(frozen=True)
class Item:
    """One thing in the picture, or a piece of clutter."""

    name: str
    centre: tuple[float, float]  # px
    radius: float  # px
    angle: float  # radians, clockwise
    stretch: float  # of the width against the height, before it is turned
    mirrored: bool

    @property
    def shape(self) -> Shape:
        return SHAPES[self.name]

    def plane(self, x: Plane, y: Plane) -> tuple[Plane, Plane]:
        """The thing's own u, v at the positions x, y in px."""
        dx, dy = (x - self.centre[0]) / self.radius, (y - self.centre[1]) / self.radius
        u = (cos(self.angle) * dx + sin(self.angle) * dy) / self.stretch
        v = (cos(self.angle) * dy - sin(self.angle) * dx) * self.stretch
        return (-u if self.mirrored else u), v

    def patch(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in px of a square beyond which nothing of it lies; it may reach over the frame."""
        reach = self.radius * 1.15 * max(self.stretch, 1 / self.stretch) + 1
        x, y = self.centre
        return int(x - reach) - 1, int(y - reach) - 1, int(x + reach) + 2, int(y + reach) + 2


@dataclass
class Scene:
    """One image before it is painted; later items lie on top of earlier ones."""

    half: str
    index: int
    width: int
    height: int
    items: list[Item] = field(default_factory=list)
    seen: list[Mask] = field(default_factory=list)  # of each item, over the frame
    whole: list[int] = field(default_factory=list)  # px of each item without anything before it and without the frame

    @property
    def grey(self) -> bool:
        return (self.half, self.index) == (HALVES[0], GREY_IMAGE)

    @property
    def image_id(self) -> int:
        """As in COCO neither dense nor shared between the halves."""
        return (7 * self.index + 9, 11 * self.index + 500_000)[HALVES.index(self.half)]

    @property
    def file_name(self) -> str:
        return f"{self.image_id:012d}.jpg"

    def boxes(self) -> list[tuple[int, Box, int]]:
        """Category id, box and seen px of each thing."""
        return [
            (item.shape.category_id, _surround(mask), int(mask.sum()))
            for item, mask in zip(self.items, self.seen, strict=True)
            if item.shape.category_id is not None
        ]


class _Draw:
    """Random numbers of one image, out of the stream that is least likely to change with numpy's version."""

    def __init__(self, *key: int) -> None:
        self.random: Callable[[], float] = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key))).random

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.random())

    def from_to(self, fewest: int, most: int) -> int:
        return fewest + self.below(most - fewest + 1)

    def below(self, count: int) -> int:
        return int(self.random() * count)


def scene(seed: int, half: str, index: int) -> Scene:
    """Image `index` of a half; the same for the same arguments."""
    draw = _Draw(seed, HALVES.index(half), index)
    made = Scene(half, index, *FRAMES_PX[draw.below(len(FRAMES_PX))])
    # grey, the two marbles could not be told apart
    kinds = tuple(shape for shape in CATEGORIES if not (made.grey and "marble" in shape.name))
    things, clutter = draw.from_to(*THINGS), draw.from_to(*CLUTTER_PIECES)
    if index % EMPTY_EVERY == EMPTY_AT:
        things, clutter = 0, clutter + 1
    while things + clutter:
        if draw.below(things + clutter) < things:
            things -= 1
            _place(made, kinds[draw.below(len(kinds))], draw)
        else:
            clutter -= 1
            _place(made, CLUTTER[draw.below(len(CLUTTER))], draw)
    return made


def _place(made: Scene, shape: Shape, draw: _Draw) -> None:
    """Put one item on top where all things stay visible; leave it out when there is no such place."""
    may_cover = draw.between(0, 1) < OVERLAPS
    for _ in range(PLACEMENTS):
        low, high = (log(r) for r in RADIUS_PX)
        radius = exp(draw.between(low, high))
        item = Item(
            shape.name,
            (
                draw.between(0.4 * radius, made.width - 0.4 * radius),
                draw.between(0.4 * radius, made.height - 0.4 * radius),
            ),
            radius,
            draw.between(-shape.turn, shape.turn),
            exp(draw.between(-0.12, 0.12)),
            draw.between(0, 1) < 0.5,
        )
        mask, whole = _mask(item, made.width, made.height)
        left_over = [seen & ~mask for seen in made.seen]
        if not all(
            other.shape.category_id is None or _enough(rest, seen, whole_px, may_cover)
            for other, rest, seen, whole_px in zip(made.items, left_over, made.seen, made.whole, strict=True)
        ):
            continue
        if shape.category_id is not None and mask.sum() < LEAST_SEEN * whole:
            continue
        made.seen = [*left_over, mask]
        made.items.append(item)
        made.whole.append(whole)
        return


def _enough(rest: Mask, seen: Mask, whole_px: int, may_cover: bool) -> bool:
    return bool(rest.sum() >= LEAST_SEEN * whole_px if may_cover else rest.sum() == seen.sum())


def _mask(item: Item, width: int, height: int) -> tuple[Mask, int]:
    """The pixels of the frame whose centre the item covers, and how many it covers without a frame."""
    left, top, right, bottom = item.patch()
    y, x = np.mgrid[top:bottom, left:right] + 0.5
    patch = item.shape.outline(*item.plane(x, y)) > 0
    mask = np.zeros((height, width), dtype=bool)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    mask[y0:y1, x0:x1] = patch[y0 - top : y1 - top, x0 - left : x1 - left]
    return mask, int(patch.sum())


def _surround(mask: Mask) -> Box:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y
