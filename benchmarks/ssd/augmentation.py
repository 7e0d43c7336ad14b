"""What training does to a picture, as draws and as maths: the definition that the data path without DALI is made of.

The same distribution as DALI's graph draws from: the SSD paper's zoom out where it is asked for, a window as in the paper
(as MLPerf v0.7 reads it, one try of each option, or as the paper's own code does), a flip, and a colour change that is linear
in RGB: contrast about mid-grey, brightness, saturation and hue in YIQ.

Shapes: B images, S image side in px, G ground-truth boxes of an image.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.detection.data_path.pictures import WHOLE, Boxes, Picture, flipped
from benchmarks.ssd.config import Augmentation

MID_GREY = 128.0
# RGB to luma and the two chroma axes of NTSC, rounded as DALI's color_twist has them
RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])


def random_window(rng: np.random.Generator, ltrb: Boxes, augmentation: Augmentation) -> tuple[Boxes, npt.NDArray[Any]]:
    """A window (4,) ltrb, and which of the boxes (G,) stay: those whose centre lies in it.

    Options are drawn, each tried `crop_attempts` times, until one holds: the whole picture always does; another if all boxes,
    or any one, overlap its window by the option's IoU and one box stays at least.
    """
    enough = np.all if augmentation.crop_boxes == "all" else np.any
    narrowest, widest = augmentation.crop_aspect_ratio
    while True:
        option = rng.integers(len(augmentation.crop_min_iou) + 1)
        if option == 0:
            return WHOLE, np.ones(len(ltrb), dtype=bool)
        for _ in range(augmentation.crop_attempts):
            w, h = rng.uniform(*augmentation.crop_scale, size=2)
            if not narrowest <= w / h <= widest:
                continue
            left, top = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
            window = np.array([left, top, left + w, top + h], dtype=np.float32)
            centre = (ltrb[:, :2] + ltrb[:, 2:]) / 2
            inside = ((centre > window[:2]) & (centre < window[2:])).all(axis=1)
            if inside.any() and enough(_overlap(ltrb, window) >= augmentation.crop_min_iou[option - 1]):
                return window, np.asarray(inside)


def _overlap(ltrb: Boxes, window: Boxes) -> npt.NDArray[np.float32]:
    """(G,) IoU with one window."""
    sides = np.minimum(ltrb[:, 2:], window[2:]) - np.maximum(ltrb[:, :2], window[:2])
    both = sides.clip(min=0).prod(axis=1)
    areas = (ltrb[:, 2:] - ltrb[:, :2]).prod(axis=1) + (window[2:] - window[:2]).prod()
    return np.asarray(both / (areas - both))


def in_window(ltrb: Boxes, window: Boxes) -> Boxes:
    """Boxes (G, 4) as fractions of the window, cut off at its rim."""
    size = window[2:] - window[:2]
    return ((ltrb - np.tile(window[:2], 2)) / np.tile(size, 2)).clip(0, 1).astype(np.float32)


def random_colour(rng: np.random.Generator, augmentation: Augmentation) -> npt.NDArray[np.float32]:
    """(3, 4): what a pixel's levels are multiplied with, and what is then added."""
    brightness, contrast, saturation, hue_degrees = (
        rng.uniform(*getattr(augmentation, name)) for name in ("brightness", "contrast", "saturation", "hue_degrees")
    )
    return colour(brightness, contrast, saturation, hue_degrees)


def colour(brightness: float, contrast: float, saturation: float, hue_degrees: float) -> npt.NDArray[np.float32]:
    """(3, 4), see random_colour; 1, 1, 1, 0 leaves a picture as it is."""
    angle = math.radians(hue_degrees)
    cos, sin = saturation * math.cos(angle), saturation * math.sin(angle)
    chroma = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    matrix = np.linalg.inv(RGB_TO_YIQ) @ chroma @ RGB_TO_YIQ
    shift = brightness * (1 - contrast) * MID_GREY
    return np.column_stack([brightness * contrast * matrix, np.full(3, shift)]).astype(np.float32)


def coloured(pictures: Tensor, colours: Tensor) -> Tensor:
    """Pictures (B, 3, S, S) uint8 in the colours (B, 3, 4); levels 0 to 255, whole, in float32."""
    flat = torch.baddbmm(colours[:, :, 3:], colours[:, :, :3], pictures.float().flatten(2))
    return flat.view(pictures.shape).clamp_(0, 255).round_()


def random_canvas(rng: np.random.Generator, augmentation: Augmentation) -> tuple[float, Boxes]:
    """How many times the picture's sides a canvas has, and where on it the picture begins: (4,), x, y, x, y in its sides."""
    if rng.random() >= augmentation.expand_probability:
        return 1.0, np.zeros(4, dtype=np.float32)
    times = float(rng.uniform(1, augmentation.expand_most))
    return times, np.tile(rng.uniform(0, times - 1, size=2), 2).astype(np.float32)


def augmented(rng: np.random.Generator, picture: Picture, augmentation: Augmentation) -> Picture:
    """A canvas, a window on it and a flip, drawn; what they leave of the boxes. The window may reach beyond the picture."""
    times, begin = 1.0, np.zeros(4, dtype=np.float32)
    if augmentation.expand_probability:  # without it no number is drawn: an earlier version's batches are the same
        times, begin = random_canvas(rng, augmentation)
    on_canvas = (picture.ltrb + begin) / np.float32(times)
    window, inside = random_window(rng, on_canvas, augmentation)
    ltrb = in_window(on_canvas[inside], window)
    mirrored = bool(rng.random() < augmentation.flip_probability)
    return Picture(
        picture.id,
        picture.file,
        flipped(ltrb) if mirrored else ltrb,
        picture.labels[inside],
        window * np.float32(times) - begin,
        mirrored,
    )
