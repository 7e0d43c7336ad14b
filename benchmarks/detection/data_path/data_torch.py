"""The data path without DALI, for accelerators and machines that DALI does not run on: torchvision decodes, PyTorch augments.

A thread works ahead of training: it draws, reads, decodes (on a GPU of NVIDIA's with nvJPEG, else on `threads` of the CPU),
cuts and resizes. Colour, normalising and matching are done to a whole batch on the device, when training takes it. All random
numbers of a batch come from the seed, the epoch and the batch's place in it, so that they do not depend on threads.

Shapes: B images, S image side in px, G ground-truth boxes of an image, A default boxes.
"""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from benchmarks.detection.data_path import image_format
from benchmarks.detection.data_path.data import Source
from benchmarks.detection.data_path.normalisation import imagenet, normalised
from benchmarks.detection.data_path.pictures import Picture, cut, decoded, is_jpeg, read

AHEAD = 2  # batches that are made before they are asked for, as many as DALI's default


Draw = dict[str, Tensor]  # a batch of which nothing has yet been done to the whole


@dataclass
class TorchBatches(ABC):
    """Implements benchmarks.detection.data_path.data.Batches, except for what training and evaluation do differently."""

    source: Source
    pictures: Sequence[Picture]
    epoch: int = 0  # the one that comes next, 0-based

    @property
    def samples(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        groups = enumerate(self._groups(epoch))
        coming: deque[Future[Draw]] = deque()
        try:
            while True:
                for place, group in groups:
                    coming.append(self._foreman.submit(self._ready, epoch, place, group))
                    if len(coming) == AHEAD:
                        break
                if not coming:
                    break
                draw = coming.popleft().result()
                for tensor in draw.values():
                    if tensor.is_cuda:  # its memory must outlive what training's stream still does with it
                        tensor.record_stream(torch.cuda.current_stream(tensor.device))
                yield self._finished(draw)
        finally:
            for each in coming:  # of an epoch that is left before its end
                each.cancel()

    @abstractmethod
    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        """All pictures by number, whichever rank has them."""

    @abstractmethod
    def _draw(self, epoch: int, place: int, pictures: list[Picture]) -> Draw:
        """The batch at `place` of an epoch, on the device. Called on the foreman's thread."""

    @abstractmethod
    def _finished(self, draw: Draw) -> dict[str, Tensor]:
        """What is done to a whole batch, on the device and on training's stream."""

    def _groups(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        """Of this rank: which pictures each batch has."""
        order, size, shard, shards = self._order(epoch), self.source.batch_size, self.source.shard, self.source.shards
        mine = order[len(order) * shard // shards : len(order) * (shard + 1) // shards]
        return [mine[i : i + size] for i in range(0, len(mine), size)]

    def _ready(self, epoch: int, place: int, group: npt.NDArray[np.int64]) -> Draw:
        with self._own_stream():
            return self._draw(epoch, place, [self.pictures[i] for i in group])

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

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        return imagenet(self.source.device)

    @contextlib.contextmanager
    def _own_stream(self) -> Iterator[None]:
        """Under CUDA a stream of this thread's own, with nothing left to do at the end.

        That it is idle then is needed, not only kind: nvJPEG's engine may write into memory whose last reader, on this
        stream, has not run yet.
        """
        if self.source.gpu is None:
            yield
            return
        with torch.cuda.device(self.source.device), torch.cuda.stream(self._stream):
            yield
            self._stream.synchronize()

    def _pixels(self, pictures: Sequence[Picture]) -> Tensor:
        """(B, 3, S, S) uint8."""
        side, antialias = self.source.image_px, self.source.antialias
        if self.source.gpu is None:
            made = torch.stack(
                list(self._workers.map(lambda picture: cut(decoded(picture), picture, side, antialias), pictures))
            )
            return made.to(self.source.device)  # an accelerator that decodes no JPEG
        whole = self._by_nvjpeg(pictures)
        return torch.stack([cut(each, picture, side, antialias) for each, picture in zip(whole, pictures, strict=True)])

    def _by_nvjpeg(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """(3, H, W) uint8 each, on the GPU; what is no JPEG file, whatever its name, comes from the CPU.

        So does a batch that nvJPEG refuses, for a CMYK picture, say. RuntimeError that names the file that cannot be read.
        """
        files = list(self._workers.map(_content, pictures))
        jpegs = [file for file in files if is_jpeg(file)]
        try:
            found = iter(decode_jpeg(jpegs, mode=ImageReadMode.RGB, device=self.source.device) if jpegs else [])
        except RuntimeError:
            return [pixels.to(self.source.device) for pixels in self._workers.map(decoded, pictures)]
        return [
            next(found) if is_jpeg(file) else decoded(picture).to(self.source.device)
            for file, picture in zip(files, pictures, strict=True)
        ]


def _content(picture: Picture) -> Tensor:
    """(N,) uint8 of its file; none of one that cannot be read, of which `decoded` says so."""
    try:
        return torch.from_numpy(np.fromfile(picture.file, dtype=np.uint8))  # read_file takes no name that is not UTF-8
    except OSError:
        return torch.empty(0, dtype=torch.uint8)


@dataclass
class EvalBatches(TorchBatches):
    """Every image once, in the file's order."""

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:  # noqa: ARG002
        return np.arange(len(self.pictures))

    def _draw(self, epoch: int, place: int, pictures: list[Picture]) -> Draw:  # noqa: ARG002
        ids = torch.tensor([[picture.id] for picture in pictures], dtype=torch.int32)  # on the CPU, where they are used
        return {"pixels": self._pixels(pictures), "image_ids": ids}

    def _finished(self, draw: Draw) -> dict[str, Tensor]:
        images = normalised(draw["pixels"], *self._statistics)
        return {"images": image_format.made(images, self.source.image_format), "image_ids": draw["image_ids"]}


@dataclass
class ShuffledBatches(TorchBatches):
    """Training's: whole batches, as many on every rank, in an order that each epoch draws from a seed of all ranks."""

    order_seed: int = field(kw_only=True)
    augmentation_seed: int = field(kw_only=True)

    def state(self) -> bytes:
        return json.dumps({name: getattr(self, name) for name in ("order_seed", "augmentation_seed", "epoch")}).encode()

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.order_seed, epoch]).permutation(len(self.pictures))

    def _groups(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        whole = len(self.pictures) // self.source.shards // self.source.batch_size
        return super()._groups(epoch)[:whole]

    def _rng(self, epoch: int, place: int) -> np.random.Generator:
        """For the batch at `place` of an epoch."""
        return np.random.default_rng([self.augmentation_seed, epoch, place])

    def _on_device(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Draw:
        return {name: torch.from_numpy(each).to(self.source.device) for name, each in arrays.items()}


def begins(order_seed: int, augmentation_seed: int, checkpoint: bytes | None) -> dict[str, int]:
    """Seeds and epoch of ShuffledBatches: those given, or those of a former `state()`."""
    if checkpoint is not None:
        found: dict[str, int] = json.loads(checkpoint)
        return found
    return {"order_seed": order_seed, "augmentation_seed": augmentation_seed}


def eval_batches(source: Source) -> EvalBatches:
    """See benchmarks.detection.data_path.data.eval_batches."""
    return EvalBatches(source, read(source))
