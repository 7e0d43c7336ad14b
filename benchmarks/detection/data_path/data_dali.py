"""What detectors' DALI graphs are made of, and the graph of an evaluation: JPEG files of a COCO folder to normalised images.

One description serves GPU and CPU. What DALI is known to trip over is kept out here: the order of images comes from its own
seed, an epoch of training is whole batches of images that are all different, as many on each rank, evaluation gives every image
once.

Shapes: B images, S image side in px.
"""

from __future__ import annotations

import itertools
import tempfile
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.base_iterator import LastBatchPolicy
from nvidia.dali.plugin.pytorch import DALIGenericIterator
from nvidia.dali.tensors import TensorGPU
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from benchmarks.detection.data_path import reader_counts
from benchmarks.detection.data_path.data import Source, blamed, counts
from benchmarks.detection.data_path.normalisation import IMAGENET_MEAN, IMAGENET_STD

READER = "coco"
DECODERS = "fn.decoders."  # in an error of theirs, which names no file

MOST_KEPT = 4  # batches that the device has not finished with

Batch = dict[str, Tensor]


@dataclass
class InUse:
    """Batches on a GPU that somebody may still have to read. Each is kept until the stream is past what was asked of it.

    DALI hands its memory over without a copy, and has it back when the last tensor on it goes, in the order of its own stream.
    Of PyTorch's own memory the allocator knows that kernels which read it are still to run; of DALI's nobody does, and by the
    time that they run another batch would lie there: the host is a step or two ahead of the device.
    """

    device: torch.device
    kept: deque[tuple[torch.cuda.Event, Batch]] = field(default_factory=deque)

    def asked(self, batch: Batch) -> None:
        """All that is to be done with `batch` has been asked of the current stream."""
        if self.device.type != "cuda":
            return
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        self.kept.append((event, batch))
        while self.kept and self.kept[0][0].query():
            self.kept.popleft()
        if len(self.kept) > MOST_KEPT:  # more than a host has ever been ahead
            self.kept[0][0].synchronize()
            self.kept.popleft()


def give_in_order(pipe: Any, device: torch.device) -> None:
    """Let the current stream of PyTorch wait for the pipeline's outputs, and not the host. Their memory stays DALI's."""
    # without a circle: its threads end with its last reference
    this, outputs = weakref.proxy(pipe), type(pipe).share_outputs
    pipe.share_outputs = lambda: outputs(this, cuda_stream=torch.cuda.current_stream(device))


class Lent:
    """A tensor of DALI's on a GPU, in the form in which PyTorch takes it without a copy, and gives it back without a wait.

    Not by DLPack, as DALI's own iterator: what was lent so is given back by a thread that waits for the whole device first
    (DLTensorGraveyard in DALI's source; nothing else in 2.4.0's libdali.so does). Meanwhile nobody else's kernels are
    started, the decoders' neither: on an H100 they stood still for 40 to 100 ms of a step of 60.

    Nothing here waits for what fills the memory either: that is give_in_order's part.
    """

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor  # PyTorch keeps this object, and it the memory
        self.__cuda_array_interface__ = tensor.__cuda_array_interface__


def as_torch(tensor: Any) -> Tensor:
    """The same memory as a tensor of PyTorch's."""
    return torch.as_tensor(Lent(tensor)) if isinstance(tensor, TensorGPU) else from_dlpack(tensor)


class LendingIterator(DALIGenericIterator):  # type: ignore[misc]
    """DALI's for one pipeline with a reader, but for how a batch is handed over."""

    def __next__(self) -> list[Batch]:
        self._ever_consumed = True
        (outputs,) = self._get_outputs()
        batch = {name: as_torch(output.as_tensor()) for name, output in zip(self.output_map, outputs, strict=True)}
        self._schedule_runs()
        self._advance_and_check_drop_last()
        too_many, left = self._remove_padded()
        if np.any(too_many):
            batch = {name: tensor[: int(left[0])] for name, tensor in batch.items()}
        return [batch]


@dataclass
class DaliBatches:
    """Implements benchmarks.detection.data_path.data.TrainBatches."""

    iterator: LendingIterator
    source: Source
    in_use: InUse
    given: int | None  # batches of an epoch; None: all there are

    @property
    def samples(self) -> int:
        (meta,) = (p.reader_meta(READER) for p in self.iterator._pipes)
        return int(meta["epoch_size"])

    def __iter__(self) -> Iterator[Batch]:
        epoch = iter(self.iterator)
        for number in itertools.count():
            try:
                (batch,) = next(epoch)
            except StopIteration:
                return
            except RuntimeError as error:
                if DECODERS not in str(error):
                    raise
                raise RuntimeError(f"{error}\n{blamed(self.source)}") from error
            if self.given is not None and number >= self.given:
                continue  # read to the epoch's end, without which DALI does not begin the next one
            try:
                yield {name: tensor.to(self.source.device, non_blocking=True) for name, tensor in batch.items()}
            finally:  # at the end of an epoch that is left before its own, too
                self.in_use.asked(batch)

    def state(self) -> bytes:
        (checkpoint,) = self.iterator.checkpoints()
        return bytes(checkpoint)


def eval_batches(source: Source) -> DaliBatches:
    """See benchmarks.detection.data_path.data.eval_batches."""
    saved = tempfile.TemporaryDirectory()
    pipe = _eval_graph(
        source, saved.name, batch_size=source.batch_size, num_threads=source.threads, device_id=source.gpu, seed=0
    )
    return batches(pipe, source, saved, ["images", "image_ids"], only_whole=False)


def decoder(jpegs: Sequence[npt.NDArray[np.uint8]], threads: int, gpu: int | None, hw_decoder_load: float) -> Any:
    """A pipeline that decodes these files to RGB, whole, each time it is run, and does nothing else: for `harness probe`.

    On the CPU where `gpu` is None, else there, with this share of them by its JPEG engine. Nothing is worked ahead.
    """
    pipe = _decoding_graph(
        list(jpegs),
        _decoding(gpu, hw_decoder_load),
        batch_size=len(jpegs),
        num_threads=threads,
        device_id=gpu,
        exec_pipelined=False,
        exec_async=False,
    )
    pipe.build()
    return pipe


@pipeline_def  # type: ignore[untyped-decorator]
def _decoding_graph(jpegs: list[npt.NDArray[np.uint8]], arguments: dict[str, Any]) -> Any:
    return fn.decoders.image(fn.external_source(source=lambda: jpegs, batch=True, device="cpu"), **arguments)


def batches(
    pipe: Any, source: Source, saved: tempfile.TemporaryDirectory[str], outputs: list[str], *, only_whole: bool
) -> DaliBatches:
    """`saved` is where the graph's reader saves what it reads, and is removed.

    With `only_whole`, for a reader that is `shuffled`, an epoch has the whole batches that every rank can fill. Not by DALI's
    own DROP: without padding it goes on where it was, so that the images that were dropped are missing and the next epoch's
    last ones come twice, more of them each epoch (44 images of 47: 35 different ones in the twentieth); with padding ranks
    whose shards end with a batch go on to their next shard an epoch before the others.
    """
    policy = LastBatchPolicy.FILL if only_whole else LastBatchPolicy.PARTIAL
    assert pipe.exec_dynamic, "its other executors lend a batch until the next one is asked for"
    if source.gpu is not None:
        give_in_order(pipe, torch.device(source.device))
    iterator = LendingIterator(
        [pipe], outputs, reader_name=READER, last_batch_policy=policy, auto_reset=True, prepare_first_batch=False
    )
    with saved:
        reader_counts.compare(Path(saved.name), counts(source), source.annotations, with_empty=not source.skip_empty)
    given = int(pipe.reader_meta(READER)["epoch_size"]) // source.shards // source.batch_size if only_whole else None
    return DaliBatches(iterator, source, InUse(torch.device(source.device)), given)


def reader(source: Source, **arguments: Any) -> Any:
    """DALI's COCO reader of this rank's share of `source`: files, boxes as ltrb in 0 to 1, labels. ValueError for its paths."""
    for path in (source.images, source.annotations):
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f'{str(path)!a}: DALI takes no path that is not UTF-8; give it another name, or say data.backend = "torch"'
            ) from error
    return fn.readers.coco(
        file_root=str(source.images),
        annotations_file=str(source.annotations),
        shard_id=source.shard,
        num_shards=source.shards,
        skip_empty=source.skip_empty,
        ltrb=True,
        ratio=True,
        name=READER,
        **arguments,
    )


def saving(folder: str) -> dict[str, Any]:
    """Lets the reader save what it has read, to be compared with what it should have."""
    return {"save_preprocessed_annotations": True, "save_preprocessed_annotations_dir": folder}


def shuffled(source: Source, order_seed: int, saved: str) -> Any:
    """Training's reader, which saves what it has read into the folder `saved`."""
    # shuffle_after_epoch ignores the pipeline's seed: without one of its own every run sees the same order
    return reader(
        source,
        **saving(saved),
        shuffle_after_epoch=True,
        shuffle_after_epoch_seed=order_seed % 2**31,
        pad_last_batch=True,  # each epoch begins with its own first image
    )


def training(source: Source, augmentation_seed: int, checkpoint: bytes | None) -> dict[str, Any]:
    """The arguments of training's pipeline."""
    return {
        "batch_size": source.batch_size,
        "num_threads": source.threads,
        "device_id": source.gpu,
        # DALI's seeds are signed 32-bit numbers, and negative means "draw one"
        "seed": augmentation_seed % 2**31,
        "enable_checkpointing": True,
        "checkpoint": checkpoint,
    }


def decoding_of(source: Source) -> dict[str, Any]:
    """How JPEG files are decoded, in whole or in part."""
    return _decoding(source.gpu, source.hw_decoder_load)


def _decoding(gpu: int | None, hw_decoder_load: float) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "device": "cpu" if gpu is None else "mixed",
        "output_type": types.RGB,
        "adjust_orientation": False,  # boxes are of the pixels as they are stored, whatever a camera's tag says
        "jpeg_fancy_upsampling": True,  # the CPU decoder's default; without it the GPU's chroma differs
    }
    return arguments if gpu is None else {**arguments, "hw_decoder_load": hw_decoder_load}


def normalised(images: Any, source: Source, colour: Any = None, **mirror: Any) -> Any:
    """Resize with an antialiasing triangular filter, colour (training), then ImageNet's mean and deviation."""
    px, half = source.image_px, source.image_format == "fp16_hwc4"
    images = fn.resize(images, resize_x=px, resize_y=px, interp_type=types.INTERP_LINEAR, antialias=source.antialias)
    if colour is not None:
        images = colour(images)
    return fn.crop_mirror_normalize(
        images,
        dtype=types.FLOAT16 if half else types.FLOAT,
        output_layout="HWC" if half else "CHW",
        pad_output=half,  # with zeros, to a power of two
        mean=[255 * value for value in IMAGENET_MEAN],
        std=[255 * value for value in IMAGENET_STD],
        **mirror,
    )


def uniform(ends: tuple[float, float]) -> Any:
    """A draw for each image; a constant where the range is a point, which DALI's operator refuses."""
    low, high = ends
    return low if low == high else fn.random.uniform(range=[low, high])


@pipeline_def  # type: ignore[untyped-decorator]
def _eval_graph(source: Source, saved: str) -> Any:
    # sticking to its shard, a rank ends each epoch where it began it, also where the shards differ by one image
    files, _, _, image_ids = reader(source, **saving(saved), image_ids=True, stick_to_shard=True)
    return normalised(fn.decoders.image(files, **decoding_of(source)), source), image_ids
