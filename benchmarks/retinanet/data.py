"""RetinaNet's training batches, made by DALI or, where there is no DALI, by torchvision and PyTorch: one meaning, two
backends.

A picture is decoded whole, resized to the network's square, mirrored half of the time, normalised; the boxes with it. They
share no random numbers: equal seeds give equal batches within a backend.

Shapes: B images, S image side in px, G boxes of the batch's image that has most.
"""

from __future__ import annotations

from benchmarks.detection.data_path.data import Source, TrainBatches, backend
from benchmarks.retinanet.config import Augmentation


def train_batches(
    source: Source,
    augmentation: Augmentation,
    *,
    order_seed: int,
    augmentation_seed: int,
    checkpoint: bytes | None = None,
) -> TrainBatches:
    """Batches of images in source.image_format, ltrb (B, G, 4) float32 and labels (B, G) integers, 0 where there is no box.

    `order_seed` must be equal on all ranks: each epoch's order is drawn from it and then dealt out to the shards, every one
    of which has the same number of whole batches. `augmentation_seed` should differ between ranks. `checkpoint` is a former
    `TrainBatches.state()`.
    """
    batches: TrainBatches = backend("benchmarks.retinanet", source).train_batches(
        source, augmentation, order_seed=order_seed, augmentation_seed=augmentation_seed, checkpoint=checkpoint
    )
    return batches


def warm_up(source: Source) -> None:
    """Import what the batches will need, so that the timed run does not; touches no data."""
    backend("benchmarks.retinanet", source)
