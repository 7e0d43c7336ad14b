"""A training step recorded as one CUDA graph, which each batch is put into and which is then replayed.

A step of SSD300 is 600 launches, many of them from Python. The host is the slower of the two where the data path's threads
start kernels, too; a graph is one launch.

Recording computes nothing. What the graph reads and writes stays where it was while it was recorded: weights, running
statistics and momenta must be written in place from then on, or the step recorded anew.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from benchmarks.detection.phases import Phases


class RecordedStep:
    """Takes a batch as the step does. The loss that it gives is written over by the next one."""

    def __init__(
        self, step: Callable[..., Tensor], optimizer: torch.optim.Optimizer, batch: Sequence[Tensor], phases: Phases
    ) -> None:
        """`step` on batches like `batch`, which have run before; `phases` are those that it begins."""
        self.optimizer, self.phases = optimizer, phases
        self.batch = [each.clone() for each in batch]
        given = [group["lr"] for group in optimizer.param_groups]
        self.learning_rates = [torch.tensor(each, dtype=torch.float32, device=self.batch[0].device) for each in given]
        _begin_from_nothing(optimizer)
        self.graph = torch.cuda.CUDAGraph()
        try:
            for group, on_device in zip(optimizer.param_groups, self.learning_rates, strict=True):
                group["lr"] = on_device
            # relaxed: DALI's threads and autograd's call CUDA meanwhile
            with (
                phases.of_graph() as self.of_graph,
                torch.cuda.graph(self.graph, stream=_stream(self.batch[0].device), capture_error_mode="relaxed"),
            ):
                self.loss = step(*self.batch)
        finally:
            for group, rate in zip(optimizer.param_groups, given, strict=True):
                group["lr"] = rate

    def __call__(self, *batch: Tensor) -> Tensor:
        """One step; its loss, unawaited. ValueError for a batch of another shape."""
        self.phases.begin(self.of_graph.first)
        for ours, given in zip(self.batch, batch, strict=True):
            if ours.shape != given.shape or ours.dtype != given.dtype:
                raise ValueError(
                    f"a batch with {tuple(given.shape)} of {given.dtype}, and the step is recorded for "
                    f"{tuple(ours.shape)} of {ours.dtype}: compute.cuda_graphs = true takes batches of one shape"
                )
            ours.copy_(given, non_blocking=True)
        for on_device, group in zip(self.learning_rates, self.optimizer.param_groups, strict=True):
            on_device.fill_(group["lr"])
        self.graph.replay()
        self.phases.replayed(self.of_graph)
        return self.loss


@contextlib.contextmanager
def beside(device: torch.device) -> Iterator[None]:
    """In the stream in which steps are recorded: before that they run there, since libraries keep room for a stream."""
    stream = _stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _begin_from_nothing(optimizer: torch.optim.Optimizer) -> None:
    """Give SGD momenta of zero where it has none yet: a first step, which is another one than those after it, is not to be
    recorded, and from zeros it learns the same."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if group["momentum"] and optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
