"""The tables of a configuration that SSD owns. Defaults are the benchmark's definition; what has no default must be said.

Lengths are in pixels of the network's input, epochs count from 1, steps are the optimizer's.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from benchmarks.ssd.geometry import REFERENCE_EXTRAS, feature_sizes

Fraction = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]


class Table(BaseModel):
    """A strict table: an unknown key is an error, and nothing is converted behind the reader's back."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Model(Table):
    """Network and default boxes; the defaults are SSD300."""

    initial_weights: Literal["imagenet", "scratch"]  # imagenet: --initial-weights names torchvision's file
    categories: PositiveInt  # of the data set, without background
    backbone: Literal["resnet18", "resnet34"] = "resnet34"
    image_px: Annotated[int, Field(ge=32, le=1024)] = 300
    # [1x1 channels, 3x3 channels, stride, padding] of each extra block
    extras: tuple[tuple[PositiveInt, PositiveInt, Literal[1, 2], Literal[0, 1]], ...] = REFERENCE_EXTRAS
    steps_px: tuple[PositiveFloat, ...] = (8, 16, 32, 64, 100, 300)
    scales_px: tuple[PositiveFloat, ...] = (21, 45, 99, 153, 207, 261, 315)
    aspect_ratios: tuple[tuple[PositiveFloat, ...], ...] = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))

    @property
    def feature_sizes(self) -> list[int]:
        return feature_sizes(self.image_px, self.extras)

    @model_validator(mode="after")
    def _geometry_fits(self) -> Self:
        maps = len(self.feature_sizes)
        for name, found, wanted in (
            ("steps_px", len(self.steps_px), maps),
            ("aspect_ratios", len(self.aspect_ratios), maps),
            ("scales_px", len(self.scales_px), maps + 1),
        ):
            if found != wanted:
                raise ValueError(f"{name} has {found} entries; {len(self.extras)} extra blocks ask for {wanted}")
        return self


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
    # torch: torchvision's decoder and PyTorch; the same distribution as DALI's, other random numbers. auto: DALI's, but torch
    # where DALI is not installed or does not know the device; the log says which
    backend: Literal["auto", "dali", "torch"] = "auto"
    # Of DALI: training decodes the crop alone, or the whole picture and then cuts; the same pixels either way
    decode: Literal["region", "whole"] = "region"
    hw_decoder_load: Fraction = 0.65  # of DALI: share of the pictures for a GPU's JPEG engine; the default is DALI's
    # What the data path hands to the network: see benchmarks/ssd/image_format.py
    image_format: Literal["fp32_chw", "fp16_hwc4"] = "fp32_chw"

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


class Augmentation(Table):
    """Of the training images; the defaults are v0.7's."""

    crop_min_iou: tuple[Fraction, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
    crop_scale: Range = (0.3, 1.0)
    crop_aspect_ratio: Range = (0.5, 2.0)
    flip_probability: Fraction = 0.5
    brightness: Range = (0.875, 1.125)
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.5, 1.5)
    hue_degrees: Range = (-0.5, 0.5)

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        for name in ("crop_scale", "crop_aspect_ratio", "brightness", "contrast", "saturation", "hue_degrees"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} = [{low}, {high}] must not descend")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale = {list(self.crop_scale)} must lie in (0, 1]: shares of the image's side")
        return self


class Optimizer(Table):
    """SGD with momentum; the batch is one accelerator's."""

    batch_size: Annotated[int, Field(ge=2, description="batch norm needs two images at least")]
    learning_rate: PositiveFloat  # after warm-up, for the global batch
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_steps: PositiveInt  # the ruleset asks for 1 at least
    decay_epochs: tuple[PositiveInt, ...]  # a tenth after so many whole epochs
    warmup_factor: Annotated[int, Field(ge=0)] = 0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9

    @model_validator(mode="after")
    def _decays_ascend(self) -> Self:
        if list(self.decay_epochs) != sorted(set(self.decay_epochs)):
            raise ValueError(f"decay_epochs = {list(self.decay_epochs)} must ascend")
        return self


class Compute(Table):
    """How the same maths is run."""

    # auto: what this machine trains fastest in, measured in init; fp32 is PyTorch's, whose convolutions on a GPU are TF32
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    channels_last: bool = True
    compile: bool = False  # torch.compile of model and loss; on a CPU it needs a C++ compiler
    autotune: bool = True  # on CUDA, cuDNN tries its algorithms on each shape in init and keeps the fastest
    # Of a compiled step on CUDA: its kernels are recorded in init and replayed, inputs copied into their buffers
    cuda_graphs: bool = False
    # How the first convolution is done: see benchmarks/ssd/stem.py. Weights and gradients are the same
    stem: Literal["direct", "space_to_depth"] = "direct"
    # What Triton kernels for CUDA do instead of PyTorch, the same values to rounding. stem: batch norm, ReLU and pool
    # after the first convolution; blocks: batch norm in the backbone's blocks, with the ReLU and the sum that follow;
    # loss: read where the heads' convolutions leave their outputs
    fused: tuple[Literal["stem", "blocks", "loss"], ...] = ()

    @model_validator(mode="after")
    def _choices_fit_together(self) -> Self:
        if self.cuda_graphs and not self.compile:
            raise ValueError("cuda_graphs = true records what torch.compile made: say compile = true as well")
        if len(set(self.fused)) < len(self.fused):
            raise ValueError(f"fused = {list(self.fused)} names a part twice")
        if "blocks" in self.fused and "stem" not in self.fused:
            raise ValueError(f'fused = {list(self.fused)}: "blocks" goes on from "stem"; name both')
        if self.fused and not self.channels_last:
            raise ValueError(f"fused = {list(self.fused)} is for channels_last = true alone")
        return self


class Evaluation(Table):
    """From the network's output to mAP."""

    batch_size: PositiveInt
    evaluator: Literal["hotcoco", "pycocotools"] = "hotcoco"


class SSDConfig(Table):
    """All of SSD's tables."""

    model: Model
    data: Data
    augmentation: Augmentation = Augmentation()
    optimizer: Optimizer
    compute: Compute
    evaluation: Evaluation

    def steps_per_epoch(self, world_size: int) -> int:
        """Whole batches that every rank has in an epoch."""
        return self.data.train_samples // world_size // self.optimizer.batch_size
