"""Where graphs of benchmarks.ssd.kernels.convolution add up what they find, and what becomes of it.

They add to what is there, so that it must be zero: the kernel that takes the sums leaves zeros for the next one, and no step
has 53 more kernels that write them. Room that is taken and not given back, for something failed in between, is not used again.

Shapes: C channels.
"""

# No `from __future__ import annotations`: Triton reads annotations as objects. It has no types, and a kernel's launch names no
# arguments.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,import-untyped"
# ruff: noqa: PLR0917

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_C = 256  # channels of a program

_ZEROS: dict[tuple[torch.device, int, int], Tensor] = {}  # given back, by device, stream and channels


@triton.jit
def _moments(sums, shift, mean, variance, R, C, BLOCK_C: tl.constexpr):
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = channel < C
    one = tl.load(sums + channel, mask=there, other=0.0) / R
    two = tl.load(sums + C + channel, mask=there, other=0.0) / R
    tl.store(mean + channel, tl.load(shift + channel, mask=there, other=0.0) + one, mask=there)
    tl.store(variance + channel, tl.maximum(two - one * one, 0.0), mask=there)
    zero = tl.zeros([BLOCK_C], dtype=tl.float32)
    tl.store(sums + channel, zero, mask=there)
    tl.store(sums + C + channel, zero, mask=there)


@triton.jit
def _gradients(sums, variance, eps, found, C, BLOCK_C: tl.constexpr):
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = channel < C
    inverse = tl.rsqrt(tl.load(variance + channel, mask=there, other=1.0) + eps)
    tl.store(found + channel, tl.load(sums + channel, mask=there, other=0.0), mask=there)
    tl.store(found + C + channel, tl.load(sums + C + channel, mask=there, other=0.0) * inverse, mask=there)
    zero = tl.zeros([BLOCK_C], dtype=tl.float32)
    tl.store(sums + channel, zero, mask=there)
    tl.store(sums + C + channel, zero, mask=there)


def room(device: torch.device, channels: int) -> Tensor:
    """Zeros (2, C) float32, of nobody else until one of the functions below has taken what was added to them."""
    found = _ZEROS.pop(_of(device, channels), None)
    return torch.zeros(2, channels, device=device) if found is None else found


def moments(sums: Tensor, shift: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,) of so many rows, from `room` with the sums of their differences from `shift` (C,) and of
    these differences' squares."""
    c = len(shift)
    mean, variance = (sums.new_empty(c) for _ in range(2))
    _moments[(triton.cdiv(c, BLOCK_C),)](sums, shift, mean, variance, rows, c, BLOCK_C, num_warps=1)
    _give_back(sums)
    return mean, variance


def gradients(sums: Tensor, variance: Tensor, eps: float) -> Tensor:
    """Gradients (2, C) of a batch norm's bias and weight, from `room` with the sums of its output's gradients, and of these by
    its input's differences from the mean."""
    c, found = len(variance), sums.new_empty(sums.shape)
    _gradients[(triton.cdiv(c, BLOCK_C),)](sums, variance, eps, found, c, BLOCK_C, num_warps=1)
    _give_back(sums)
    return found


def _give_back(sums: Tensor) -> None:
    _ZEROS[_of(sums.device, sums.shape[1])] = sums


def _of(device: torch.device, channels: int) -> tuple[torch.device, int, int]:
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    return device, stream, channels
