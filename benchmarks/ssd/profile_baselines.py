"""What the measured code is compared with: the data path in PIL and torchvision, and detection image by image, class by class.

Written as the usual Python of SSD repositories is, neither tuned nor hobbled, and to the same definition, so that results can
be compared before times are. Not used in training.

Shapes: A default boxes, G ground-truth boxes of an image, K classes with background 0, N detections.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from benchmarks.ssd import coco
from benchmarks.ssd.boxes import SCALE_WH, SCALE_XY, cxcywh_to_ltrb, decode
from benchmarks.ssd.config import Augmentation
from benchmarks.ssd.data import IMAGENET_MEAN, IMAGENET_STD, MATCH_IOU
from benchmarks.ssd.detections import MAX_IOU, MAX_PER_CLASS, MAX_PER_IMAGE, MIN_SCORE, Detections

Sample = tuple[Tensor, Tensor, Tensor]  # image (3, S, S), labels (A,), offsets (A, 4)


@dataclass(frozen=True)
class PilPath:
    """One half of a COCO folder, read with PIL and augmented with torchvision on the calling thread."""

    images: Path
    truth: coco.GroundTruth
    image_px: int
    augmentation: Augmentation
    default_boxes: Tensor  # (A, 4) cxcywh

    def sample(self, image_id: int) -> Sample:
        """One image as the DALI graph makes it: crop, flip, resize, colour, normalise, encode."""
        ltrb, labels = self._boxes(image_id)
        with Image.open(self.images / self.truth.file_name(image_id)) as file:
            picture = file.convert("RGB")
        ltrb, labels, window = self._crop(ltrb, labels)
        width, height = picture.size
        left, top, right, bottom = window
        picture = picture.crop((int(left * width), int(top * height), int(right * width), int(bottom * height)))
        if random.random() < self.augmentation.flip_probability:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            ltrb = torch.stack([1 - ltrb[:, 2], ltrb[:, 1], 1 - ltrb[:, 0], ltrb[:, 3]], dim=1)
        picture = picture.resize((self.image_px, self.image_px), Image.Resampling.BILINEAR)
        colour = self.augmentation
        low, high = colour.hue_degrees
        jitter = transforms.ColorJitter(colour.brightness, colour.contrast, colour.saturation, (low / 360, high / 360))
        image = transforms.functional.normalize(
            transforms.functional.to_tensor(jitter(picture)), IMAGENET_MEAN, IMAGENET_STD
        )
        return (image, *encode(ltrb, labels, self.default_boxes))

    def _boxes(self, image_id: int) -> tuple[Tensor, Tensor]:
        image, found = self._index[image_id]
        xywh = torch.tensor([a["bbox"] for a in found], dtype=torch.float32).reshape(-1, 4)
        ltrb = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)
        ltrb /= torch.tensor([image["width"], image["height"]] * 2)
        return ltrb.clamp(0, 1), torch.tensor([self._label_of[a["category_id"]] for a in found])

    @cached_property
    def _index(self) -> dict[int, tuple[dict[str, Any], list[dict[str, Any]]]]:
        found: dict[int, tuple[dict[str, Any], list[dict[str, Any]]]] = {
            image["id"]: (image, []) for image in self.truth.document["images"]
        }
        for annotation in self.truth.document["annotations"]:
            found[annotation["image_id"]][1].append(annotation)
        return found

    @cached_property
    def _label_of(self) -> dict[int, int]:
        return {number: position for position, number in enumerate(self.truth.category_ids.tolist(), start=1)}

    def _crop(self, ltrb: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, tuple[float, float, float, float]]:
        """The paper's patch: options drawn until one holds, a single try of each."""
        low, high = self.augmentation.crop_scale
        narrowest, widest = self.augmentation.crop_aspect_ratio
        while True:
            least = random.choice([None, *self.augmentation.crop_min_iou])
            if least is None:
                return ltrb, labels, (0.0, 0.0, 1.0, 1.0)
            w, h = random.uniform(low, high), random.uniform(low, high)
            if not narrowest <= w / h <= widest:
                continue
            left, top = random.uniform(0, 1 - w), random.uniform(0, 1 - h)
            window = torch.tensor([[left, top, left + w, top + h]])
            centre = (ltrb[:, :2] + ltrb[:, 2:]) / 2
            inside = ((centre > window[:, :2]) & (centre < window[:, 2:])).all(dim=1)
            if not inside.any() or not (overlaps(ltrb, window) >= least).all():
                continue
            origin, extent = window[:, :2].repeat(1, 2), torch.tensor([[w, h, w, h]])
            return ((ltrb[inside] - origin) / extent).clamp(0, 1), labels[inside], (left, top, left + w, top + h)


def encode(ltrb: Tensor, labels: Tensor, default_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (A,) and offsets (A, 4) of the default boxes for ground truth (G, 4), labels (G,)."""
    iou = overlaps(ltrb, cxcywh_to_ltrb(default_boxes))  # (G, A)
    best, which = iou.max(dim=0)
    own = iou.argmax(dim=1)  # each ground-truth box keeps its best default box
    best[own], which[own] = 2.0, torch.arange(len(ltrb))
    positive = best > MATCH_IOU
    matched = ltrb[which]
    centre, size = (matched[:, :2] + matched[:, 2:]) / 2, matched[:, 2:] - matched[:, :2]
    offsets = torch.cat(
        [
            (centre - default_boxes[:, :2]) / default_boxes[:, 2:] / SCALE_XY,
            (size / default_boxes[:, 2:]).log() / SCALE_WH,
        ],
        dim=1,
    )
    return torch.where(positive, labels[which], 0), torch.where(positive[:, None], offsets, 0.0)


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """(G, A) IoU of every pair."""
    sides = torch.minimum(one[:, None, 2:], other[None, :, 2:]) - torch.maximum(one[:, None, :2], other[None, :, :2])
    both = sides.clamp(min=0).prod(dim=2)
    areas = [(box[:, 2:] - box[:, :2]).prod(dim=1) for box in (one, other)]
    return both / (areas[0][:, None] + areas[1][None, :] - both)


def detect_in_loops(logits: Tensor, offsets: Tensor, default_boxes: Tensor) -> Detections:
    """As detections.detect, image after image, class after class, box after box."""
    probabilities = logits.softmax(dim=2)
    boxes = decode(offsets, default_boxes)
    images: list[int] = []
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for image in range(len(logits)):
        kept_boxes, kept_scores, kept_labels = [], [], []
        for label in range(1, logits.shape[2]):
            scores = probabilities[image, :, label]
            candidates = scores > MIN_SCORE
            scores, ltrb = scores[candidates], boxes[image][candidates]
            order = scores.argsort(descending=True, stable=True)[:MAX_PER_CLASS]
            while len(order) > 0:
                best, order = order[0], order[1:]
                kept_boxes.append(ltrb[best])
                kept_scores.append(scores[best])
                kept_labels.append(label)
                order = order[overlaps(ltrb[best][None], ltrb[order])[0] <= MAX_IOU]
        if kept_scores:
            score = torch.stack(kept_scores)
            best_first = score.argsort(descending=True, stable=True)[:MAX_PER_IMAGE]
            labels = torch.tensor(kept_labels, device=score.device)
            parts.append((torch.stack(kept_boxes)[best_first], score[best_first], labels[best_first]))
            images += [image] * len(best_first)
    if not parts:
        nothing = logits.new_empty(0)
        return Detections(nothing.long(), logits.new_empty(0, 4), nothing, nothing.long())
    ltrb, scores, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return Detections(torch.tensor(images, device=logits.device), ltrb, scores, labels)


def rows(found: Detections) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(N, 7) image, label, score, ltrb in an order that does not depend on how equal scores were sorted."""
    table = np.column_stack([x.double().cpu().numpy() for x in (found.images, found.labels, found.scores, found.ltrb)])
    ordered: np.ndarray[tuple[int, int], np.dtype[np.float64]] = table[np.lexsort(table[:, [3, 4, 5, 6, 1, 0]].T)]
    return ordered
