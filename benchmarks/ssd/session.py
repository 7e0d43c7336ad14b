"""SSD's tensors of one run: the network, its loss and its optimizer, and the batches that they take.

Shapes: B images of one rank's batch, S image side in px, A default boxes, K classes with background 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.detection import capabilities, gradients
from benchmarks.detection.capabilities import Settled
from benchmarks.detection.casts import WeightsAtOnce
from benchmarks.detection.compiling import compiled
from benchmarks.detection.data_path.data import TrainBatches
from benchmarks.detection.data_path.image_format import PaddedChannels
from benchmarks.detection.found import Detections
from benchmarks.detection.session import DetectorSession
from benchmarks.ssd import data, detections, group_batch_norm, loss, stem
from benchmarks.ssd.boxes import default_boxes
from benchmarks.ssd.config import SSDConfig
from benchmarks.ssd.folder import Folder
from benchmarks.ssd.geometry import shapes_per_cell
from benchmarks.ssd.model import SSD, HeadOutputs, load_backbone
from benchmarks.ssd.schedule import Schedule
from benchmarks.ssd.weight_names import mllog_names
from harness.contract import Context, Plain

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.detection.suppression import Limits


class SSDSession(DetectorSession):
    """SSD on one rank."""

    batch_parts = ("images", "labels", "offsets")
    model: SSD
    folder: Folder

    def __init__(self, config: SSDConfig, context: Context) -> None:
        settled = _parts_that_fit(capabilities.settle(config, context), context)
        self.config = config = settled.config
        super().__init__(settled, Folder(config, context, settled.jpeg_on_device), context)

        geometry = config.model
        self.model = _built(config, context.initial_weights)
        self.model.to(self.device).to(memory_format=self.layout)
        self.default_boxes = default_boxes(
            geometry.image_px,
            geometry.feature_sizes,
            geometry.steps_px,
            geometry.scales_px,
            geometry.aspect_ratios,
            clamped=geometry.clamped,
        ).to(self.device)  # (A, 4)

        self.network: torch.nn.Module = self.model
        # of what the network gives, labels and offsets
        self.detection_loss: Callable[..., Tensor] = loss.detection_loss
        if config.optimizer.loss_over == "batch":
            self.detection_loss = functools.partial(loss.detection_loss, over="batch")
        if "loss" in config.compute.fused:
            from benchmarks.ssd.kernels import loss as loss_kernels

            self.network = HeadOutputs(self.model)
            self.detection_loss = functools.partial(loss_kernels.detection_loss, classes=geometry.categories + 1)
        if "weights" in config.compute.fused:
            self.network = WeightsAtOnce(self.network)
        if context.world_size > 1:
            group_batch_norm.share(self.model, context.world_size, geometry.batch_norm_ranks)
            self.network = gradients.averaged(self.network, config.compute, self.phases)
        self.forward_loss = self._forward_loss
        if config.compute.compile:
            self.forward_loss = compiled(self._forward_loss)
        settings = config.optimizer
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            fused=self.settled.fused_optimizer or None,  # None: PyTorch's own choice
        )
        self.schedule = Schedule(
            settings.learning_rate,
            settings.warmup_steps,
            settings.warmup_factor,
            settings.decay_epochs,
            config.steps_per_epoch(context.world_size),
        )

    # --- what the log says -------------------------------------------------------------------------------------------

    def hyperparameters(self) -> dict[str, Plain]:
        settings = self.config.optimizer
        return {
            "global_batch_size": settings.batch_size * self.context.world_size,
            "model_bn_span": settings.batch_size * self.config.model.batch_norm_ranks,
            "opt_name": "sgd",
            "opt_base_learning_rate": settings.learning_rate,
            "opt_learning_rate_warmup_factor": settings.warmup_factor,
            "opt_learning_rate_warmup_steps": settings.warmup_steps,
            "opt_learning_rate_decay_boundary_epochs": list(settings.decay_epochs),
            "opt_weight_decay": settings.weight_decay,
            "max_samples": self.config.augmentation.crop_attempts,
            "gradient_accumulation_steps": 1,
        }

    def properties(self) -> dict[str, Plain]:
        return {
            **super().properties(),
            **({"recipe": self.config.optimizer.recipe} if self.config.optimizer.recipe else {}),
            **({"ranks_meet_in_step": True} if self.config.model.batch_norm_ranks > 1 else {}),
            "stem": self.config.compute.stem,
            "fused": list(self.config.compute.fused),
            "parameters": self.model.used_parameters(),
            "default_boxes": len(self.default_boxes),
        }

    def weight_names(self) -> list[str]:
        names = [name for name, _ in self.model.named_parameters()]
        # ruleset 1.1.0's list is of ResNet-34's tensors: others go by their own names
        return names if self.config.model.backbone == "vgg16" else list(mllog_names(names).values())

    # --- batches -----------------------------------------------------------------------------------------------------

    def synthetic_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """What train_step takes, of a run's size: noise, labels (B, A), offsets (B, A, 4)."""
        b = self.config.optimizer.batch_size
        labels = torch.zeros(b, len(self.default_boxes), dtype=torch.int32, device=self.device)
        labels[:, :10] = 1
        return self.noise(b), labels, torch.zeros(b, len(self.default_boxes), 4, device=self.device)

    def warm_up(self) -> None:
        compute = self.config.compute
        if "convolutions" not in compute.fused or compute.precision not in ("auto", "bf16"):
            super().warm_up()
            return
        from benchmarks.ssd import fused
        from benchmarks.ssd.kernels import plans

        wanted = fused.graphs_of_step(self.model, self.config.optimizer.batch_size, self.config.model.image_px)
        with plans.made_beside(wanted, self.device, self.context.threads):
            super().warm_up()

    def warm_up_data(self) -> None:
        data.warm_up(self.folder.train_source)

    def train_batches(self, checkpoint: bytes | None = None) -> TrainBatches:
        return self.folder.train_batches(self.default_boxes, checkpoint)

    # --- the network in use --------------------------------------------------------------------------------------------

    def _forward_loss(self, images: Tensor, labels: Tensor, offsets: Tensor) -> Tensor:
        with self.autocast():
            outputs = self.network(images)
        return self.detection_loss(*outputs, labels, offsets)

    def candidates(self) -> tuple[torch.nn.Module, Limits]:
        from benchmarks.ssd import graph

        return graph.Candidates(self.model, self.default_boxes), graph.limits(self.config.evaluation)

    def detections(self, images: Tensor) -> Detections:
        with self.autocast():
            logits, offsets = self.model(images)
        settings = self.config.evaluation
        return detections.detect(
            logits.float(),
            offsets.float(),
            self.default_boxes,
            min_score=settings.min_score,
            max_iou=settings.max_iou,
            max_per_class=settings.max_per_class,
        )


def _parts_that_fit(settled: Settled[SSDConfig], context: Context) -> Settled[SSDConfig]:
    """Without parts of compute.fused that would take something from this run."""
    compute, reasons = settled.config.compute, {}
    if context.deterministic:  # equal input is to give equal bits
        reasons["convolutions"] = "PyTorch's instead, for the others sum up in no order and are chosen by their speed"
    if context.world_size > 1:
        reasons["weights"] = "one by one, for gradients that come all at once leave no backward pass to average beside"
    reasons = {part: reason for part, reason in reasons.items() if part in compute.fused}
    if not reasons:
        return settled
    fused = tuple(part for part in compute.fused if part not in reasons)
    config = settled.config.model_copy(update={"compute": compute.model_copy(update={"fused": fused})})
    said = "; ".join(f"{part}: {reason}" for part, reason in reasons.items())
    return replace(settled, config=config, left_out={**settled.left_out, "fused": said})


def _built(config: SSDConfig, initial_weights: Path | None) -> SSD:
    """The network with its weights, on the host, and with the parts that the configuration puts in others' place."""
    geometry = config.model
    model = SSD(
        geometry.backbone,
        geometry.categories + 1,
        shapes_per_cell(geometry.aspect_ratios),
        geometry.extras,
        width_divisor=geometry.width_divisor,
    )
    if geometry.initial_weights == "imagenet":
        assert initial_weights is not None  # Benchmark.check refused it
        load_backbone(model, geometry.backbone, initial_weights)
    if config.compute.stem == "space_to_depth":
        stem.replace(model, stem.SpaceToDepth)
    elif config.data.image_format == "fp16_hwc4":
        stem.replace(model, PaddedChannels)
    if "stem" in config.compute.fused:
        from benchmarks.ssd import fused  # Benchmark.check has seen to it that Triton is there

        fused.fuse_stem(model, convolution="stem_convolution" in config.compute.fused)
        if "blocks" in config.compute.fused:
            fused.fuse_blocks(model, convolutions="convolutions" in config.compute.fused)
    return model
