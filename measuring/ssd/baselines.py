"""What the measured code is compared with: the data path in PIL and torchvision, and detection image by image, class by class.

Written as the usual Python of SSD repositories is, neither tuned nor hobbled, and to the same definition, so that results can
be compared before times are. Not used in training.

Shapes: A default boxes, G ground-truth boxes of an image, K classes with background 0, N detections.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.ops import box_iou

from benchmarks.detection.data_path.normalisation import IMAGENET_MEAN, IMAGENET_STD
from benchmarks.detection.data_path.pictures import Picture
from benchmarks.detection.found import Detections
from benchmarks.detection.suppression import MAX_IOU
from benchmarks.ssd import boxes
from benchmarks.ssd.augmentation import augmented
from benchmarks.ssd.boxes import cxcywh_to_ltrb
from benchmarks.ssd.config import Augmentation
from benchmarks.ssd.detections import MAX_PER_CLASS, MAX_PER_IMAGE, MIN_SCORE
from benchmarks.ssd.matching import MATCH_IOU

Sample = tuple[Tensor, Tensor, Tensor]  # image (3, S, S), labels (A,), offsets (A, 4)


@dataclass(frozen=True)
class PilPath:
    """Pictures read with PIL and augmented with torchvision on the calling thread; windows and flips drawn as ours are."""

    image_px: int
    augmentation: Augmentation
    default_boxes: Tensor  # (A, 4) cxcywh
    rng: np.random.Generator

    def sample(self, picture: Picture) -> Sample:
        """One image as the DALI graph makes it: crop, flip, resize, colour, normalise, encode."""
        drawn = augmented(self.rng, picture, self.augmentation)
        with Image.open(drawn.file) as file:
            pixels = file.convert("RGB")
        width, height = pixels.size
        left, top, right, bottom = drawn.window.tolist()
        pixels = pixels.crop((int(left * width), int(top * height), int(right * width), int(bottom * height)))
        if drawn.mirrored:
            pixels = pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = pixels.resize((self.image_px, self.image_px), Image.Resampling.BILINEAR)
        colour = self.augmentation
        low, high = colour.hue_degrees
        jitter = transforms.ColorJitter(colour.brightness, colour.contrast, colour.saturation, (low / 360, high / 360))
        image = transforms.functional.normalize(
            transforms.functional.to_tensor(jitter(pixels)), IMAGENET_MEAN, IMAGENET_STD
        )
        return (image, *encode(torch.from_numpy(drawn.ltrb), torch.from_numpy(drawn.labels), self.default_boxes))


def encode(ltrb: Tensor, labels: Tensor, default_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (A,) and offsets (A, 4) of the default boxes for ground truth (G, 4), labels (G,)."""
    iou = box_iou(ltrb, cxcywh_to_ltrb(default_boxes))  # (G, A)
    best, which = iou.max(dim=0)
    own = iou.argmax(dim=1)  # each ground-truth box keeps its best default box
    best[own], which[own] = 2.0, torch.arange(len(ltrb))
    positive = best > MATCH_IOU
    offsets = boxes.encode(ltrb[which], default_boxes)
    return torch.where(positive, labels[which], 0), torch.where(positive[:, None], offsets, 0.0)


def detect_in_loops(logits: Tensor, offsets: Tensor, default_boxes: Tensor) -> Detections:
    """As detections.detect, image after image, class after class, box after box."""
    probabilities = logits.softmax(dim=2)
    decoded = boxes.decode(offsets, default_boxes)
    images: list[int] = []
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for image in range(len(logits)):
        kept_boxes, kept_scores, kept_labels = [], [], []
        for label in range(1, logits.shape[2]):
            scores = probabilities[image, :, label]
            candidates = scores > MIN_SCORE
            scores, ltrb = scores[candidates], decoded[image][candidates]
            order = scores.argsort(descending=True, stable=True)[:MAX_PER_CLASS]
            while len(order) > 0:
                best, order = order[0], order[1:]
                kept_boxes.append(ltrb[best])
                kept_scores.append(scores[best])
                kept_labels.append(label)
                order = order[box_iou(ltrb[best][None], ltrb[order])[0] <= MAX_IOU]
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
