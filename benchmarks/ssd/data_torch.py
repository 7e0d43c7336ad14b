"""The data path without DALI, for accelerators and machines that DALI does not run on: torchvision decodes, PyTorch augments.

A thread works ahead of training: it draws, reads, decodes (on a GPU with nvJPEG, else on `threads` of the CPU), cuts and
resizes. Colour, normalising and matching are done to a whole batch on the device, when training takes it. All random numbers
of a batch come from the seed, the epoch and the batch's place in it, so that they do not depend on threads.

Shapes: B images, S image side in px, G ground-truth boxes of an image, A default boxes.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms.v2 import functional as transforms

from benchmarks.ssd import augmentation as maths
from benchmarks.ssd import coco
from benchmarks.ssd.augmentation import WHOLE, Boxes
from benchmarks.ssd.config import Augmentation
from benchmarks.ssd.data import Source
from benchmarks.ssd.matching import match

# torchvision 0.29 announces that its decoders will leave for TorchCodec; up to the version in requirements/run.lock they stay
AHEAD = 2  # batches that are made before they are asked for, as many as DALI's default


@dataclass(frozen=True)
class Picture:
    """An image file and its ground truth, or what a draw has left of both."""

    id: int
    file: Path
    ltrb: Boxes  # (G, 4)
    labels: npt.NDArray[np.int64]  # (G,), from 1
    window: Boxes = field(default_factory=lambda: WHOLE)  # (4,) ltrb, to be cut out
    mirrored: bool = False


@dataclass(frozen=True)
class Draw:
    """A batch before the device has seen it."""

    pictures: Sequence[Picture]
    pixels: Tensor  # (B, 3, S, S) uint8, on the device where that decodes
    colours: npt.NDArray[np.float32]  # (B, 3, 4)


@dataclass
class TorchBatches:
    """Implements benchmarks.ssd.data.Batches; training's if there are default boxes, else evaluation's."""

    source: Source
    pictures: Sequence[Picture]
    default_boxes: Tensor | None = None  # (A, 4) cxcywh, on the device
    augmentation: Augmentation = field(default_factory=Augmentation)
    order_seed: int = 0
    augmentation_seed: int = 0
    epoch: int = 0  # the one that comes next, 0-based
    wait_s: float = 0.0

    @property
    def samples(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        groups = iter(self._groups(epoch).items())
        coming: deque[Future[Draw]] = deque()
        while True:
            for place, group in groups:
                coming.append(self._foreman.submit(self._draw, epoch, place, group))
                if len(coming) == AHEAD:
                    break
            if not coming:
                break
            start = time.perf_counter()
            draw = coming.popleft().result()
            self.wait_s += time.perf_counter() - start
            yield self._batch(draw)

    def state(self) -> bytes:
        return json.dumps({name: getattr(self, name) for name in ("order_seed", "augmentation_seed", "epoch")}).encode()

    def _groups(self, epoch: int) -> dict[int, npt.NDArray[np.int64]]:
        """Of this rank and epoch: for each batch, by its place, which pictures it has."""
        count, size, source = len(self.pictures), self.source.batch_size, self.source
        order = np.arange(count)
        if self.default_boxes is not None:
            order = np.random.default_rng([self.order_seed, epoch]).permutation(count)
        mine = order[count * source.shard // source.shards : count * (source.shard + 1) // source.shards]
        if self.default_boxes is not None:  # whole batches, as many on every rank
            mine = mine[: count // source.shards // size * size]
        return {place: mine[i : i + size] for place, i in enumerate(range(0, len(mine), size))}

    @cached_property
    def _foreman(self) -> ThreadPoolExecutor:
        """One thread, that makes batches in their order."""
        return ThreadPoolExecutor(1, thread_name_prefix="batches")

    @cached_property
    def _workers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.source.threads, thread_name_prefix="pictures")

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.source.device)

    def _draw(self, epoch: int, place: int, group: npt.NDArray[np.int64]) -> Draw:
        pictures = [self.pictures[i] for i in group]
        colours = np.empty((len(pictures), 3, 4), dtype=np.float32)
        if self.default_boxes is not None:
            rng = np.random.default_rng([self.augmentation_seed, epoch, place])
            pictures = [augmented(rng, picture, self.augmentation) for picture in pictures]
            colours = np.stack([maths.random_colour(rng, self.augmentation) for _ in pictures])
        return Draw(pictures, self._pixels(pictures), colours)

    def _pixels(self, pictures: Sequence[Picture]) -> Tensor:
        """(B, 3, S, S) uint8. Whoever takes them need not wait for the device."""
        side, gpu = self.source.image_px, self.source.gpu is not None
        if not gpu:
            return torch.stack(list(self._workers.map(lambda picture: cut(decoded(picture), picture, side), pictures)))
        files = list(self._workers.map(lambda picture: read_file(str(picture.file)), pictures))
        with torch.cuda.device(self.source.device), torch.cuda.stream(self._stream):
            whole = decode_jpeg(files, mode=ImageReadMode.RGB, device=self.source.device)
            pixels = torch.stack([cut(each, picture, side) for each, picture in zip(whole, pictures, strict=True)])
        self._stream.synchronize()
        return pixels

    def _batch(self, draw: Draw) -> dict[str, Tensor]:
        device, form = self.source.device, self.source.image_format
        pixels = draw.pixels.to(device, non_blocking=True)
        if pixels.is_cuda:  # its memory must outlive what the training stream still does with it
            pixels.record_stream(torch.cuda.current_stream(pixels.device))
        if self.default_boxes is None:
            ids = torch.tensor([[picture.id] for picture in draw.pictures], dtype=torch.int32, device=device)
            return {"images": formatted(maths.normalised(pixels), form), "image_ids": ids}
        ltrb, labels = (torch.from_numpy(each).to(device) for each in padded(draw.pictures))
        colours = torch.from_numpy(draw.colours).to(device)
        # of matching, torch.compile 2.11 on a CPU gets the place of the largest overlap wrong: it stays as it is
        images = (torch.compile(_images) if self.source.compiled else _images)(pixels, colours)
        labels, offsets = match(ltrb, labels, self.default_boxes)
        return {"images": formatted(images, form), "labels": labels, "offsets": offsets}


def train_batches(
    source: Source,
    augmentation: Augmentation,
    default_boxes: Tensor,
    *,
    order_seed: int,
    augmentation_seed: int,
    checkpoint: bytes | None = None,
) -> TorchBatches:
    """See benchmarks.ssd.data.train_batches."""
    where = {"order_seed": order_seed, "augmentation_seed": augmentation_seed}
    if checkpoint is not None:
        where = json.loads(checkpoint)
    return TorchBatches(source, read(source), default_boxes.to(source.device), augmentation, **where)


def eval_batches(source: Source) -> TorchBatches:
    """See benchmarks.ssd.data.eval_batches."""
    return TorchBatches(source, read(source))


def warm_up(source: Source) -> None:
    """Compile on blank pictures what training's batches of them will need."""
    if source.compiled:
        b, side, device = source.batch_size, source.image_px, source.device
        pixels = torch.zeros(b, 3, side, side, dtype=torch.uint8, device=device)
        torch.compile(_images)(pixels, torch.zeros(b, 3, 4, device=device))


def read(source: Source) -> list[Picture]:
    """The pictures of an annotation file in its order, as DALI's reader takes them: boxes of 0.1 px at least, within them."""
    truth = coco.GroundTruth.load(source.annotations)
    label_of = {number: label for label, number in enumerate(truth.category_ids.tolist(), start=1)}
    boxes: dict[int, list[tuple[list[float], int]]] = {}
    for annotation in truth.document["annotations"]:
        if min(np.float32(side) for side in annotation["bbox"][2:]) >= coco.MIN_SIDE_PX:
            boxes.setdefault(annotation["image_id"], []).append((annotation["bbox"], annotation["category_id"]))
    found = []
    for image in truth.document["images"]:
        here = boxes.get(image["id"], [])
        if here or not source.skip_empty:
            xywh = np.array([box for box, _ in here], dtype=np.float32).reshape(-1, 4)
            size = np.array([image["width"], image["height"]] * 2, dtype=np.float32)
            ltrb = (np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1) / size).clip(0, 1)
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
        pixels: Tensor = decode_jpeg(read_file(str(picture.file)), mode=ImageReadMode.RGB)
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


def formatted(images: Tensor, form: str) -> Tensor:
    """(B, 3, S, S) float32 in one of benchmarks.ssd.image_format's forms."""
    if form == "fp32_chw":
        return images
    return F.pad(images.permute(0, 2, 3, 1), (0, 1)).half()


def _images(pixels: Tensor, colours: Tensor) -> Tensor:
    """Training's images (B, 3, S, S) float32 of pixels (B, 3, S, S) uint8 and colours (B, 3, 4)."""
    return maths.normalised(maths.coloured(pixels, colours))
