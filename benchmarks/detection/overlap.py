"""How much boxes overlap: intersection over union of corners, in whatever unit; and matching by it, some images at a time.

Shapes: B images, G and A boxes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PAIRS_AT_ONCE = 2**25  # of a ground-truth box and an anchor: 128 MiB in float32


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """IoU of every pair: (..., G, 4) and (A, 4) ltrb to (..., G, A)."""
    # coordinate by coordinate, along A: a last axis of two would leave a CPU's vector units idle
    left, top, right, bottom = one[..., None].unbind(-2)  # (..., G, 1)
    left_a, top_a, right_a, bottom_a = other.t().contiguous().unbind()  # (A,)
    both = (torch.minimum(right, right_a) - torch.maximum(left, left_a)).clamp_(min=0)
    both *= (torch.minimum(bottom, bottom_a) - torch.maximum(top, top_a)).clamp_(min=0)
    areas = (right - left) * (bottom - top), (right_a - left_a) * (bottom_a - top_a)
    return both / (areas[0] + areas[1] - both)


def in_parts(
    match: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]], ltrb: Tensor, labels: Tensor, anchors: Tensor
) -> tuple[Tensor, Tensor]:
    """What `match` finds for ground truth (B, G, 4) with labels (B, G) and anchors (A, 4), at most PAIRS_AT_ONCE at a time."""
    at_once = max(1, PAIRS_AT_ONCE // (labels.shape[1] * len(anchors)))
    parts = [match(*part, anchors) for part in zip(ltrb.split(at_once), labels.split(at_once), strict=True)]
    found_labels, offsets = (torch.cat(part) for part in zip(*parts, strict=True))
    return found_labels, offsets
