"""The tables of a configuration that every detector has. Defaults are the benchmark's definition; what has none must be said.

Lengths are in pixels of the network's input, epochs count from 1, steps are the optimizer's.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from harness.contract import Precision

Fraction = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]
ImageFormat = Literal["fp32_chw", "fp16_hwc4"]


class Table(BaseModel):
    """A strict table: an unknown key is an error, and nothing is converted behind the reader's back."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Network(Table):
    """What is known of every detector's network."""

    initial_weights: Literal["imagenet", "scratch"]  # imagenet: --initial-weights names torchvision's file
    categories: PositiveInt  # of the data set, without background
    backbone: str
    image_px: PositiveInt


class Data(Table):
    """A folder in COCO form, or the images this project makes itself."""

    source: Literal["coco", "embedded"]
    train_samples: PositiveInt  # images with boxes that the reader must find
    eval_samples: PositiveInt
    # Whether validation images without boxes are evaluated: false reproduces the v0.7 PyTorch logs' 4,952
    eval_images_without_boxes: bool
    train_annotations: str = "annotations/instances_train2017.json"
    train_images: str = "train2017"
    eval_annotations: str = "annotations/instances_val2017.json"
    eval_images: str = "val2017"
    threads: Annotated[int, Field(ge=1, le=64)] = 4  # of the decoder, for each accelerator
    # torch: torchvision's decoder and PyTorch; the same distribution as DALI's, other random numbers. auto: the faster one, on
    # NVIDIA's GPUs DALI's and torch elsewhere, the demonstration apart (capabilities.backend); the log says which
    backend: Literal["auto", "dali", "torch"] = "auto"
    # Of DALI: training decodes the crop alone, or the whole picture and then cuts; the same pixels either way
    decode: Literal["region", "whole"] = "region"
    hw_decoder_load: Fraction = 0.65  # of DALI: share of the pictures for a GPU's JPEG engine; the default is DALI's
    # What the data path hands to the network: see benchmarks/detection/data_path/image_format.py
    image_format: ImageFormat = "fp32_chw"

    @model_validator(mode="after")
    def _choices_are_the_backend_s(self) -> Self:
        if self.backend == "torch" and any(getattr(self, name) != value for name, value in dali_defaults().items()):
            raise ValueError(
                f'{" and ".join(dali_defaults())} are DALI\'s, without effect on backend = "torch"; leave them out'
            )
        return self


def dali_defaults() -> dict[str, object]:
    """The settings of Data that only DALI uses, with their defaults."""
    return {name: Data.model_fields[name].default for name in ("decode", "hw_decoder_load")}


class Optimizer(Table):
    """The batch is one accelerator's."""

    batch_size: PositiveInt


class Compute(Table):
    """How the same maths is run."""

    # auto: what this machine trains fastest in, measured in init; fp32 is PyTorch's, whose convolutions on a GPU are TF32
    precision: Literal["auto", Precision]
    # Of the processor, for PyTorch. auto: as many as a step is fastest with, measured in init where no accelerator computes it
    threads: Literal["auto"] | PositiveInt = "auto"
    channels_last: bool = True
    compile: bool = False  # torch.compile of model and loss; on a CPU it needs a C++ compiler
    # On CUDA, cuDNN tries its plans for each shape in init and keeps the fastest: the ten that it thinks best, or all
    autotune: bool | Literal["all"] = True
    # On CUDA the whole step is recorded in init as one graph, and each batch copied into it
    cuda_graphs: bool = False
    # Of several ranks. delayed: all gradients are summed at once after the backward pass, not in buckets while it goes on
    all_reduce: Literal["overlapped", "delayed"] = "overlapped"
    bucket_mb: PositiveInt | None = None  # MiB that are summed at once; left out: PyTorch's, 25 and the first one 1

    @model_validator(mode="after")
    def _buckets_are_of_use(self) -> Self:
        if self.all_reduce == "delayed" and self.bucket_mb is not None:
            raise ValueError(
                f'bucket_mb = {self.bucket_mb} has no effect with all_reduce = "delayed": leave one of them out'
            )
        return self

    @model_validator(mode="after")
    def _what_is_recorded_is_known_before(self) -> Self:
        if self.cuda_graphs and self.precision not in ("bf16", "fp32"):
            raise ValueError(
                f'cuda_graphs = true with precision = "{self.precision}": fp16 leaves out steps whose gradients overflow, '
                'which no graph can; say "bf16" or "fp32"'
            )
        return self


class EvaluationTable(Table):
    """From the network's output to mAP."""

    batch_size: PositiveInt
    evaluator: Literal["hotcoco", "pycocotools"] = "hotcoco"  # of metric "coco"
    # coco: mean over IoU 0.50 to 0.95; voc2007: Pascal VOC's at 0.5, of eleven recalls; voc2010: the area, as from 2010 on
    metric: Literal["coco", "voc2007", "voc2010"] = "coco"

    @property
    def other_metric(self) -> str:
        """In words, where it is not COCO's, which MLPerf's rules have."""
        return "" if self.metric == "coco" else f"Pascal VOC's metric of {self.metric.removeprefix('voc')}"


class DetectorConfig(Table):
    """All of a detector's tables, as far as detectors share them."""

    model: Network
    data: Data
    optimizer: Optimizer
    compute: Compute
    evaluation: EvaluationTable

    @property
    def antialias(self) -> bool:
        """Whether pictures are made smaller by a filter as wide as the scale, not by interpolation between four pixels."""
        return True

    @property
    def decodes_regions(self) -> bool:
        """Whether DALI may decode the part of a picture that is trained on alone: data.decode."""
        return self.data.decode == "region"

    @property
    def least_side_px(self) -> int:
        """Of a picture that is trained on by DALI: of shorter ones a part that is cut out might be without a pixel."""
        return 1

    def steps_per_epoch(self, world_size: int) -> int:
        """Whole batches that every rank has in an epoch."""
        return self.data.train_samples // world_size // self.optimizer.batch_size
