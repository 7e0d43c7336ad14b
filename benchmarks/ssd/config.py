"""The tables of a configuration that SSD owns. Defaults are the benchmark's definition; what has no default must be said.

Lengths are in pixels of the network's input, epochs count from 1, steps are the optimizer's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from benchmarks.detection import tables
from benchmarks.detection.tables import DetectorConfig, Fraction, Network, Range, Table
from benchmarks.ssd import recipes
from benchmarks.ssd.geometry import REFERENCE_EXTRAS, feature_sizes


class Model(Network):
    """Network and default boxes; the defaults are SSD300."""

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
    # after the first convolution; blocks: batch norm in the backbone's blocks, with the ReLU and the sum that follow;
    # loss: read where the heads' convolutions leave their outputs
    fused: tuple[Literal["stem", "blocks", "loss"], ...] = ()

    @model_validator(mode="after")
    def _choices_fit_together(self) -> Self:
        if len(set(self.fused)) < len(self.fused):
            raise ValueError(f"fused = {list(self.fused)} names a part twice")
        if "blocks" in self.fused and "stem" not in self.fused:
            raise ValueError(f'fused = {list(self.fused)}: "blocks" goes on from "stem"; name both')
        if self.fused and not self.channels_last:
            raise ValueError(f"fused = {list(self.fused)} is for channels_last = true alone")
        return self


class SSDConfig(DetectorConfig):
    """All of SSD's tables."""

    model: Model
    augmentation: Augmentation = Augmentation()
    optimizer: Optimizer
    compute: Compute
