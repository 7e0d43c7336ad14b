"""Timing for measuring.ssd: candidates take turns in one run, raw samples are kept, the ratio of each turn counts.

On a shared machine a quiet minute helps whoever runs in it; taking turns, in the opposite order every other time, and dividing
what was measured in the same turn takes most of that out. Nothing here knows what is measured.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness.execution import provenance
from harness.execution.context import this_machine
from harness.system import host

Measure = Callable[[], float]
Span = tuple[float, float]  # from when to when, in Unix seconds
CUT_OFF = "of a turn that was cut off, and compared with nothing"
QUIET_S, POLL_S = 0.1, 0.02  # without processor time to be called quiet, looked at so often
PATIENCE_S = 60.0  # with threads that never are
# When an accelerator was timed, since it was last emptied: what it draws meanwhile is of what is measured
TIMED: list[Span] = []
KERNELS = ("triton", "nvidia-cudnn-frontend")  # distributions that a run's log does not name, and a step's speed is of


@dataclass(frozen=True)
class Figure:
    """Samples of one quantity."""

    what: str
    unit: str
    samples: list[float]
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        return quartiles(self.samples)

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "n": len(self.samples), "median": self.median, "quartiles": self.quartiles}

    def __str__(self) -> str:
        low, high = self.quartiles
        return f"{self.what}: {self.median:.4g} {self.unit} ({low:.4g} to {high:.4g}, n {len(self.samples)})"


@dataclass(frozen=True)
class Comparison:
    """How many times less than `baseline` a thing of ours takes; samples of equal position are of the same turn."""

    what: str
    ours: Figure
    baseline: Figure
    goal: float | None = None
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        return [theirs / mine for mine, theirs in zip(self.ours.samples, self.baseline.samples, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        low, high = quartiles(self.ratios)
        return f"{self.what}: ratio {self.ratio:.3f} ({low:.3f} to {high:.3f}, n {len(self.ratios)}); {self.ours}"

    def plain(self) -> dict[str, Any]:
        return {
            **{"what": self.what, "goal": self.goal, "note": self.note, "n": len(self.ratios)},
            **{"ratio": self.ratio, "quartiles": quartiles(self.ratios), "ratios": self.ratios},
            **{"ours": self.ours.plain(), "baseline": self.baseline.plain()},
        }


Known = list[Comparison | Figure]


def against(
    of: str, baseline: Figure, others: Mapping[str, Figure], goal: float | None = None, note: str = ""
) -> Known:
    """Each of `others`, by what its comparison is called, in the turns that it and `baseline` both had; and beyond these what a
    turn that was cut off has, as figures of `of`. Samples of equal position are of the same turn."""
    found: Known = []
    single: dict[str, list[float]] = {}
    most = 0
    for what, each in others.items():
        n = min(len(each.samples), len(baseline.samples))
        if n:
            mine, theirs = (replace(side, samples=side.samples[:n]) for side in (each, baseline))
            found.append(Comparison(what, mine, theirs, goal, note))
        single[each.what], most = each.samples[n:], max(most, n)
    single = {baseline.what: baseline.samples[most:], **single}
    return [*found, *(Figure(f"{of}: {name}", baseline.unit, left, CUT_OFF) for name, left in single.items() if left)]


def quartiles(samples: list[float]) -> tuple[float, float]:
    """The middle half of the samples; of fewer than four, all of them."""
    if len(samples) < 4:
        return min(samples), max(samples)
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high


def in_turns(candidates: Mapping[str, Measure], rounds: int) -> Iterator[dict[str, list[float]]]:
    """`rounds` samples of each, taken in turns: after every one what there is so far. Every candidate runs once before, which
    is not counted."""
    found: dict[str, list[float]] = {name: [] for name in candidates}
    with uncounted():
        for measure in candidates.values():
            measure()  # compiles, allocates, fills queues
    for turn in range(rounds):
        for name in list(candidates)[:: 1 if turn % 2 == 0 else -1]:
            _until_quiet()  # what the one before left to do in the background shall not count for this one
            found[name].append(candidates[name]())
            yield found


def interleaved(candidates: Mapping[str, Measure], rounds: int) -> dict[str, list[float]]:
    """What `in_turns` has at its end."""
    *_, found = in_turns(candidates, rounds)
    return found


def wall(action: Callable[[], object], device: str, clock: Measure = time.perf_counter) -> float:
    """Seconds until `action` and what it started on the device are done.

    With time.process_time as the clock: processor seconds of all threads, which other processes hardly change while a single
    thread computes; several of them also burn time waiting for each other.
    """
    synchronise(device)
    with noted(device):
        start = clock()
        action()
        synchronise(device)
        return clock() - start


@contextlib.contextmanager
def noted(device: str) -> Iterator[None]:
    """Adds the block's time to TIMED, unless it breaks off. Nothing on a CPU: an accelerator's part in that is none."""
    start = time.time()
    yield
    if device != "cpu":
        TIMED.append((start, time.time()))


@contextlib.contextmanager
def uncounted() -> Iterator[None]:
    """What is timed in the block is no sample of anything."""
    before = len(TIMED)
    try:
        yield
    finally:
        del TIMED[before:]


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def processor_time_of_background_work(consume: Callable[[], object]) -> float:
    """Processor seconds of the whole process for `consume` and for what its threads make ready for the next time.

    Before and after, those threads have nothing left to do, so that as much is made as is used.
    """
    _until_quiet()
    start = time.process_time()
    consume()
    _until_quiet()
    return time.process_time() - start


def _until_quiet() -> None:
    since, give_up = time.perf_counter(), time.perf_counter() + PATIENCE_S
    while time.perf_counter() - since < QUIET_S and time.perf_counter() < give_up:
        before = time.process_time()
        time.sleep(POLL_S)
        if time.process_time() - before > POLL_S / 10:
            since = time.perf_counter()


def vector_units() -> list[str]:
    """Of this CPU, those that matter here: avx512_bf16, or Arm's bf16, doubles the rate of products, amx_bf16 has tiles."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    return [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16") if name in flags]


def machine(device: str) -> dict[str, Any]:
    """What a reader of figures must know of this machine, as found."""
    return {
        "processor": host.read().cpu.model,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "vector_units": vector_units(),
        "load_before": os.getloadavg()[0],
        "torch": torch.__version__,
    }


def surroundings() -> dict[str, Any]:
    """What the figures are of, as a run's log and a probe's file say it: commit, driver, libraries and the rest."""
    found = provenance.surroundings(this_machine())
    found["software"] |= {name: provenance.version(name) or "none" for name in KERNELS}
    return found
