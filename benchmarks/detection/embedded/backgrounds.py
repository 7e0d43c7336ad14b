"""What the embedded images' things lie on: wood, grass, sand, tiles, cloth, stone, paper, lights out of focus.

Each takes (rng, height, width) in px and returns float32 RGB (H, W, 3), 0 to 1.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from math import cos, sin, tau
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[Any]  # float32
Rng = np.random.Generator


def noise(rng: Rng, height: int, width: int, bumps: tuple[int, int]) -> Pixels:
    """Smooth noise of about so many bumps down and across, 0 to 1."""
    grid = rng.random(bumps, dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def _octaves(rng: Rng, height: int, width: int, bumps: tuple[int, int], octaves: int = 4) -> Pixels:
    """Noise on noise, each octave twice as fine and half as strong; about 0 to 1."""
    total = np.zeros((height, width), dtype=np.float32)
    for octave in range(octaves):
        total += noise(rng, height, width, (bumps[0] * 2**octave, bumps[1] * 2**octave)) / 2**octave
    return total / (2 - 2.0 ** (1 - octaves))


def _hsv(rng: Rng, hue: tuple[float, float], saturation: tuple[float, float], value: tuple[float, float]) -> Pixels:
    drawn = (rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value))
    return np.array(colorsys.hsv_to_rgb(*drawn), dtype=np.float32)


def _blend(one: Pixels, other: Pixels, weight: Pixels) -> Pixels:
    blended: Pixels = one + np.clip(weight, 0, 1)[..., None] * (other - one)
    return blended


def _grid(height: int, width: int) -> tuple[Pixels, Pixels]:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return y, x


def wood(rng: Rng, height: int, width: int) -> Pixels:
    light = _hsv(rng, (0.06, 0.11), (0.35, 0.6), (0.5, 0.8))
    y, _ = _grid(height, width)
    plank = rng.uniform(38, 75)
    board = (y // plank).astype(int)
    grain = _octaves(rng, height, width, (height // 6, 3))
    tone = rng.uniform(0.85, 1.1, board.max() + 1).astype(np.float32)[board]
    made: Pixels = _blend(light, 0.6 * light, grain) * tone[..., None]
    return np.where((y % plank < 2)[..., None], 0.5 * made, made)


def grass(rng: Rng, height: int, width: int) -> Pixels:
    dark = _hsv(rng, (0.22, 0.34), (0.5, 0.75), (0.22, 0.38))
    blades = _octaves(rng, height, width, (25, 45), 3) * 1.5 - 0.3
    made = _blend(dark, dark * 1.3 + np.array([0.18, 0.2, 0.02], dtype=np.float32), blades)
    return made * (0.75 + 0.5 * noise(rng, height, width, (4, 4)))[..., None]


def sand(rng: Rng, height: int, width: int) -> Pixels:
    base = _hsv(rng, (0.08, 0.13), (0.2, 0.45), (0.65, 0.88))
    y, x = _grid(height, width)
    angle = rng.uniform(0, tau)
    ripples = np.sin((cos(angle) * x + sin(angle) * y) / rng.uniform(5, 9) + 9 * noise(rng, height, width, (4, 4)))
    grains = rng.normal(0, 0.05, (height, width)).astype(np.float32)
    made: Pixels = base * (0.95 + 0.06 * ripples + grains)[..., None]
    return made


def tiles(rng: Rng, height: int, width: int) -> Pixels:
    base = _hsv(rng, (0, 1), (0.05, 0.4), (0.5, 0.9))
    y, x = _grid(height, width)
    side = rng.uniform(34, 60)
    row, column = (y // side).astype(int), (x // side).astype(int)
    tone = rng.uniform(0.82, 1.08, (row.max() + 1, column.max() + 1)).astype(np.float32)[row, column]
    made = base * (tone * (0.92 + 0.16 * _octaves(rng, height, width, (8, 8))))[..., None]
    joint = (y % side < 2.5) | (x % side < 2.5)
    return np.where(joint[..., None], 0.65 * base + 0.1, made)


def cloth(rng: Rng, height: int, width: int) -> Pixels:
    base = _hsv(rng, (0, 1), (0.25, 0.7), (0.3, 0.75))
    y, x = _grid(height, width)
    weave = 0.05 * np.sin(x * 1.9) * np.sin(y * 1.9)
    folds = 0.7 + 0.6 * _octaves(rng, height, width, (2, 4), 2)
    made = base * (folds + weave)[..., None]
    if rng.random() < 0.5:  # a tablecloth's checks
        side = rng.uniform(24, 44)
        checks = 0.25 * ((x % (2 * side) < side).astype(np.float32) + (y % (2 * side) < side))
        made = _blend(made, np.float32(0.85) * folds[..., None] * np.ones(3, dtype=np.float32), checks)
    return made


def stone(rng: Rng, height: int, width: int) -> Pixels:
    base = _hsv(rng, (0, 1), (0.02, 0.2), (0.4, 0.85))
    veins = np.abs(_octaves(rng, height, width, (4, 5)) - 0.5) * 9
    return _blend(base * 0.68, base, veins) * (0.85 + 0.3 * _octaves(rng, height, width, (3, 3)))[..., None]


def paper(rng: Rng, height: int, width: int) -> Pixels:
    base = _hsv(rng, (0, 1), (0.05, 0.35), (0.72, 0.95))
    y, x = _grid(height, width)
    angle, step = rng.uniform(0, tau), rng.uniform(9, 22)
    stripes = ((cos(angle) * x + sin(angle) * y) % step < step * rng.uniform(0.1, 0.5)).astype(np.float32)
    return _blend(base, _hsv(rng, (0, 1), (0.2, 0.5), (0.5, 0.85)), 0.6 * stripes)


def lights(rng: Rng, height: int, width: int) -> Pixels:
    """Lamps far out of focus, behind everything."""
    dark, dim = _hsv(rng, (0, 1), (0.3, 0.7), (0.18, 0.35)), _hsv(rng, (0, 1), (0.3, 0.6), (0.35, 0.55))
    made = _blend(dark, dim, _octaves(rng, height, width, (2, 2), 2))
    for _ in range(rng.integers(10, 22)):
        radius = int(rng.integers(8, 27))
        left, top = int(rng.integers(0, width - radius)), int(rng.integers(0, height - radius))
        here = made[top : top + 2 * radius, left : left + 2 * radius]
        y, x = _grid(*here.shape[:2])
        lamp = np.clip((radius - np.hypot(x - radius, y - radius)) / 2, 0, 1)
        here += (rng.uniform(0.1, 0.3) * lamp)[..., None] * _hsv(rng, (0, 1), (0.2, 0.6), (0.7, 1))
    return np.clip(made, 0, 1)


BACKGROUNDS: tuple[Callable[[Rng, int, int], Pixels], ...] = (wood, grass, sand, tiles, cloth, stone, paper, lights)
