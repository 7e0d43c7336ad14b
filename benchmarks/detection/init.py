"""Init of a session: threads and number format by their speed where that is asked for; step and evaluation compiled and tuned.

On synthetic input alone; weights, the optimizer's state and random numbers end as they began.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from benchmarks.detection import chosen, precision, threads
from benchmarks.detection.recorded import beside
from benchmarks.detection.tables import Compute
from harness.contract import Context, Plain, Precision

if TYPE_CHECKING:
    from benchmarks.detection.session import DetectorSession

T = TypeVar("T")

STEPS = 3


class Init:
    """What is chosen and measured in init, on one rank."""

    def __init__(self, compute: Compute, context: Context) -> None:
        """ValueError for what no other run can have chosen for this one."""
        self.compute, self.context = compute, context
        self.device_type = torch.device(context.device).type
        self.before = chosen.of(context)
        self.threads = (self.before.threads or context.threads) if compute.threads == "auto" else compute.threads
        self.threads_seconds: dict[int, float] = {}  # of a step, by their number; empty where nothing was measured
        self.precision: Precision = "fp32"  # until it has been measured, where the configuration says auto
        if compute.precision != "auto":
            self.precision = compute.precision
        self.precision_seconds: dict[str, float] = {}  # of a step
        self.step_seconds: float | None = None  # as it is going to be trained
        self.phase_seconds: dict[str, float] = {}

    def properties(self, images_per_step: int) -> dict[str, Plain]:
        """What the log says of it; `images_per_step` of all ranks."""
        found: dict[str, Plain] = {
            "precision": precision.named(self.precision, self.context.device),
            "precision_requested": self.compute.precision,
            "precision_step_seconds": {name: round(value, 4) for name, value in self.precision_seconds.items()},
            "torch_threads": self.threads,
            "torch_threads_step_seconds": {
                str(count): round(value, 4) for count, value in self.threads_seconds.items()
            },
        }
        if self.step_seconds:
            found["init_images_per_s"] = round(images_per_step / self.step_seconds, 3)
        return found

    def chosen(self) -> Mapping[str, Plain]:
        """As harness.contract.Session has it."""
        found: dict[str, Plain] = {}
        if self.compute.precision == "auto":
            found["precision"] = self.precision
        if self.threads_seconds or (self.compute.threads == "auto" and self.before.threads is not None):
            found["threads"] = self.threads
        return found

    def run(self, session: DetectorSession) -> None:
        """NotSuitable where a batch fits into the memory in no number format, or the device has not the one chosen before."""
        model, optimizer = copy.deepcopy((session.model.state_dict(), session.optimizer.state_dict()))
        random_state = torch.get_rng_state()
        batch = session.synthetic_batch()
        session.stand_still()
        self.phase_seconds = {}
        clock = [time.perf_counter()]

        def took(name: str) -> None:
            clock.append(time.perf_counter())
            self.phase_seconds[name] = clock[-1] - clock[-2]

        def step_in(number_format: Precision) -> None:
            self.precision = number_format
            session.train_step(*batch).item()

        def step_with(count: int) -> None:
            torch.set_num_threads(count)
            with self._uncompiled():
                session.train_step(*batch).item()

        torch.set_num_threads(self.threads)
        if self._threads_are_to_be_measured():
            self.threads, self.threads_seconds = threads.fastest(step_with, self.context.threads, self._agreed)
            torch.set_num_threads(self.threads)
            took("init_threads")
        if self.compute.precision == "auto":
            if self.before.precision is None:
                self.precision, self.precision_seconds = precision.fastest(
                    step_in, self.context.device, self._agreed, ranks=self.context.world_size
                )
            else:
                self.precision = precision.available(self.before.precision, self.context.device)
            took("init_precision")
        session.scaler = self.scaler()
        for number in range(STEPS):
            with self._where_steps_are_recorded():
                session.train_step(*batch).item()
            if number == 0:
                took("init_first_step")  # compiles and autotunes
        took("init_further_steps")
        self.step_seconds = self.phase_seconds["init_further_steps"] / (STEPS - 1)
        for size in session.folder.eval_batch_sizes():  # autotuning is by shape
            session.detect(session.blank(size))
        took("init_evaluation")
        session.warm_up_data()

        session.model.load_state_dict(model)
        session.optimizer.load_state_dict(optimizer)
        session.scaler = self.scaler()
        session.record()
        torch.set_rng_state(random_state)

    def scaler(self) -> torch.amp.GradScaler:
        """A loss scale as training begins with it, for the number format as it is known so far."""
        return torch.amp.GradScaler(self.device_type, enabled=self.precision == "fp16")

    def _uncompiled(self) -> contextlib.AbstractContextManager[Any]:
        """A compiled step is compiled for one number of threads, and a minute each is too much."""
        return torch.compiler.set_stance("force_eager") if self.compute.compile else contextlib.nullcontext()

    def _where_steps_are_recorded(self) -> contextlib.AbstractContextManager[Any]:
        """A graph is recorded where its kernels have run before, as far as they keep something for a stream."""
        if not self.compute.cuda_graphs:
            return contextlib.nullcontext()
        return beside(torch.device(self.context.device))

    def _threads_are_to_be_measured(self) -> bool:
        """Not where a device does the work, where there is no choice, and where nothing may be chosen by its speed."""
        return (
            self.device_type == "cpu"
            and self.compute.threads == "auto"
            and self.before.threads is None
            and self._agreed(self.context.threads) > 1
            and not self.context.deterministic
        )

    def _agreed(self, value: T) -> T:
        """Rank 0's, on every rank."""
        if self.context.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]
