"""The SSD loss: smooth L1 on the matched boxes, cross-entropy on them and on three hard negatives for each.

As the MLPerf Training reference computes it: sums over an image are divided by its number of matched boxes, an image without
any contributes zero but stays in the batch's mean, and everything is float32 whatever the network ran in. The SSD paper divides
by the matched boxes of the whole batch.

Shapes: B images, A default boxes, K classes with background 0.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

NEGATIVES_PER_POSITIVE = 3


def detection_loss(
    logits: Tensor,
    offsets: Tensor,
    target_labels: Tensor,
    target_offsets: Tensor,
    *,
    over: Literal["image", "batch"] = "image",
) -> Tensor:
    """A scalar. `over` the image: its sum by its own matched boxes, then the mean of the batch; over the batch: all by all.

    logits (B, A, K), offsets (B, A, 4), target_labels (B, A) integers with 0 for background, target_offsets (B, A, 4).
    """
    positive = target_labels > 0  # (B, A)
    positives = positive.sum(dim=1)  # (B,)

    wide = torch.promote_types(logits.dtype, torch.float32)  # of halves; float64 stays what it is
    box = F.smooth_l1_loss(offsets.to(wide), target_offsets, reduction="none").sum(dim=2)  # (B, A)
    cross_entropy = F.cross_entropy(logits.to(wide).flatten(0, 1), target_labels.flatten().long(), reduction="none")
    cross_entropy = cross_entropy.view_as(target_labels)  # (B, A)

    counted = positive | _hard_negatives(cross_entropy.detach(), positive, positives)
    per_image = torch.where(positive, box, 0.0).sum(dim=1) + torch.where(counted, cross_entropy, 0.0).sum(dim=1)
    if over == "batch":
        return per_image.sum() / positives.sum().clamp(min=1)
    return (per_image / positives.clamp(min=1)).where(positives > 0, 0.0).mean()


def _hard_negatives(cross_entropy: Tensor, positive: Tensor, positives: Tensor) -> Tensor:
    """(B, A) mask of the default boxes among each image's 3P largest losses, matched ones counted as lossless."""
    order = cross_entropy.masked_fill(positive, 0.0).argsort(dim=1, descending=True)
    among_hardest = torch.arange(order.shape[1], device=order.device) < NEGATIVES_PER_POSITIVE * positives[:, None]
    return torch.zeros_like(positive).scatter_(1, order, among_hardest)
