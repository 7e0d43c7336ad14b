"""How much boxes overlap: intersection over union of corners, in whatever unit.

Shapes: G and A boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """IoU of every pair: (..., G, 4) and (A, 4) ltrb to (..., G, A)."""
    # coordinate by coordinate, along A: a last axis of two would leave a CPU's vector units idle
    left, top, right, bottom = one[..., None].unbind(-2)  # (..., G, 1)
    left_a, top_a, right_a, bottom_a = other.t().contiguous().unbind()  # (A,)
    both = (torch.minimum(right, right_a) - torch.maximum(left, left_a)).clamp_(min=0)
    both *= (torch.minimum(bottom, bottom_a) - torch.maximum(top, top_a)).clamp_(min=0)
    areas = (right - left) * (bottom - top), (right_a - left_a) * (bottom_a - top_a)
    return both / (areas[0] + areas[1] - both)
