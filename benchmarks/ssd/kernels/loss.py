"""The SSD loss read from the heads' own outputs: benchmarks.ssd.loss.detection_loss for CUDA, to rounding. Needs Triton.

The plain twin wants logits (B, A, K) and offsets (B, A, 4): to bring six channels-last maps into that order three kernels
only move data, and their backward moves it again (3.5 of 75.7 ms of a step on an H100). These kernels read each map where
the convolution left it and write its gradient there. The convolution's bias is added here, in float32, and its gradient
summed where the map's is made.

Forward: one pass over the maps leaves each default box's cross-entropy, log-sum-exp and, where matched, box loss; then
one program for each image finds the 3P hardest negatives and sums. Backward: one pass writes the maps' gradients and
reads logits of counted boxes alone, a few in a hundred. The k-th largest loss is found by halving the range of its bit
pattern, 31 counts and no sort: non-negative floats are in the order of their bits. Where several losses equal the k-th,
those of lowest index are counted; which of them is open in the definition, and their sum is the same.

To autograd and torch.compile the whole is one operator, whose kernels the compiler does not look into.
tests/ssd/loss_cases.py compares it with the twin, on a CPU in Triton's interpreter.

Shapes: B images, A default boxes, K classes with background 0, D default boxes in a cell, H W of a map, C its channels,
[K*D classes | 4*D offsets | padding], channel = value * D + shape. Default boxes are in the order map, shape, row, column.
"""

# No `from __future__ import annotations`: Triton and torch.library read annotations as objects. Triton has no types, a kernel's
# launch names no arguments, and an operator's fake has all of its operator's.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,import-untyped"
# ruff: noqa: PLR0917, ARG001

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.ssd.kernels.norm import channels_last
from benchmarks.ssd.loss import NEGATIVES_PER_POSITIVE

CELLS = 8  # of a program forward. H100, batch 256, with the selection: 0.44 ms with 8, 0.47 with 16, 0.51 with 4
# Of one turn of a program backward: those with no counted default box are left zeros, in 16 bytes at once, the others are taken
# one by one. When a turn took the long way for all of its cells an H100 had 0.66 ms with 1 of them, 0.83 with 2, 0.72 with 4;
# without a short way 1.5. To write the zeros alone is 0.13 ms at 2.9 TB/s
GRADIENT_CELLS = 8
# 16 for each of an H100's 132 multiprocessors; each leaves one row of sums for the bias's gradient
GRADIENT_PROGRAMS = 2112
IMAGE_WARPS = 16  # with 8,732 boxes padded to 16,384: 128 registers a thread
NAN_BITS = tl.constexpr(0x7FC00000)  # above infinity: a NaN is the hardest of all, as in a descending sort


def detection_loss(
    maps: Sequence[Tensor], biases: Sequence[Tensor], target_labels: Tensor, target_offsets: Tensor, classes: int
) -> Tensor:
    """Mean over the batch, a scalar, from the heads' convolutions (B, C, H, W) without their biases (C).

    target_labels (B, A) integers with 0 for background, target_offsets (B, A, 4) float32.
    """
    losses, _, _ = torch.ops.ssd.head_losses(list(maps), list(biases), target_labels, target_offsets, classes)
    mean: Tensor = losses.mean()
    return mean


@triton.jit
def _of_cells(
    map, bias, labels, targets, entropies, logsumexps, boxes, cells, HW, A, first, K, D, C,
    CELLS: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    image = cell // HW
    value, shape = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_D)
    inside = (value < K)[:, None] & (shape < D)[None, :]
    channel = value[:, None] * D + shape[None, :]
    here = (cell < cells)[:, None, None] & inside[None, :, :]
    row = cell.to(tl.int64) * C
    x = tl.load(map + row[:, None, None] + channel[None, :, :], mask=here, other=float("-inf")).to(tl.float32)
    x += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)[None, :, :]

    # (CELLS, BLOCK_D): one default box each
    there = (cell < cells)[:, None] & (shape < D)[None, :]
    anchor = image.to(tl.int64)[:, None] * A + (first + shape[None, :] * HW + (cell - image * HW)[:, None])
    label = tl.load(labels + anchor, mask=there, other=0)
    largest = tl.max(x, axis=1)
    logsumexp = largest + tl.log(tl.sum(tl.exp(x - largest[:, None, :]), axis=1))
    of_label = tl.sum(tl.where(value[None, :, None] == label[:, None, :], x, 0.0), axis=1)
    tl.store(entropies + anchor, logsumexp - of_label, mask=there)
    tl.store(logsumexps + anchor, logsumexp, mask=there)

    positive = there & (label > 0)
    box = tl.zeros([CELLS, BLOCK_D], dtype=tl.float32)
    for side in tl.static_range(4):
        place = (K + side) * D + shape
        found = tl.load(map + row[:, None] + place[None, :], mask=positive, other=0.0).to(tl.float32)
        found += tl.load(bias + place, mask=shape < D, other=0.0).to(tl.float32)[None, :]
        distance = tl.abs(found - tl.load(targets + anchor * 4 + side, mask=positive, other=0.0))
        box += tl.where(distance < 1.0, 0.5 * distance * distance, distance - 0.5)
    tl.store(boxes + anchor, tl.where(positive, box, 0.0), mask=there)


@triton.jit
def _select_and_sum(entropies, boxes, labels, losses, weights, A, PER_POSITIVE: tl.constexpr, BLOCK_A: tl.constexpr):
    image = tl.program_id(0).to(tl.int64)
    first = image * A  # 64 bits once, in the pointers; within an image 32 do, which saves registers
    anchor = tl.arange(0, BLOCK_A)
    there = anchor < A
    positive = tl.load(labels + first + anchor, mask=there, other=0) > 0
    positives = tl.sum(positive.to(tl.int32), axis=0)
    of_boxes = tl.sum(tl.load(boxes + first + anchor, mask=positive, other=0.0), axis=0)

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
    grad_losses, map, bias, labels, targets, logsumexps, weights, grad_map, bias_sums,
    cells, HW, A, first, K, C,
    D: tl.constexpr, EIGHTHS: tl.constexpr, CELLS: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    if EIGHTHS:
        C = C // 8 * 8  # which it is: the compiler is told so, and zeros are written by 16 bytes
    channel, box = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_D)
    value, shape = channel // D, channel % D
    of_class, of_offset = value < K, (value >= K) & (value < K + 4)
    known = tl.load(bias + channel, mask=channel < C, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK_C], dtype=tl.float32)
    for start in range(tl.program_id(0) * CELLS, cells, tl.num_programs(0) * CELLS):
        # what memory answers once says which cells of a turn have a counted default box; most have none
        cell = start + tl.arange(0, CELLS)
        of_cell = (cell // HW).to(tl.int64) * A + cell % HW + first
        known_boxes = (cell < cells)[:, None] & (box < D)[None, :]
        largest = tl.max(tl.load(weights + of_cell[:, None] + box[None, :] * HW, mask=known_boxes, other=0.0), axis=1)
        lossless = (cell < cells) & (largest == 0.0)
        places = cell.to(tl.int64)[:, None] * C + channel[None, :]
        zeros = tl.zeros([CELLS, BLOCK_C], dtype=tl.float32)
        tl.store(grad_map + places, zeros, mask=lossless[:, None] & (channel < C)[None, :])
        if tl.max(largest, axis=0) != 0.0:
            for number in range(CELLS):
                if tl.max(tl.where(tl.arange(0, CELLS) == number, largest, 0.0), axis=0) != 0.0:
                    one = start + number + tl.zeros([1], dtype=tl.int32)  # a tensor in the interpreter too
                    image = one // HW
                    anchor = image.to(tl.int64) * A + one % HW + first + shape * HW
                    weight = tl.load(weights + anchor, mask=of_class | of_offset, other=0.0)
                    counted = weight != 0.0
                    label = tl.load(labels + anchor, mask=counted, other=0)
                    positive = counted & (label > 0)
                    needed = (counted & of_class) | (positive & of_offset)
                    place = one.to(tl.int64) * C + channel
                    x = tl.load(map + place, mask=needed, other=0.0).to(tl.float32) + known
                    logsumexp = tl.load(logsumexps + anchor, mask=counted, other=0.0)
                    of_probability = tl.exp(x - logsumexp) - (value == label).to(tl.float32)
                    wanted = tl.load(targets + anchor * 4 + value - K, mask=positive & of_offset, other=0.0)
                    of_distance = tl.minimum(tl.maximum(x - wanted, -1.0), 1.0)
                    scale = weight * tl.load(grad_losses + image)
                    slope = tl.where(needed, scale * tl.where(of_class, of_probability, of_distance), 0.0)
                    tl.store(grad_map + place, slope, mask=channel < C)
                    total += slope
    tl.store(bias_sums + tl.program_id(0) * C + channel, total, mask=channel < C)


def _places(maps: Sequence[Tensor], classes: int, a: int) -> list[tuple[int, int, int]]:
    """Of each map: first default box, cells, default boxes in a cell."""
    found, first = [], 0
    for each in maps:
        _, c, h, w = each.shape
        shapes = c // (classes + 4)
        found.append((first, h * w, shapes))
        first += shapes * h * w
    assert first == a, f"the maps have {first} default boxes, the targets {a}"
    return found


@torch.library.custom_op("ssd::head_losses", mutates_args=())
def head_losses(
    maps: Sequence[Tensor], biases: Sequence[Tensor], labels: Tensor, targets: Tensor, classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Each image's loss (B,), and what the backward pass needs of each default box: log-sum-exp and weight in the loss
    (B, A)."""
    maps, labels, targets = [channels_last(each) for each in maps], labels.contiguous(), targets.contiguous()
    b, a = labels.shape
    entropies, logsumexps, weights, boxes = (labels.new_empty(b, a, dtype=torch.float32) for _ in range(4))
    losses = labels.new_empty(b, dtype=torch.float32)
    for each, bias, (first, hw, shapes) in zip(maps, biases, _places(maps, classes, a), strict=True):
        _of_cells[(triton.cdiv(b * hw, CELLS),)](
            each, bias, labels, targets, entropies, logsumexps, boxes, b * hw, hw, a, first, classes, shapes,
            each.shape[1], CELLS, triton.next_power_of_2(classes), triton.next_power_of_2(shapes), num_warps=4,
        )  # fmt: skip
    _select_and_sum[(b,)](
        entropies, boxes, labels, losses, weights, a, NEGATIVES_PER_POSITIVE, triton.next_power_of_2(a),
        num_warps=IMAGE_WARPS,
    )  # fmt: skip
    return losses, logsumexps, weights


@head_losses.register_fake
def _(
    maps: Sequence[Tensor], biases: Sequence[Tensor], labels: Tensor, targets: Tensor, classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    b, a = labels.shape
    of_rows = (labels.new_empty(b, a, dtype=torch.float32) for _ in range(2))
    return (labels.new_empty(b, dtype=torch.float32), *of_rows)  # type: ignore[return-value]


@torch.library.custom_op("ssd::head_losses_backward", mutates_args=())
def head_losses_backward(
    grad_losses: Tensor, maps: Sequence[Tensor], biases: Sequence[Tensor], labels: Tensor, targets: Tensor,
    logsumexps: Tensor, weights: Tensor, classes: int,
) -> list[Tensor]:  # fmt: skip
    """Gradients of the maps, in their number format, and after them those of the biases."""
    maps, labels, targets = [channels_last(each) for each in maps], labels.contiguous(), targets.contiguous()
    grad_losses = grad_losses.contiguous()
    b, a = labels.shape
    of_maps, of_biases = [], []
    for each, bias, (first, hw, shapes) in zip(maps, biases, _places(maps, classes, a), strict=True):
        c = each.shape[1]
        grad = torch.empty_like(each)
        programs = min(GRADIENT_PROGRAMS, triton.cdiv(b * hw, GRADIENT_CELLS))
        sums = labels.new_empty(programs, c, dtype=torch.float32)
        _gradients[(programs,)](
            grad_losses, each, bias, labels, targets, logsumexps, weights, grad, sums,
            b * hw, hw, a, first, classes, c, shapes, c % 8 == 0, GRADIENT_CELLS, triton.next_power_of_2(shapes),
            triton.next_power_of_2(c), num_warps=4,
        )  # fmt: skip
        of_maps.append(grad)
        of_biases.append(sums.sum(0).to(bias.dtype))
    return of_maps + of_biases


@head_losses_backward.register_fake
def _(
    grad_losses: Tensor, maps: Sequence[Tensor], biases: Sequence[Tensor], labels: Tensor, targets: Tensor,
    logsumexps: Tensor, weights: Tensor, classes: int,
) -> list[Tensor]:  # fmt: skip
    return [torch.empty_like(each, memory_format=torch.channels_last) for each in maps] + [
        torch.empty_like(each) for each in biases
    ]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    maps, biases, labels, targets, ctx.classes = inputs
    _, logsumexps, weights = output
    ctx.mark_non_differentiable(logsumexps, weights)
    ctx.count = len(maps)
    ctx.save_for_backward(*maps, *biases, labels, targets, logsumexps, weights)


def _backward(ctx: Any, grad_losses: Tensor, *_: Any) -> tuple[Any, ...]:
    *both, labels, targets, logsumexps, weights = ctx.saved_tensors
    grads = torch.ops.ssd.head_losses_backward(
        grad_losses, both[: ctx.count], both[ctx.count :], labels, targets, logsumexps, weights, ctx.classes
    )
    return grads[: ctx.count], grads[ctx.count :], None, None, None


head_losses.register_autograd(_backward, setup_context=_keep)
