"""Which ground-truth box each anchor stands for, and the offsets between the two.

As the MLPerf reference (single_stage_detector, v2.0) and torchvision's RetinaNet have it: an anchor takes the ground-truth
box that it overlaps most; from an IoU of 0.5 on it is that box's, below 0.4 it is background, between the two it counts for
nothing. Besides, for each ground-truth box the anchors that overlap it most, all that tie, are never background: each takes
the box that it itself overlaps most, which need not be that one.

Shapes: B images, G ground-truth boxes of an image, A anchors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.detection.overlap import in_parts, overlaps
from benchmarks.retinanet.anchors import encode

FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.4
IGNORED = -1


def match(ltrb_px: Tensor, labels: Tensor, anchors_px: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (B, A) int32 and offsets (B, A, 4) for ground truth (B, G, 4) with labels (B, G), 0 where there is none.

    A label is IGNORED, 0 for background, or the box's. Offsets are 0 where the label is none of a box.
    """
    return in_parts(_match, ltrb_px, labels, anchors_px)


def _match(ltrb_px: Tensor, labels: Tensor, anchors_px: Tensor) -> tuple[Tensor, Tensor]:
    there = labels > 0  # (B, G)
    iou = overlaps(ltrb_px, anchors_px).masked_fill(~there[..., None], -1.0)  # (B, G, A)
    best, which = iou.max(dim=1)  # (B, A)
    of_box = iou.amax(dim=2, keepdim=True)  # (B, G, 1)
    kept = ((iou == of_box) & there[..., None]).any(dim=1)  # (B, A)
    positive = (best >= FOREGROUND_IOU) | kept
    found = torch.where(positive, labels.gather(1, which), torch.where(best < BACKGROUND_IOU, 0, IGNORED))
    offsets = encode(ltrb_px.gather(1, which[..., None].expand(-1, -1, 4)), anchors_px)
    return found.to(torch.int32), torch.where(positive[..., None], offsets, 0.0)
