"""Which ground-truth box each default box stands for, and the offsets between the two.

As the MLPerf Training reference (ssd, v0.7) has it: a default box takes the ground-truth box that it overlaps most, if their
IoU exceeds 0.5; besides, each ground-truth box keeps the default box that overlaps it most, and the later one where two want
the same. DALI's operator does the same inside its graph; this is for the data path without DALI.

Except for ties. A small box lies wholly in several default boxes of one size and has the same IoU with each: the reference and
this take the first of them, DALI the last, and likewise of two ground-truth boxes that overlap a default box alike. Of coco256,
254 photographs with 1,827 boxes, 457 of which have such ties, that moves 345 of 7,085 positives to another default box (694
labels of 2,217,928; tests/ssd/test_matching.py).

Shapes: B images, G ground-truth boxes of an image, A default boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.detection.overlap import in_parts, overlaps
from benchmarks.ssd.boxes import cxcywh_to_ltrb, encode

MATCH_IOU = 0.5


def match(ltrb: Tensor, labels: Tensor, default_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (B, A) int32 and offsets (B, A, 4) for ground truth (B, G, 4) with labels (B, G), 0 where there is none.

    `default_boxes` are (A, 4) cxcywh. What is matched with nothing has label 0 and offsets 0.
    """
    return in_parts(_match, ltrb, labels, default_boxes)


def _match(ltrb: Tensor, labels: Tensor, default_boxes: Tensor) -> tuple[Tensor, Tensor]:
    there = labels > 0  # (B, G)
    iou = overlaps(ltrb, cxcywh_to_ltrb(default_boxes)).masked_fill(~there[..., None], -1.0)  # (B, G, A)
    best, which = iou.max(dim=1)  # (B, A)
    own = torch.where(there, iou.argmax(dim=2), len(default_boxes))  # (B, G); beyond the last: nobody's
    numbers = torch.arange(labels.shape[1], device=labels.device).expand_as(own)
    kept = torch.full((len(labels), len(default_boxes) + 1), -1, device=labels.device)
    kept = kept.scatter_reduce(1, own, numbers, "amax")[:, :-1]  # (B, A): whose own default box it is, -1 nobody's
    which = torch.where(kept >= 0, kept, which)
    positive = (best > MATCH_IOU) | (kept >= 0)
    found = torch.where(positive, labels.gather(1, which), 0).to(torch.int32)
    offsets = encode(ltrb.gather(1, which[..., None].expand(-1, -1, 4)), default_boxes)
    return found, torch.where(positive[..., None], offsets, 0.0)
