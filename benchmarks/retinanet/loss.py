"""The RetinaNet loss: sigmoid focal loss on every anchor that counts, L1 on the offsets of those that stand for a box.

As the MLPerf reference (single_stage_detector, v2.0) computes it, alpha 0.25 and gamma 2 after the paper: sums over an
image are divided by its number of matched anchors, at least 1, and averaged over the batch; both parts count alike;
everything is float32 whatever the network ran in.

Of a row of K logits at most one has the target 1. So no targets (B, A, K) are made: every logit is taken as one of target
0, and the one in K that is not is put right afterwards. What each map gives is read where the head's convolution left it:
at 800 px a copy of all maps' logits in one tensor would be 2 GB for 32 images.

Shapes: B images, A anchors, K classes without background, L anchors of one map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.retinanet.matching import IGNORED

ALPHA, GAMMA = 0.25, 2  # the maths below is of gamma 2
VALUES_AT_ONCE = 2**16  # on a CPU: 256 KiB in float32, a few of which a core's cache holds


def detection_loss(
    logits: Sequence[Tensor], offsets: Sequence[Tensor], target_labels: Tensor, target_offsets: Tensor
) -> Tensor:
    """Mean over the batch, a scalar.

    logits (B, L, K) and offsets (B, L, 4) map by map; target_labels (B, A) integers, 0 for background, IGNORED for what does
    not count; target_offsets (B, A, 4).
    """
    positive = target_labels > 0  # (B, A)
    share = 1 / (positive.sum(dim=1).clamp(min=1) * len(target_labels))  # (B,), of each of an image's terms
    weight = torch.where(target_labels == IGNORED, 0.0, share[:, None])  # (B, A)
    weight_of_positive = torch.where(positive, weight, 0.0)
    sides = [each.shape[1] for each in logits]
    parts = []
    targets = (each.split(sides, dim=1) for each in (target_labels, target_offsets, weight, weight_of_positive))
    for x, offset, label, target, counted, of_positive in zip(logits, offsets, *targets, strict=True):
        own = x.gather(2, (label.clamp(min=1) - 1)[..., None].long())[..., 0].float()  # (B, L)
        right = ALPHA * (1 - own.sigmoid()) ** GAMMA * F.softplus(-own) - background(own)
        box = (offset.float() - target).abs().sum(dim=2)
        parts.append(_of_background(x, counted) + (of_positive * (right + box)).sum())
    return torch.stack(parts).sum()


def background(x: Tensor) -> Tensor:
    """The focal loss of logits whose target is 0, one by one."""
    return (1 - ALPHA) * x.sigmoid() ** GAMMA * F.softplus(x)


def _of_background(x: Tensor, weight: Tensor) -> Tensor:
    """Sum of the focal loss of logits x (B, L, K), all of target 0, each row weighted with `weight` (B, L)."""
    if torch.compiler.is_compiling():  # into one kernel each way
        return (background(x.float()).sum(dim=2) * weight).sum()
    found: Tensor = _OfBackground.apply(x, weight)
    return found


class _OfBackground(torch.autograd.Function):
    """Value and gradient in one pass: what the loss of a logit is multiplied with is known before the loss is.

    On a CPU block by block, each small enough to stay in the cache through the operations on it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        rows, row_weight = x.flatten(0, 1), weight.flatten()[:, None]
        gradient = torch.empty_like(rows)
        at_once = max(1, VALUES_AT_ONCE // x.shape[2]) if x.device.type == "cpu" else len(rows)
        total = torch.zeros((), device=x.device)
        for begin in range(0, len(rows), at_once):
            some = slice(begin, begin + at_once)
            value, slope = _value_and_slope(rows[some].float())
            total += (value.sum(dim=1) * row_weight[some, 0]).sum()
            gradient[some] = slope.mul_(row_weight[some])
        ctx.save_for_backward(gradient.view_as(x))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None


def _value_and_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """The focal loss of logits whose target is 0, and its derivative."""
    p = x.sigmoid()
    log = F.softplus(x)
    square = (p * p).mul_(1 - ALPHA)
    slope = torch.addcmul(p, 1 - p, log, value=GAMMA).mul_(square)
    return square.mul_(log), slope
