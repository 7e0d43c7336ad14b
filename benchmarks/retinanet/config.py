"""The tables of a configuration that RetinaNet owns. Defaults are the benchmark's definition; what has no default must be
said.

Lengths are in pixels of the network's input, epochs count from 1.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from benchmarks.detection import tables
from benchmarks.detection.tables import DetectorConfig, Fraction, Network, Table


class Model(Network):
    """Network and anchors; the defaults are the reference's."""

    # resnet10, with one block in each stage, is for demonstrations: nobody has a file of its weights
    backbone: Literal["resnet10", "resnet18", "resnet34", "resnet50", "resnext50_32x4d"] = "resnext50_32x4d"
    image_px: Annotated[int, Field(ge=64, le=1024)] = 800
    # Stages of the backbone that are trained, from the last: 3 leaves the stem and the first stage as they come, 5 leaves none
    trained_stages: Annotated[int, Field(ge=0, le=5)] = 3
    # frozen: batch norm as a fixed scale and shift, as the backbone's file has them (none of their own from scratch)
    batch_norm: Literal["frozen", "trained"] = "frozen"
    channels: Annotated[int, Field(ge=8, multiple_of=8)] = 256  # of the pyramid and the heads
    head_depth: Annotated[int, Field(ge=1, le=4)] = 4  # convolutions of a head before its last one
    anchor_px: tuple[PositiveInt, ...] = (32, 64, 128, 256, 512)  # side of the smallest square of each map, P3's first
    # Height by width; of each three sizes, a third of an octave apart
    aspect_ratios: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)

    @model_validator(mode="after")
    def _maps_are_there(self) -> Self:
        if not 3 <= len(self.anchor_px) <= 5:
            raise ValueError(f"anchor_px = {list(self.anchor_px)} must name three to five maps: P3 to P5, P6 or P7")
        return self

    @model_validator(mode="after")
    def _anchors_have_an_area(self) -> Self:
        for smallest, ratio in itertools.product(self.anchor_px, self.aspect_ratios):
            shorter = smallest * min(ratio**0.5, ratio**-0.5)
            if shorter <= 1:  # half of it is rounded: benchmarks/retinanet/anchors.py
                raise ValueError(
                    f"anchor_px = {list(self.anchor_px)} with a ratio of {ratio} in aspect_ratios makes anchors of no area "
                    f"(one of their sides is {shorter:.2g} px): name larger squares, or ratios nearer to 1"
                )
        return self

    @model_validator(mode="after")
    def _weights_can_be_had(self) -> Self:
        if self.initial_weights == "imagenet" and self.backbone == "resnet10":
            raise ValueError('backbone = "resnet10" has no weights to begin with: say initial_weights = "scratch"')
        return self

    @model_validator(mode="after")
    def _what_is_frozen_was_trained(self) -> Self:
        if self.initial_weights == "scratch" and self.trained_stages < 5:
            raise ValueError(
                f"trained_stages = {self.trained_stages} would leave random weights untrained: say 5 with "
                'initial_weights = "scratch"'
            )
        return self


class Data(tables.Data):
    """As every detector's, and how pictures are made smaller."""

    # The reference interpolates between four pixels whatever the scale; a filter as wide as the scale leaves no moiré
    antialias: bool = False

    @model_validator(mode="after")
    def _pictures_are_decoded_whole(self) -> Self:
        if self.decode != tables.Data.model_fields["decode"].default:
            raise ValueError(
                f'decode = "{self.decode}" has no effect: RetinaNet trains on whole pictures; leave it out'
            )
        return self


class Augmentation(Table):
    """Of the training images: the reference flips, and no more."""

    flip_probability: Fraction = 0.5


class Optimizer(tables.Optimizer):
    """Adam, without weight decay; the batch is one accelerator's."""

    learning_rate: PositiveFloat  # after warm-up, for the global batch
    warmup_epochs: Annotated[float, Field(ge=0)] = 1
    warmup_factor: Annotated[float, Field(ge=0, le=1)] = 1e-3  # of the learning rate, at the first step


class EvaluationTable(tables.EvaluationTable):
    """What is kept of an image's detections.

    The reference keeps its best 300, of all classes together (detections_per_img in single_stage_detector/ssd/model/
    retinanet.py of mlcommons/training, which its train.py leaves as it is), and so do the 31 implementations of RetinaNet that
    submitters of rounds 2.1, 4.1 and 5.1 published. The 100 of COCO's metric are another limit, and hold besides: of an image
    the evaluator looks at the best 100 of each class. MLPerf's rules name neither. In the closed division no other
    limit is taken.
    """

    max_detections: PositiveInt = 300


class RetinaNetConfig(DetectorConfig):
    """All of RetinaNet's tables."""

    model: Model
    data: Data
    augmentation: Augmentation = Augmentation()
    optimizer: Optimizer
    evaluation: EvaluationTable

    @model_validator(mode="after")
    def _a_batch_has_no_one_shape(self) -> Self:
        if self.compute.cuda_graphs:
            raise ValueError(
                "cuda_graphs = true records a step for batches of one shape, and RetinaNet's have as many boxes as their "
                "pictures: leave it out"
            )
        return self

    @property
    def antialias(self) -> bool:
        return self.data.antialias

    @property
    def decodes_regions(self) -> bool:
        return False
