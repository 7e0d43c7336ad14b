"""Anchors, and the offsets by which a box differs from one. Corners are in pixels of the network's input here, `ltrb_px`.

As the MLPerf reference (single_stage_detector, v2.0) has them, which is torchvision's RetinaNet: of each map three sizes a
third of an octave apart, cut to whole pixels, in each aspect ratio, their corners rounded; around the corner of each cell,
not its centre; a map's cells lie so many whole pixels apart as fit (114 at P7 of 800 px, which has 7). Order: map, row,
column, ratio, size.

Shapes: A anchors (120,087 at 800 px).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

STRIDES = (8, 16, 32, 64, 128)  # of P3 to P7, by convolutions of stride 2 that round up
SIZES = 3  # of each map
MOST_GROWTH = math.log(1000 / 16)  # of a side against its anchor's, that exp() is asked for


def map_sides(image_px: int, maps: int) -> list[int]:
    """Side of each map in cells, P3's first."""
    return [-(-image_px // stride) for stride in STRIDES[:maps]]


def anchors(image_px: int, anchor_px: Sequence[int], aspect_ratios: Sequence[float]) -> Tensor:
    """(A, 4) float32 ltrb_px, not cut off at the image's rim."""
    found = []
    for side, smallest in zip(map_sides(image_px, len(anchor_px)), anchor_px, strict=True):
        sizes = torch.tensor([float(int(smallest * 2 ** (third / SIZES))) for third in range(SIZES)])
        tall = torch.tensor([float(ratio) for ratio in aspect_ratios]).sqrt()
        w, h = (1 / tall)[:, None] * sizes, tall[:, None] * sizes  # (ratios, sizes)
        around = (torch.stack([-w, -h, w, h], dim=-1).flatten(0, 1) / 2).round()
        at = torch.arange(side) * (image_px // side)
        y, x = torch.meshgrid(at, at, indexing="ij")
        corner = torch.stack([x, y, x, y], dim=-1).flatten(0, 1)  # (cells, 4)
        found.append((corner[:, None] + around).flatten(0, 1))
    return torch.cat(found)


def encode(ltrb_px: Tensor, anchors_px: Tensor) -> Tensor:
    """The offsets that `decode` would turn into (..., A, 4) ltrb_px, of boxes with an area, against (A, 4) anchors."""
    centre, size = (ltrb_px[..., :2] + ltrb_px[..., 2:]) / 2, ltrb_px[..., 2:] - ltrb_px[..., :2]
    own_centre, own_size = (anchors_px[:, :2] + anchors_px[:, 2:]) / 2, anchors_px[:, 2:] - anchors_px[:, :2]
    return torch.cat([(centre - own_centre) / own_size, (size / own_size).log()], dim=-1)


def decode(offsets: Tensor, anchors_px: Tensor) -> Tensor:
    """The network's (..., A, 4) offsets against (A, 4) anchors, as (..., A, 4) ltrb_px, not clipped."""
    own_centre, own_size = (anchors_px[:, :2] + anchors_px[:, 2:]) / 2, anchors_px[:, 2:] - anchors_px[:, :2]
    centre = offsets[..., :2] * own_size + own_centre
    half = offsets[..., 2:].clamp(max=MOST_GROWTH).exp() * own_size / 2
    return torch.cat([centre - half, centre + half], dim=-1)
