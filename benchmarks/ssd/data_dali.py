"""SSD's DALI graph for training: JPEG files of a COCO folder to augmented images with encoded boxes, on a GPU or the CPU.

Order of the operations as in MLPerf v0.7's DALI submissions, after the paper's zoom out where it is asked for, which decodes
pictures whole: random crop around the boxes, decode of the crop alone, flip,
resize, colour, normalise, encode. Boxes are clamped before the crop, which refuses one that lies 1e-4 px outside.

Shapes: B images, S image side in px, A default boxes.
"""

from __future__ import annotations

import tempfile
from typing import Any

from nvidia.dali import fn, math, pipeline_def
from torch import Tensor

from benchmarks.detection.data_path.data import Source
from benchmarks.detection.data_path.data_dali import (
    DaliBatches,
    batches,
    decoding_of,
    normalised,
    shuffled,
    training,
    uniform,
)
from benchmarks.detection.data_path.pictures import FILL
from benchmarks.ssd.boxes import SCALE_WH, SCALE_XY, cxcywh_to_ltrb
from benchmarks.ssd.config import Augmentation
from benchmarks.ssd.matching import MATCH_IOU

# Of a graph on a GPU: 1.2 ms of a kernel and 514 small copies a batch of 256 on an H100. On the CPU instead it gained nothing
# while a thread of DALI's held up all others; measuring.ssd asks again
MATCHES_ON_DEVICE = True


def train_batches(
    source: Source,
    augmentation: Augmentation,
    default_boxes: Tensor,
    *,
    order_seed: int,
    augmentation_seed: int,
    checkpoint: bytes | None = None,
) -> DaliBatches:
    """See benchmarks.ssd.data.train_batches."""
    saved = tempfile.TemporaryDirectory()
    pipe = _train_graph(
        source,
        augmentation,
        cxcywh_to_ltrb(default_boxes).flatten().tolist(),
        order_seed,
        saved.name,
        **training(source, augmentation_seed, checkpoint),
    )
    return batches(pipe, source, saved, ["images", "offsets", "labels"], only_whole=True)


def warm_up(source: Source) -> None:
    """DALI compiles nothing: to have been imported is enough."""


def _random_crop(boxes: Any, labels: Any, augmentation: Augmentation) -> Any:
    """Window (begin, size) as fractions, and the boxes whose centre lies in it, relative to it."""
    return fn.random_bbox_crop(
        math.clamp(boxes, 0.0, 1.0),  # the crop refuses a box that is 1e-4 px outside; the reader does not clamp
        labels,
        bbox_layout="xyXY",
        thresholds=list(augmentation.crop_min_iou),
        scaling=list(augmentation.crop_scale),
        aspect_ratio=list(augmentation.crop_aspect_ratio),
        allow_no_crop=True,  # so that a draw always ends: no window need satisfy the other options
        all_boxes_above_threshold=augmentation.crop_boxes == "all",
        num_attempts=augmentation.crop_attempts,
    )


def _random_canvas(augmentation: Augmentation) -> tuple[Any, Any]:
    """See benchmarks.ssd.augmentation.random_canvas; where it begins is (2,)."""
    grown = fn.random.coin_flip(probability=augmentation.expand_probability)
    times = 1.0 + grown * fn.random.uniform(range=[0.0, augmentation.expand_most - 1.0])
    return times, fn.random.uniform(range=[0.0, 1.0], shape=[2]) * (times - 1.0)


@pipeline_def  # type: ignore[untyped-decorator]
def _train_graph(
    source: Source, augmentation: Augmentation, anchors_ltrb: list[float], order_seed: int, saved: str
) -> Any:
    files, boxes, labels = shuffled(source, order_seed, saved)
    times, place = None, None
    if augmentation.expand_probability:
        times, place = _random_canvas(augmentation)
        boxes = (math.clamp(boxes, 0.0, 1.0) + fn.cat(place, place)) / times
    begin, size, boxes, labels = _random_crop(boxes, labels, augmentation)
    if times is not None:
        # the window in the picture's own sides, of which a part may be beyond it
        images = fn.slice(
            fn.decoders.image(files, **decoding_of(source)),
            begin * times - place,
            size * times,
            out_of_bounds_policy="pad",
            fill_values=FILL,
        )
    elif source.whole:
        images = fn.slice(fn.decoders.image(files, **decoding_of(source)), begin, size)
    else:
        images = fn.decoders.image_slice(files, begin, size, **decoding_of(source))
    flip = fn.random.coin_flip(probability=augmentation.flip_probability)
    boxes = fn.bb_flip(boxes, ltrb=True, horizontal=flip)

    def colour(resized: Any) -> Any:
        return fn.color_twist(
            resized,
            brightness=uniform(augmentation.brightness),
            contrast=uniform(augmentation.contrast),
            saturation=uniform(augmentation.saturation),
            hue=uniform(augmentation.hue_degrees),
        )

    images = normalised(images, source, colour, mirror=flip)
    if source.gpu is not None and MATCHES_ON_DEVICE:
        boxes, labels = boxes.gpu(), labels.gpu()
    offsets, labels = fn.box_encoder(
        boxes,
        labels,
        criteria=MATCH_IOU,
        anchors=anchors_ltrb,
        offset=True,
        stds=[SCALE_XY, SCALE_XY, SCALE_WH, SCALE_WH],
    )
    if source.gpu is not None and not MATCHES_ON_DEVICE:
        offsets, labels = offsets.gpu(), labels.gpu()
    return images, offsets, labels
