"""Batch norm, ReLU and 3x3 max pool of the stem in one: `plain` for CUDA, to rounding. Needs Triton.

At batch 256 the map between the stem's convolution and its pool is 737 MB in bf16. Compiled by PyTorch it is written once
more after the ReLU, and the pool's backward takes 3.6 of a step's 75.7 ms on an H100, where its traffic is 0.6. Here the
forward pass reads it twice (statistics, pool) and writes only the pooled map; the backward pass sums over the pooled map
alone, since no gradient reaches any other place, and then reads and writes the large one once.

What the backward pass keeps: the convolution's output, of each pooled value its place in the window (a byte) and the
convolution's output there. Statistics and sums: benchmarks.ssd.kernels.norm. The link that brings a second
gradient: benchmarks.ssd.kernels.batch_norm.

Shapes: B images, C channels, H W of the convolution's output, P Q of the pooled map.
"""

# No `from __future__ import annotations`: Triton and torch.library read annotations as objects. Triton has no types, a kernel's
# launch names no arguments, and an operator's fake has all of its operator's.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,import-untyped"
# ruff: noqa: PLR0917, ARG001

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.ssd.kernels.norm import channels_last, link_of, scale_and_shift, sums_of_gradients

# Of the pooled map in one program. H100, batch 256, forward and backward: 8: 0.87 and 0.97 ms, 16: 0.91 and 1.00, 32: 1.19
# and 1.14
POSITIONS = 8
BLOCK_C = 64  # channels of a program: rows of 128 bytes in bf16


def plain(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The definition: x (B, C, H, W) to (B, C, P, Q), normalised by its own batch."""
    return F.max_pool2d(F.batch_norm(x, None, None, weight, bias, training=True, eps=eps).relu(), 3, 2, 1)


@triton.jit
def _part(P, Q, C, POSITIONS: tl.constexpr, BLOCK_C: tl.constexpr):
    # This program's part of the pooled map: image; row, column (POSITIONS,) and channel (BLOCK_C,); which of the channels and
    # of the places (POSITIONS, BLOCK_C) are there, and the places themselves
    image = tl.program_id(1).to(tl.int64)
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
    channel = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = channel < C
    here = (position < P * Q)[:, None] & there[None, :]
    at = image * P * Q * C + position[:, None] * C + channel[None, :]
    return image, position // Q, position % Q, channel, there, here, at


@triton.jit
def _pool(
    x, weight, bias, mean, variance, eps, pooled, place, winner, H, W, P, Q, C,
    POSITIONS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    image, p, q, channel, there, here, at = _part(P, Q, C, POSITIONS, BLOCK_C)
    scale, shift, _, _ = scale_and_shift(weight, bias, mean, variance, eps, channel, there)
    best = tl.full([POSITIONS, BLOCK_C], float("-inf"), dtype=tl.float32)
    best_x = tl.zeros([POSITIONS, BLOCK_C], dtype=tl.float32)
    best_tap = tl.zeros([POSITIONS, BLOCK_C], dtype=tl.int32)
    for tap in tl.static_range(9):
        h, w = 2 * p + (tap // 3 - 1), 2 * q + (tap % 3 - 1)
        inside = here & ((h >= 0) & (h < H) & (w >= 0) & (w < W))[:, None]
        found = tl.load(x + image * H * W * C + (h * W + w)[:, None] * C + channel[None, :], mask=inside, other=0.0)
        found = found.to(tl.float32)
        z = found * scale[None, :] + shift[None, :]
        # a NaN wins, as in PyTorch's pool
        better = inside & ((z > best) | (z != z))  # noqa: PLR0124
        best = tl.where(better, z, best)
        best_x = tl.where(better, found, best_x)
        best_tap = tl.where(better, tap, best_tap)
    tl.store(pooled + at, tl.where(best < 0.0, 0.0, best), mask=here)  # ReLU that lets a NaN through
    tl.store(winner + at, best_x, mask=here)
    tl.store(place + at, best_tap.to(tl.int8), mask=here)


@triton.jit
def windows(grad, place, at, here, p, q, P, Q, C):
    # Gradient and winning place of the windows at (p, q) and of their neighbours to the right, below and both
    right, below = here & (q + 1 < Q)[:, None], here & (p + 1 < P)[:, None]
    diagonal = right & below
    g00 = tl.load(grad + at, mask=here, other=0.0).to(tl.float32)
    g01 = tl.load(grad + at + C, mask=right, other=0.0).to(tl.float32)
    g10 = tl.load(grad + at + Q * C, mask=below, other=0.0).to(tl.float32)
    g11 = tl.load(grad + at + (Q + 1) * C, mask=diagonal, other=0.0).to(tl.float32)
    w00 = tl.load(place + at, mask=here, other=-1)
    w01 = tl.load(place + at + C, mask=right, other=-1)
    w10 = tl.load(place + at + Q * C, mask=below, other=-1)
    w11 = tl.load(place + at + (Q + 1) * C, mask=diagonal, other=-1)
    return g00, g01, g10, g11, w00, w01, w10, w11


@triton.jit
def _unpool(
    grad, place, x, weight, bias, mean, variance, eps, grad_bias, grad_weight, grad_x, H, W, P, Q, C, R,
    POSITIONS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    # Window (p, q) and its neighbours to the right, below and both cover the four places (2p, 2q) to (2p + 1, 2q + 1):
    # read once they serve all four. Of an even row and column one window is the only one, of odd ones there are two, of
    # both four.
    image, p, q, channel, there, here, at = _part(P, Q, C, POSITIONS, BLOCK_C)
    scale, _, middle, inverse = scale_and_shift(weight, bias, mean, variance, eps, channel, there)
    one = tl.load(grad_bias + channel, mask=there, other=0.0) / R
    two = tl.load(grad_weight + channel, mask=there, other=0.0) / R
    g00, g01, g10, g11, w00, w01, w10, w11 = windows(grad, place, at, here, p, q, P, Q, C)
    for corner in tl.static_range(4):
        down, across = corner // 2, corner % 2
        if corner == 0:
            g = tl.where(w00 == 4, g00, 0.0)
        elif corner == 1:
            g = tl.where(w00 == 5, g00, 0.0) + tl.where(w01 == 3, g01, 0.0)
        elif corner == 2:
            g = tl.where(w00 == 7, g00, 0.0) + tl.where(w10 == 1, g10, 0.0)
        else:
            g = tl.where(w00 == 8, g00, 0.0) + tl.where(w01 == 6, g01, 0.0)
            g += tl.where(w10 == 2, g10, 0.0) + tl.where(w11 == 0, g11, 0.0)
        h, w = 2 * p + down, 2 * q + across
        inside = here & ((h < H) & (w < W))[:, None]
        to = image * H * W * C + (h * W + w)[:, None] * C + channel[None, :]
        away = (tl.load(x + to, mask=inside, other=0.0).to(tl.float32) - middle[None, :]) * inverse[None, :]
        tl.store(grad_x + to, scale[None, :] * (g - one[None, :] - away * two[None, :]), mask=inside)


def pooled_side(side: int) -> int:
    """Of a map of `side` after a 3x3 pool of stride 2 and padding 1."""
    return (side - 1) // 2 + 1


@torch.library.custom_op("ssd::batch_norm_relu_pool", mutates_args=())
def batch_norm_relu_pool(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of x and its own moments (C,): pooled map (B, C, P, Q), a link to it, each window's winning place (0 to 8) and the
    input there."""
    pooled, place, winner = pool(channels_last(x), mean, variance, weight, bias, eps)
    return pooled, link_of(pooled), place, winner


def pool(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of channels-last x and its own moments: pooled map, each window's winning place and the input there."""
    b, c, h, w = x.shape
    p, q = pooled_side(h), pooled_side(w)
    pooled, place, winner = maps(x)
    _pool[(triton.cdiv(p * q, POSITIONS), b, triton.cdiv(c, BLOCK_C))](
        x, weight, bias, mean, variance, eps, pooled, place, winner, h, w, p, q, c, POSITIONS, BLOCK_C, num_warps=4
    )
    return pooled, place, winner


def maps(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Room for what `pool` gives."""
    b, c, h, w = x.shape
    shape = (b, c, pooled_side(h), pooled_side(w))
    pooled, place, winner = (
        torch.empty(shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)
        for dtype in (x.dtype, torch.int8, x.dtype)
    )
    return pooled, place, winner


@batch_norm_relu_pool.register_fake
def _(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    pooled, place, winner = maps(x)
    return pooled, link_of(pooled), place, winner


@torch.library.custom_op("ssd::batch_norm_relu_pool_backward", mutates_args=())
def batch_norm_relu_pool_backward(
    grad: Tensor, second: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor, place: Tensor, winner: Tensor,
    mean: Tensor, variance: Tensor, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x in its number format, of weight and bias in float32. `second` came through the link."""
    grad, x = channels_last(grad), channels_last(x)
    b, c, h, w = x.shape
    p, q = grad.shape[2:]
    masked = torch.empty_like(grad)
    grad_bias, grad_weight = sums_of_gradients(
        grad, second, winner, None, weight, bias, mean, variance, eps, masked, True
    )
    grad_x = torch.empty_like(x)
    _unpool[(triton.cdiv(p * q, POSITIONS), b, triton.cdiv(c, BLOCK_C))](
        masked, place, x, weight, bias, mean, variance, eps, grad_bias, grad_weight, grad_x, h, w, p, q, c, b * h * w,
        POSITIONS, BLOCK_C, num_warps=4,
    )  # fmt: skip
    return grad_x, grad_weight, grad_bias


@batch_norm_relu_pool_backward.register_fake
def _(
    grad: Tensor, second: Tensor | None, x: Tensor, weight: Tensor, bias: Tensor, place: Tensor, winner: Tensor,
    mean: Tensor, variance: Tensor, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    of_channels = (mean.new_empty(mean.shape) for _ in range(2))
    return (torch.empty_like(x, memory_format=torch.channels_last), *of_channels)  # type: ignore[return-value]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, mean, variance, weight, bias, ctx.eps = inputs
    _, _, place, winner = output
    ctx.mark_non_differentiable(place, winner)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, bias, place, winner, mean, variance)


def _backward(ctx: Any, grad: Tensor, second: Tensor | None, *_: Any) -> tuple[Any, ...]:
    grad_x, grad_weight, grad_bias = torch.ops.ssd.batch_norm_relu_pool_backward(
        grad, second, *ctx.saved_tensors, ctx.eps
    )
    return grad_x, None, None, grad_weight, grad_bias, None


batch_norm_relu_pool.register_autograd(_backward, setup_context=_keep)
