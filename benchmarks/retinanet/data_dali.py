"""RetinaNet's DALI graph for training: JPEG files of a COCO folder to images with their boxes, on a GPU or the CPU.

Images of a batch have different numbers of boxes; the graph itself fills them up to the largest, label 0, so that nobody
loops over images.

Shapes: see benchmarks.retinanet.data.
"""

from __future__ import annotations

import tempfile
from typing import Any

from nvidia.dali import fn, math, pipeline_def

from benchmarks.detection.data_path.data import Source
from benchmarks.detection.data_path.data_dali import DaliBatches, batches, decoding_of, normalised, shuffled, training
from benchmarks.retinanet.config import Augmentation


def train_batches(
    source: Source,
    augmentation: Augmentation,
    *,
    order_seed: int,
    augmentation_seed: int,
    checkpoint: bytes | None = None,
) -> DaliBatches:
    """See benchmarks.retinanet.data.train_batches."""
    saved = tempfile.TemporaryDirectory()
    pipe = _train_graph(
        source,
        augmentation,
        order_seed,
        saved.name,
        **training(source, augmentation_seed, checkpoint),
    )
    return batches(pipe, source, saved, ["images", "ltrb", "labels"], only_whole=True)


@pipeline_def  # type: ignore[untyped-decorator]
def _train_graph(source: Source, augmentation: Augmentation, order_seed: int, saved: str) -> Any:
    files, boxes, labels = shuffled(source, order_seed, saved)
    flip = fn.random.coin_flip(probability=augmentation.flip_probability)
    # the reader does not clamp a box that lies 1e-4 px outside
    boxes = fn.bb_flip(math.clamp(boxes, 0.0, 1.0), ltrb=True, horizontal=flip)
    images = normalised(fn.decoders.image(files, **decoding_of(source)), source, mirror=flip)
    boxes, labels = fn.pad(boxes, axes=(0,), fill_value=0.0), fn.pad(labels, axes=(0,), fill_value=0)
    if source.gpu is not None:
        boxes, labels = boxes.gpu(), labels.gpu()
    return images, boxes, labels
