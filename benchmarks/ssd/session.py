"""One run's tensors: the model and its training step, the data, the evaluation. The harness calls it in contract order.

Shapes: B images of one rank's batch, S image side in px, A default boxes, K classes with background 0.
"""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from benchmarks.detection import nvjpeg, panels
from benchmarks.detection.evaluation import Evaluation, average_running_statistics
from benchmarks.detection.found import Detections
from benchmarks.detection.phases import Phases
from benchmarks.ssd import capabilities, data, detections, image_format, loss, precision, stem
from benchmarks.ssd.boxes import default_boxes
from benchmarks.ssd.config import Compute, SSDConfig
from benchmarks.ssd.first_batch import Remembered
from benchmarks.ssd.folder import Folder
from benchmarks.ssd.geometry import shapes_per_cell
from benchmarks.ssd.model import SSD, HeadOutputs, load_backbone
from benchmarks.ssd.schedule import Schedule
from benchmarks.ssd.weight_names import mllog_names
from harness.contract import Context, DataSummary, Interval, Plain

MAX_SAMPLES = 1  # tries of a crop option before another option is drawn; the ruleset allows 1 or 50
WARM_UP_STEPS = 3  # CUDA graphs take the first to allocate and the second to record


class SSDSession:
    """SSD on one rank."""

    def __init__(self, config: SSDConfig, context: Context) -> None:
        self.settled = capabilities.settle(config, context)
        config = self.settled.config
        self.config, self.context = config, context
        self.folder = Folder(config, context, self.settled.jpeg_on_device)
        self.device = torch.device(context.device)
        self.layout = torch.channels_last if config.compute.channels_last else torch.contiguous_format
        self.precision: precision.Precision = "fp32"  # until warm_up has measured, where the configuration says auto
        if config.compute.precision != "auto":
            self.precision = config.compute.precision
        self.precision_seconds: dict[str, float] = {}
        self.last_phases: dict[str, float] = {}

        self.phases = Phases(self.device)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = config.compute.autotune

        geometry = config.model
        self.model = SSD(
            geometry.backbone, geometry.categories + 1, shapes_per_cell(geometry.aspect_ratios), geometry.extras
        )
        if geometry.initial_weights == "imagenet":
            assert context.initial_weights is not None  # Benchmark.check refused it
            load_backbone(self.model, geometry.backbone, context.initial_weights)
        if config.compute.stem == "space_to_depth":
            stem.replace(self.model, stem.SpaceToDepth)
        elif config.data.image_format == "fp16_hwc4":
            stem.replace(self.model, stem.PaddedChannels)
        if "stem" in config.compute.fused:
            from benchmarks.ssd import fused  # Benchmark.check has seen to it that Triton is there

            fused.fuse_stem(self.model)
            if "blocks" in config.compute.fused:
                fused.fuse_blocks(self.model)
        self.model.to(self.device).to(memory_format=self.layout)
        self.default_boxes = default_boxes(
            geometry.image_px,
            geometry.feature_sizes,
            geometry.steps_px,
            geometry.scales_px,
            geometry.aspect_ratios,
        ).to(self.device)  # (A, 4)

        self.network: torch.nn.Module = self.model
        # of what the network gives, labels and offsets
        self.detection_loss: Callable[..., Tensor] = loss.detection_loss
        if "loss" in config.compute.fused:
            from benchmarks.ssd.kernels import loss as loss_kernels

            self.network = HeadOutputs(self.model)
            self.detection_loss = functools.partial(loss_kernels.detection_loss, classes=geometry.categories + 1)
        if context.world_size > 1:
            self.network = self._across_ranks(self.network)
        self.forward_loss = self._forward_loss
        if config.compute.compile:
            self.forward_loss = torch.compile(self._forward_loss, options=compiler_options(config.compute))
        settings = config.optimizer
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            fused=self.settled.fused_optimizer or None,  # None: PyTorch's own choice
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.schedule = Schedule(
            settings.learning_rate,
            settings.warmup_steps,
            settings.warmup_factor,
            settings.decay_epochs,
            config.steps_per_epoch(context.world_size),
        )
        self.step = 0  # of the run, 0-based: the one to be trained next
        self.train_data: data.TrainBatches  # from load_data on
        self.evaluation: Evaluation

    def _across_ranks(self, network: torch.nn.Module) -> DistributedDataParallel:
        known = inspect.signature(DistributedDataParallel).parameters
        # of batch norm's running statistics, which each rank has its own of; torch 2.13 gave it another name
        in_step: dict[str, Any] = {
            "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False
        }
        network = DistributedDataParallel(network, gradient_as_bucket_view=True, static_graph=True, **in_step)
        # a function without annotations: DDP reads them, and knows no postponed ones
        network.register_comm_hook(None, lambda _, bucket: self._all_reduce(bucket))
        return network

    # --- what the log says -------------------------------------------------------------------------------------------

    def hyperparameters(self) -> dict[str, Plain]:
        settings = self.config.optimizer
        return {
            "global_batch_size": settings.batch_size * self.context.world_size,
            "model_bn_span": settings.batch_size,
            "opt_name": "sgd",
            "opt_base_learning_rate": settings.learning_rate,
            "opt_learning_rate_warmup_factor": settings.warmup_factor,
            "opt_learning_rate_warmup_steps": settings.warmup_steps,
            "opt_learning_rate_decay_boundary_epochs": list(settings.decay_epochs),
            "opt_weight_decay": settings.weight_decay,
            "max_samples": MAX_SAMPLES,
            "gradient_accumulation_steps": 1,
        }

    def properties(self) -> dict[str, Plain]:
        return {
            "precision": precision.named(self.precision, self.context.device),
            "precision_requested": self.config.compute.precision,
            "precision_step_seconds": {name: round(value, 4) for name, value in self.precision_seconds.items()},
            "memory_format": "channels_last" if self.config.compute.channels_last else "contiguous",
            "compiled": self.config.compute.compile,
            "autotune": self.config.compute.autotune,
            "cuda_graphs": self.config.compute.cuda_graphs,
            "stem": self.config.compute.stem,
            "fused": list(self.config.compute.fused),
            "data_backend": self.config.data.backend,
            "nvjpeg": dict(nvjpeg.loaded()),
            "fused_optimizer": self.settled.fused_optimizer,
            "left_out": dict(self.settled.left_out),
            "parameters": self.model.used_parameters(),
            # of init, whose steps and evaluations are of a run's size
            "peak_memory_bytes": torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0,
            "default_boxes": len(self.default_boxes),
            "evaluator": self.config.evaluation.evaluator,
            "demonstration": self.config.data.source == "embedded",
        }

    def weight_names(self) -> list[str]:
        return list(mllog_names(name for name, _ in self.model.named_parameters()).values())

    # --- init --------------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        before = copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict(), self.scaler.state_dict()))
        random_state = torch.get_rng_state()
        images, labels, offsets = self.synthetic_batch()

        clock = [time.perf_counter()]
        self.last_phases = {}

        def took(name: str) -> None:
            clock.append(time.perf_counter())
            self.last_phases[name] = clock[-1] - clock[-2]

        def synthetic_step(chosen: precision.Precision) -> None:
            self.precision = chosen
            self.train_step(images, labels, offsets).item()

        if self.config.compute.precision == "auto":
            chosen, self.precision_seconds = precision.fastest(synthetic_step, self.context.device)
            self.precision = self._agreed(chosen)
            self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
            before = (*before[:2], self.scaler.state_dict())
            took("init_precision")
        for number in range(WARM_UP_STEPS):
            synthetic_step(self.precision)
            if number == 0:
                took("init_first_step")  # compiles and autotunes
        took("init_further_steps")
        for size in self.folder.eval_batch_sizes():  # autotuning is by shape
            self._detect(self._blank(size))
        took("init_evaluation")
        data.warm_up(self.folder.train_source)

        model, optimizer, scaler = before
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        self.scaler.load_state_dict(scaler)
        torch.set_rng_state(random_state)

    def synthetic_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """What train_step takes, of a run's size: grey images, labels (B, A), offsets (B, A, 4)."""
        b = self.config.optimizer.batch_size
        labels = torch.zeros(b, len(self.default_boxes), dtype=torch.int32, device=self.device)
        labels[:, :10] = 1
        return self._blank(b), labels, torch.zeros(b, len(self.default_boxes), 4, device=self.device)

    def _blank(self, batch_size: int) -> Tensor:
        form, side = self.config.data.image_format, self.config.model.image_px
        return image_format.blank(form, batch_size, side, self.device)

    def _agreed(self, chosen: precision.Precision) -> precision.Precision:
        """Rank 0's choice, on every rank."""
        if self.context.world_size == 1:
            return chosen
        box = [chosen]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def load_data(self) -> DataSummary:
        self.train_data = self.folder.train_batches(self.default_boxes)
        if self.context.deterministic:
            self.train_data = Remembered(self.train_data)
        self.evaluation = self.folder.evaluation()
        found = DataSummary(self.train_data.samples, self.evaluation.batches.samples, self.schedule.steps_per_epoch)
        self.folder.check(found.train_samples, found.eval_samples)
        return found

    # --- training ----------------------------------------------------------------------------------------------------

    def first_batch(self) -> dict[str, Tensor]:
        assert isinstance(self.train_data, Remembered)
        return self.train_data.first

    def train_epoch(self, epoch: int, steps: int | None = None) -> Iterator[Interval]:  # noqa: ARG002 - the count says all
        self.network.train()
        every, last = self.context.log_every_steps, self.schedule.steps_per_epoch if steps is None else steps
        loss_sum, since = torch.zeros((), device=self.device), 0
        self.phases.begin("data_starved")
        # islice(..., None) is all of it, read to its end, without which DALI does not begin the next epoch
        for in_epoch, batch in enumerate(itertools.islice(self.train_data, steps), start=1):
            learning_rate = self.schedule.learning_rate(self.step)
            self.optimizer.param_groups[0]["lr"] = learning_rate
            loss_sum += self.train_step(batch["images"], batch["labels"], batch["offsets"])
            self.step, since = self.step + 1, since + 1
            if in_epoch % every == 0 or in_epoch == last:
                images = since * self.config.optimizer.batch_size * self.context.world_size
                self.phases.begin("logging")
                loss = loss_sum.item() / since
                yield Interval(since, images, loss, learning_rate, self.phases.seconds())
                loss_sum.zero_()
                since = 0
            self.phases.begin("data_starved")

    def train_step(self, images: Tensor, labels: Tensor, offsets: Tensor) -> Tensor:
        """One step of the optimizer on images in data.image_format, labels (B, A), offsets (B, A, 4); its loss, unawaited."""
        self.phases.begin("forward_loss")
        batch_loss = self.forward_loss(self._network_input(images), labels, offsets)
        self.phases.begin("backward")
        self.scaler.scale(batch_loss).backward()
        self.phases.begin("optimizer")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return batch_loss.detach()

    def _all_reduce(self, bucket: Any) -> torch.futures.Future[Tensor]:
        """Called as each bucket of gradients is full; the last one's call is the end of the backward pass."""
        if bucket.is_last():
            self.phases.begin("all_reduce_wait")
        group = dist.group.WORLD
        assert group is not None
        return allreduce_hook(group, bucket)

    def _forward_loss(self, images: Tensor, labels: Tensor, offsets: Tensor) -> Tensor:
        with self._autocast():
            outputs = self.network(images)
        return self.detection_loss(*outputs, labels, offsets)

    def _network_input(self, images: Tensor) -> Tensor:
        dtype = precision.AUTOCAST_DTYPE[self.precision]
        return image_format.network_input(images, self.config.data.image_format, self.layout, dtype)

    def _autocast(self) -> torch.autocast:
        dtype = precision.AUTOCAST_DTYPE[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    # --- evaluation --------------------------------------------------------------------------------------------------

    def evaluate(self, epoch: int) -> float:  # noqa: ARG002
        average_running_statistics(self.model, self.context.world_size)
        quality = self.evaluation.run(self._detect)
        self.last_phases = dict(self.evaluation.phase_seconds)
        return quality

    def phase_seconds(self) -> dict[str, float]:
        return self.last_phases

    @torch.no_grad()
    def _detect(self, images: Tensor) -> Detections:
        self.model.eval()
        with self._autocast():
            logits, offsets = self.model(self._network_input(images))
        self.model.train()
        return detections.detect(logits.float(), offsets.float(), self.default_boxes)

    def panels(self, count: int) -> list[npt.NDArray[np.uint8]]:
        return panels.draw(self.evaluation, self.folder.eval_images, count)

    def fingerprint(self) -> str:
        return self.folder.fingerprint()

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        mine: dict[str, Any] = {"data": self.train_data.state(), "random": torch.get_rng_state()}
        by_rank = [mine]
        if self.context.world_size > 1:
            by_rank = [{} for _ in range(self.context.world_size)]
            dist.all_gather_object(by_rank, mine)
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "by_rank": by_rank,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        mine = state["by_rank"][self.context.rank]
        torch.set_rng_state(mine["random"])
        self.train_data = self.folder.train_batches(self.default_boxes, mine["data"])

    def close(self) -> None:
        """Both backends' threads stop when the last reference goes."""
        self.__dict__.pop("train_data", None)
        self.__dict__.pop("evaluation", None)


def compiler_options(compute: Compute) -> dict[str, Any]:
    """What torch.compile is told beyond its defaults."""
    # or_error: what the log says is so, where the compiler would only warn that it went on without graphs
    graphs = ("triton.cudagraphs", "triton.cudagraph_or_error") if compute.cuda_graphs else ()
    return dict.fromkeys(graphs, True)
