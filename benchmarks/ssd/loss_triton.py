"""The SSD loss in three Triton kernels: benchmarks.ssd.loss.detection_loss for CUDA, to rounding. Needs Triton.

Forward: one pass over the logits leaves each default box's cross-entropy and log-sum-exp; then one program for each image finds
the 3P hardest negatives and sums. Backward: one pass writes the gradients and reads logits of counted boxes alone, a few in a
hundred. The k-th largest loss is found by halving the range of its bit pattern, 31 counts and no sort: non-negative floats
are in the order of their bits. Where several losses equal the k-th, those of lowest index are counted; which of them is open
in the definition, and their sum is the same.

To autograd and torch.compile the whole is one operator, whose kernels the compiler does not look into. The plain twin is the
definition; tests/ssd/loss_triton_cases.py compares both, on a CPU in Triton's interpreter.

Shapes: B images, A default boxes, K classes with background 0. A row is one default box of one image.
"""

# No `from __future__ import annotations`: Triton and torch.library read annotations as objects. Triton has no types, a kernel's
# launch names no arguments, and an operator's fake has all of its operator's.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,import-untyped"
# ruff: noqa: PLR0917, ARG001

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.ssd.loss import NEGATIVES_PER_POSITIVE

ROWS = 16  # of one program: 16 x 128 numbers (81 classes padded) are 16 for each of its 128 threads
IMAGE_WARPS = 16  # with 8,732 boxes padded to 16,384: 128 registers a thread, 184 bytes spilled (ptxas, sm_90a)
NAN_BITS = tl.constexpr(0x7FC00000)  # above infinity: a NaN is the hardest of all, as in a descending sort


def detection_loss(logits: Tensor, offsets: Tensor, target_labels: Tensor, target_offsets: Tensor) -> Tensor:
    """As benchmarks.ssd.loss.detection_loss, which says what goes in and comes out."""
    losses, _, _ = torch.ops.ssd.image_losses(logits, offsets, target_labels, target_offsets)
    mean: Tensor = losses.mean()
    return mean


@triton.jit
def _cross_entropy(logits, labels, entropies, logsumexps, rows, K, ROWS: tl.constexpr, BLOCK_K: tl.constexpr):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    column = tl.arange(0, BLOCK_K)
    here = (row < rows)[:, None] & (column < K)[None, :]
    x = tl.load(logits + row[:, None] * K + column[None, :], mask=here, other=float("-inf")).to(tl.float32)
    label = tl.load(labels + row, mask=row < rows, other=0)
    largest = tl.max(x, axis=1)
    logsumexp = largest + tl.log(tl.sum(tl.exp(x - largest[:, None]), axis=1))
    of_label = tl.sum(tl.where(column[None, :] == label[:, None], x, 0.0), axis=1)
    tl.store(entropies + row, logsumexp - of_label, mask=row < rows)
    tl.store(logsumexps + row, logsumexp, mask=row < rows)


@triton.jit
def _select_and_sum(
    entropies, labels, offsets, targets, losses, weights, A, PER_POSITIVE: tl.constexpr, BLOCK_A: tl.constexpr
):
    image = tl.program_id(0).to(tl.int64)
    first = image * A  # 64 bits once, in the pointers; within an image 32 do, which saves registers
    anchor = tl.arange(0, BLOCK_A)
    there = anchor < A
    positive = tl.load(labels + first + anchor, mask=there, other=0) > 0
    positives = tl.sum(positive.to(tl.int32), axis=0)

    box = tl.zeros([BLOCK_A], dtype=tl.float32)
    for side in tl.static_range(4):
        found = tl.load(offsets + first * 4 + (anchor * 4 + side), mask=positive, other=0.0).to(tl.float32)
        wanted = tl.load(targets + first * 4 + (anchor * 4 + side), mask=positive, other=0.0).to(tl.float32)
        distance = tl.abs(found - wanted)
        box += tl.where(distance < 1.0, 0.5 * distance * distance, distance - 0.5)
    of_boxes = tl.sum(tl.where(positive, box, 0.0), axis=0)

    # the k hardest, matched boxes standing among them as lossless; lanes beyond A come below everything
    k = tl.minimum(PER_POSITIVE * positives, A)
    entropy = tl.load(entropies + first + anchor, mask=there, other=0.0)
    hardness = tl.where(positive, 0.0, entropy)
    bits = tl.where(hardness != hardness, NAN_BITS, hardness.to(tl.int32, bitcast=True))  # noqa: PLR0124
    bits = tl.where(there, bits, -1)
    kth = tl.zeros([], dtype=tl.int32)
    for i in range(31):
        higher = kth | (1 << (30 - i))
        kth = tl.where(tl.sum((bits >= higher).to(tl.int32), axis=0) >= k, higher, kth)
    above, equal = bits > kth, bits == kth
    room = k - tl.sum(above.to(tl.int32), axis=0)
    hard = above | (equal & (tl.cumsum(equal.to(tl.int32), axis=0) <= room))

    counted = positive | (hard & (k > 0))
    divisor = tl.maximum(positives, 1).to(tl.float32)
    total = of_boxes + tl.sum(tl.where(counted, entropy, 0.0), axis=0)
    tl.store(losses + image, tl.where(positives > 0, total / divisor, 0.0))
    tl.store(weights + first + anchor, tl.where(counted, 1.0 / divisor, 0.0), mask=there)


@triton.jit
def _gradients(
    grad_losses, logits, offsets, labels, targets, logsumexps, weights, grad_logits, grad_offsets,
    rows, A, K, ROWS: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    there = row < rows
    weight = tl.load(weights + row, mask=there, other=0.0)
    counted = weight != 0.0
    scale = weight * tl.load(grad_losses + row // A, mask=counted, other=0.0)
    label = tl.load(labels + row, mask=there, other=0)

    column = tl.arange(0, BLOCK_K)
    place = row[:, None] * K + column[None, :]
    inside = there[:, None] & (column < K)[None, :]
    x = tl.load(logits + place, mask=inside & counted[:, None], other=float("-inf")).to(tl.float32)
    logsumexp = tl.load(logsumexps + row, mask=counted, other=0.0)
    slope = tl.exp(x - logsumexp[:, None]) - (column[None, :] == label[:, None]).to(tl.float32)
    tl.store(grad_logits + place, tl.where(counted[:, None], scale[:, None] * slope, 0.0), mask=inside)

    side = tl.arange(0, 4)
    place = row[:, None] * 4 + side[None, :]
    positive = counted & (label > 0)
    found = tl.load(offsets + place, mask=positive[:, None], other=0.0).to(tl.float32)
    distance = found - tl.load(targets + place, mask=positive[:, None], other=0.0).to(tl.float32)
    slope = tl.minimum(tl.maximum(distance, -1.0), 1.0)
    tl.store(grad_offsets + place, tl.where(positive[:, None], scale[:, None] * slope, 0.0), mask=there[:, None])


@torch.library.custom_op("ssd::image_losses", mutates_args=())
def image_losses(logits: Tensor, offsets: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each image's loss (B,), and what the backward pass needs of each row: log-sum-exp and weight in the loss (B, A)."""
    logits, offsets, labels, targets = (x.contiguous() for x in (logits, offsets, labels, targets))
    b, a, k = logits.shape
    entropies, logsumexps, weights = (logits.new_empty(b, a, dtype=torch.float32) for _ in range(3))
    losses = logits.new_empty(b, dtype=torch.float32)
    _cross_entropy[(triton.cdiv(b * a, ROWS),)](
        logits, labels, entropies, logsumexps, b * a, k, ROWS, triton.next_power_of_2(k), num_warps=4
    )
    _select_and_sum[(b,)](
        entropies, labels, offsets, targets, losses, weights, a, NEGATIVES_PER_POSITIVE, triton.next_power_of_2(a),
        num_warps=IMAGE_WARPS,
    )  # fmt: skip
    return losses, logsumexps, weights


@image_losses.register_fake
def _(logits: Tensor, offsets: Tensor, labels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    b, a, _ = logits.shape
    of_rows = (logits.new_empty(b, a, dtype=torch.float32) for _ in range(2))
    return (logits.new_empty(b, dtype=torch.float32), *of_rows)  # type: ignore[return-value]


@torch.library.custom_op("ssd::image_losses_backward", mutates_args=())
def image_losses_backward(
    grad_losses: Tensor, logits: Tensor, offsets: Tensor, labels: Tensor, targets: Tensor, logsumexps: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of logits (B, A, K) and offsets (B, A, 4), in their number formats."""
    logits, offsets, labels, targets = (x.contiguous() for x in (logits, offsets, labels, targets))
    b, a, k = logits.shape
    grad_logits, grad_offsets = torch.empty_like(logits), torch.empty_like(offsets)
    _gradients[(triton.cdiv(b * a, ROWS),)](
        grad_losses.contiguous(), logits, offsets, labels, targets, logsumexps, weights, grad_logits, grad_offsets,
        b * a, a, k, ROWS, triton.next_power_of_2(k), num_warps=4,
    )  # fmt: skip
    return grad_logits, grad_offsets


@image_losses_backward.register_fake
def _(
    grad_losses: Tensor, logits: Tensor, offsets: Tensor, labels: Tensor, targets: Tensor, logsumexps: Tensor,
    weights: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    contiguous = torch.contiguous_format
    return torch.empty_like(logits, memory_format=contiguous), torch.empty_like(offsets, memory_format=contiguous)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    _, logsumexps, weights = output
    ctx.mark_non_differentiable(logsumexps, weights)
    ctx.save_for_backward(*inputs, logsumexps, weights)


def _backward(ctx: Any, grad_losses: Tensor, *_: Any) -> tuple[Tensor, Tensor, None, None]:
    grad_logits, grad_offsets = torch.ops.ssd.image_losses_backward(grad_losses, *ctx.saved_tensors)
    return grad_logits, grad_offsets, None, None


image_losses.register_autograd(_backward, setup_context=_keep)
