"""How many maps the network has, how large they are, how many default boxes stand in each cell. Integers only, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Extra = tuple[int, int, Literal[1, 2], Literal[0, 1]]  # 1x1 channels, 3x3 channels, stride, padding

REFERENCE_EXTRAS: tuple[Extra, ...] = (
    (256, 512, 2, 1),
    (256, 512, 2, 1),
    (128, 256, 2, 1),
    (128, 256, 1, 0),
    (128, 256, 1, 0),
)


def feature_sizes(image_px: int, extras: Sequence[Extra]) -> list[int]:
    """Side of each map in cells, the backbone's first; ValueError when an extra block has nothing left to convolve."""

    def conv(size: int, kernel: int, stride: int, padding: int) -> int:
        return (size + 2 * padding - kernel) // stride + 1

    size = image_px
    for kernel, stride, padding in ((7, 2, 3), (3, 2, 1), (3, 2, 1)):  # conv1, maxpool, layer2
        size = conv(size, kernel, stride, padding)
    sizes = [size]
    for number, (_, _, stride, padding) in enumerate(extras, start=1):
        sizes.append(conv(sizes[-1], 3, stride, padding))
        if sizes[-1] < 1:
            raise ValueError(
                f"extra block {number} has no cell left (a {sizes[-2]} x {sizes[-2]} map, 3x3 kernel, "
                f"padding {padding}): use fewer extra blocks or a larger image than {image_px} px"
            )
    return sizes


def shapes_per_cell(aspect_ratios: Sequence[Sequence[float]]) -> list[int]:
    """Default boxes in each cell of each map: two squares and two for each aspect ratio."""
    return [2 + 2 * len(ratios) for ratios in aspect_ratios]
