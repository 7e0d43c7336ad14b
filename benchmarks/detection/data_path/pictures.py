"""The pictures of a COCO folder with their ground truth: read, drawn from, decoded, cut. For the data path without DALI.

torchvision 0.29 announces that its decoders will leave for TorchCodec; in the version of requirements/run.lock they are there.

Shapes: B images, S image side in px, G ground-truth boxes of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as transforms

from benchmarks.detection.data_path import png
from benchmarks.detection.data_path.data import Source
from benchmarks.detection.data_path.normalisation import IMAGENET_MEAN
from benchmarks.detection.data_set import annotation_file, picture_files, picture_forms

FILL = [round(255 * level) for level in IMAGENET_MEAN]  # beyond a picture
JPEG = [0xFF, 0xD8]  # how such a file begins
WHOLE = np.array([0.0, 0.0, 1.0, 1.0], dtype=np.float32)

Boxes = npt.NDArray[np.float32]  # (G, 4) ltrb


@dataclass(frozen=True)
class Picture:
    """An image file and its ground truth, or what a draw has left of both."""

    id: int
    file: Path
    ltrb: Boxes  # (G, 4)
    labels: npt.NDArray[np.int64]  # (G,), from 1
    window: Boxes = field(default_factory=lambda: WHOLE)  # (4,) ltrb, to be cut out
    mirrored: bool = False


class Pictures(Sequence[Picture]):
    """Those of an annotation file. Each is made as it is asked for: a million of them at once would take a gigabyte."""

    def __init__(self, source: Source) -> None:
        truth = annotation_file.read(source.annotations)
        counted = np.flatnonzero(truth.counted)
        # by image, the file's order within it
        order = counted[np.argsort(truth.images[counted], kind="stable")]
        self._folder, self._ids, self._names = source.images, truth.image_ids, truth.file_names
        self._ends = np.searchsorted(truth.images[order], np.arange(len(truth.image_ids) + 1))
        self._ltrb = annotation_file.within(truth.xywh_px[order], truth.sizes[truth.images[order]])
        self._labels = (truth.categories[order] + 1).astype(np.int32)
        there = np.diff(self._ends) > 0
        self._listed = np.flatnonzero(there) if source.skip_empty else np.arange(len(there))

    def __len__(self) -> int:
        return len(self._listed)

    @overload
    def __getitem__(self, place: int) -> Picture: ...
    @overload
    def __getitem__(self, place: slice) -> list[Picture]: ...
    def __getitem__(self, place: int | slice) -> Picture | list[Picture]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        i = self._listed[place]
        some = slice(self._ends[i], self._ends[i + 1])
        labels = self._labels[some].astype(np.int64)
        return Picture(int(self._ids[i]), self._folder / self._names[i], self._ltrb[some], labels)


def read(source: Source) -> Pictures:
    """The pictures of an annotation file in its order, as DALI's reader takes them: boxes of 0.1 px at least, within them."""
    return Pictures(source)


def flipped(ltrb: Boxes) -> Boxes:
    """Boxes (G, 4) of the picture seen in a mirror."""
    return np.stack([1 - ltrb[:, 2], ltrb[:, 1], 1 - ltrb[:, 0], ltrb[:, 3]], axis=1)


def decoded(picture: Picture) -> Tensor:
    """See `decode`: as the pixels are stored, since boxes are of those."""
    return decode(picture.file)


def decode(path: Path, *, upright: bool = False) -> Tensor:
    """(3, H, W) uint8, on the CPU; turned as a camera's tag (EXIF) says where `upright`. RuntimeError that names the file."""
    try:
        # torchvision's own read_file takes no name that is not UTF-8
        content = np.fromfile(path, dtype=np.uint8)
        pixels = _pixels(content)
    except (OSError, RuntimeError) as error:
        return _by_pillow(path, error, upright)
    return turned(pixels, _orientation(path)) if upright else pixels


def _pixels(content: npt.NDArray[np.uint8]) -> Tensor:
    """(3, H, W) uint8 of a file's bytes (N,). OSError or RuntimeError for what is damaged or of another kind."""
    if content[: len(png.SIGNATURE)].tobytes() == png.SIGNATURE:
        return torch.from_numpy(png.decoded(content.tobytes())).permute(2, 0, 1)
    pixels: Tensor = decode_image(torch.from_numpy(content), mode=ImageReadMode.RGB)
    return pixels


def turned(pixels: Tensor, orientation: int) -> Tensor:
    """(3, H, W) as the EXIF tag Orientation wants it to be seen; 1, and what is no such number, changes nothing."""
    if orientation in (2, 3):
        pixels = pixels.flip(2)
    if orientation in (3, 4):
        pixels = pixels.flip(1)
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 2)
    if orientation in (6, 7):
        pixels = pixels.flip(2)
    if orientation in (7, 8):
        pixels = pixels.flip(1)
    return pixels.contiguous()


def _orientation(path: Path) -> int:
    try:
        with Image.open(path) as picture:
            return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - a tag that cannot be read turns nothing
        return 1


def _by_pillow(path: Path, refusal: Exception, upright: bool) -> Tensor:
    """What torchvision does not decode and Pillow does: BMP, TIFF, JPEG 2000, PNM, in grey or RGB."""
    if what := picture_files.fault(path):
        raise RuntimeError(f"{path}: {what}") from refusal
    try:
        with Image.open(path) as picture:
            if picture.format not in picture_forms.PLAIN_COLOURS:
                raise RuntimeError(f"{path}: {refusal}") from refusal
            shown = ImageOps.exif_transpose(picture) if upright else picture_forms.as_stored(picture)
            pixels = np.array(shown.convert("RGB"))
    except OSError as error:
        raise RuntimeError(f"{path}: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def cut(pixels: Tensor, picture: Picture, side_px: int, antialias: bool = True) -> Tensor:
    """(3, H, W) to (3, S, S): the picture's window, resized linearly, mirrored.

    Where the window reaches beyond the picture there is ImageNet's mean.
    """
    height, width = pixels.shape[1:]
    left, top, right, bottom = np.rint(picture.window * [width, height, width, height]).astype(int).tolist()
    if left < 0 or top < 0 or right > width or bottom > height:
        pixels = _on_canvas(pixels, left, top, max(right, left + 1), max(bottom, top + 1))
    else:
        left, top = min(left, width - 1), min(top, height - 1)  # one pixel at least, of the narrowest window
        pixels = pixels[:, top : max(bottom, top + 1), left : max(right, left + 1)]
    made = resized(pixels, side_px, antialias)
    return made.flip(2) if picture.mirrored else made


def resized(pixels: Tensor, side_px: int, antialias: bool) -> Tensor:
    """(3, H, W) to (3, S, S) uint8."""
    made: Tensor = transforms.resize(pixels, [side_px, side_px], antialias=antialias)
    return made


def _on_canvas(pixels: Tensor, left: int, top: int, right: int, bottom: int) -> Tensor:
    """(3, H, W) to (3, bottom - top, right - left)."""
    canvas = pixels.new_empty(3, bottom - top, right - left)
    for channel, level in zip(canvas, FILL, strict=True):
        channel.fill_(level)
    seen = pixels[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    y, x = max(-top, 0), max(-left, 0)
    canvas[:, y : y + seen.shape[1], x : x + seen.shape[2]] = seen
    return canvas


def padded(pictures: Sequence[Picture]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """(B, G, 4) and (B, G) with as many rows as the picture with most boxes has; the others' last have label 0."""
    counts = np.array([len(picture.labels) for picture in pictures])
    there = np.arange(max(1, counts.max())) < counts[:, None]  # (B, G)
    ltrb = np.zeros((*there.shape, 4), dtype=np.float32)
    labels = np.zeros(there.shape, dtype=np.int64)
    ltrb[there] = np.concatenate([picture.ltrb for picture in pictures])
    labels[there] = np.concatenate([picture.labels for picture in pictures])
    return ltrb, labels


def is_jpeg(file: Tensor) -> bool:
    """Of a file's bytes (N,) uint8. One image of COCO that is called .jpg is a PNG."""
    return bool(file[:2].tolist() == JPEG)
