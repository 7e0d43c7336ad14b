"""What is left to be done to a training batch that comes as levels: colour, flip, normalising, the stem's blocks.

For image_format = "bf16_blocks", where DALI's graph draws the changes and ends with resizing. They are what its operators would
do: see benchmarks.ssd.augmentation.

Shapes: B images, S image side in px, P side of the map of blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.detection import image_format
from benchmarks.detection.normalisation import imagenet, normalised
from benchmarks.ssd.augmentation import coloured, colours

DRAWN = ("brightness", "contrast", "hue", "saturation", "mirrored")  # the columns of what a graph draws for an image
COLOUR = 12  # numbers of a change that are of colour: (3, 4), what levels are multiplied with, and what is then added


def changes(drawn: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(B, 13) of draws (B, 5), see DRAWN; hue in degrees. COLOUR numbers of colour, then 1 where mirrored, else 0."""
    brightness, contrast, hue, saturation, mirrored = np.asarray(drawn, dtype=np.float64).T
    colour = colours(brightness, contrast, saturation, hue).reshape(-1, COLOUR)
    return np.concatenate([colour, mirrored[:, None].astype(np.float32)], axis=1)


def plain(levels: Tensor, changes: Tensor) -> Tensor:
    """The definition: (B, P, P, 16) bfloat16 of levels (B, S, S, 3) uint8 and changes (B, 13)."""
    pictures = coloured(levels.permute(0, 3, 1, 2), changes[:, :COLOUR].view(-1, 3, 4))
    pictures = torch.where(changes[:, COLOUR, None, None, None] != 0, pictures.flip(3), pictures)
    return image_format.made(normalised(pictures, *imagenet(levels.device)), "bf16_blocks")


def finished(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A batch whose images are levels (B, S, S, 3) and which has `drawn` (B, 5) on the CPU, with its images in blocks."""
    table = torch.from_numpy(changes(batch["drawn"].numpy()))
    levels = batch["images"]
    rest = {name: tensor for name, tensor in batch.items() if name != "drawn"}
    if device.type != "cuda":
        return {**rest, "images": plain(levels, table.to(device))}
    from benchmarks.ssd.kernels import pixels  # Benchmark.check has seen to it that Triton is there

    return {**rest, "images": pixels.blocks_of_levels(levels, table.pin_memory().to(device, non_blocking=True))}
