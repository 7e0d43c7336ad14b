"""Did the candidate train to the same quality? What the runs at hand can say of it, and how small a difference they could show.

Over seeds alone: the quality at one epoch that all runs evaluated, and the loss at the end of one epoch that all trained. One
pair of runs tells nothing: quality at a fixed epoch varies by 0.0014 to 0.0016 from seed to seed (15 published seeds).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.comparison.judging import student
from harness.comparison.runs import ComparedRun

POWER = 0.8


@dataclass(frozen=True)
class EpochDifference:
    """Candidate less baseline at one epoch, in the quantity's own unit; intervals at 95 % by Welch's t over runs."""

    epoch: float
    means: tuple[float, float]
    difference: float
    interval: tuple[float, float] | None  # None with fewer than two runs an arm
    visible: float | None  # the least true difference that so many runs would show with POWER
    runs: tuple[int, int]

    @property
    def within(self) -> bool | None:
        """Whether no difference is among what the interval allows."""
        return None if self.interval is None else self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class Quality:
    accuracy: EpochDifference | None
    loss: EpochDifference | None


def quality(runs: Sequence[ComparedRun]) -> Quality:
    """At the last epoch that all runs have."""
    accuracies: list[dict[int | float, float | None]] = [
        {each.epoch: each.accuracy for each in run.record.counted_evaluations if each.epoch is not None} for run in runs
    ]
    losses: list[dict[int | float, float | None]] = [
        {each.number: each.loss for each in run.record.epochs if each.loss is not None} for run in runs
    ]
    return Quality(_at_last(runs, accuracies), _at_last(runs, losses))


def _at_last(
    runs: Sequence[ComparedRun], values: Sequence[Mapping[int | float, float | None]]
) -> EpochDifference | None:
    shared = set.intersection(*(set(each) for each in values)) if values else set()
    if not shared:
        return None
    epoch = max(shared)
    arms = [
        np.array([each[epoch] for each, run in zip(values, runs, strict=True) if run.arm == arm], float)
        for arm in (0, 1)
    ]
    if any(len(arm) == 0 for arm in arms):
        return None
    a, b = arms
    # of equal figures the first is their mean: numpy's has a rounding of its own, which would be a difference without a spread
    means = tuple(float(arm[0] if np.ptp(arm) == 0 else arm.mean()) for arm in (a, b))
    counts = len(a), len(b)
    difference = means[1] - means[0]
    if min(counts) < 2:
        return EpochDifference(epoch, (means[0], means[1]), difference, None, None, counts)
    if np.ptp(a) == 0 == np.ptp(b):
        return EpochDifference(epoch, (means[0], means[1]), difference, (difference, difference), 0.0, counts)
    parts = [float(arm.var(ddof=1)) / len(arm) for arm in arms]
    variance = sum(parts)
    df = variance**2 / sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    reach = student.quantile(df, 0.975) * math.sqrt(variance)
    visible = reach + student.quantile(df, POWER) * math.sqrt(variance)
    return EpochDifference(
        epoch, (means[0], means[1]), difference, (difference - reach, difference + reach), visible, counts
    )
