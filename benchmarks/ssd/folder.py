"""The COCO folder of a run of SSD, as one rank reads it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from benchmarks.detection import folder
from benchmarks.ssd import data
from benchmarks.ssd.config import SSDConfig


@dataclass(frozen=True)
class Folder(folder.Folder):
    """With SSD's training batches."""

    config: SSDConfig

    def train_batches(self, default_boxes: Tensor, checkpoint: bytes | None = None) -> data.TrainBatches:
        """From the first epoch, or from where `checkpoint` stands."""
        return data.train_batches(
            self.train_source,
            self.config.augmentation,
            default_boxes.cpu(),
            order_seed=self.context.seed,
            augmentation_seed=self.context.rank_seed,
            checkpoint=checkpoint,
        )
