"""The whole stem in one: `plain` for CUDA, to rounding, from the images as the data path brings them. Needs Triton.

    convolution   7x7, stride 2, with the moments of its output
    then          batch norm, ReLU and pool, see benchmarks.ssd.kernels.stem

At batch 256 the convolution's output is 737 MB in bf16, the images 184. cuDNN's convolution wants them in 16 channels, which
are made first, and takes 0.9 to 1.3 ms of an H100, its weights' gradient 0.9 and the moments 0.3, where the traffic of all
three is 0.6. Here images are read where they lie: a row of a window is 8 pixels of 4 channels, 32 numbers in a row, the eighth
pixel and the fourth channel with weights of zero. Backwards no gradient of the output is written: it goes into the weights'
gradient where it is found, a sum over all places, since images have none.

Sums are made over shares of the places and added in one order: equal input gives equal bits.

Shapes: B images, I their side in px, O filters, H W of the convolution's output, P Q of the pooled map.
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

from benchmarks.ssd.kernels import norm, stem
from benchmarks.ssd.kernels.norm import channels_last, link_of, scale_and_shift, sums_of_gradients
from benchmarks.ssd.stem import CHANNELS, KERNEL, PADDING, STRIDE, output_side

SPAN = 8  # pixels of a window's row, and rows of a window: one before the kernel's seven, which meets zeros
LINE = SPAN * CHANNELS  # numbers of a window's row
# ptxas for sm_90: 229 registers, nothing spilled; two programs of four warps fit a multiprocessor, and windows overlap in its
# cache, which copies that bypass it (more stages) would not use
ROWS = 128  # places of the output in a tile
PROGRAMS = 264  # that share the tiles, forwards
# 127 registers, nothing spilled; one program of sixteen warps fits, whose sums of 64 x 256 are a quarter of all registers
POSITIONS = 32  # of the pooled map in a tile of the backward pass, four places each
PROGRAMS_BACKWARD = 132
# WIDE: products of float32 numbers, after they have been rounded; Triton's interpreter cannot multiply bf16


def plain(images: Tensor, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float) -> Tensor:
    """The definition: images (B, 3, I, I) and weight (O, 3, 7, 7) to (B, O, P, Q), normalised by their own batch."""
    return stem.plain(F.conv2d(images, weight, None, STRIDE, PADDING), norm_weight, norm_bias, eps)


@triton.jit
def _convolve(
    images, weights, shift, y, sums, lines, length, H, W, R,
    ROWS: tl.constexpr, FILTERS: tl.constexpr, KERNEL: tl.constexpr, PADDING: tl.constexpr, LINE: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    # An image is `lines` lines of `length` numbers; weights are (7, LINE, FILTERS)
    share, parts = tl.program_id(0), tl.num_programs(0)
    filter, k = tl.arange(0, FILTERS), tl.arange(0, LINE)
    middle = tl.load(shift + filter)
    one = tl.zeros([FILTERS], dtype=tl.float32)
    two = tl.zeros([FILTERS], dtype=tl.float32)
    for turn in range(tl.cdiv(R, parts * ROWS)):
        row = (turn * parts + share) * ROWS + tl.arange(0, ROWS)
        here = row < R
        h, w = row // W % H, row % W
        image = (row // (H * W)).to(tl.int64) * lines * length
        column = (w * 8 - 16)[:, None] + k[None, :]  # two pixels of 4 channels a place, from four before its first
        across = (column >= 0) & (column < length)
        found = tl.zeros([ROWS, FILTERS], dtype=tl.float32)
        for tap in tl.static_range(KERNEL):
            line = 2 * h - PADDING + tap
            inside = across & (here & (line >= 0) & (line < lines))[:, None]
            part = tl.load(images + image[:, None] + line[:, None] * length + column, mask=inside, other=0.0)
            of_tap = tl.load(weights + (tap * LINE + k)[:, None] * FILTERS + filter[None, :])
            part = part.to(of_tap.dtype)
            if WIDE:
                part, of_tap = part.to(tl.float32), of_tap.to(tl.float32)
            found = tl.dot(part, of_tap, found, input_precision="ieee")
        rounded = found.to(y.dtype.element_ty)
        tl.store(y + row.to(tl.int64)[:, None] * FILTERS + filter[None, :], rounded, mask=here[:, None])
        away = tl.where(here[:, None], rounded.to(tl.float32) - middle[None, :], 0.0)  # moments are of what others read
        one += tl.sum(away, axis=0)
        two += tl.sum(away * away, axis=0)
    tl.store(sums + share * 2 * FILTERS + filter, one)
    tl.store(sums + share * 2 * FILTERS + FILTERS + filter, two)


@triton.jit
def _gradient_of_weights(
    grad, place, y, images, weight, bias, mean, variance, eps, grad_bias, grad_weight, found, lines, length, H, W, P, Q, N, R,
    POSITIONS: tl.constexpr, FILTERS: tl.constexpr, SPAN: tl.constexpr, LINE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    # Of N positions of the pooled map. Which gradients the four places of a position have: see stem._unpool
    share, parts = tl.program_id(0), tl.num_programs(0)
    channel, k = tl.arange(0, FILTERS), tl.arange(0, SPAN * LINE)
    scale, _, middle, inverse = scale_and_shift(weight, bias, mean, variance, eps, channel, channel < FILTERS)
    one = tl.load(grad_bias + channel) / R
    two = tl.load(grad_weight + channel) / R
    sums = tl.zeros([FILTERS, SPAN * LINE], dtype=tl.float32)
    for turn in range(tl.cdiv(N, parts * POSITIONS)):
        position = (turn * parts + share) * POSITIONS + tl.arange(0, POSITIONS)
        p, q = position // Q % P, position % Q
        image = (position // (P * Q)).to(tl.int64)
        here = (position < N)[:, None]
        at = position.to(tl.int64)[:, None] * FILTERS + channel[None, :]
        g00, g01, g10, g11, w00, w01, w10, w11 = stem.windows(grad, place, at, here, p, q, P, Q, FILTERS)
        for corner in range(4):
            down, over = corner // 2, corner % 2
            g = tl.where(w00 == 4 + 3 * down + over, g00, 0.0)
            g += tl.where((over == 1) & (w01 == 3 + 3 * down), g01, 0.0)
            g += tl.where((down == 1) & (w10 == 1 + over), g10, 0.0)
            g += tl.where((over + down == 2) & (w11 == 0), g11, 0.0)
            h, w = 2 * p + down, 2 * q + over
            known = (position < N) & (h < H) & (w < W)
            of_y = image * H * W * FILTERS + (h * W + w) * FILTERS
            x = tl.load(y + of_y[:, None] + channel[None, :], mask=known[:, None], other=0.0)
            away = (x.to(tl.float32) - middle[None, :]) * inverse[None, :]
            of_x = tl.where(known[:, None], scale[None, :] * (g - one[None, :] - away * two[None, :]), 0.0)
            line, column = (2 * h - 4)[:, None] + (k // LINE)[None, :], (w * 8 - 16)[:, None] + (k % LINE)[None, :]
            inside = known[:, None] & (line >= 0) & (line < lines) & (column >= 0) & (column < length)
            window = tl.load(
                images + (image * lines * length)[:, None] + line * length + column, mask=inside, other=0.0
            )
            of_x = of_x.to(y.dtype.element_ty)
            window = window.to(of_x.dtype)
            if WIDE:
                of_x, window = of_x.to(tl.float32), window.to(tl.float32)
            sums = tl.dot(tl.trans(of_x), window, sums, input_precision="ieee")
    to = found + share * FILTERS * SPAN * LINE + channel[:, None] * SPAN * LINE + k[None, :]
    tl.store(to, sums)


@torch.library.custom_op("ssd::stem", mutates_args=())
def whole(
    images: Tensor, weight: Tensor, shift: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Images (B, 3 or 4, I, I), a fourth channel being zero, and weight (O, 3, 7, 7) in the number format to compute in: pooled
    map (B, O, P, Q) in that format, a link to it, mean and biased variance (O,) float32 of the convolution's output, and
    that output, each window's winning place (0 to 8) and the output there. `shift` (O,) float32 changes nothing but rounding.

    ValueError where O is no power of two from 16 on; a ResNet's is 64."""
    filters = len(weight)
    if filters < 16 or filters & (filters - 1):
        raise ValueError(f"a stem of {filters} filters: its kernels are for a power of two from 16 on")
    images = in_fours(images)
    b, _, lines, columns = images.shape
    y = _output(images, weight)
    h, w = y.shape[2:]
    r = b * h * w
    padded = F.pad(weight, (1, 0, 0, 0, 0, CHANNELS - weight.shape[1]))  # (O, 4, 7, 8)
    weights = padded.permute(2, 3, 1, 0).contiguous()  # (7, 8, 4, O)
    programs = min(PROGRAMS, triton.cdiv(r, ROWS))
    found = shift.new_empty(programs, 2, filters)
    _convolve[(programs,)](
        images, weights, shift, y, found, lines, columns * CHANNELS, h, w, r, ROWS, filters, KERNEL, PADDING, LINE,
        not y.is_cuda, num_warps=4, num_stages=1,
    )  # fmt: skip
    mean, variance = norm.moments_of(found, shift, r)
    pooled, place, winner = stem.pool(y, mean, variance, norm_weight, norm_bias, eps)
    return pooled, link_of(pooled), mean, variance, y, place, winner


def in_fours(images: Tensor) -> Tensor:
    """(B, 4, I, I) channels last, in memory pixel after pixel; the images themselves where they are."""
    if images.shape[1] < CHANNELS:
        images = F.pad(images, (0, 0, 0, 0, 0, CHANNELS - images.shape[1]))
    return channels_last(images)


def _output(images: Tensor, weight: Tensor) -> Tensor:
    sides = (output_side(side) for side in images.shape[2:])
    size = (len(images), len(weight), *sides)
    return torch.empty(size, dtype=weight.dtype, device=weight.device, memory_format=torch.channels_last)


@whole.register_fake
def _(
    images: Tensor, weight: Tensor, shift: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    y = _output(images, weight)
    pooled, place, winner = stem.maps(y)
    mean, variance = (shift.new_empty(len(weight)) for _ in range(2))
    return pooled, link_of(pooled), mean, variance, y, place, winner


@torch.library.custom_op("ssd::stem_backward", mutates_args=())
def whole_backward(
    grad: Tensor, second: Tensor | None, images: Tensor, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor, y: Tensor,
    place: Tensor, winner: Tensor, mean: Tensor, variance: Tensor, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of the convolution's weight in its number format, of the batch norm's weight and bias in float32. `second`
    came through the link."""
    grad, images, y = channels_last(grad), in_fours(images), channels_last(y)
    b, filters, h, w = y.shape
    p, q = grad.shape[2:]
    masked = torch.empty_like(grad)
    of_bias, of_weight = sums_of_gradients(
        grad, second, winner, None, norm_weight, norm_bias, mean, variance, eps, masked, True
    )
    programs = min(PROGRAMS_BACKWARD, triton.cdiv(b * p * q, POSITIONS))
    found = mean.new_empty(programs, filters, SPAN, SPAN, CHANNELS)
    _gradient_of_weights[(programs,)](
        masked, place, y, images, norm_weight, norm_bias, mean, variance, eps, of_bias, of_weight, found, images.shape[2],
        images.shape[3] * CHANNELS, h, w, p, q, b * p * q, b * h * w, POSITIONS, filters, SPAN, LINE, not y.is_cuda,
        num_warps=16, num_stages=2,
    )  # fmt: skip
    # of eight rows and pixels the first met no weight
    whole = found.sum(0)[:, 1:, 1:, : weight.shape[1]].permute(0, 3, 1, 2)
    return torch.empty_like(weight).copy_(whole), of_weight, of_bias


@whole_backward.register_fake
def _(
    grad: Tensor, second: Tensor | None, images: Tensor, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor, y: Tensor,
    place: Tensor, winner: Tensor, mean: Tensor, variance: Tensor, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    of_channels = (mean.new_empty(mean.shape) for _ in range(2))
    return (torch.empty_like(weight), *of_channels)  # type: ignore[return-value]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    images, weight, _, norm_weight, norm_bias, ctx.eps = inputs
    _, _, mean, variance, y, place, winner = output
    ctx.mark_non_differentiable(mean, variance, y, place, winner)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(images, weight, norm_weight, norm_bias, y, place, winner, mean, variance)


def _backward(ctx: Any, grad: Tensor, second: Tensor | None, *_: Any) -> tuple[Any, ...]:
    of_convolution, of_weight, of_bias = torch.ops.ssd.stem_backward(grad, second, *ctx.saved_tensors, ctx.eps)
    return None, of_convolution, None, of_weight, of_bias, None


whole.register_autograd(_backward, setup_context=_keep)
