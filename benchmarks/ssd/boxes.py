"""Default boxes, and the only conversions between box formats.

Two formats exist outside this file: `ltrb`, corners as fractions of the image, and `xywh_px`, COCO's corner and size in
the image's own pixels. `cxcywh`, centre and size as fractions, is the default boxes' own and what offsets are taken from.
Follows the MLPerf Training reference's definition (ssd, v0.7): centres on the map's grid, all four numbers clamped to
[0, 1], order map, then shape, then row, then column. What else is clamped in the field is a choice: torchvision's SSD clamps
width and height alone, the SSD paper's own code nothing.

Shapes: A default boxes (8,732 at 300 px), B images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.ssd.geometry import Clamped

SCALE_XY = 0.1  # the reference's "variances": an offset is divided by them
SCALE_WH = 0.2


def default_boxes(
    image_px: int,
    feature_sizes: Sequence[int],
    steps_px: Sequence[float],
    scales_px: Sequence[float],
    aspect_ratios: Sequence[Sequence[float]],
    *,
    clamped: Clamped = "all",
) -> Tensor:
    """(A, 4) float32 cxcywh, of which `clamped` lie in [0, 1].

    `scales_px` has one entry more than there are maps: each map's second square lies between its scale and the next.
    """
    boxes: list[tuple[float, float, float, float]] = []
    for k, (size, step, ratios) in enumerate(zip(feature_sizes, steps_px, aspect_ratios, strict=True)):
        small, large = scales_px[k] / image_px, scales_px[k + 1] / image_px
        between = math.sqrt(small * large)
        shapes = [(small, small), (between, between)]
        for ratio in ratios:
            long, short = small * math.sqrt(ratio), small / math.sqrt(ratio)
            shapes += [(long, short), (short, long)]
        centres = [(i + 0.5) * step / image_px for i in range(size)]
        boxes += [(cx, cy, w, h) for w, h in shapes for cy in centres for cx in centres]
    found = torch.tensor(boxes, dtype=torch.float32)
    if clamped != "none":
        found[:, {"all": slice(0, 4), "sizes": slice(2, 4)}[clamped]].clamp_(0.0, 1.0)
    return found


def cxcywh_to_ltrb(boxes: Tensor) -> Tensor:
    """(..., 4) to (..., 4). Not clamped: a default box at the rim reaches beyond the image."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def encode(ltrb: Tensor, default_boxes_cxcywh: Tensor) -> Tensor:
    """The offsets that `decode` would turn into (..., A, 4) ltrb, of boxes with an area, against (A, 4) default boxes."""
    centre, size = (ltrb[..., :2] + ltrb[..., 2:]) / 2, ltrb[..., 2:] - ltrb[..., :2]
    shift = (centre - default_boxes_cxcywh[:, :2]) / default_boxes_cxcywh[:, 2:]
    return torch.cat([shift / SCALE_XY, (size / default_boxes_cxcywh[:, 2:]).log() / SCALE_WH], dim=-1)


def decode(offsets: Tensor, default_boxes_cxcywh: Tensor) -> Tensor:
    """The network's (..., A, 4) offsets against (A, 4) default boxes, as (..., A, 4) ltrb, not clipped."""
    centre = offsets[..., :2] * (SCALE_XY * default_boxes_cxcywh[:, 2:]) + default_boxes_cxcywh[:, :2]
    half = torch.exp(SCALE_WH * offsets[..., 2:]) * (default_boxes_cxcywh[:, 2:] / 2)
    return torch.cat([centre - half, centre + half], dim=-1)
