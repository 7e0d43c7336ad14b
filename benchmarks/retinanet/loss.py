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
        of_background, own = _of_background(x, counted, (label.clamp(min=1) - 1)[..., None].long())
        right = ALPHA * (1 - own.sigmoid()) ** GAMMA * F.softplus(-own) - background(own)
        box = (offset.float() - target).abs().sum(dim=2)
        parts.append(of_background + (of_positive * (right + box)).sum())
    return torch.stack(parts).sum()


def background(x: Tensor) -> Tensor:
    """The focal loss of logits whose target is 0, one by one."""
    return (1 - ALPHA) * x.sigmoid() ** GAMMA * F.softplus(x)


def _of_background(x: Tensor, weight: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the focal loss of logits x (B, L, K), all of target 0, each row weighted with `weight` (B, L); and the logit of
    each row that `chosen` (B, L, 1) names, (B, L) float32.
    """
    if torch.compiler.is_compiling():  # into one kernel each way
        return (background(x.float()).sum(dim=2) * weight).sum(), x.gather(2, chosen)[..., 0].float()
    found: tuple[Tensor, Tensor] = _OfBackground.apply(x, weight, chosen)
    return found


class _OfBackground(torch.autograd.Function):
    """Value and gradient in one pass: what the loss of a logit is multiplied with is known before the loss is.

    On a CPU block by block, each small enough to stay in the cache through the operations on it. The chosen logits are given
    here too, so that their gradient is put into the others', which are otherwise as large once more, zeros but for one in K.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        rows, row_weight = x.flatten(0, 1), weight.flatten()[:, None]
        # float16 ends at 6e-8, and most slopes lie below that until the loss's scale, which comes in backward, lifts them
        kept = torch.float32 if rows.dtype == torch.float16 else rows.dtype
        gradient = torch.empty_like(rows, dtype=kept)
        at_once = max(1, VALUES_AT_ONCE // x.shape[2]) if x.device.type == "cpu" else len(rows)
        total = torch.zeros((), device=x.device)
        for begin in range(0, len(rows), at_once):
            some = slice(begin, begin + at_once)
            value, slope = _value_and_slope(rows[some].float())
            total += (value.sum(dim=1) * row_weight[some, 0]).sum()
            gradient[some] = slope.mul_(row_weight[some])
        ctx.save_for_backward(gradient.view_as(x), chosen)
        ctx.dtype = x.dtype
        return total, x.gather(2, chosen)[..., 0].float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient, chosen = ctx.saved_tensors
        of_all = (gradient * gradients[0]).to(ctx.dtype)
        # one in each row; scatter_add_ copies the whole of a bfloat16 tensor
        place = chosen.flatten() + torch.arange(chosen.numel(), device=chosen.device) * of_all.shape[2]
        of_all.view(-1)[place] += gradients[1].flatten().to(of_all.dtype)
        return of_all, None, None


def _value_and_slope(x: Tensor) -> tuple[Tensor, Tensor]:
    """The focal loss of logits whose target is 0, and its derivative."""
    p = x.sigmoid()
    log = _softplus(x) if x.device.type == "cpu" else F.softplus(x)
    square = (p * p).mul_(1 - ALPHA)
    slope = torch.addcmul(p, 1 - p, log, value=GAMMA).mul_(square)
    return square.mul_(log), slope


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) of float32 without log1p, which takes 8.7 of the 9.7 ns that a value takes on a CPU; so it takes 2.6.

    log(1 + y) is log(u) y / (u - 1) with the u that 1 + y is rounded to: as exact as log1p down to y = 6e-8, 0 below.
    """
    y = x.abs().neg_().exp_()
    u = 1 + y
    return u.log().mul_(y).div_(u.sub_(1).clamp_(min=2**-24)).add_(x.clamp(min=0))
