"""Did the candidate train to the same quality? What the runs at hand can say of it, and how small a difference they could show.

Over seeds alone: the quality at one epoch that all runs evaluated, the loss at the end of one epoch that all trained, or of as
many steps where --max-steps cut it off in all, and how many runs met their target. One pair of runs tells nothing: quality at
a fixed epoch varies by 0.0014 to 0.0016 from seed to seed (15 published seeds).

The candidate trains worse where chance alone would do it at most once in a hundred times (NO_CHANGE): by its quality and its
target together, or by its loss where no epoch was evaluated in every run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.comparison.judging import student
from harness.comparison.judging.observations import Floats
from harness.comparison.judging.verdict import NO_CHANGE
from harness.comparison.runs import ComparedRun
from harness.results.by_rules import shortfall
from harness.rules import Rules, rules_for

POWER = 0.8
ONE_SEED = (
    0.1  # of the baseline's: what is worse of one seed may be that seed's luck; seeds do 0.0015 to a quality of 0.23
)


@dataclass(frozen=True)
class EpochDifference:
    """Candidate less baseline at one epoch, in the quantity's own unit; intervals at 95 % by Welch's t over runs."""

    epoch: float
    means: tuple[float, float]
    difference: float
    interval: tuple[float, float] | None  # None with fewer than two runs an arm
    visible: float | None  # the least true difference that so many runs of their spread would show with POWER
    runs: tuple[int, int]
    p_worse: float  # one-sided: how often arms alike would have the candidate so much worse; 1 where it cannot be told
    steps: int | None = None  # of all runs, where these ended the epoch before its end

    @property
    def after(self) -> str:
        """When it was."""
        return f"epoch {self.epoch:g}" if self.steps is None else f"{self.steps} steps"

    @property
    def within(self) -> bool | None:
        """Whether no difference is among what the interval allows."""
        return None if self.interval is None else self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class Met:
    """Runs that met their target, of those that were to train until they did."""

    met: tuple[int, int]
    runs: tuple[int, int]

    @property
    def p_worse(self) -> float:
        """One-sided (Fisher's exact test): so few of the candidate's by chance, with as many met in all."""
        total, hits = sum(self.runs), sum(self.met)
        lowest = max(0, hits - self.runs[0])
        ways = sum(
            math.comb(self.runs[1], count) * math.comb(self.runs[0], hits - count)
            for count in range(lowest, self.met[1] + 1)
        )
        return ways / math.comb(total, hits)


@dataclass(frozen=True)
class Quality:
    accuracy: EpochDifference | None
    loss: EpochDifference | None
    target: Met | None
    one_seed: bool  # all runs of an arm have one and the same: their spread is not that over seeds

    @property
    def worse(self) -> tuple[EpochDifference | Met, ...]:
        """By what the candidate trains worse."""
        told = [
            each for each in (self.accuracy or self.loss, None if self.one_seed else self.target) if each is not None
        ]
        level = NO_CHANGE / max(len(told), 1)
        return tuple(each for each in told if each.p_worse <= level and self._matters(each))

    def _matters(self, found: EpochDifference | Met) -> bool:
        if isinstance(found, Met) or not self.one_seed:
            return True
        return abs(found.difference) > ONE_SEED * abs(found.means[0])


def quality(runs: Sequence[ComparedRun]) -> Quality:
    """At the last epoch that all runs have."""
    accuracies: list[dict[int | float, float | None]] = [
        {each.epoch: each.accuracy for each in run.record.counted_evaluations if each.epoch is not None} for run in runs
    ]
    loss = _at_last(runs, [_losses_after_epochs(run) for run in runs], 1)
    if (cut := _at_last(runs, _losses_where_cut(runs), 1)) is not None:
        loss = replace(cut, steps=runs[0].record.max_steps)
    first = runs[0].record
    rules = rules_for(first.benchmark, first.ruleset)
    seeds = [[run.record.seeds[:1] for run in runs if run.arm == arm] for arm in (0, 1)]
    return Quality(
        _at_last(runs, accuracies, 1 if rules.lower_is_better else -1),
        loss,
        _met(runs, rules),
        any(len(values) > 1 and len(set(values)) == 1 and values[0] for values in seeds),
    )


def _losses_after_epochs(run: ComparedRun) -> dict[int | float, float | None]:
    """Of an epoch that --max-steps cut off it is another by that alone."""
    whole = run.record.max_steps is None
    return {each.number: each.loss for each in run.record.epochs if each.loss is not None and (whole or each.seconds)}


def _losses_where_cut(runs: Sequence[ComparedRun]) -> list[dict[int | float, float | None]]:
    """Where as many steps, and as large ones, cut off an epoch in every run; [] where they did not."""
    ended = [next((each for each in run.record.epochs if not each.seconds), None) for run in runs]
    kinds = {(run.record.max_steps, run.record.global_batch_size) for run in runs}
    if len(kinds) > 1 or runs[0].record.max_steps is None or any(each is None or each.loss is None for each in ended):
        return []
    return [{each.number: each.loss} for each in ended if each is not None]


def _met(runs: Sequence[ComparedRun], rules: Rules) -> Met | None:
    whole = [run for run in runs if run.record.max_steps is None]
    counts = [sum(run.arm == arm for run in whole) for arm in (0, 1)]
    met = [sum(run.arm == arm and not shortfall(run.record, rules) for run in whole) for arm in (0, 1)]
    return Met((met[0], met[1]), (counts[0], counts[1])) if all(counts) and any(met) else None


def _at_last(
    runs: Sequence[ComparedRun], values: Sequence[Mapping[int | float, float | None]], worse: int
) -> EpochDifference | None:
    """`worse`: 1 where more is, else -1."""
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
    if max(counts) < 2:
        return EpochDifference(epoch, (means[0], means[1]), difference, None, None, counts, 1.0)
    if np.ptp(a) == 0 == np.ptp(b):  # as if one of all ways to deal the arms
        p = 1 / math.comb(sum(counts), counts[0]) if worse * difference > 0 else 1.0
        return EpochDifference(epoch, (means[0], means[1]), difference, (difference, difference), 0.0, counts, p)
    variance, df = _welch(a, b)
    reach = student.quantile(df, 0.975) * math.sqrt(variance)
    return EpochDifference(
        epoch,
        (means[0], means[1]),
        difference,
        (difference - reach, difference + reach),
        student.detected(df, 0.975, POWER) * math.sqrt(variance),
        counts,
        student.upper(df, worse * difference / math.sqrt(variance)),
    )


def _welch(a: Floats, b: Floats) -> tuple[float, float]:
    """Of the difference of two means: its variance and degrees of freedom. A run alone takes the other arm's spread."""
    counts = len(a), len(b)
    if min(counts) < 2:
        pooled = sum(float(((arm - arm.mean()) ** 2).sum()) for arm in (a, b)) / (sum(counts) - 2)
        return pooled * (1 / counts[0] + 1 / counts[1]), sum(counts) - 2.0
    parts = [float(arm.var(ddof=1)) / len(arm) for arm in (a, b)]
    variance = sum(parts)
    return variance, variance**2 / sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
