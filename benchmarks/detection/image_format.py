"""What the data path hands to the network, and how the network takes it without copying it once more.

    fp32_chw    (B, 3, S, S) float32, the plain form
    fp16_hwc4   (B, S, S, 4) float16, the fourth channel zero: two thirds of the bytes, and in memory already what a
                channels_last network wants, with channels in fours for tensor cores. Pixels keep 11 significant bits, as many
                as fp16 has and more than bf16's 8.
    bf16_blocks (B, P, P, 16) bfloat16, the blocks of 2x2 pixels that a stem as space to depth convolves, with their border: see
                `blocks`. Nothing is left to be done to it in the step.

Shapes: B images, C channels, S image side in px, P side of the map of blocks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.detection.tables import ImageFormat

KERNEL, STRIDE, PADDING, CHANNELS = 7, 2, 3, 4  # of the convolution that blocks are for; channels, padded
BORDER = PADDING + 1  # of zeros before a picture's first row and column


class PaddedChannels(nn.Conv2d):
    """A convolution whose input may have more channels than its weights; they are zero, and meet weights of zero."""

    def forward(self, input: Tensor) -> Tensor:
        extra = input.shape[1] - self.in_channels
        out: Tensor = self._conv_forward(input, F.pad(self.weight, (0, 0, 0, 0, 0, extra)), self.bias)
        return out


def network_input(
    images: Tensor, form: ImageFormat, layout: torch.memory_format, autocast: torch.dtype | None
) -> Tensor:
    """Images in `form` as (B, 3 or 4, S, S), or their blocks, in the network's layout. No copy where they arrive in it.

    `autocast` is the number format that the network computes in, None for float32.
    """
    if form != "fp32_chw":
        images = images.permute(0, 3, 1, 2)
        if autocast is None:
            images = images.float()
    return images.contiguous(memory_format=layout)


def made(images: Tensor, form: ImageFormat) -> Tensor:
    """Images (B, 3, S, S) float32 in `form`, for a data path that does not make them in it."""
    if form == "fp32_chw":
        return images
    if form == "bf16_blocks":
        return blocks(images.bfloat16()).permute(0, 2, 3, 1)
    return F.pad(images.permute(0, 2, 3, 1), (0, 1)).half()


def blank(form: ImageFormat, batch_size: int, image_px: int, device: torch.device) -> Tensor:
    """A batch of mid-grey images as the data path would bring it, for warming up."""
    if form == "bf16_blocks":
        p = blocks_side(image_px)
        return torch.zeros(batch_size, p, p, 4 * CHANNELS, dtype=torch.bfloat16, device=device)
    if form == "fp16_hwc4":
        return torch.zeros(batch_size, image_px, image_px, 4, dtype=torch.float16, device=device)
    return torch.zeros(batch_size, 3, image_px, image_px, device=device)


def blocks(images: Tensor) -> Tensor:
    """(B, 3 or 4, S, S) to (B, 16, S', S') channels last, channel = 8*row + 4*column + colour within a block.

    With the border that padding by 3 and one more zero before the kernel ask for: S' is 3 more than the output's side.
    """
    b, c, height, width = images.shape
    border = [(BORDER, 2 * blocks_side(size) - size - BORDER) for size in (height, width)]
    padded = F.pad(images.permute(0, 2, 3, 1), (0, CHANNELS - c, *border[1], *border[0]))
    h, w = padded.shape[1] // 2, padded.shape[2] // 2
    whole = padded.reshape(b, h, 2, w, 2, CHANNELS).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, 4 * CHANNELS)
    return whole.permute(0, 3, 1, 2)


def blocks_side(size: int) -> int:
    """Of the map of blocks of a picture of this side: as many as the convolution's outputs, and 3 more for its last one."""
    return (size + 2 * PADDING - KERNEL) // STRIDE + 1 + 3
