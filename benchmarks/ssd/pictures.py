"""The pictures of a COCO folder with their ground truth: read, drawn from, decoded, cut. For the data path without DALI.

torchvision 0.29 announces that its decoders will leave for TorchCodec; in the version of requirements/run.lock they are there.

Shapes: B images, S image side in px, G ground-truth boxes of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms.v2 import functional as transforms

from benchmarks.ssd import augmentation as maths
from benchmarks.ssd import coco
from benchmarks.ssd.augmentation import WHOLE, Boxes
from benchmarks.ssd.config import Augmentation
from benchmarks.ssd.data import Source

JPEG = [0xFF, 0xD8]  # how such a file begins


@dataclass(frozen=True)
class Picture:
    """An image file and its ground truth, or what a draw has left of both."""

    id: int
    file: Path
    ltrb: Boxes  # (G, 4)
    labels: npt.NDArray[np.int64]  # (G,), from 1
    window: Boxes = field(default_factory=lambda: WHOLE)  # (4,) ltrb, to be cut out
    mirrored: bool = False


def read(source: Source) -> list[Picture]:
    """The pictures of an annotation file in its order, as DALI's reader takes them: boxes of 0.1 px at least, within them."""
    truth = coco.GroundTruth.load(source.annotations)
    label_of = {number: label for label, number in enumerate(truth.category_ids.tolist(), start=1)}
    boxes: dict[int, list[tuple[list[float], int]]] = {}
    for annotation in truth.document["annotations"]:
        if coco.counts(annotation):
            boxes.setdefault(annotation["image_id"], []).append((annotation["bbox"], annotation["category_id"]))
    found = []
    for image in truth.document["images"]:
        here = boxes.get(image["id"], [])
        if here or not source.skip_empty:
            xywh = np.array([box for box, _ in here], dtype=np.float32).reshape(-1, 4)
            size = np.array([image["width"], image["height"]] * 2, dtype=np.float32)
            ltrb = (np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1) / size).clip(0, 1)
            if (ltrb[:, :2] >= ltrb[:, 2:]).any():
                wrong = here[int((ltrb[:, :2] >= ltrb[:, 2:]).any(axis=1).argmax())][0]
                raise ValueError(
                    f"{source.annotations}: the box {wrong} of {image['file_name']} lies outside of the picture"
                )
            labels = np.array([label_of[category] for _, category in here], dtype=np.int64)
            found.append(Picture(image["id"], source.images / image["file_name"], ltrb, labels))
    return found


def augmented(rng: np.random.Generator, picture: Picture, augmentation: Augmentation) -> Picture:
    """A window and a flip, drawn; what they leave of the boxes."""
    window, inside = maths.random_window(rng, picture.ltrb, augmentation)
    ltrb = maths.in_window(picture.ltrb[inside], window)
    mirrored = bool(rng.random() < augmentation.flip_probability)
    return Picture(
        picture.id, picture.file, maths.flipped(ltrb) if mirrored else ltrb, picture.labels[inside], window, mirrored
    )


def decoded(picture: Picture) -> Tensor:
    """(3, H, W) uint8, on the CPU. RuntimeError that names the file."""
    try:
        pixels: Tensor = decode_image(read_file(str(picture.file)), mode=ImageReadMode.RGB)
    except RuntimeError as error:
        raise RuntimeError(f"{picture.file}: {error}") from error
    return pixels


def cut(pixels: Tensor, picture: Picture, side_px: int) -> Tensor:
    """(3, H, W) to (3, S, S): the picture's window, resized with an antialiasing triangular filter, mirrored."""
    height, width = pixels.shape[1:]
    left, top, right, bottom = np.rint(picture.window * [width, height, width, height]).astype(int).tolist()
    left, top = min(left, width - 1), min(top, height - 1)  # one pixel at least, of the narrowest window
    pixels = pixels[:, top : max(bottom, top + 1), left : max(right, left + 1)]
    resized: Tensor = transforms.resize(pixels, [side_px, side_px], antialias=True)
    return resized.flip(2) if picture.mirrored else resized


def padded(pictures: Sequence[Picture]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """(B, G, 4) and (B, G) with as many rows as the picture with most boxes has; the others' last have label 0."""
    most = max(1, *(len(picture.labels) for picture in pictures))
    ltrb = np.zeros((len(pictures), most, 4), dtype=np.float32)
    labels = np.zeros((len(pictures), most), dtype=np.int64)
    for row, picture in enumerate(pictures):
        ltrb[row, : len(picture.ltrb)] = picture.ltrb
        labels[row, : len(picture.labels)] = picture.labels
    return ltrb, labels


def is_jpeg(file: Tensor) -> bool:
    """Of a file's bytes (N,) uint8. One image of COCO that is called .jpg is a PNG."""
    return bool(file[:2].tolist() == JPEG)
