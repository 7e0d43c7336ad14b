"""RetinaNet's training batches without DALI: torchvision decodes, PyTorch resizes and mirrors.

Shapes: see benchmarks.retinanet.data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.detection import image_format
from benchmarks.detection.data import Source
from benchmarks.detection.data_torch import Draw, TorchBatches
from benchmarks.detection.normalisation import normalised
from benchmarks.detection.pictures import Picture, flipped, padded, read
from benchmarks.retinanet.config import Augmentation


@dataclass
class TrainBatches(TorchBatches):
    """Whole batches, as many on every rank, of images, boxes and labels."""

    augmentation: Augmentation = field(kw_only=True)
    order_seed: int = field(kw_only=True)
    augmentation_seed: int = field(kw_only=True)

    def state(self) -> bytes:
        return json.dumps({name: getattr(self, name) for name in ("order_seed", "augmentation_seed", "epoch")}).encode()

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.order_seed, epoch]).permutation(len(self.pictures))

    def _groups(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        whole = len(self.pictures) // self.source.shards // self.source.batch_size
        return super()._groups(epoch)[:whole]

    def _draw(self, epoch: int, place: int, pictures: list[Picture]) -> Draw:
        rng = np.random.default_rng([self.augmentation_seed, epoch, place])
        mirrored = rng.random(len(pictures)) < self.augmentation.flip_probability
        drawn = [_mirrored(each) if flip else each for each, flip in zip(pictures, mirrored, strict=True)]
        ltrb, labels = padded(drawn)
        on_device = {
            name: torch.from_numpy(each).to(self.source.device) for name, each in (("ltrb", ltrb), ("labels", labels))
        }
        return {"pixels": self._pixels(drawn), **on_device}

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
    where = {"order_seed": order_seed, "augmentation_seed": augmentation_seed}
    if checkpoint is not None:
        where = json.loads(checkpoint)
    return TrainBatches(source, read(source), augmentation=augmentation, **where)
