"""Where time goes, of training and of an evaluation, phase after phase, on the clock of whoever does the work: GPU or CPU.

    data_starved      the device has nothing to do for lack of a batch
    forward_loss      input brought into the network's form, forward pass, loss
    backward          until the last gradient is there
    all_reduce_wait   from there until the gradients of all ranks are summed; what was summed meanwhile costs nothing
    optimizer
    logging           after the last step of an interval: the loss is read, the harness writes its lines

An evaluation is a chain of the same kind, with names of its own: see benchmarks.detection.quality.evaluation.

On CUDA a phase begins with an event in the stream, so that the host is never waited for: the host may be far ahead, and
the time that it spends waiting for a batch says nothing of the device. Events are read once an interval, after the loss
has been. The same names are NVTX ranges for a profiler. Elsewhere the device is the host, and the clock is
time.perf_counter.

A step that is replayed as one CUDA graph has its events in the graph, and each replay writes over those of the one before. So
how long all steps of an interval took is measured of each, and how that divides into phases of the last one alone.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping

import torch


class Phases:
    """A chain of phases: one ends where the next begins."""

    def __init__(self, device: torch.device) -> None:
        self.on_cuda = device.type == "cuda"
        self.chain: list[tuple[str, torch.cuda.Event | float]] = []
        self.spare: list[torch.cuda.Event] = []  # events that were read; making one costs more than using it again
        self.range: object = None
        self.recording: PhasesOfGraph | None = None
        self.graph: PhasesOfGraph | None = None  # that was replayed last

    def begin(self, name: str) -> None:
        """End the phase before and begin `name`; of a step one of harness.contract.STEP_PHASES."""
        if self.recording is not None:
            self.recording.begin(name)
            return
        if not self.on_cuda:
            self.chain.append((name, time.perf_counter()))
            return
        event = self.spare.pop() if self.spare else torch.cuda.Event(enable_timing=True)
        event.record()
        self.chain.append((name, event))
        if self.range is not None:
            torch.cuda.nvtx.range_end(self.range)
        self.range = torch.cuda.nvtx.range_start(name)

    @contextlib.contextmanager
    def of_graph(self) -> Iterator[PhasesOfGraph]:
        """Phases that begin meanwhile are a graph's, which is being recorded."""
        self.recording = PhasesOfGraph()
        try:
            yield self.recording
        finally:
            self.recording = None

    def replayed(self, graph: PhasesOfGraph) -> None:
        """The graph's phases are what the phase that has begun divides into."""
        self.graph = graph

    def restart(self, name: str) -> None:
        """Begin `name` without a phase before it: what happened since the last one, an evaluation or init, is none."""
        self.spare += [event for _, event in self.chain if isinstance(event, torch.cuda.Event)]
        self.chain.clear()
        self.begin(name)

    def seconds(self) -> Mapping[str, float]:
        """Of each phase that ended since the last call; the one that goes on starts again. The device must be
        synchronised."""
        found: dict[str, float] = {}
        for (name, begun), (_, ended) in itertools.pairwise(self.chain):
            found[name] = found.get(name, 0.0) + _between(begun, ended)
        if self.graph is not None:
            whole = self.graph.first
            spent = found.pop(whole)
            for name, share in self.graph.shares(self._end_of_last(whole)).items():
                found[name] = found.get(name, 0.0) + spent * share
            self.graph = None
        self.spare += [event for _, event in self.chain[:-1] if isinstance(event, torch.cuda.Event)]
        del self.chain[:-1]
        return found

    def stop(self) -> Mapping[str, float]:
        """End the phase that goes on, and wait for the device: the seconds of each since the last call."""
        self.begin("stopped")
        if self.range is not None:
            torch.cuda.nvtx.range_end(self.range)  # what comes next is no phase
            self.range = None
        _, end = self.chain[-1]
        if isinstance(end, torch.cuda.Event):
            end.synchronize()
        return self.seconds()

    def _end_of_last(self, name: str) -> torch.cuda.Event:
        """Where the last phase of that name ended."""
        (*_, end) = (ended for (begun, _), (_, ended) in itertools.pairwise(self.chain) if begun == name)
        assert isinstance(end, torch.cuda.Event)
        return end


class PhasesOfGraph:
    """Those of one recorded step, of which every replay writes the same events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, torch.cuda.Event]] = []

    @property
    def first(self) -> str:
        """Which all of a replay is, until it is divided."""
        return self.events[0][0]

    def begin(self, name: str) -> None:
        """While it is being recorded."""
        event = torch.cuda.Event(enable_timing=True, external=True)
        event.record()
        self.events.append((name, event))

    def shares(self, ended: torch.cuda.Event) -> Mapping[str, float]:
        """Of the last replay's time, which ended there, each phase's part."""
        marks = [*self.events, ("", ended)]
        spent = {name: _between(one, other) for (name, one), (_, other) in itertools.pairwise(marks)}
        whole = sum(spent.values())
        return {name: each / whole for name, each in spent.items()}


def _between(begun: torch.cuda.Event | float, ended: torch.cuda.Event | float) -> float:
    if isinstance(begun, torch.cuda.Event):
        assert isinstance(ended, torch.cuda.Event)
        return float(begun.elapsed_time(ended)) / 1e3
    assert isinstance(ended, float)
    return ended - begun
