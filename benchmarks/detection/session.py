"""One run's tensors on one rank, as far as detectors share them: the order of calls is the harness's, see harness.contract.

A detector's own session builds the network, the loss and the optimizer, and says what a batch is. What is here is what none can
do without: number formats, warming up, the loop over batches, the evaluation, the state of a checkpoint.

Shapes: B images of one rank's batch.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.detection import chosen, image_format, nvjpeg, panels, precision, threads
from benchmarks.detection.capabilities import Settled
from benchmarks.detection.data import TrainBatches
from benchmarks.detection.evaluation import Evaluation, average_running_statistics
from benchmarks.detection.first_batch import Remembered
from benchmarks.detection.folder import Folder
from benchmarks.detection.found import Detections
from benchmarks.detection.normalisation import preprocessing
from benchmarks.detection.phases import Phases
from benchmarks.detection.suppression import Limits
from benchmarks.detection.tables import Compute, DetectorConfig, ImageFormat
from harness.contract import Context, DataSummary, Interval, Plain, Precision

T = TypeVar("T")

BEST_PLANS = 10  # PyTorch's own number of those that cuDNN puts first; 0 is all
WARM_UP_STEPS = 3  # CUDA graphs take the first to allocate and the second to record


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
        self.precision: Precision = "fp32"  # until warm_up has measured, where the configuration says auto
        if compute.precision != "auto":
            self.precision = compute.precision
        self.precision_seconds: dict[str, float] = {}
        self.before = chosen.of(context)
        self.threads = (self.before.threads or context.threads) if compute.threads == "auto" else compute.threads
        self.threads_seconds: dict[int, float] = {}
        self.init_step_seconds: float | None = None  # of the step as it is going to be trained
        self.last_phases: dict[str, float] = {}
        self.phases = Phases(self.device)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = compute.autotune is not False
            torch.backends.cudnn.benchmark_limit = 0 if compute.autotune == "all" else BEST_PLANS
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.step = 0  # of the run, 0-based: the one to be trained next

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
            "precision": precision.named(self.precision, self.context.device),
            "precision_requested": compute.precision,
            "precision_step_seconds": {name: round(value, 4) for name, value in self.precision_seconds.items()},
            "torch_threads": self.threads,
            "torch_threads_step_seconds": {
                str(count): round(value, 4) for count, value in self.threads_seconds.items()
            },
            **({"init_images_per_s": self._images_per_s(self.init_step_seconds)} if self.init_step_seconds else {}),
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
            # of init, whose steps and evaluations are of a run's size
            "peak_memory_bytes": torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0,
            "evaluator": self.settings.evaluation.evaluator,
            "quality_metric": self.settings.evaluation.metric,
            "demonstration": self.settings.data.source == "embedded",
        }

    def _decoding(self) -> Mapping[str, float]:
        settings = self.settings.data
        device = self.context.device if self.settled.jpeg_on_device else "cpu"
        return nvjpeg.asked_for(settings.backend, device, settings.hw_decoder_load)

    def chosen(self) -> Mapping[str, Plain]:
        compute = self.settings.compute
        found: dict[str, Plain] = {}
        if compute.precision == "auto":
            found["precision"] = self.precision
        if self.threads_seconds or (compute.threads == "auto" and self.before.threads is not None):
            found["threads"] = self.threads
        return found

    def phase_seconds(self) -> Mapping[str, float]:
        return self.last_phases

    # --- init --------------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Choose threads and number format by their speed where that is asked for; compile and tune step and evaluation.

        On synthetic input alone; state and random numbers end as they began.
        """
        before = copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict(), self.scaler.state_dict()))
        random_state = torch.get_rng_state()
        batch = self.synthetic_batch()
        self.stand_still()

        clock = [time.perf_counter()]
        self.last_phases = {}

        def took(name: str) -> None:
            clock.append(time.perf_counter())
            self.last_phases[name] = clock[-1] - clock[-2]

        def synthetic_step(number_format: Precision) -> None:
            self.precision = number_format
            self.train_step(*batch).item()

        def step_with(count: int) -> None:
            torch.set_num_threads(count)
            with uncompiled():
                synthetic_step(self.precision)

        def uncompiled() -> contextlib.AbstractContextManager[Any]:
            """A compiled step is compiled for one number of threads, and a minute each is too much."""
            return (
                torch.compiler.set_stance("force_eager") if self.settings.compute.compile else contextlib.nullcontext()
            )

        torch.set_num_threads(self.threads)
        if self._threads_are_to_be_measured():
            self.threads, self.threads_seconds = threads.fastest(step_with, self.context.threads, self._agreed)
            torch.set_num_threads(self.threads)
            took("init_threads")
        if self.settings.compute.precision == "auto":
            if self.before.precision is None:
                fastest, self.precision_seconds = precision.fastest(synthetic_step, self.context.device)
                self.precision = self._agreed(fastest)
            else:
                self.precision = precision.available(self.before.precision, self.context.device)
            self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
            before = (*before[:2], self.scaler.state_dict())
            took("init_precision")
        for number in range(WARM_UP_STEPS):
            synthetic_step(self.precision)
            if number == 0:
                took("init_first_step")  # compiles and autotunes
        took("init_further_steps")
        self.init_step_seconds = self.last_phases["init_further_steps"] / (WARM_UP_STEPS - 1)
        for size in self.folder.eval_batch_sizes():  # autotuning is by shape
            self._detect(self.blank(size))
        took("init_evaluation")
        self.warm_up_data()

        model, optimizer, scaler = before
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        self.scaler.load_state_dict(scaler)
        torch.set_rng_state(random_state)

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

    def _threads_are_to_be_measured(self) -> bool:
        """Not where a device does the work, where there is no choice, and where nothing may be chosen by its speed."""
        compute, context = self.settings.compute, self.context
        on_cpu = self.device.type == "cpu"
        return (
            on_cpu
            and compute.threads == "auto"
            and self.before.threads is None
            and self._agreed(context.threads) > 1
            and not context.deterministic
        )

    def _images_per_s(self, step_seconds: float) -> float:
        return round(self.settings.optimizer.batch_size * self.context.world_size / step_seconds, 3)

    def _agreed(self, chosen: T) -> T:
        """Rank 0's choice, on every rank."""
        if self.context.world_size == 1:
            return chosen
        box = [chosen]
        dist.broadcast_object_list(box, src=0)
        return box[0]

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
        """One step of the optimizer on images in data.image_format and what belongs to them; its loss, unawaited."""
        self.phases.begin("forward_loss")
        batch_loss = self.forward_loss(self.network_input(images), *targets)
        self.phases.begin("backward")
        self.scaler.scale(batch_loss).backward()
        self.phases.begin("optimizer")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return batch_loss.detach()

    def network_input(self, images: Tensor) -> Tensor:
        """Images in data.image_format as the network takes them."""
        dtype = precision.AUTOCAST_DTYPE[self.precision]
        return image_format.network_input(images, self.settings.data.image_format, self.layout, dtype)

    def autocast(self) -> torch.autocast:
        """The number format that the network computes in."""
        dtype = precision.AUTOCAST_DTYPE[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    # --- evaluation --------------------------------------------------------------------------------------------------

    def evaluate(self, epoch: int) -> float:  # noqa: ARG002
        average_running_statistics(self.model, self.context.world_size)
        quality = self.evaluation.run(self._detect)
        self.last_phases = dict(self.evaluation.phase_seconds)
        return quality

    @torch.no_grad()
    def _detect(self, images: Tensor) -> Detections:
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
            # what a detector needs that has no data set: see benchmarks/detection/detector.py
            "categories": self._categories(),
            "preprocessing": preprocessing(self.settings.model.image_px, self.settings.antialias),
            "precision": self.precision,
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
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        mine = state["by_rank"][self.context.rank]
        torch.set_rng_state(mine["random"])
        self.train_data = self.train_batches(mine["data"])

    def close(self) -> None:
        """Both backends' threads stop when the last reference goes."""
        self.__dict__.pop("train_data", None)
        self.__dict__.pop("evaluation", None)


def compiler_options(compute: Compute) -> dict[str, Any]:
    """What torch.compile is told beyond its defaults."""
    # or_error: what the log says is so, where the compiler would only warn that it went on without graphs
    graphs = ("triton.cudagraphs", "triton.cudagraph_or_error") if compute.cuda_graphs else ()
    return dict.fromkeys(graphs, True)
