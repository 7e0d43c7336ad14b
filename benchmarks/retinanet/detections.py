"""The network's output to detections, for a whole batch at once: sigmoid, decode, suppression within each class.

Numbers as in the MLPerf reference (single_stage_detector, v2.0): of each map the best 1,000 scores above 0.05, whatever
their class; boxes cut off at the image's rim; IoU 0.5; the best 300 of an image after it (why not 100: EvaluationTable). A
logit says as much as its score, so that the many that are below the threshold are only compared, and sigmoid is for the few
others.

No loop runs over images or classes. The host waits for the device a few times in a batch, to learn how many candidates
there are.

Shapes: B images, K classes without background, L anchors of one map, N candidates or detections of all images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.detection.found import Detections
from benchmarks.detection.suppression import best_first, rank_in, unsuppressed
from benchmarks.retinanet.anchors import decode

MIN_SCORE = 0.05
MIN_LOGIT = math.log(MIN_SCORE / (1 - MIN_SCORE))
MAX_PER_MAP = 1000  # before suppression


def detect(
    logits: Sequence[Tensor], offsets: Sequence[Tensor], anchors_px: Tensor, image_px: int, max_detections: int
) -> Detections:
    """Detections from logits (B, L, K) and offsets (B, L, 4) map by map, and anchors (A, 4) ltrb_px."""
    sides = [each.shape[1] for each in logits]
    of_maps = [_candidates(*each) for each in zip(logits, offsets, anchors_px.split(sides), strict=True)]
    images, of_best, anchors, scores, labels = (torch.cat(part) for part in zip(*of_maps, strict=True))
    ltrb = decode(of_best.float(), anchors).clamp(0, image_px) / image_px

    group = images * (logits[0].shape[2] + 1) + labels
    order = best_first(scores, group)
    candidates, rank = Detections(images, ltrb, scores, labels)[order], rank_in(group[order])
    kept = candidates[unsuppressed(candidates.ltrb, rank)]
    order = best_first(kept.scores, kept.images)
    return kept[order[rank_in(kept.images[order]) < max_detections]]


def _candidates(logits: Tensor, offsets: Tensor, anchors_px: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of one map: images, offsets (N, 4), their anchors (N, 4) ltrb_px, scores and labels."""
    # Most anchors have no class above the threshold, which one reduction tells: a third of the time of looking at each logit.
    # NaN compares false: a network that has diverged detects nothing
    # Compared in float32, for of two numbers of which one is bfloat16 the threshold would be rounded, too
    rows = (logits.amax(dim=2).float() > MIN_LOGIT).flatten().nonzero()[:, 0]  # of all images' anchors
    of_rows = logits.flatten(0, 1).index_select(0, rows).float()  # (rows, K)
    at = (of_rows > MIN_LOGIT).flatten().nonzero()[:, 0]
    row = torch.div(at, logits.shape[2], rounding_mode="floor")
    rows, classes = rows[row], at - row * logits.shape[2]
    scores = of_rows.flatten().index_select(0, at).sigmoid()
    images = torch.div(rows, logits.shape[1], rounding_mode="floor")
    if len(rows) > MAX_PER_MAP:  # else no image has more
        order = best_first(scores, images)
        order = order[rank_in(images[order]) < MAX_PER_MAP]
        rows, classes, scores, images = (each[order] for each in (rows, classes, scores, images))
    of_best = offsets.flatten(0, 1).index_select(0, rows)
    return images, of_best, anchors_px.index_select(0, rows - images * logits.shape[1]), scores, classes + 1
