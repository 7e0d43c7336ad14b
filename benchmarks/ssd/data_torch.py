"""SSD's training batches without DALI: the draws of benchmarks.ssd.augmentation, matched on the device.

Shapes: B images, S image side in px, G ground-truth boxes of an image, A default boxes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from benchmarks.detection.compiling import compiled
from benchmarks.detection.data_path import image_format
from benchmarks.detection.data_path.data import Source
from benchmarks.detection.data_path.data_torch import Draw, ShuffledBatches, begins
from benchmarks.detection.data_path.normalisation import imagenet, normalised
from benchmarks.detection.data_path.pictures import Picture, padded, read
from benchmarks.ssd import augmentation as maths
from benchmarks.ssd.augmentation import augmented
from benchmarks.ssd.config import Augmentation
from benchmarks.ssd.matching import match


@dataclass
class TrainBatches(ShuffledBatches):
    """Whole batches, as many on every rank, of images, labels and offsets."""

    augmentation: Augmentation = field(kw_only=True)
    default_boxes: Tensor = field(kw_only=True)  # (A, 4) cxcywh, on the device

    def _draw(self, epoch: int, place: int, pictures: list[Picture]) -> Draw:
        rng = self._rng(epoch, place)
        drawn = [augmented(rng, picture, self.augmentation) for picture in pictures]
        colours = np.stack([maths.random_colour(rng, self.augmentation) for _ in drawn])
        ltrb, labels = padded(drawn)
        small = self._on_device({"colours": colours, "ltrb": ltrb, "labels": labels})
        return {"pixels": self._pixels(drawn), **small}

    def _finished(self, draw: Draw) -> dict[str, Tensor]:
        # of matching, torch.compile 2.11 on a CPU gets the place of the largest overlap wrong: it stays as it is
        make = compiled(_images) if self.source.compiled else _images
        images = make(draw["pixels"], draw["colours"], *self._statistics)
        labels, offsets = match(draw["ltrb"], draw["labels"], self.default_boxes)
        return {"images": image_format.made(images, self.source.image_format), "labels": labels, "offsets": offsets}


def train_batches(
    source: Source,
    augmentation: Augmentation,
    default_boxes: Tensor,
    *,
    order_seed: int,
    augmentation_seed: int,
    checkpoint: bytes | None = None,
) -> TrainBatches:
    """See benchmarks.ssd.data.train_batches."""
    where = begins(order_seed, augmentation_seed, checkpoint)
    boxes = default_boxes.to(source.device)
    return TrainBatches(source, read(source), augmentation=augmentation, default_boxes=boxes, **where)


def warm_up(source: Source) -> None:
    """Compile on blank pictures what training's batches of them will need."""
    if source.compiled:
        b, side, device = source.batch_size, source.image_px, source.device
        pixels = torch.zeros(b, 3, side, side, dtype=torch.uint8, device=device)
        compiled(_images)(pixels, torch.zeros(b, 3, 4, device=device), *imagenet(device))


def _images(pixels: Tensor, colours: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Training's images (B, 3, S, S) float32 of pixels (B, 3, S, S) uint8 and colours (B, 3, 4)."""
    return normalised(maths.coloured(pixels, colours), mean, std)
