"""VGG-16 as the SSD paper cuts it: up to conv4_3, whose map is normalised, and on to fc6 and fc7 as convolutions.

Liu et al., arXiv 1512.02325v5, section 3: pool3 keeps an odd last row, pool5 is 3x3 with stride 1, fc6 is a 3x3 convolution
with dilation 6, fc7 a 1x1 one, dropout and fc8 are gone. conv4_3 is brought to unit length in each cell and multiplied by a
learnt number for each channel, 20 to begin with; the trunk goes on from the map as it was.

Narrower ones, whose channels are all divided by the same number, learn on a laptop. They have no published weights, and their
scale begins with what gives a channel the size that 20 gives one of 512: less by the root of the number.

Shapes: B images, C channels (512), S image side in px, H W of a map.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

CONV4_3, FC7 = 512, 1024  # channels
POOL3, POOL4, POOL5 = 16, 23, 30  # places in torchvision's vgg16().features
FC6, FC7_PLACE = 1, 3  # in VGG16.fc
FIRST_SCALE = 20.0
DILATION = 6


class L2Norm(nn.Module):
    """Unit length over the channels of each cell, then a learnt number for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), FIRST_SCALE * math.sqrt(channels / CONV4_3)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same; computed in float32, since a sum of 512 squares leaves float16's range."""
        return (self.scale.view(1, -1, 1, 1) * F.normalize(x.float(), dim=1)).to(x.dtype)


class VGG16(nn.Module):
    """The paper's two maps of a picture: conv4_3, normalised, and fc7."""

    def __init__(self, width_divisor: int = 1) -> None:
        super().__init__()
        layers = make_layers(
            [each if isinstance(each, str) else each // width_divisor for each in cfgs["D"]], batch_norm=False
        )
        layers[POOL3].ceil_mode = True
        self.to_conv4_3 = layers[:POOL4]
        self.to_conv5_3 = layers[POOL4:POOL5]
        conv4_3, fc7 = self.channels = (CONV4_3 // width_divisor, FC7 // width_divisor)
        self.norm = L2Norm(conv4_3)
        self.fc = nn.Sequential(
            nn.MaxPool2d(kernel_size=3, stride=1, padding=1),
            nn.Conv2d(conv4_3, fc7, kernel_size=3, padding=DILATION, dilation=DILATION),
            nn.ReLU(inplace=True),
            nn.Conv2d(fc7, fc7, kernel_size=1),
            nn.ReLU(inplace=True),
        )
        for conv in (module for module in self.modules() if isinstance(module, nn.Conv2d)):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's VGG begins
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) to (B, C, H, W) and (B, 2C, H/2, W/2)."""
        conv4_3 = self.to_conv4_3(images)
        return self.norm(conv4_3), self.fc(self.to_conv5_3(conv4_3))


def decimated(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's vgg16 state under VGG16's names.

    Of fc6, 4096 filters of 512x7x7, every fourth is kept and of its rows and columns every third; of fc7 every fourth filter
    and of each the weights of the filters of fc6 that are left: what the paper calls subsampling, after DeepLab-LargeFOV.
    KeyError where one is not there.
    """
    found: dict[str, Tensor] = {}
    for key, value in weights.items():
        part, _, rest = key.partition(".")
        if part == "features":  # a slice of a Sequential keeps its names
            stage = "to_conv4_3" if int(rest.partition(".")[0]) < POOL4 else "to_conv5_3"
            found[f"{stage}.{rest}"] = value
    found[f"fc.{FC6}.weight"] = weights["classifier.0.weight"].view(4096, 512, 7, 7)[::4, :, ::3, ::3].contiguous()
    found[f"fc.{FC6}.bias"] = weights["classifier.0.bias"][::4].clone()
    found[f"fc.{FC7_PLACE}.weight"] = weights["classifier.3.weight"][::4, ::4, None, None].contiguous()
    found[f"fc.{FC7_PLACE}.bias"] = weights["classifier.3.bias"][::4].clone()
    return found
