"""RetinaNet's training batches without DALI: torchvision decodes, PyTorch resizes and mirrors.

Shapes: see benchmarks.retinanet.data.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from benchmarks.detection.data_path import image_format
from benchmarks.detection.data_path.data import Source
from benchmarks.detection.data_path.data_torch import Draw, ShuffledBatches, begins
from benchmarks.detection.data_path.normalisation import normalised
from benchmarks.detection.data_path.pictures import Picture, flipped, padded, read
from benchmarks.retinanet.config import Augmentation


@dataclass
class TrainBatches(ShuffledBatches):
    """Whole batches, as many on every rank, of images, boxes and labels."""

    augmentation: Augmentation = field(kw_only=True)

    def _draw(self, epoch: int, place: int, pictures: list[Picture]) -> Draw:
        rng = self._rng(epoch, place)
        mirrored = rng.random(len(pictures)) < self.augmentation.flip_probability
        drawn = [_mirrored(each) if flip else each for each, flip in zip(pictures, mirrored, strict=True)]
        ltrb, labels = padded(drawn)
        return {"pixels": self._pixels(drawn), **self._on_device({"ltrb": ltrb, "labels": labels})}

    def _finished(self, draw: Draw) -> dict[str, Tensor]:
        images = normalised(draw["pixels"], *self._statistics)
        made = image_format.made(images, self.source.image_format)
        return {"images": made, "ltrb": draw["ltrb"], "labels": draw["labels"]}


def _mirrored(picture: Picture) -> Picture:
    return replace(picture, ltrb=flipped(picture.ltrb), mirrored=True)


def train_batches(
    source: Source,
    augmentation: Augmentation,
    *,
    order_seed: int,
    augmentation_seed: int,
    checkpoint: bytes | None = None,
) -> TrainBatches:
    """See benchmarks.retinanet.data.train_batches."""
    where = begins(order_seed, augmentation_seed, checkpoint)
    return TrainBatches(source, read(source), augmentation=augmentation, **where)
