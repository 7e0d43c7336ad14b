"""The first convolution in other forms: the same products, fed as a GPU's tensor cores want them.

A 7x7 convolution of stride 2 on 3 channels runs at a few per cent of an H100's peak, 5.5 of a step's 75.7 ms with the
padding of channels that cuDNN adds. Space to depth makes it an ordinary one: the kernel padded to 8x8 is 4x4 blocks of
2x2 pixels, whose 3 channels padded to 4 are 16 channels of a picture of half the side, and the stride is 1.

Parameters, their names and the random state stay as they are: weights are 64x3x7x7 in checkpoints, in the optimizer and
in the log, and autograd carries their gradient back through the same padding.

Shapes: B images, C channels, S image side in px, O channels of the output.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ssd.model import SSD
from benchmarks.ssd.vgg import VGG16

KERNEL, STRIDE, PADDING = 7, 2, 3
CHANNELS = 4  # an image's three and one of zeros


class SpaceToDepth(nn.Conv2d):
    """The 7x7 convolution of stride 2 as a 4x4 one of stride 1 over blocks of 2x2 pixels; exact, sums in another order."""

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(blocks(input), block_weights(self.weight))


def blocks(images: Tensor) -> Tensor:
    """(B, 3 or 4, S, S) to (B, 16, S', S') channels last, channel = 8*row + 4*column + colour within a block.

    With the border that padding by 3 and one more zero before the kernel ask for: S' is 3 more than the output's side.
    """
    b, c, height, width = images.shape
    border = [(PADDING + 1, 2 * (output_side(size) + 3) - size - PADDING - 1) for size in (height, width)]
    padded = F.pad(images.permute(0, 2, 3, 1), (0, CHANNELS - c, *border[1], *border[0]))
    h, w = padded.shape[1] // 2, padded.shape[2] // 2
    whole = padded.reshape(b, h, 2, w, 2, CHANNELS).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, 4 * CHANNELS)
    return whole.permute(0, 3, 1, 2)


def block_weights(weight: Tensor) -> Tensor:
    """(O, 3, 7, 7) to (O, 16, 4, 4), for `blocks`."""
    o, c, _, _ = weight.shape
    padded = F.pad(weight, (1, 0, 1, 0, 0, CHANNELS - c))  # (O, 4, 8, 8)
    return padded.reshape(o, CHANNELS, 4, 2, 4, 2).permute(0, 3, 5, 1, 2, 4).reshape(o, 4 * CHANNELS, 4, 4)


def output_side(size: int) -> int:
    """Of the convolution's output."""
    return (size + 2 * PADDING - KERNEL) // STRIDE + 1


def replace(model: SSD, form: type[nn.Conv2d]) -> None:
    """Give `model` its first convolution in another form, with the weights that it has."""
    trunk = model.backbone.to_conv4_3 if isinstance(model.backbone, VGG16) else model.backbone
    first = trunk[0]
    assert isinstance(first, nn.Conv2d)
    if issubclass(form, SpaceToDepth):
        assert first.bias is None
        assert (first.kernel_size, first.stride, first.padding) == ((KERNEL,) * 2, (STRIDE,) * 2, (PADDING,) * 2)
    trunk[0] = in_form(first, form)


def in_form(layer: nn.Conv2d, form: type[nn.Conv2d]) -> nn.Conv2d:
    """The layer as one of `form`, with its parameters."""
    kernel, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
    assert not isinstance(padding, str)
    # on the device meta it has no numbers of its own, for which random ones would be drawn
    made = form(
        layer.in_channels, layer.out_channels, kernel, stride, padding, bias=layer.bias is not None, device="meta"
    )
    made.weight, made.bias = layer.weight, layer.bias
    return made
