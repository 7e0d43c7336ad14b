"""One run's tensors on one rank, as far as detectors share them: the order of calls is the harness's, see harness.contract.

A detector's own session builds the network, the loss and the optimizer, and says what a batch is. What is here is what none can
do without: the loop over batches, the evaluation, the state of a checkpoint. Init is benchmarks.detection.init's.

Shapes: B images of one rank's batch.
"""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.detection.capabilities import Settled
from benchmarks.detection.data_path import image_format, nvjpeg
from benchmarks.detection.data_path.data import TrainBatches
from benchmarks.detection.data_path.first_batch import Remembered
from benchmarks.detection.data_path.normalisation import preprocessing
from benchmarks.detection.folder import Folder
from benchmarks.detection.found import Detections
from benchmarks.detection.init import Init
from benchmarks.detection.phases import Phases
from benchmarks.detection.precision import AUTOCAST_DTYPE, candidates
from benchmarks.detection.quality import panels
from benchmarks.detection.quality.evaluation import Evaluation, average_running_statistics
from benchmarks.detection.recorded import RecordedStep
from benchmarks.detection.suppression import Limits
from benchmarks.detection.tables import DetectorConfig, ImageFormat
from harness.contract import Context, DataSummary, Interval, NotSuitable, Plain, Precision

BEST_PLANS = 10  # PyTorch's own number of those that cuDNN puts first; 0 is all


class Schedule(Protocol):
    """The learning rate of every step."""

    @property
    def steps_per_epoch(self) -> int: ...

    def learning_rate(self, step: int) -> float:
        """Of the 0-based `step`, counted from the run's start."""
        ...


class DetectorSession(ABC):
    """A detector on one rank. The constructor of a detector's own session sets what is declared without a value."""

    batch_parts: Sequence[str]  # of a training batch, in the order in which train_step takes them; the images first

    model: nn.Module
    network: nn.Module  # what training calls: the model, or around it what carries it across ranks
    forward_loss: Callable[..., Tensor]
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    train_data: TrainBatches  # from load_data on
    evaluation: Evaluation

    def __init__(self, settled: Settled[Any], folder: Folder, context: Context) -> None:
        self.settled, self.folder, self.context = settled, folder, context
        self.settings: DetectorConfig = settled.config
        compute = self.settings.compute
        self.device = torch.device(context.device)
        self.layout = torch.channels_last if compute.channels_last else torch.contiguous_format
        self.init = Init(compute, context)
        self.last_phases: dict[str, float] = {}
        self.phases = Phases(self.device)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = compute.autotune is not False
            torch.backends.cudnn.benchmark_limit = 0 if compute.autotune == "all" else BEST_PLANS
        self.scaler = self.init.scaler()
        self.step = 0  # of the run, 0-based: the one to be trained next
        self.recorded: RecordedStep | None = None  # where compute.cuda_graphs asks for it

    # --- a detector's own ----------------------------------------------------------------------------------------------

    @abstractmethod
    def synthetic_batch(self) -> tuple[Tensor, ...]:
        """What train_step takes, of a run's size: images of noise, and something to find in them."""

    @abstractmethod
    def warm_up_data(self) -> None:
        """Import and compile what the training batches will need; touches no data."""

    @abstractmethod
    def train_batches(self, checkpoint: bytes | None = None) -> TrainBatches:
        """From the first epoch, or from where `checkpoint` stands."""

    @abstractmethod
    def detections(self, images: Tensor) -> Detections:
        """Of images in the network's form; called without gradients, in autocast's format, the model set to evaluate."""

    @abstractmethod
    def candidates(self) -> tuple[nn.Module, Limits]:
        """The same before suppression as a module, see benchmarks.detection.graph.Pipeline, and what suppression leaves."""

    # --- what the log says -------------------------------------------------------------------------------------------

    def properties(self) -> dict[str, Plain]:
        compute = self.settings.compute
        return {
            **self.init.properties(self.settings.optimizer.batch_size * self.context.world_size),
            "memory_format": "channels_last" if compute.channels_last else "contiguous",
            "compiled": compute.compile,
            "autotune": compute.autotune,
            "cuda_graphs": compute.cuda_graphs,
            "all_reduce": compute.all_reduce,
            "bucket_mb": compute.bucket_mb or 0,  # 0: PyTorch's own
            "data_backend": self.settings.data.backend,
            "nvjpeg": dict(nvjpeg.loaded()),
            "decoding": dict(self._decoding()),
            "fused_optimizer": self.settled.fused_optimizer,
            "left_out": dict(self.settled.left_out),
            "evaluator": self.settings.evaluation.evaluator,
            "quality_metric": self.settings.evaluation.metric,
            "demonstration": self.settings.data.source == "embedded",
            **({} if (weights := self.context.initial_weights) is None else {"initial_weights": weights.name}),
        }

    def _decoding(self) -> Mapping[str, float]:
        settings = self.settings.data
        device = self.context.device if self.settled.jpeg_on_device else "cpu"
        return nvjpeg.shares(settings.backend, device, settings.hw_decoder_load, self.folder.forms())

    def chosen(self) -> Mapping[str, Plain]:
        return self.init.chosen()

    def phase_seconds(self) -> Mapping[str, float]:
        return self.last_phases

    # --- init --------------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        self.init.run(self)
        self.last_phases = self.init.phase_seconds

    def stand_still(self) -> None:
        """From here on steps leave the weights as they are, until a run or `restore` sets a learning rate.

        With the configuration's own, which a run warms up to, weights may become NaN, which costs a device less.
        """
        self.optimizer.param_groups[0]["lr"] = 0.0

    def blank(self, batch_size: int) -> Tensor:
        """Grey images in data.image_format."""
        return image_format.blank(*self._batch_of(batch_size))

    def noise(self, batch_size: int) -> Tensor:
        """Images of noise in data.image_format."""
        return image_format.noise(*self._batch_of(batch_size))

    def _batch_of(self, size: int) -> tuple[ImageFormat, int, int, torch.device]:
        settings = self.settings
        return settings.data.image_format, size, settings.model.image_px, self.device

    def load_data(self) -> DataSummary:
        self.train_data = self.train_batches()
        if self.context.deterministic:
            self.train_data = Remembered(self.train_data)
        self.evaluation = self.folder.evaluation()
        samples = self.train_data.samples, self.evaluation.batches.samples
        found = DataSummary(
            *samples,
            self.schedule.steps_per_epoch,
            {"boxes": self.folder.boxes()},
            eval_samples_trained_on=self.folder.evaluated_and_trained_on(),
            remarks=self.folder.remarks(),
        )
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
        self.phases.restart("data_starved")
        # islice(..., None) is all of it, read to its end, without which DALI does not begin the next epoch
        for in_epoch, batch in enumerate(itertools.islice(self.train_data, steps), start=1):
            learning_rate = self.schedule.learning_rate(self.step)
            self.optimizer.param_groups[0]["lr"] = learning_rate
            loss_sum += self.train_step(*(batch[part] for part in self.batch_parts))
            self.step, since = self.step + 1, since + 1
            if in_epoch % every == 0 or in_epoch == last:
                images = since * self.settings.optimizer.batch_size * self.context.world_size
                self.phases.begin("logging")
                loss = loss_sum.item() / since
                yield Interval(since, images, loss, learning_rate, self.phases.seconds())
                loss_sum.zero_()
                since = 0
            self.phases.begin("data_starved")

    def train_step(self, images: Tensor, *targets: Tensor) -> Tensor:
        """One step of the optimizer on images in data.image_format and what belongs to them; its loss, unawaited, and where the
        step is recorded the next one writes over it."""
        if self.recorded is not None:
            return self.recorded(images, *targets)
        return self._step(images, *targets)

    def record(self) -> None:
        """From here on steps are replayed, where the configuration says so. Weights and the optimizer's state stay in place."""
        if self.settings.compute.cuda_graphs:
            if not self.settled.fused_optimizer:
                raise NotSuitable(
                    "compute.cuda_graphs = true records the optimizer's step with a learning rate on the device, which PyTorch "
                    f"has in its fused one alone, and that is left out: {self.settled.left_out['fused_optimizer']}"
                )
            self.recorded = RecordedStep(self._step, self.optimizer, self.synthetic_batch(), self.phases)

    def _step(self, images: Tensor, *targets: Tensor) -> Tensor:
        self.phases.begin("forward_loss")
        batch_loss = self.forward_loss(self.network_input(images), *targets)
        self.phases.begin("backward")
        self.scaler.scale(batch_loss).backward()
        self.phases.begin("optimizer")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return batch_loss.detach()

    @property
    def precision(self) -> Precision:
        """The number format that the network computes in."""
        return self.init.precision

    def network_input(self, images: Tensor) -> Tensor:
        """Images in data.image_format as the network takes them."""
        dtype = AUTOCAST_DTYPE[self.precision]
        return image_format.network_input(images, self.settings.data.image_format, self.layout, dtype)

    def autocast(self) -> torch.autocast:
        dtype = AUTOCAST_DTYPE[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    # --- evaluation --------------------------------------------------------------------------------------------------

    def evaluate(self, epoch: int) -> float:  # noqa: ARG002
        average_running_statistics(self.model, self.context.world_size)
        quality = self.evaluation.run(self.detect)
        self.last_phases = dict(self.evaluation.phase_seconds)
        return quality

    @torch.no_grad()
    def detect(self, images: Tensor) -> Detections:
        """In images in data.image_format, by the model as it stands."""
        self.model.eval()
        found = self.detections(self.network_input(images))
        self.model.train()
        return found

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
            "data_set": self.folder.digest(),
            # what a detector needs that has no data set: see benchmarks/detection/detector.py
            "categories": self._categories(),
            "preprocessing": preprocessing(self.settings.model.image_px, self.settings.antialias),
            "precision": self.precision,
            # threads are left out: they are the machine's
            "chosen": {"precision": self.precision} if self.init.compute.precision == "auto" else {},
            "data_backend": self.settings.data.backend,
        }

    def _categories(self) -> list[dict[str, Any]]:
        """Of the data set, with its own ids, in the order of the network's labels."""
        known = self.evaluation.ground_truth.annotations
        return [
            {"id": self.folder.category_id(number), "name": name}
            for number, name in zip(known.category_ids.tolist(), known.category_names, strict=True)
        ]

    def restore(self, state: dict[str, Any]) -> None:
        before, here = state.get("categories"), self._categories()
        if before is not None and before != here:  # older checkpoints do not say
            one, other = next(((a, b) for a, b in itertools.zip_longest(before, here) if a != b), (None, None))
            raise ValueError(f"the checkpoint is of other categories than the data: {one} where the data has {other}")
        digests = state.get("data_set"), self.folder.digest()
        if all(digests) and digests[0] != digests[1]:
            raise ValueError(
                f"the checkpoint is of other annotations than the data ({digests[0]}, here {digests[1]}), of which alone "
                "the log would tell: go on with those it was made with, or start over"
            )
        if (reason := self._why_not_gone_on(state)) is not None:
            raise ValueError(reason)
        self.recorded = None  # the optimizer takes other tensors
        self.model.load_state_dict(state["model"])
        # how a step is done is this machine's matter, and a loss scale asks for it
        groups = [
            {**theirs, "fused": ours["fused"]}
            for theirs, ours in zip(state["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True)
        ]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        self.record()
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        mine = state["by_rank"][self.context.rank]
        torch.set_rng_state(mine["random"])
        self.train_data = self.train_batches(mine["data"])

    def _why_not_gone_on(self, state: Mapping[str, Any]) -> str | None:
        """Where "auto" was settled otherwise: by speed, or on another machine. Older checkpoints do not say."""
        was = state.get("precision", self.precision)
        if was != self.precision:
            if was not in candidates(self.context.device):
                fix = f"{self.context.device} has no {was}: go on where it was trained"
            elif self.init.compute.precision == "auto":
                fix = f"go on in it with --chosen '{json.dumps({'precision': was})}'"
            else:
                fix = "--deterministic takes that: go on without it"
            return f"the checkpoint is of training in {was}, and here it would be in {self.precision}: {fix}"
        here = self.settings.data.backend
        if (was := state.get("data_backend", here)) != here:
            return (
                f'the checkpoint\'s place in the data is of data.backend = "{was}", and here "auto" takes "{here}", by the '
                f'device and by whether DALI is installed: go on where it takes "{was}", or start over'
            )
        return None

    def close(self) -> None:
        """Both backends' threads stop when the last reference goes."""
        self.__dict__.pop("train_data", None)
        self.__dict__.pop("evaluation", None)
