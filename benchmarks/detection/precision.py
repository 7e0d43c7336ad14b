"""Which number format the network runs in: as configured, or the one that this machine trains fastest in.

The loss, the optimizer and the weights stay float32 in all of them (autocast). fp16 needs a loss scale; bf16 does not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.detection.capabilities import autocasts
from harness.contract import NotSuitable, Precision

AUTOCAST_DTYPE: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

# Below this gain a coarser format is not worth it, and noise could decide
WORTHWHILE_GAIN = 1.05
# So many times as slow as float32, in its first step and in the next, and a format is not tried again: on a processor that has
# AVX2 alone bf16 takes eleven times as long, and trying it was half of init
HOPELESS = 3.0


def candidates(device: str) -> tuple[Precision, ...]:
    """Formats that `auto` tries on a device, finest first."""
    kind = device.partition(":")[0]
    if kind == "cpu":
        return ("fp32", "bf16")
    if kind != "cuda":
        return ("fp32", *(("bf16",) if autocasts(kind, torch.bfloat16) else ()))
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return ("fp32", "bf16")
    return ("fp32", "fp16")  # Volta and Turing have fp16 units only


def available(precision: Precision, device: str) -> Precision:
    """What an earlier run chose. NotSuitable where this device has no such format: it chose on another."""
    if precision not in candidates(device):
        known = ", ".join(candidates(device))
        raise NotSuitable(
            f"precision {precision} was chosen by speed, by the first trial of this series or the run that --chosen is from, "
            f"and on {device} auto chooses among {known}: another machine chose it; go on there, or begin a new series"
        )
    return precision


def named(precision: Precision, device: str) -> str:
    """As the log says it: a GPU's "fp32" convolutions are TF32 where it has that and PyTorch may use it."""
    if precision != "fp32" or not device.startswith("cuda") or torch.version.hip is not None:
        return precision
    has_tf32 = torch.cuda.get_device_capability(device) >= (8, 0)
    return "tf32" if has_tf32 and torch.backends.cudnn.allow_tf32 else "fp32"


def fastest(
    step: Callable[[Precision], None], device: str, agreed: Callable[[Any], Any], repeats: int = 3, ranks: int = 1
) -> tuple[Precision, dict[str, float]]:
    """The format in which `step` runs fastest, and each one's median seconds. `step` trains one batch and synchronises;
    `agreed` gives every rank what rank 0 says, so that all of them take the same steps.

    In turns, and judged by each turn's own ratio: a burst of other work lasts longer than a step and slows both of a turn,
    where it would have slowed all steps of one format had they been taken one after the other. A format whose batch does not
    fit into the device's memory is not among them. NotSuitable where none fits, and of several ranks where one does not: the
    others wait in that step's collectives, and gradients of a step that was broken off are averaged never again.
    """
    fitting: dict[Precision, float] = {}  # seconds of the first step, with memory and kernels
    for precision in candidates(device):
        try:
            fitting[precision] = _timed(step, precision)
        except torch.OutOfMemoryError as error:
            if ranks > 1:
                other_formats = " or ".join(f'"{each}"' for each in candidates(device) if each != precision)
                raise NotSuitable(
                    f"a batch does not fit into the memory of {device} in {precision}, and several ranks cannot go on from "
                    f'there to another format: instead of compute.precision = "auto" name one, {other_formats}, or take a '
                    "smaller optimizer.batch_size, with the learning rate that belongs to it"
                ) from error
            torch.cuda.empty_cache()
    if not fitting:
        raise NotSuitable(
            f"a batch does not fit into the memory of {device} in {' or '.join(candidates(device))}; a smaller "
            "optimizer.batch_size, with the learning rate that belongs to it, does"
        )
    turns = [{precision: _timed(step, precision) for precision in fitting}]
    finest, *others = fitting
    slowness = {each: min(taken[each] / taken[finest] for taken in (fitting, turns[0])) for each in others}
    hopeful = agreed([each for each in others if slowness[each] < HOPELESS])
    turns += [
        {precision: _timed(step, precision) for precision in (finest, *hopeful)}
        for _ in range(repeats - 1 if hopeful else 0)
    ]
    seconds = {str(each): statistics.median(turn[each] for turn in turns if each in turn) for each in fitting}
    gains = {each: statistics.median(turn[finest] / turn[each] for turn in turns) for each in hopeful}
    best = max(gains, key=lambda each: gains[each], default=finest)
    return agreed(best if gains.get(best, 0) > WORTHWHILE_GAIN else finest), seconds


def _timed(step: Callable[[Precision], None], precision: Precision) -> float:
    start = time.perf_counter()
    step(precision)
    return time.perf_counter() - start
