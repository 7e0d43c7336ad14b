"""Pascal VOC's average precision, beside COCO's: one overlap, and each ground-truth box found once.

As the VOC development kit has it (VOCevaldet.m of 2007 and of 2010 on): a detection goes to the ground-truth box of its
category in its image that it overlaps most. Where that is by 0.5 at least, it is right if it is the first to go there, in
order of the scores over all images, else wrong; a difficult box counts for nothing, neither missed nor found. 2007 takes the
mean of eleven precisions, 2010 and later the area under the curve. A category without a box that counts has no precision
and is left out of the mean.

The kit counts pixels, with corners that belong to the box, from 1; a box x, y, w, h in px of ours covers as many, so that
both have the same overlaps: see benchmarks/detection/data_set/voc_annotations.py.

Shapes: N detections, M ground-truth boxes, K categories, R of either in one category.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.detection.data_set.annotation_file import Annotations

Year = Literal["voc2007", "voc2010"]

MIN_IOU = 0.5
RECALLS = np.linspace(0, 1, 11)  # of 2007
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Precisions:
    """Average precision by category, in the file's order; NaN where no box counts."""

    by_category: F64  # (K,)

    @property
    def mAP(self) -> float:
        """0 where no category has one."""
        found = self.by_category[~np.isnan(self.by_category)]
        return float(found.mean()) if len(found) else 0.0


def evaluate(truth: Annotations, rows: F64, *, metric: Year, image_ids: I64) -> Precisions:
    """Of `rows` (N, 7), image id, x, y, w, h in px, score, category id, on the images `image_ids`. N may be 0."""
    places = {number: place for place, number in enumerate(truth.image_ids.tolist())}
    evaluated = np.zeros(len(truth.image_ids), dtype=bool)
    evaluated[[places[number] for number in image_ids.tolist()]] = True
    images = np.array([places[number] for number in rows[:, 0].astype(np.int64).tolist()], dtype=np.int64)
    rows, images = rows[evaluated[images]], images[evaluated[images]]
    average = _mean_of_eleven if metric == "voc2007" else _area
    found = np.full(len(truth.category_ids), np.nan)
    for k, category in enumerate(truth.category_ids.tolist()):
        of_truth = (truth.categories == k) & evaluated[truth.images] & truth.counted
        difficult = truth.difficult[of_truth] | truth.crowd[of_truth]
        if difficult.all():  # none at all, too
            continue
        of_rows = np.flatnonzero(rows[:, 6] == category)
        order = of_rows[np.argsort(-rows[of_rows, 5], kind="stable")]
        right, counted = _judged(
            images[order], rows[order, 1:5], truth.images[of_truth], truth.xywh_px[of_truth], difficult
        )
        right = right[counted]
        hits = np.cumsum(right)
        recall = hits / (~difficult).sum()
        precision = hits / np.arange(1, len(right) + 1)
        found[k] = average(recall, precision)
    return Precisions(found)


def _judged(images: I64, boxes: F64, truth_images: I64, truth: F64, difficult: Bool) -> tuple[Bool, Bool]:
    """(R,) whether each detection is right, and whether it counts; best score first, all of one category."""
    mine, theirs = _pairs(images, truth_images)
    overlap = _iou(boxes[mine], truth[theirs])
    best = np.full(len(images), -1.0)
    np.maximum.at(best, mine, overlap)
    # of boxes that it overlaps alike the first in the file
    which = np.full(len(images), len(truth), dtype=np.int64)
    at_best = overlap == best[mine]
    np.minimum.at(which, mine[at_best], theirs[at_best])
    near = np.flatnonzero(best >= MIN_IOU)
    counted = np.ones(len(images), dtype=bool)
    counted[near] = ~difficult[which[near]]
    near = near[counted[near]]
    right = np.zeros(len(images), dtype=bool)
    right[near[np.unique(which[near], return_index=True)[1]]] = True
    return right, counted


def _pairs(images: I64, truth_images: I64) -> tuple[I64, I64]:
    """Every detection with every box of its image, by number."""
    by_image = np.argsort(truth_images, kind="stable")
    begin, end = (np.searchsorted(truth_images[by_image], images, side=side) for side in ("left", "right"))
    counts = end - begin
    mine = np.repeat(np.arange(len(images)), counts)
    within = np.arange(len(mine)) - np.repeat(np.cumsum(counts) - counts, counts)
    return mine, by_image[np.repeat(begin, counts) + within]


def _iou(one: F64, other: F64) -> F64:
    """Of pairs of xywh_px."""
    sides = np.minimum(one[:, :2] + one[:, 2:], other[:, :2] + other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    both = sides.clip(min=0).prod(axis=1)
    with np.errstate(invalid="ignore"):  # of two boxes without area: NaN, which is no overlap
        found: F64 = np.nan_to_num(both / (one[:, 2:].prod(axis=1) + other[:, 2:].prod(axis=1) - both))
    return found


def _mean_of_eleven(recall: F64, precision: F64) -> float:
    """Of the best precision at each of eleven recalls or beyond."""
    at = np.searchsorted(recall, RECALLS - 1e-12)  # 0.1 three times is not 0.3
    return float(np.append(_best_from_here(precision), 0.0)[at].mean())


def _area(recall: F64, precision: F64) -> float:
    """Under the curve, precision at each recall being the best there or beyond."""
    return float((np.diff(recall, prepend=0.0) * _best_from_here(precision)).sum())


def _best_from_here(precision: F64) -> F64:
    found: F64 = np.maximum.accumulate(precision[::-1])[::-1]
    return found
