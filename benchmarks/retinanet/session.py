"""RetinaNet's tensors of one run: the network, its loss and its optimizer, and the batches that they take.

Shapes: B images of one rank's batch, S image side in px, A anchors, K classes without background, G boxes of a batch's
image that has most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.detection import capabilities, gradients
from benchmarks.detection.compiling import compiled
from benchmarks.detection.data_path.data import TrainBatches
from benchmarks.detection.folder import Folder
from benchmarks.detection.found import Detections
from benchmarks.detection.session import DetectorSession
from benchmarks.retinanet import data, detections
from benchmarks.retinanet.anchors import SIZES, anchors
from benchmarks.retinanet.config import RetinaNetConfig
from benchmarks.retinanet.loss import detection_loss
from benchmarks.retinanet.matching import match
from benchmarks.retinanet.model import RetinaNet, load_backbone
from benchmarks.retinanet.schedule import Schedule
from harness.contract import Context, Plain

if TYPE_CHECKING:
    from benchmarks.detection.suppression import Limits

LOGGED = "module."  # before a tensor's name in the reference's log, as its distributed wrapper has it


class RetinaNetSession(DetectorSession):
    """RetinaNet on one rank."""

    batch_parts = ("images", "ltrb", "labels")
    model: RetinaNet

    def __init__(self, config: RetinaNetConfig, context: Context) -> None:
        settled = capabilities.settle(config, context)
        self.config = config = settled.config
        super().__init__(settled, Folder(config, context, settled.jpeg_on_device), context)

        geometry = config.model
        self.model = RetinaNet(
            geometry.backbone,
            geometry.categories,
            SIZES * len(geometry.aspect_ratios),
            channels=geometry.channels,
            head_depth=geometry.head_depth,
            maps=len(geometry.anchor_px),
            trained_stages=geometry.trained_stages,
            batch_norm=geometry.batch_norm,
        )
        if geometry.initial_weights == "imagenet":
            assert context.initial_weights is not None  # Benchmark.check refused it
            load_backbone(self.model, geometry.backbone, context.initial_weights)
        self.model.to(self.device).to(memory_format=self.layout)
        self.anchors_px = anchors(geometry.image_px, geometry.anchor_px, geometry.aspect_ratios).to(
            self.device
        )  # (A, 4)

        self.network = self.model
        if context.world_size > 1:
            self.network = gradients.averaged(self.model, config.compute, self.phases)
        # the number of boxes changes from batch to batch: what is compiled begins after them
        self._loss_of_targets = self._network_loss
        if config.compute.compile:
            self._loss_of_targets = compiled(self._network_loss)
        self.optimizer = torch.optim.Adam(
            [each for each in self.model.parameters() if each.requires_grad],
            lr=config.optimizer.learning_rate,
            fused=self.settled.fused_optimizer or None,  # None: PyTorch's own choice
        )
        self.schedule = Schedule(
            config.optimizer.learning_rate,
            config.optimizer.warmup_epochs,
            config.optimizer.warmup_factor,
            config.steps_per_epoch(context.world_size),
        )

    # --- what the log says -------------------------------------------------------------------------------------------

    def hyperparameters(self) -> dict[str, Plain]:
        settings = self.config.optimizer
        return {
            "global_batch_size": settings.batch_size * self.context.world_size,
            "opt_name": "adam",
            "opt_base_learning_rate": settings.learning_rate,
            "opt_weight_decay": 0.0,
            "opt_learning_rate_warmup_epochs": settings.warmup_epochs,
            "opt_learning_rate_warmup_factor": settings.warmup_factor,
            "gradient_accumulation_steps": 1,
        }

    def properties(self) -> dict[str, Plain]:
        return {
            **super().properties(),
            "parameters": sum(each.numel() for each in self.model.parameters()),
            "parameters_trained": sum(each.numel() for each in self.model.parameters() if each.requires_grad),
            "anchors": len(self.anchors_px),
            "batch_norm": self.config.model.batch_norm,
        }

    def weight_names(self) -> list[str]:
        return [LOGGED + name for name, _ in self.model.named_parameters()]

    # --- batches -----------------------------------------------------------------------------------------------------

    def synthetic_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """What train_step takes, of a run's size: noise, ltrb (B, G, 4), labels (B, G)."""
        b = self.config.optimizer.batch_size
        ltrb = torch.tensor([[0.1, 0.1, 0.3, 0.4], [0.5, 0.4, 0.9, 0.8]], device=self.device).expand(b, -1, -1)
        return self.noise(b), ltrb, torch.ones(b, 2, dtype=torch.int64, device=self.device)

    def warm_up_data(self) -> None:
        data.warm_up(self.folder.train_source)

    def train_batches(self, checkpoint: bytes | None = None) -> TrainBatches:
        return data.train_batches(
            self.folder.train_source,
            self.config.augmentation,
            order_seed=self.context.seed,
            augmentation_seed=self.context.rank_seed,
            checkpoint=checkpoint,
        )

    # --- the network in use --------------------------------------------------------------------------------------------

    def forward_loss(self, images: Tensor, ltrb: Tensor, labels: Tensor) -> Tensor:
        """Of images in the network's form and their boxes (B, G, 4) with labels (B, G), 0 where there is none."""
        targets = match(ltrb * self.config.model.image_px, labels.long(), self.anchors_px)
        return self._loss_of_targets(images, *targets)

    def _network_loss(self, images: Tensor, labels: Tensor, offsets: Tensor) -> Tensor:
        with self.autocast():
            logits, of_boxes = self.network(images)
        return detection_loss(logits, of_boxes, labels, offsets)

    def candidates(self) -> tuple[torch.nn.Module, Limits]:
        from benchmarks.retinanet import graph

        settings = self.config
        made = graph.Candidates(self.model, self.anchors_px, settings.model.image_px)
        return made, graph.limits(settings.evaluation.max_detections)

    def detections(self, images: Tensor) -> Detections:
        with self.autocast():
            logits, offsets = self.model(images)
        settings = self.config
        return detections.detect(
            logits, offsets, self.anchors_px, settings.model.image_px, settings.evaluation.max_detections
        )
