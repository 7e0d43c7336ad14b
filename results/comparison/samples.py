"""Noise that is real, runs drawn from it, and the order in which they are taken. For simulate.py.

A host has 3 to 15 runs: runs are drawn from its own, scaled to its unbiased spread and smoothed by a normal kernel
(Silverman and Young 1987), so that no draw repeats another to the digit, as no two runs do.
"""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.comparison.judging import verdict
from harness.comparison.judging.observations import Observations

ARMS = (3, 5, 10)  # runs
DELTAS = (0.0025, 0.005)
REPEATS = 2000

Floats = NDArray[np.float64]
Noise = dict[str, Floats]  # centred log slowness of each host's runs


def hosts(folder: Path) -> Noise:
    found: dict[str, list[float]] = defaultdict(list)
    with (folder / "ssd_amp_hosts.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            found[row["host"]].append(-math.log(float(row["images_per_s"])))
    return _centred(found)


def series(folder: Path) -> Noise:
    found: dict[str, list[float]] = defaultdict(list)
    with (folder / "mlperf_ssd_runs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["seconds_per_epoch"]:
                name = "/".join((row["round"], row["submitter"], row["system"]))
                found[name].append(math.log(float(row["seconds_per_epoch"])))
    return _centred(found)


def _centred(found: dict[str, list[float]]) -> Noise:
    return {name: np.array(values) - np.mean(values) for name, values in found.items() if len(values) >= 3}


def spread(values: Floats) -> float:
    return float(values.std(ddof=1))


def draw(generator: np.random.Generator, values: Floats, count: int) -> Floats:
    """`count` runs of a host with the shape and the unbiased spread of its own."""
    size, sd = len(values), spread(values)
    width = 1.06 * sd * size**-0.2
    drawn: Floats = generator.choice(values * math.sqrt(size / (size - 1)), count) + width * generator.normal(
        size=count
    )
    return drawn / math.sqrt(1 + (width / sd) ** 2)


def sample(
    values: Floats, arm: list[int], *, block: list[int] | None = None, host: list[int] | None = None
) -> Observations:
    """Runs in the order of time, a minute apart."""
    arms = np.array(arm)
    zeros = np.zeros(len(arms), np.int64)
    # runs taken in turns are blocks of one, and then runs are the units
    return Observations(
        values,
        arms,
        zeros if host is None else np.array(host),
        zeros if block is None else np.array(block),
        60.0 * np.arange(len(arms)),
    )


def in_turns(count: int) -> list[int]:
    """A B B A A B B A ... of `count` runs an arm, as `compare run` takes them."""
    order: list[int] = []
    for pair in range(count):
        order += [0, 1] if pair % 2 == 0 else [1, 0]
    return order


def a_then_b(count: int) -> list[int]:
    return [0] * count + [1] * count


def blocks(count: int, first: int = 0) -> tuple[list[int], list[int]]:
    """A B B A of `count` runs a block (what is left without warm-up runs): arms, and blocks."""
    order = [first, 1 - first, 1 - first, first]
    return [arm for arm in order for _ in range(count)], [number for number in range(4) for _ in range(count)]


def share(make: Callable[[], Observations], delta: float, repeats: int) -> Counter[str]:
    return Counter(verdict.judge(make(), delta).word for _ in range(repeats))
