"""A scene of the embedded data as a picture: background, texture, shading, shadows, light. Nothing here moves a box.

Colours are float32 RGB, 0 to 1. H, W image in px, h, w a thing's patch in px.
"""

from __future__ import annotations

import colorsys
from math import cos, sin, tau
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from benchmarks.detection.embedded.backgrounds import BACKGROUNDS, Pixels, noise
from benchmarks.detection.embedded.scene import HALVES, Item, Scene

SAMPLES = 3  # a side, in each pixel, for smooth edges
PAINT_STREAM = 7  # keeps the painter's random numbers apart from the scene's
Rng = np.random.Generator

# Each thing's own colours as ranges of hue (in turns), saturation and value
COLOURS = {
    "star": ((0.09, 0.16), (0.7, 1.0), (0.75, 1.0)),
    "heart": ((0.9, 1.0), (0.5, 0.9), (0.7, 1.0)),
    "ring": ((0.0, 1.0), (0.6, 0.95), (0.6, 1.0)),
    "moon": ((0.12, 0.17), (0.1, 0.4), (0.85, 1.0)),
    "cross": ((0.28, 0.42), (0.6, 0.95), (0.45, 0.8)),
    "gear": ((0.55, 0.65), (0.05, 0.2), (0.45, 0.75)),
    "drop": ((0.48, 0.57), (0.5, 0.9), (0.7, 1.0)),
    "flower": ((0.75, 0.92), (0.4, 0.9), (0.7, 1.0)),
    "fish": ((0.03, 0.09), (0.75, 1.0), (0.75, 1.0)),
    "mushroom": ((0.98, 1.07), (0.6, 0.9), (0.45, 0.8)),
    "house": ((0.0, 1.0), (0.25, 0.6), (0.65, 0.95)),
    "die": ((0.1, 0.17), (0.02, 0.15), (0.9, 1.0)),
    "red marble": ((0.985, 1.015), (0.85, 1.0), (0.65, 0.95)),
    "blue marble": ((0.6, 0.66), (0.85, 1.0), (0.65, 0.95)),
    "stick": ((0.05, 0.1), (0.3, 0.5), (0.25, 0.5)),
    "pebble": ((0.05, 0.12), (0.05, 0.3), (0.3, 0.6)),
    "card": ((0.08, 0.17), (0.05, 0.3), (0.85, 1.0)),
    "shard": ((0.0, 1.0), (0.4, 0.9), (0.4, 0.9)),
}
FIXED = {
    "white": (0.96, 0.96, 0.94),
    "glint": (1.0, 1.0, 1.0),
    "dark": (0.13, 0.1, 0.1),
    "cream": (0.93, 0.87, 0.74),
    "glass": (0.68, 0.87, 0.96),
    "yolk": (0.98, 0.8, 0.16),
    "roof": (0.6, 0.2, 0.13),
}
PLAIN = {
    "moon",
    "gear",
    "die",
    "red marble",
    "blue marble",
    "pebble",
    "stick",
    "card",
}  # without a pattern of their own


def paint(scene: Scene, seed: int) -> Image.Image:
    """The picture; a grey scene comes in one channel."""
    rng = np.random.default_rng([seed, PAINT_STREAM, HALVES.index(scene.half), scene.index])
    canvas = BACKGROUNDS[rng.integers(len(BACKGROUNDS))](rng, scene.height, scene.width)  # (H, W, 3)
    light = rng.uniform(0, tau)  # where the light comes from
    for item in scene.items:
        _paint_item(canvas, item, light, rng)
    picture = Image.fromarray(_lit(canvas, light, rng))
    return picture.convert("L") if scene.grey else picture


def _paint_item(canvas: Pixels, item: Item, light: float, rng: Rng) -> None:
    left, top, right, bottom = item.patch()
    u, v = item.plane(_samples(left, right)[None, :], _samples(top, bottom)[:, None])
    alpha = _pixels(item.shape.outline(u, v) > 0)  # (h, w)
    frame = canvas[max(top, 0) : bottom, max(left, 0) : right]  # numpy clips the far ends
    in_frame = np.s_[max(-top, 0) : max(-top, 0) + frame.shape[0], max(-left, 0) : max(-left, 0) + frame.shape[1]]

    base = _colour(item.name, frame.mean(axis=(0, 1)), rng)
    colour = np.broadcast_to(base, (*alpha.shape, 3)).copy()
    if item.name not in PLAIN:
        centre = (slice(SAMPLES // 2, None, SAMPLES),) * 2
        weight = _pattern(u[centre], v[centre], rng)[..., None]
        colour += weight * (_second(base, rng) - colour)
    for tone, detail in item.shape.details:
        weight = _pixels(detail(u, v) > 0)[..., None]
        colour += weight * (_tone(tone, base) - colour)
    colour *= _relief(alpha, item.radius, light)[..., None]

    _shade(canvas, item, alpha, light)
    weight = alpha[in_frame][..., None]
    frame += weight * (np.clip(colour[in_frame], 0, 1) - frame)


def _samples(start: int, stop: int) -> Pixels:
    return start + (np.arange((stop - start) * SAMPLES, dtype=np.float32) + 0.5) / SAMPLES


def _pixels(covered: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Share of each pixel that is covered."""
    counts: npt.NDArray[Any] = covered.view(np.uint8)
    for _ in range(2):  # strided sums are ten times faster than a mean over a reshaped array
        counts = np.add.reduce([counts[i::SAMPLES] for i in range(SAMPLES)]).T
    return counts.astype(np.float32) / np.float32(SAMPLES**2)


def _colour(name: str, behind: Pixels, rng: Rng) -> Pixels:
    """One of the thing's colours: of a few draws the one that stands out most from what lies behind it."""
    draws = []
    for _ in range(4):
        hue, saturation, value = (rng.uniform(*ends) for ends in COLOURS[name])
        draws.append(np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32))
    return max(draws, key=lambda rgb: float(np.abs(rgb - behind).sum()))


def _second(base: Pixels, rng: Rng) -> Pixels:
    """The pattern's colour: the same, much lighter or darker."""
    return base + 0.6 * (1 - base) if base.mean() < 0.5 or rng.random() < 0.4 else 0.55 * base


def _tone(tone: str, base: Pixels) -> Pixels:
    if tone in FIXED:
        return np.array(FIXED[tone], dtype=np.float32)
    if tone == "light":
        return base + 0.55 * (1 - base)
    return 0.25 * base  # pips, lines


def _pattern(u: Pixels, v: Pixels, rng: Rng) -> Pixels:
    """How much of the second colour each pixel (h, w) takes."""
    frequency = rng.uniform(7, 12)
    kind = rng.integers(6)
    if kind == 0:  # stripes
        angle = rng.uniform(0, tau)
        return 0.8 * (np.sin(frequency * (cos(angle) * u + sin(angle) * v)) > 0.2).astype(np.float32)
    if kind == 1:  # dots
        cell = 2.2 / frequency
        du, dv = (u % (2 * cell)) / cell - 1, (v % (2 * cell)) / cell - 1
        return 0.8 * (du * du + dv * dv < 0.3).astype(np.float32)
    if kind == 2:  # checks
        return 0.55 * ((np.sin(0.8 * frequency * u) > 0) ^ (np.sin(0.8 * frequency * v) > 0)).astype(np.float32)
    if kind == 3:  # fades from one side to the other
        return np.clip(0.5 + 0.5 * v, 0, 1) * 0.8
    if kind == 4:  # speckles
        height, width = u.shape
        return np.clip(noise(rng, height, width, (12, 12)) * 3 - 1.6, 0, 0.8)
    return np.zeros_like(u)


def _relief(alpha: Pixels, radius: float, light: float) -> Pixels:
    """Brightness (h, w) of something that bulges towards the viewer, lit from one side."""
    height = _blurred(alpha, radius * 0.22)
    slope_y, slope_x = np.gradient(height * radius * 0.5)
    facing = -(slope_x * cos(light) + slope_y * sin(light))
    brightness: Pixels = np.clip(0.97 + 0.75 * facing, 0.45, 1.45)
    return brightness


def _shade(canvas: Pixels, item: Item, alpha: Pixels, light: float) -> None:
    """The thing's soft shadow on whatever is there, away from the light."""
    pad = int(item.radius * 0.4) + 2
    shadow = _blurred(np.pad(alpha, pad), item.radius * 0.1 + 1)
    left, top, _, _ = item.patch()
    left += round(-cos(light) * item.radius * 0.14) - pad
    top += round(-sin(light) * item.radius * 0.14) - pad
    here = canvas[max(top, 0) : top + shadow.shape[0], max(left, 0) : left + shadow.shape[1]]
    shadow = shadow[max(-top, 0) :, max(-left, 0) :][: here.shape[0], : here.shape[1]]
    here *= 1 - 0.5 * shadow[..., None]


def _blurred(alpha: Pixels, radius: float) -> Pixels:
    picture = Image.fromarray((alpha * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(picture, dtype=np.float32) / 255


def _lit(canvas: Pixels, light: float, rng: Rng) -> npt.NDArray[np.uint8]:
    """One light over the whole picture: brighter on its side, warm or cold, well or badly exposed, with a sensor's noise."""
    height, width, _ = canvas.shape
    x, y = np.linspace(-1, 1, width, dtype=np.float32)[None, :], np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    fall_off = 1 + np.float32(rng.uniform(0.05, 0.3)) * (x * cos(light) + y * sin(light))
    warmth = rng.uniform(-0.06, 0.06)
    exposure = np.array([1 + warmth, 1, 1 - warmth], dtype=np.float32) * np.float32(rng.uniform(0.72, 1.15))
    grain = np.float32(rng.uniform(0.005, 0.025)) * rng.standard_normal((height, width, 1), dtype=np.float32)
    pixels: Any = np.clip(canvas * fall_off[..., None] * exposure + grain, 0, 1) * 255
    return np.asarray(pixels.round(), dtype=np.uint8)
