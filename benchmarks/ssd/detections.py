"""The network's output to detections, for a whole batch at once: softmax, decode, suppression within each class.

Numbers as in the MLPerf reference (ssd, v0.7): scores above 0.05, the best 200 of a class before suppression, IoU 0.5,
the best 200 of an image after it. One difference: a box goes when its IoU with a better one is above 0.5, as in
torchvision's NMS; the reference's goes at exactly 0.5 too. An image without detections is nothing special.

No loop runs over images or classes, and boxes are compared as they are: the usual trick, one NMS over boxes moved apart
by class, costs float32 most of its digits where the groups are images times classes, and compares boxes of different
groups too. The host waits for the device a few times in a batch, to learn how many candidates there are.

Shapes: B images, A default boxes, K classes with background 0, N candidates or detections of all images, P pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.detection.found import Detections
from benchmarks.ssd.boxes import decode

MIN_SCORE = 0.05
NEAR_BACKGROUND = math.log(MIN_SCORE) - 1e-3  # p > MIN_SCORE asks for exp(logit - background's) > MIN_SCORE; rounding
MAX_PER_CLASS = 200  # before suppression
MAX_IOU = 0.5
MAX_PER_IMAGE = 200  # after it
CANDIDATES_AT_ONCE = 8192  # each meets at most 199 better ones: 1.6 million pairs, about 100 MB


def detect(logits: Tensor, offsets: Tensor, default_boxes: Tensor) -> Detections:
    """Detections from logits (B, A, K), offsets (B, A, 4) and default boxes (A, 4) cxcywh, all float32."""
    # A class can reach the threshold only where its logit comes near the background's, which is at few default boxes.
    # NaN compares false: a network that has diverged detects nothing.
    images, anchors = (logits[..., 1:].amax(dim=-1) - logits[..., 0] > NEAR_BACKGROUND).nonzero(as_tuple=True)
    probabilities = logits[images, anchors].softmax(dim=-1)[:, 1:]
    position, classes = (probabilities > MIN_SCORE).nonzero(as_tuple=True)
    images, anchors = images[position], anchors[position]
    candidates = Detections(
        images,
        decode(offsets[images, anchors], default_boxes[anchors]),
        probabilities[position, classes],
        classes + 1,
    )
    group = images * logits.shape[-1] + candidates.labels
    best_first = _best_first(candidates.scores, group)
    rank = _rank(group[best_first])
    candidates, rank = candidates[best_first[rank < MAX_PER_CLASS]], rank[rank < MAX_PER_CLASS]

    kept = candidates[_unsuppressed(candidates.ltrb, rank)]
    best_first = _best_first(kept.scores, kept.images)
    return kept[best_first[_rank(kept.images[best_first]) < MAX_PER_IMAGE]]


def _best_first(scores: Tensor, group: Tensor) -> Tensor:
    """Positions that bring groups together in ascending order, and within each the highest score to the front."""
    by_score = scores.sort(descending=True, stable=True).indices
    return by_score[group[by_score].sort(stable=True).indices]


def _rank(group: Tensor) -> Tensor:
    """Position of each element within its group, from 0; `group` is sorted."""
    position = torch.arange(len(group), device=group.device)
    begins = group.diff(prepend=group[:1] - 1) != 0
    return position - torch.where(begins, position, 0).cummax(dim=0).values


def _unsuppressed(ltrb: Tensor, rank: Tensor) -> Tensor:
    """(N,) bool: what greedy NMS leaves of each group. Boxes (N, 4) come group by group, best first, `rank` says which.

    Greedy suppression is a rule that each box obeys by looking at better ones only: stay unless one of them stays and
    overlaps too much. So it has exactly one solution, and applying the rule to all boxes at once until nothing changes
    finds it: the first k of each group are right after k rounds, and in practice a handful of rounds suffices.
    """
    pairs = [_overlapping_pairs(ltrb, rank, begin) for begin in range(0, len(rank), CANDIDATES_AT_ONCE)]
    better, worse = torch.cat(pairs, dim=1) if pairs else rank.new_empty(2, 0)
    stays = torch.ones_like(rank, dtype=torch.bool)
    while True:
        suppressors = torch.zeros_like(rank).index_add_(0, worse, stays[better].to(rank.dtype))
        if torch.equal(stays, suppressors == 0):
            return stays
        stays = suppressors == 0


def _overlapping_pairs(ltrb: Tensor, rank: Tensor, begin: int) -> Tensor:
    """(2, P): boxes from `begin` on, CANDIDATES_AT_ONCE (second row), each with the better ones that it overlaps (first)."""
    better_ones = rank[begin : begin + CANDIDATES_AT_ONCE]  # as many as the box's rank, right before it
    worse = torch.arange(begin, begin + len(better_ones), device=rank.device).repeat_interleave(better_ones)
    # counts each box's better ones down to 1
    distance = better_ones.cumsum(0).repeat_interleave(better_ones) - torch.arange(len(worse), device=rank.device)
    better = worse - distance
    overlap = _iou(ltrb[better], ltrb[worse]) > MAX_IOU
    return torch.stack([better[overlap], worse[overlap]])


def _iou(one: Tensor, other: Tensor) -> Tensor:
    """(P,) of two boxes (P, 4) each."""
    sides = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp(min=0)
    area_of_one, area_of_other = ((box[:, 2:] - box[:, :2]).prod(dim=1) for box in (one, other))
    both = sides.prod(dim=1)
    return both / (area_of_one + area_of_other - both)
