"""The network's output to detections, for a whole batch at once: softmax, decode, suppression within each class.

Numbers as in the MLPerf reference (ssd, v0.7): scores above 0.05, the best 200 of a class before suppression, IoU 0.5,
the best 200 of an image after it. One difference: a box goes when its IoU with a better one is above 0.5, as in
torchvision's NMS; the reference's goes at exactly 0.5 too. An image without detections is nothing special.

No loop runs over images or classes. The host waits for the device a few times in a batch, to learn how many candidates there
are.

Shapes: B images, A default boxes, K classes with background 0, N candidates or detections of all images.
"""

from __future__ import annotations

import math

from torch import Tensor

from benchmarks.detection.found import Detections
from benchmarks.detection.suppression import MAX_IOU, best_first, rank_in, unsuppressed
from benchmarks.ssd.boxes import decode

MIN_SCORE = 0.05
ROUNDING = 1e-3  # of logits
MAX_PER_CLASS = 200  # before suppression
MAX_PER_IMAGE = 200  # after it


def detect(
    logits: Tensor,
    offsets: Tensor,
    default_boxes: Tensor,
    *,
    min_score: float = MIN_SCORE,
    max_iou: float = MAX_IOU,
    max_per_class: int = MAX_PER_CLASS,
) -> Detections:
    """Detections from logits (B, A, K), offsets (B, A, 4) and default boxes (A, 4) cxcywh, all float32."""
    # A class can reach the threshold only where its logit comes near the background's, which is at few default boxes:
    # p > min_score asks for exp(logit - background's) > min_score.
    # NaN compares false: a network that has diverged detects nothing.
    near = math.log(min_score) - ROUNDING
    images, anchors = (logits[..., 1:].amax(dim=-1) - logits[..., 0] > near).nonzero(as_tuple=True)
    probabilities = logits[images, anchors].softmax(dim=-1)[:, 1:]
    position, classes = (probabilities > min_score).nonzero(as_tuple=True)
    images, anchors = images[position], anchors[position]
    candidates = Detections(
        images,
        decode(offsets[images, anchors], default_boxes[anchors]),
        probabilities[position, classes],
        classes + 1,
    )
    group = images * logits.shape[-1] + candidates.labels
    order = best_first(candidates.scores, group)
    rank = rank_in(group[order])
    candidates, rank = candidates[order[rank < max_per_class]], rank[rank < max_per_class]

    kept = candidates[unsuppressed(candidates.ltrb, rank, max_iou)]
    order = best_first(kept.scores, kept.images)
    return kept[order[rank_in(kept.images[order]) < MAX_PER_IMAGE]]
