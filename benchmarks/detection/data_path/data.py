"""Batches of a COCO folder, made by DALI or, where there is no DALI, by torchvision and PyTorch: one meaning, two backends.

Both read the same images in a seeded order and pass the same tests. An evaluation's batches are here; what training does to
pictures and boxes is each detector's own, and so are its batches.

Shapes: B images, S image side in px.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol

from benchmarks.detection.data_set import annotation_file, checked, picture_files
from benchmarks.detection.data_set.checked import Counts
from benchmarks.detection.found import Batches
from benchmarks.detection.tables import ImageFormat


@dataclass(frozen=True)
class Source:
    """One half (train or evaluation) of a COCO folder and the part of it that a rank reads."""

    images: Path
    annotations: Path
    image_px: int
    batch_size: int
    threads: int
    device: str  # torch's: "cpu", "cuda:N"
    shard: int
    shards: int
    skip_empty: bool  # leave out images without boxes
    image_format: ImageFormat = "fp32_chw"
    backend: str = "dali"  # or "torch"
    jpeg_on_device: bool = True  # torch, on a device that says it is CUDA's: decode with nvJPEG, else on the CPU
    whole: bool = False  # DALI: in training, decode all of a picture and cut the crop out of it
    hw_decoder_load: float = 0.65  # DALI: share of a batch for a GPU's JPEG engine
    counts: Counts | None = None  # that its reader must find; None: what the annotation file holds
    antialias: bool = (
        True  # make pictures smaller by a filter as wide as the scale, not by interpolation between four pixels
    )
    compiled: bool = False  # torch: torch.compile of what is done to the pixels of a batch

    @property
    def gpu(self) -> int | None:
        """The number of the GPU that does the decoding; None where the CPU does."""
        return (
            int(self.device.partition(":")[2] or 0) if self.device.startswith("cuda") and self.jpeg_on_device else None
        )


class TrainBatches(Batches, Protocol):
    """Batches that can be gone on with in another process."""

    def state(self) -> bytes:
        """Where the order and its random numbers stand; valid between two epochs."""
        ...


def eval_batches(source: Source) -> Batches:
    """Batches of images in source.image_format and image_ids (B, 1) int32; the last may be shorter, each image comes once."""
    batches: Batches = backend("benchmarks.detection.data_path", source).eval_batches(source)
    return batches


def counts(source: Source) -> Counts:
    """What a reader of `source` must find."""
    if source.counts is not None:
        return source.counts
    found = annotation_file.read(source.annotations)
    return checked.counts(found, found)


def blamed(source: Source) -> str:
    """Which picture a decoder could not decode that names none: all are decoded on the CPU until one cannot be."""
    names = annotation_file.read(source.annotations).file_names
    return picture_files.first_damaged(source.images, names) or (
        f"Pillow decodes each of the {len(names):,} pictures in {source.images}: none of them seems to be to blame"
    )


def backend(package: str, source: Source) -> ModuleType:
    """The module data_dali or data_torch of a package, whichever makes this source's batches."""
    return importlib.import_module(f"{package}.data_{source.backend}")
