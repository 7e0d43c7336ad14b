"""SSD's training batches, made by DALI or, where there is no DALI, by torchvision and PyTorch: one meaning, two backends.

Both draw from the same distribution of augmentations (benchmarks.ssd.augmentation). They share no random numbers: equal seeds
give equal batches within a backend.

Shapes: B images, S image side in px, A default boxes.
"""

from __future__ import annotations

from torch import Tensor

from benchmarks.detection.data_path.data import Source, TrainBatches, backend, eval_batches
from benchmarks.detection.data_path.normalisation import unnormalise
from benchmarks.detection.found import Batches
from benchmarks.ssd.config import Augmentation

__all__ = ["Batches", "Source", "TrainBatches", "eval_batches", "train_batches", "unnormalise", "warm_up"]


def train_batches(
    source: Source,
    augmentation: Augmentation,
    default_boxes: Tensor,
    *,
    order_seed: int,
    augmentation_seed: int,
    checkpoint: bytes | None = None,
) -> TrainBatches:
    """Batches of images in source.image_format, labels (B, A) int32 and offsets (B, A, 4) float32.

    `order_seed` must be equal on all ranks: each epoch's order is drawn from it and then dealt out to the shards, every one
    of which has the same number of whole batches. `augmentation_seed` should differ between ranks. `checkpoint` is a former
    `TrainBatches.state()`.
    """
    batches: TrainBatches = backend("benchmarks.ssd", source).train_batches(
        source,
        augmentation,
        default_boxes,
        order_seed=order_seed,
        augmentation_seed=augmentation_seed,
        checkpoint=checkpoint,
    )
    return batches


def warm_up(source: Source) -> None:
    """Import and compile what the batches will need, so that the timed run does not; touches no data."""
    backend("benchmarks.ssd", source).warm_up(source)
