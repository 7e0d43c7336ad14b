"""What the data path hands to the network, and how the network takes it without copying it once more.

    fp32_chw    (B, 3, S, S) float32, the plain form
    fp16_hwc4   (B, S, S, 4) float16, the fourth channel zero: two thirds of the bytes, and in memory already what a
                channels_last network wants, with channels in fours for tensor cores. Pixels keep 11 significant bits, as many
                as fp16 has and more than bf16's 8.

Shapes: B images, S image side in px.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.detection.tables import ImageFormat

# Of a normalised pixel: black is 2.1 standard deviations of ImageNet's pixels below their mean
LOWEST, HIGHEST = -2.1, 2.6


class PaddedChannels(nn.Conv2d):
    """A convolution whose input may have more channels than its weights; they are zero, and meet weights of zero."""

    def forward(self, input: Tensor) -> Tensor:
        extra = input.shape[1] - self.in_channels
        out: Tensor = self._conv_forward(input, F.pad(self.weight, (0, 0, 0, 0, 0, extra)), self.bias)
        return out


def network_input(
    images: Tensor, form: ImageFormat, layout: torch.memory_format, autocast: torch.dtype | None
) -> Tensor:
    """Images in `form` as (B, 3 or 4, S, S) in the network's layout. No copy where they arrive in it.

    `autocast` is the number format that the network computes in, None for float32.
    """
    if form == "fp16_hwc4":
        images = images.permute(0, 3, 1, 2)
        if autocast is None:
            images = images.float()
    return images.contiguous(memory_format=layout)


def made(images: Tensor, form: ImageFormat) -> Tensor:
    """Images (B, 3, S, S) float32 in `form`, for a data path that does not make them in it."""
    if form == "fp32_chw":
        return images
    return F.pad(images.permute(0, 2, 3, 1), (0, 1)).half()


def blank(form: ImageFormat, batch_size: int, image_px: int, device: torch.device) -> Tensor:
    """A batch of mid-grey images as the data path would bring it, for warming up."""
    if form == "fp16_hwc4":
        return torch.zeros(batch_size, image_px, image_px, 4, dtype=torch.float16, device=device)
    return torch.zeros(batch_size, 3, image_px, image_px, device=device)


def noise(form: ImageFormat, batch_size: int, image_px: int, device: torch.device) -> Tensor:
    """A batch of noise in the range of normalised pixels, always the same: for steps whose speed or result decides something.

    Of grey images a map's numbers are all alike: a wrong kernel may give the right ones, and a card draws less power.
    """
    numbers = torch.rand(batch_size, 3, image_px, image_px, generator=torch.Generator().manual_seed(0))
    return made(numbers.mul_(HIGHEST - LOWEST).add_(LOWEST), form).to(device)
