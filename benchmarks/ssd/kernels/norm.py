"""Triton kernels of a batch norm in training, and their launches: sums over a map's rows, and passes over them.

benchmarks.ssd.kernels.batch_norm makes operators of them, and says what for.

Statistics are in float32 whatever the numbers are. Sums are made over shares of the rows and added in one order: equal
input gives equal bits. Variance: sums of differences from the first row, which is as far from the mean as any, so nothing
cancels.

Shapes: B images, C channels, H W of a map, R rows = B*H*W. Tensors are channels last.
"""

# No `from __future__ import annotations`: Triton reads annotations as objects. It has no types, and a kernel's launch names no
# arguments.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,import-untyped"
# ruff: noqa: PLR0917

import torch
import triton
import triton.language as tl
from torch import Tensor

# A tile: neighbouring rows of all channels, up to 256 of them, which lie together in memory; 16 numbers for each of a
# program's 256 threads. A step of an H100 takes 58.3 ms with 4,096 numbers and with 8,192; before a sum's ReLU was kept as
# bits, 59.2 with 256 channels and 59.6 with 64
TILE = 4096
MOST_C = 256
# That share the rows of a sum: two for each of an H100's 132 multiprocessors
PROGRAMS = 264
# Turns of a sum that are under way: while one is added up, the next is on its way through shared memory (32 KB in bf16, 64 in
# fp32; with 3 twice that, which not every card has). With 1 a program waits for memory and adds then: an H100 read 2.2 TB/s in
# sums of rows and 2.7 in sums of gradients, and 2.9 to 3.0 in passes
STAGES = 2
SUMMED_C = 8  # channels of a program that adds up what the others found


@triton.jit
def _place(C, BLOCK_C: tl.constexpr):
    """Of a program in a grid of one axis: which share of the rows it has, of how many; its channels, and which are there."""
    blocks = tl.cdiv(C, BLOCK_C)
    channel = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    return tl.program_id(0) // blocks, tl.num_programs(0) // blocks, channel, channel < C


@triton.jit
def _tile(which, R, C, channel, there, ROWS: tl.constexpr):
    """Rows of a tile; which of its places (ROWS, BLOCK_C) are there, and where they are."""
    row = which * ROWS + tl.arange(0, ROWS)
    return row, (row < R)[:, None] & there[None, :], row.to(tl.int64)[:, None] * C + channel[None, :]


@triton.jit
def _sums_of_rows(x, sums, R, C, STAGES: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr):
    share, parts, channel, there = _place(C, BLOCK_C)
    first = tl.load(x + channel, mask=there, other=0.0).to(tl.float32)
    one = tl.zeros([ROWS, BLOCK_C], dtype=tl.float32)
    two = tl.zeros([ROWS, BLOCK_C], dtype=tl.float32)
    for turn in tl.range(tl.cdiv(R, parts * ROWS * 4), num_stages=STAGES):
        # four tiles are on their way before the first is used: with one, a sum of 256 channels read 1.9 TB/s on an H100
        _, here_0, at_0 = _tile((turn * 4 + 0) * parts + share, R, C, channel, there, ROWS)
        _, here_1, at_1 = _tile((turn * 4 + 1) * parts + share, R, C, channel, there, ROWS)
        _, here_2, at_2 = _tile((turn * 4 + 2) * parts + share, R, C, channel, there, ROWS)
        _, here_3, at_3 = _tile((turn * 4 + 3) * parts + share, R, C, channel, there, ROWS)
        x_0 = tl.load(x + at_0, mask=here_0, other=0.0)
        x_1 = tl.load(x + at_1, mask=here_1, other=0.0)
        x_2 = tl.load(x + at_2, mask=here_2, other=0.0)
        x_3 = tl.load(x + at_3, mask=here_3, other=0.0)
        away_0 = tl.where(here_0, x_0.to(tl.float32) - first[None, :], 0.0)
        away_1 = tl.where(here_1, x_1.to(tl.float32) - first[None, :], 0.0)
        one += away_0 + away_1
        two += away_0 * away_0 + away_1 * away_1
        away_2 = tl.where(here_2, x_2.to(tl.float32) - first[None, :], 0.0)
        away_3 = tl.where(here_3, x_3.to(tl.float32) - first[None, :], 0.0)
        one += away_2 + away_3
        two += away_2 * away_2 + away_3 * away_3
    place = sums + share * 2 * C + channel
    tl.store(place, tl.sum(one, axis=0), mask=there)
    tl.store(place + C, tl.sum(two, axis=0), mask=there)


@triton.jit
def _moments(near, sums, mean, variance, programs, R, C, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    program = tl.arange(0, BLOCK_P)
    here = (program < programs)[:, None] & (channel < C)[None, :]
    place = sums + program[:, None] * 2 * C + channel[None, :]
    one = tl.sum(tl.load(place, mask=here, other=0.0), axis=0) / R
    two = tl.sum(tl.load(place + C, mask=here, other=0.0), axis=0) / R
    middle = tl.load(near + channel, mask=channel < C, other=0.0).to(tl.float32)
    tl.store(mean + channel, middle + one, mask=channel < C)
    tl.store(variance + channel, tl.maximum(two - one * one, 0.0), mask=channel < C)


@triton.jit
def scale_and_shift(weight, bias, mean, variance, eps, channel, there):
    """Of batch norm as x * scale + shift, and the mean and inverse deviation themselves."""
    inverse = tl.rsqrt(tl.load(variance + channel, mask=there, other=1.0) + eps)
    middle = tl.load(mean + channel, mask=there, other=0.0)
    scale = tl.load(weight + channel, mask=there, other=0.0) * inverse
    return scale, tl.load(bias + channel, mask=there, other=0.0) - middle * scale, middle, inverse


@triton.jit
def _bytes(bits, row, R, C, BLOCK_C: tl.constexpr):
    """Where the bits of these rows and of this program's channels are, and which there are."""
    eighth = tl.program_id(0) % tl.cdiv(C, BLOCK_C) * (BLOCK_C // 8) + tl.arange(0, BLOCK_C // 8)
    at = bits + row.to(tl.int64)[:, None] * (C // 8) + eighth[None, :]
    return at, (row < R)[:, None] & (eighth < C // 8)[None, :]


@triton.jit
def _normalise(
    x, skip, weight, bias, mean, variance, eps, y, bits, R, C,
    SKIP: tl.constexpr, RELU: tl.constexpr, BITS: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    share, _, channel, there = _place(C, BLOCK_C)
    row, here, at = _tile(share, R, C, channel, there, ROWS)
    found = tl.load(x + at, mask=here, other=0.0)
    scale, shift, _, _ = scale_and_shift(weight, bias, mean, variance, eps, channel, there)
    z = found.to(tl.float32) * scale[None, :] + shift[None, :]
    if SKIP:
        z += tl.load(skip + at, mask=here, other=0.0).to(tl.float32)
    if RELU:
        z = tl.where(z < 0.0, 0.0, z)  # lets a NaN through
    tl.store(y + at, z, mask=here)
    if BITS:  # where the ReLU let through, eight channels in a byte
        through = tl.reshape((z > 0.0).to(tl.int32), [ROWS, BLOCK_C // 8, 8])
        byte = tl.sum(through << tl.arange(0, 8)[None, None, :], axis=2)
        to, known = _bytes(bits, row, R, C, BLOCK_C)
        tl.store(to, byte.to(tl.uint8), mask=known)


@triton.jit
def _sums_of_gradients(
    grad, second, x, bits, weight, bias, mean, variance, eps, masked, sums, R, C,
    SECOND: tl.constexpr, BY_BITS: tl.constexpr, BY_X: tl.constexpr, LEAVE: tl.constexpr,
    STAGES: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    # The sums for shift and scale. The ReLU's mask is read as bits (BY_BITS) or found again from the input (BY_X). SECOND:
    # there is another gradient to be added. LEAVE: the masked sum of both is left in `masked`.
    share, parts, channel, there = _place(C, BLOCK_C)
    scale, shift, middle, inverse = scale_and_shift(weight, bias, mean, variance, eps, channel, there)
    one = tl.zeros([ROWS, BLOCK_C], dtype=tl.float32)
    two = tl.zeros([ROWS, BLOCK_C], dtype=tl.float32)
    for turn in tl.range(tl.cdiv(R, parts * ROWS), num_stages=STAGES):
        row, here, at = _tile(turn * parts + share, R, C, channel, there, ROWS)
        found = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
        g = tl.load(grad + at, mask=here, other=0.0).to(tl.float32)
        if SECOND:
            g += tl.load(second + at, mask=here, other=0.0).to(tl.float32)
        if BY_X:
            g = tl.where(found * scale[None, :] + shift[None, :] > 0.0, g, 0.0)
        if BY_BITS:
            to, known = _bytes(bits, row, R, C, BLOCK_C)
            byte = tl.load(to, mask=known, other=0).to(tl.int32)
            through = (byte[:, :, None] >> tl.arange(0, 8)[None, None, :]) & 1
            g = tl.where(tl.reshape(through, [ROWS, BLOCK_C]) != 0, g, 0.0)
        if LEAVE:
            rounded = g.to(masked.dtype.element_ty)  # the sums are of what the others will read
            tl.store(masked + at, rounded, mask=here)
            g = rounded.to(tl.float32)
        one += g
        two += tl.where(here, g * (found - middle[None, :]) * inverse[None, :], 0.0)
    place = sums + share * 2 * C + channel
    tl.store(place, tl.sum(one, axis=0), mask=there)
    tl.store(place + C, tl.sum(two, axis=0), mask=there)


@triton.jit
def _added(sums, one, two, programs, C, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    program = tl.arange(0, BLOCK_P)
    here = (program < programs)[:, None] & (channel < C)[None, :]
    place = sums + program[:, None] * 2 * C + channel[None, :]
    tl.store(one + channel, tl.sum(tl.load(place, mask=here, other=0.0), axis=0), mask=channel < C)
    tl.store(two + channel, tl.sum(tl.load(place + C, mask=here, other=0.0), axis=0), mask=channel < C)


@triton.jit
def _gradient_of_input(
    grad, x, weight, bias, mean, variance, eps, grad_bias, grad_weight, grad_x, R, C,
    BY_X: tl.constexpr, ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    share, _, channel, there = _place(C, BLOCK_C)
    _, here, at = _tile(share, R, C, channel, there, ROWS)
    found = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
    g = tl.load(grad + at, mask=here, other=0.0).to(tl.float32)
    scale, shift, middle, inverse = scale_and_shift(weight, bias, mean, variance, eps, channel, there)
    one = tl.load(grad_bias + channel, mask=there, other=0.0) / R
    two = tl.load(grad_weight + channel, mask=there, other=0.0) / R
    if BY_X:
        g = tl.where(found * scale[None, :] + shift[None, :] > 0.0, g, 0.0)
    away = (found - middle[None, :]) * inverse[None, :]
    tl.store(grad_x + at, scale[None, :] * (g - one[None, :] - away * two[None, :]), mask=here)


def tile(channels: int) -> tuple[int, int]:
    """Rows and channels of a tile of a map of so many channels."""
    across = min(MOST_C, max(16, int(triton.next_power_of_2(channels))))
    return TILE // across, across


def summing(x: Tensor) -> tuple[int, int, tuple[int], tuple[int, int]]:
    """Rows of x, programs among which they are dealt out, the grid of these, and a tile of one's turn."""
    c, r = x.shape[1], x.numel() // x.shape[1]
    of_turn = tile(c)
    programs = min(PROGRAMS, -(-r // of_turn[0]))
    return r, programs, (programs * triton.cdiv(c, of_turn[1]),), of_turn


def passing(x: Tensor) -> tuple[int, tuple[int], tuple[int, int]]:
    """Rows of x, the grid of a pass over them, and a tile of one program."""
    c, r = x.shape[1], x.numel() // x.shape[1]
    rows, across = tile(c)
    return r, (triton.cdiv(r, rows) * triton.cdiv(c, across),), (rows, across)


def channels_last(x: Tensor) -> Tensor:
    """`x` itself where it is."""
    return x.contiguous(memory_format=torch.channels_last)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) float32 of channels-last x (B, C, H, W)."""
    c = x.shape[1]
    r, programs, grid, of_turn = summing(x)
    sums = x.new_empty(programs, 2, c, dtype=torch.float32)
    _sums_of_rows[grid](x, sums, r, c, STAGES, *of_turn, num_warps=8)
    return moments_of(sums, x, r)


def moments_of(sums: Tensor, near: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of so many rows, from each program's sums (programs, 2, C) of their differences from
    the first C numbers of `near`, and of these differences' squares."""
    programs, _, c = sums.shape
    mean, variance = (sums.new_empty(c) for _ in range(2))
    _moments[(triton.cdiv(c, SUMMED_C),)](
        near, sums, mean, variance, programs, rows, c, triton.next_power_of_2(programs), SUMMED_C, num_warps=4
    )
    return mean, variance


def added(sums: Tensor, into: Tensor | None) -> tuple[Tensor, Tensor]:
    """Each program's two rows of sums (programs, 2, C) as two of all (C,), those of `into` (2, C) where it is given."""
    programs, _, c = sums.shape
    one, two = (sums.new_empty(c) for _ in range(2)) if into is None else into.unbind()
    _added[(triton.cdiv(c, SUMMED_C),)](
        sums, one, two, programs, c, triton.next_power_of_2(programs), SUMMED_C, num_warps=4
    )
    return one, two


def sums_of_gradients(
    grad: Tensor, second: Tensor | None, x: Tensor, bits: Tensor | None, weight: Tensor, bias: Tensor, mean: Tensor,
    variance: Tensor, eps: float, masked: Tensor | None, relu: bool, into: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of bias and weight (C,), in the rows of `into` (2, C) where it is given. A ReLU's mask is read from `bits`
    where they are given, else found from x. `masked`, where given, is filled with both gradients' sum where the ReLU let
    through."""
    c = x.shape[1]
    r, programs, grid, of_turn = summing(x)
    sums = x.new_empty(programs, 2, c, dtype=torch.float32)
    second = second if second is None else channels_last(second)
    _sums_of_gradients[grid](
        grad, grad if second is None else second, x, x if bits is None else bits, weight, bias, mean, variance, eps,
        grad if masked is None else masked, sums, r, c, second is not None, relu and bits is not None,
        relu and bits is None, masked is not None, STAGES, *of_turn, num_warps=8,
    )  # fmt: skip
    return added(sums, into)


def normalise(
    x: Tensor, skip: Tensor | None, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, y: Tensor,
    bits: Tensor | None, relu: bool,
) -> None:  # fmt: skip
    """Fill y, and `bits` where given."""
    r, grid, of_program = passing(x)
    _normalise[grid](
        x, x if skip is None else channels_last(skip), weight, bias, mean, variance, eps, y, y if bits is None else bits, r,
        x.shape[1], skip is not None, relu, bits is not None, *of_program, num_warps=8,
    )  # fmt: skip


def gradient_of_input(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float,
    grad_bias: Tensor, grad_weight: Tensor, by_x: bool,
) -> Tensor:  # fmt: skip
    """In the number format of x, from the gradient of the output and those of bias and weight (C,); with `by_x` the ReLU's mask
    is found from x."""
    grad_x = torch.empty_like(x)
    r, grid, of_program = passing(x)
    _gradient_of_input[grid](
        grad, x, weight, bias, mean, variance, eps, grad_bias, grad_weight, grad_x, r, x.shape[1], by_x, *of_program,
        num_warps=8,
    )  # fmt: skip
    return grad_x


def bits_for(x: Tensor) -> Tensor:
    """Room for the ReLU's mask of x as bits, (R, C / 8) uint8: a sixteenth of what reading its output in bf16 would be.

    ValueError where C is no multiple of 8; a ResNet's always is.
    """
    c = x.shape[1]
    if c % 8:
        raise ValueError(
            f"a sum of {c} channels: its ReLU's mask is kept as bytes of eight; leave blocks out of compute.fused"
        )
    return x.new_empty((x.numel() // c, c // 8), dtype=torch.uint8)


def link_of(x: Tensor) -> Tensor:
    """A tensor of x's shape without memory, for autograd alone."""
    return x.new_zeros(()).expand(x.shape)


def sent_of(x: Tensor) -> Tensor:
    """A tensor (2, C) float32 without memory, whose gradient is of bias and weight."""
    return x.new_zeros((), dtype=torch.float32).expand(2, x.shape[1])
