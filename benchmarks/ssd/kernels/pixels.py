"""Colour, flip, normalising and the stem's blocks in one pass: `benchmarks.ssd.pixels.plain` for CUDA. Needs Triton.

DALI's operators and the step read and write a batch three times for the same: of 256 images of 300 px 69 MB of levels
become 767 MB moved. Here each level is read once and each number of a block written once, 261 MB.

Shapes: B images, S image side in px, P side of the map of blocks (see benchmarks.detection.image_format.blocks).
"""

# No `from __future__ import annotations`: Triton reads annotations as objects. Triton has no types, and a kernel's launch
# names no arguments.
# mypy: disable-error-code="no-untyped-def,untyped-decorator,import-untyped"
# ruff: noqa: PLR0917

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks.detection.image_format import BORDER, CHANNELS, blocks_side
from benchmarks.detection.normalisation import IMAGENET_MEAN, IMAGENET_STD

POSITIONS = 256  # blocks of one program: 1,024 pixels, 8 for each of its 128 threads
# Added to a number between 0 and 255 and taken off again, it leaves the nearest whole one, of two the even: what torch.round
# and DALI on a GPU do. Float32 has no digits after the point from here on
WHOLE = tl.constexpr(float(3 * 2**22))


@triton.jit
def _coloured(red, green, blue, row, inside, mean, inverse):
    """One colour of the pixels after the change that the four numbers at `row` are, rounded to a level and normalised."""
    level = tl.load(row) * red + tl.load(row + 1) * green + tl.load(row + 2) * blue + tl.load(row + 3)
    level = tl.minimum(tl.maximum(level, 0.0), 255.0)
    level = (level + WHOLE) - WHOLE
    return tl.where(inside, (level - mean) * inverse, 0.0)


@triton.jit
def _blocks_of_levels(
    levels, changes, blocks, S, P, mean_0, mean_1, mean_2, inverse_0, inverse_1, inverse_2,
    BORDER: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    change = changes + image * 13
    position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)  # of this image's blocks
    corner = tl.arange(0, 4)
    y = (2 * (position // P) - BORDER)[:, None] + (corner // 2)[None, :]
    x = (2 * (position % P) - BORDER)[:, None] + (corner % 2)[None, :]
    inside = (position < P * P)[:, None] & (y >= 0) & (y < S) & (x >= 0) & (x < S)
    x = tl.where(tl.load(change + 12) != 0.0, S - 1 - x, x)
    at = levels + image * S * S * 3 + (y * S + x) * 3
    red = tl.load(at, mask=inside, other=0).to(tl.float32)
    green = tl.load(at + 1, mask=inside, other=0).to(tl.float32)
    blue = tl.load(at + 2, mask=inside, other=0).to(tl.float32)
    one = _coloured(red, green, blue, change, inside, mean_0, inverse_0)
    two = _coloured(red, green, blue, change + 4, inside, mean_1, inverse_1)
    three = _coloured(red, green, blue, change + 8, inside, mean_2, inverse_2)
    # (POSITIONS, 16): for each corner three colours and a zero
    whole = tl.interleave(tl.interleave(one, three), tl.interleave(two, tl.zeros_like(two)))
    channel = tl.arange(0, 16)
    to = blocks + image * P * P * 16 + position[:, None] * 16 + channel[None, :]
    tl.store(to, whole, mask=(position < P * P)[:, None] & (channel < 16)[None, :])


def blocks_of_levels(levels: Tensor, changes: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """(B, P, P, 16) of levels (B, S, S, 3) uint8 and changes (B, 13), see benchmarks.ssd.pixels.changes."""
    assert CHANNELS == 4 and levels.is_contiguous() and changes.is_contiguous()
    b, side, _, _ = levels.shape
    p = blocks_side(side)
    found = torch.empty(b, p, p, 4 * CHANNELS, dtype=dtype, device=levels.device)
    means, inverses = [255 * each for each in IMAGENET_MEAN], [1 / (255 * each) for each in IMAGENET_STD]
    _blocks_of_levels[(triton.cdiv(p * p, POSITIONS), b)](
        levels, changes, found, side, p, *means, *inverses, BORDER, POSITIONS, num_warps=4
    )
    return found
