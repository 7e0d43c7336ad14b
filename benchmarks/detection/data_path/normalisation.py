"""Levels of a picture as the network wants them: less ImageNet's mean, by its deviation, as the backbones were trained with.

Shapes: B images, S image side in px.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESIZED = {True: "bilinear with antialiasing (triangular filter)", False: "bilinear between four pixels"}


def imagenet(device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Mean and deviation (3, 1, 1) of levels 0 to 255. Made once: to make them on a GPU the host waits for it."""
    mean, std = (
        torch.tensor([255 * x for x in each])[:, None, None].to(device) for each in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return mean, std


def normalised(levels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(B, 3, S, S) levels 0 to 255 less `mean` (3, 1, 1), by `std`, in float32."""
    if levels.dtype == torch.uint8 and levels.device.type == "cpu":
        # bytes less floats take PyTorch 5 ms of a picture of 800 x 800 on a CPU, turned to floats first 1.5; equal to the bit
        return levels.float().sub_(mean).div_(std)
    return (levels - mean).div_(std)


def preprocessing(image_px: int, antialias: bool) -> dict[str, Any]:
    """How a picture becomes the network's input: what a checkpoint carries, and an exported file says."""
    return {
        "colours": "RGB",
        "side_px": image_px,
        "resize": f"whole picture to a square, {RESIZED[antialias]}, rounded to 8 bits",
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
    }


def unnormalise(images: Tensor) -> npt.NDArray[np.uint8]:
    """Network input (B, 3, S, S) back to pictures (B, S, S, 3) uint8."""
    mean, std = imagenet(images.device)
    pictures = (images.float() * std + mean).clamp(0, 255).round().byte()
    return pictures.permute(0, 2, 3, 1).cpu().numpy()
