"""The tables of a configuration that SSD owns. Defaults are the benchmark's definition; what has no default must be said.

Lengths are in pixels of the network's input, epochs count from 1, steps are the optimizer's.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from benchmarks.detection import tables
from benchmarks.detection.tables import DetectorConfig, Fraction, Network, Range, Table
from benchmarks.ssd import recipes
from benchmarks.ssd.geometry import REFERENCE_EXTRAS, Backbone, Clamped, feature_sizes

ExtraBlock = (
    tuple[PositiveInt, PositiveInt, Literal[1, 2], Literal[0, 1]]
    | tuple[PositiveInt, PositiveInt, Literal[1, 2], Literal[0, 1], Literal[3, 4]]
)  # fmt: skip
OF_A_RESNET = ("stem", "stem_convolution", "blocks", "convolutions")  # parts of compute.fused


class Model(Network):
    """Network and default boxes; the defaults are SSD300 with ResNet-34. VGG-16's are in configs/ssd/vgg_*.toml."""

    backbone: Backbone = "resnet34"
    width_divisor: Literal[1, 2, 4, 8] = 1  # of vgg16: all its channels are divided by it
    image_px: Annotated[int, Field(ge=32, le=1024)] = 300
    # [1x1 channels, 3x3 channels, stride, padding] of each extra block, and a fifth number where the second kernel is not 3x3
    extras: tuple[ExtraBlock, ...] = REFERENCE_EXTRAS
    steps_px: tuple[PositiveFloat, ...] = (8, 16, 32, 64, 100, 300)
    scales_px: tuple[PositiveFloat, ...] = (21, 45, 99, 153, 207, 261, 315)
    aspect_ratios: tuple[tuple[PositiveFloat, ...], ...] = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    clamped: Clamped = "all"  # what of the default boxes is clamped to the picture: see benchmarks/ssd/boxes.py
    # Ranks that share batch norm's statistics: model_bn_span is so many batches. See benchmarks/ssd/group_batch_norm.py
    batch_norm_ranks: Literal[1, 2, 4, 8] = 1

    @property
    def feature_sizes(self) -> list[int]:
        return feature_sizes(self.image_px, self.extras, self.backbone)

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

    @model_validator(mode="after")
    def _width_is_the_backbone_s(self) -> Self:
        if self.width_divisor != 1 and self.backbone != "vgg16":
            raise ValueError(f'width_divisor = {self.width_divisor} is for backbone = "vgg16"; leave it out')
        if self.width_divisor != 1 and self.initial_weights == "imagenet":
            raise ValueError(
                f"width_divisor = {self.width_divisor}: there are no ImageNet weights of a narrower VGG-16; say "
                'initial_weights = "scratch", or width_divisor = 1'
            )
        return self


class Augmentation(Table):
    """Of the training images; the defaults are v0.7's."""

    crop_min_iou: tuple[Fraction, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
    crop_scale: Range = (0.3, 1.0)
    crop_aspect_ratio: Range = (0.5, 2.0)
    # Which boxes must overlap a window by an option's IoU, and how many windows are tried of an option before another is drawn,
    # which logs call max_samples
    crop_boxes: Literal["all", "any"] = "all"
    crop_attempts: Annotated[int, Field(ge=1, le=100)] = 1
    flip_probability: Fraction = 0.5
    # The paper's zoom out: so often a picture lies on a grey canvas, of up to so many times its sides, before it is cropped
    expand_probability: Fraction = 0.0
    expand_most: Annotated[float, Field(gt=1, le=8)] = 4.0
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


class Optimizer(tables.Optimizer):
    """SGD with momentum; the batch is one accelerator's.

    `recipe` names a row of recipes.toml, which then says what stands without a default here. What is written out beside it must
    be what it says. Not part of what a configuration means: two files with the same values are the same.
    """

    recipe: Annotated[str | None, Field(exclude=True)] = None
    batch_size: Annotated[int, Field(ge=2, description="batch norm needs two images at least")]
    learning_rate: PositiveFloat  # after warm-up, for the global batch
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_steps: PositiveInt  # the ruleset asks for 1 at least
    decay_epochs: tuple[PositiveInt, ...]  # a tenth after so many whole epochs
    warmup_factor: Annotated[int, Field(ge=0)] = 0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    loss_over: Literal["image", "batch"] = (
        "image"  # by whose matched boxes the loss is divided: see benchmarks/ssd/loss.py
    )

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, said: Any) -> Any:
        if not isinstance(said, dict):
            return said
        said = {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}
        if said.get("recipe") is None:
            return said
        recipe = recipes.named(said["recipe"])
        for key, value in recipe.settings.items():
            if (given := said.get(key, value)) != value:
                raise ValueError(
                    f"{key} = {given}: recipe {recipe.name} says {value}; leave it out, or leave out the recipe and say all"
                )
        return {**said, **recipe.settings}

    @model_validator(mode="after")
    def _decays_ascend(self) -> Self:
        if list(self.decay_epochs) != sorted(set(self.decay_epochs)):
            raise ValueError(f"decay_epochs = {list(self.decay_epochs)} must ascend")
        return self


class Compute(tables.Compute):
    """How the same maths is run."""

    # How the first convolution is done: see benchmarks/ssd/stem.py. Weights and gradients are the same
    stem: Literal["direct", "space_to_depth"] = "direct"
    # What Triton kernels for CUDA do instead of PyTorch, the same values to rounding. stem: batch norm, ReLU and pool
    # after the first convolution; stem_convolution: that one with them, from the images as they come; blocks: batch norm
    # in the backbone's blocks, with the ReLU and the sum that follow;
    # convolutions: in stem and blocks with what batch norm sums up and masks of their outputs, in large extra blocks with bias
    # and ReLU, by graphs of cuDNN's where init finds these faster than one after the other; loss: read where the heads'
    # convolutions leave their outputs. And weights, which needs no kernel of ours, on one rank: benchmarks/detection/casts.py
    fused: tuple[Literal["stem", "stem_convolution", "blocks", "convolutions", "loss", "weights"], ...] = ()

    @model_validator(mode="after")
    def _choices_fit_together(self) -> Self:
        if len(set(self.fused)) < len(self.fused):
            raise ValueError(f"fused = {list(self.fused)} names a part twice")
        if "blocks" in self.fused and "stem" not in self.fused:
            raise ValueError(f'fused = {list(self.fused)}: "blocks" goes on from "stem"; name both')
        if "stem_convolution" in self.fused and ("stem" not in self.fused or self.stem != "space_to_depth"):
            raise ValueError(
                f'fused = {list(self.fused)}: "stem_convolution" is of "stem" and stem = "space_to_depth"; say both'
            )
        if "stem_convolution" in self.fused and self.precision not in ("bf16", "fp16"):
            raise ValueError(
                f'fused = {list(self.fused)}: "stem_convolution" is for tensor cores, and precision = "{self.precision}" may '
                'be float32; say "bf16" or "fp16", or leave it out'
            )
        if "convolutions" in self.fused and "blocks" not in self.fused:
            raise ValueError(f'fused = {list(self.fused)}: "convolutions" are those of "blocks"; name both')
        if "convolutions" in self.fused and not self.autotune:
            raise ValueError(
                f'fused = {list(self.fused)}: "convolutions" are chosen by their speed, which autotune = false forbids'
            )
        if self.fused and not self.channels_last:
            raise ValueError(f"fused = {list(self.fused)} is for channels_last = true alone")
        return self


class EvaluationTable(tables.EvaluationTable):
    """From the network's output to mAP; the defaults are the reference's."""

    min_score: Annotated[float, Field(gt=0, lt=1)] = 0.05  # of a detection
    max_iou: Annotated[float, Field(gt=0, lt=1)] = 0.5  # with a better one of its class, above which a detection goes
    max_per_class: PositiveInt = 200  # before that


class SSDConfig(DetectorConfig):
    """All of SSD's tables."""

    model: Model
    augmentation: Augmentation = Augmentation()
    optimizer: Optimizer
    compute: Compute
    evaluation: EvaluationTable

    @property
    def least_side_px(self) -> int:
        """DALI ends the run, naming no picture, where both ends of a window round to one, as of less than a pixel they may."""
        return math.ceil(1 / self.augmentation.crop_scale[0])

    @model_validator(mode="after")
    def _loss_kernel_is_the_reference_s(self) -> Self:
        if "loss" in self.compute.fused and self.optimizer.loss_over != "image":
            raise ValueError(
                f'compute.fused has "loss", which divides by an image\'s boxes, and optimizer.loss_over = '
                f'"{self.optimizer.loss_over}"; leave out one of them'
            )
        return self

    @model_validator(mode="after")
    def _compute_fits_the_backbone(self) -> Self:
        if self.model.backbone != "vgg16":
            return self
        if parts := [each for each in self.compute.fused if each in OF_A_RESNET]:
            raise ValueError(
                f'compute.fused = {parts} are of a ResNet\'s batch norm, of which vgg16 has none; "loss" and "weights" fit it'
            )
        if self.compute.stem != "direct":
            raise ValueError(
                f'compute.stem = "{self.compute.stem}" is for a ResNet\'s 7x7 convolution of stride 2; vgg16 begins with a '
                '3x3 one of stride 1: say "direct", or leave it out'
            )
        if self.model.batch_norm_ranks > 1:
            raise ValueError(
                f"model.batch_norm_ranks = {self.model.batch_norm_ranks} is of a ResNet's batch norm, of which vgg16 has none"
            )
        return self

    @model_validator(mode="after")
    def _batch_norm_can_be_shared(self) -> Self:
        shared, compute = self.model.batch_norm_ranks, self.compute
        if shared > 1 and (compute.compile or {"stem", "blocks"} & set(compute.fused)):
            raise ValueError(
                f"model.batch_norm_ranks = {shared} sums over ranks inside batch norm, which compute.compile = true and "
                'compute.fused = ["stem", "blocks"] cannot: leave these out'
            )
        return self
