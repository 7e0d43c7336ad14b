"""How many maps the network has, how large they are, how many default boxes stand in each cell. Integers only, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Clamped = Literal["all", "sizes", "none"]  # of a default box's four numbers: all, width and height, none
Backbone = Literal["resnet18", "resnet34", "vgg16"]
# Of an extra block: 1x1 channels, 3x3 channels, stride, padding, and the second kernel's side where it is not 3
Extra = (
    tuple[int, int, Literal[1, 2], Literal[0, 1]]
    | tuple[int, int, Literal[1, 2], Literal[0, 1], Literal[3, 4]]
)  # fmt: skip

REFERENCE_EXTRAS: tuple[Extra, ...] = (
    (256, 512, 2, 1),
    (256, 512, 2, 1),
    (128, 256, 2, 1),
    (128, 256, 1, 0),
    (128, 256, 1, 0),
)


def feature_sizes(image_px: int, extras: Sequence[Extra], backbone: Backbone = "resnet34") -> list[int]:
    """Side of each map in cells, the backbone's first; ValueError when an extra block has nothing left to convolve."""
    sizes = _of_backbone(image_px, backbone)
    for number, extra in enumerate(extras, start=1):
        stride, padding, kernel = extra[2], extra[3], second_kernel(extra)
        sizes.append(_conv(sizes[-1], kernel, stride, padding))
        if sizes[-1] < 1:
            raise ValueError(
                f"extra block {number} has no cell left (a {sizes[-2]} x {sizes[-2]} map, {kernel}x{kernel} kernel, "
                f"padding {padding}): use fewer extra blocks or a larger image than {image_px} px"
            )
    return sizes


def second_kernel(extra: Extra) -> int:
    """Side of the kernel that shrinks the map."""
    return extra[4] if len(extra) == 5 else 3


def _of_backbone(image_px: int, backbone: Backbone) -> list[int]:
    size = image_px
    if backbone == "vgg16":
        size = -(-(size // 4) // 2)  # pool1 and pool2 leave an odd last row out, pool3 does not: 75 to 38
        return [size, size // 2]  # conv4_3, and behind pool4 conv5_3, fc6 and fc7
    for kernel, stride, padding in ((7, 2, 3), (3, 2, 1), (3, 2, 1)):  # conv1, maxpool, layer2
        size = _conv(size, kernel, stride, padding)
    return [size]


def _conv(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


def shapes_per_cell(aspect_ratios: Sequence[Sequence[float]]) -> list[int]:
    """Default boxes in each cell of each map: two squares and two for each aspect ratio."""
    return [2 + 2 * len(ratios) for ratios in aspect_ratios]
