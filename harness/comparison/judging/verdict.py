"""From an estimate to one of four words, by testing for a difference and for equivalence against delta.

SLOWER      the one-sided 95 % bound lies beyond +delta, and no change at all is refused at 1 %: whatever the noise, arms that
            are alike are called slower at most once in a hundred times
FASTER      the same on the other side
EQUAL       both one-sided 95 % bounds lie inside +-delta (TOST, Schuirmann 1987): their 90 % interval is inside; where the arms
            were not taken in turns, also with a linear trend over time taken out, which could have hidden a difference
CANNOT TELL anything else; `more_runs` says how many would

The level of 5 % a side is that of TOST and of tests for non-inferiority; by it five runs an arm find 0.5 % against a delta
of 0.25 % at the median host's noise in 98 of 100 cases, where the two-sided 95 % interval beyond delta would find 94; where
the mean epoch is gated beside the median, as by default, in 94 (results/comparison).
SUSPECT, the fifth word, is health's (health.py), and WORSE, the sixth, training's (numbers.py).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.comparison.judging import statistics, student
from harness.comparison.judging.observations import HOSTS_AS_UNITS, Observations, units
from harness.comparison.judging.statistics import Estimate, Permutation

Word = Literal["SLOWER", "EQUAL", "FASTER", "CANNOT TELL", "SUSPECT", "WORSE"]

BEYOND_DELTA = 0.05  # one-sided level of both the difference beyond delta and the equivalence within it
NO_CHANGE = 0.01
BESIDE_A_DRIFT = 0.005  # the same with a trend taken out, where arms were not taken in turns
ENOUGH_ARRANGEMENTS = round(1 / NO_CHANGE)
POWER = 0.8  # of more_units and runs_for
WELCH = 0.75  # of one variance's degrees of freedom, what Welch's t has on average where the arms' spreads are alike
FEWEST, RUNS_LIMIT = 3, 1000  # runs an arm
DRIFT = "the arms were not taken in turns, and a drift of the machine would look the same"
QUIETER = "longer runs or a quieter machine, by `compare noise`, would"
IN_TURNS = "runs in the order A B B A would"
ONE_BOOT = (
    "each arm ran in one stretch, a reboot or an installation between them, and what that alone shifts looks the same"
)
EACH_HOST = "A B B A on each of the hosts, as `compare plan` makes it, would"
ONCE_MORE = (
    "A again after one more (A B A, better A B B A as `compare plan` makes it) would, or for what needs no reboot both by "
    "turns"
)


@dataclass(frozen=True)
class NoChange:
    """The test that no change at all had to fail at NO_CHANGE."""

    p: float  # one-sided, in the direction of the estimate
    by: Literal["permutation", "t"]
    permutation: Permutation


@dataclass(frozen=True)
class Judged:
    """One metric's verdict and what it rests on."""

    word: Word
    delta: float  # a fraction: 0.005 for half a per cent
    estimate: Estimate | None  # None where there are too few runs for any
    no_change: NoChange | None  # None where nothing hung on it
    reason: str  # why it cannot be told; empty otherwise
    scaled_p: float = math.inf  # p over its level, of the direction that was tested; at most 1 decides. For Holm
    remedy: str = ""  # what would settle it where more of the same runs would not
    floor: float = 0.0  # what A against A shows on this machine, as `judge` was told
    missing: int = 0  # runs an arm without which there is no estimate
    family: int = 1  # metrics that are gated together

    @property
    def more_units(self) -> int | None:
        """Runs, blocks or hosts, whichever the estimate's units are, that an arm lacks; None where not asked, or too many."""
        if self.word != "CANNOT TELL" or self.remedy or self.estimate is None:
            return None
        return more_units(self.estimate, max(self.delta, self.floor), self.family)

    @property
    def more_runs(self) -> int | None:
        """The same in runs."""
        units, found = self.more_units, self.estimate
        if found is None or units is None:
            return self.missing or None
        return math.ceil(units * min(found.runs) / min(found.units))

    @property
    def percent(self) -> float | None:
        return None if self.estimate is None else 100 * math.expm1(self.estimate.log_ratio)

    @property
    def percent_interval(self) -> tuple[float, float] | None:
        if self.estimate is None:
            return None
        low, high = self.estimate.interval()
        return 100 * math.expm1(low), 100 * math.expm1(high)


def judge(
    sample: Observations, delta: float, *, floor: float = 0.0, tests: int = 1, family: int = 1, bootstrap: bool = False
) -> Judged:
    """The verdict on one metric of a `family`. `tests`: by how many to divide the levels of a difference (Holm's).

    `floor`: what A against A shows on this machine, a fraction as delta is. Within it no difference is told; where it is
    larger than delta, nor that there is none.
    """
    if not statistics.enough(sample):
        if len(sample.paired().arm) and units(sample).confounded:  # which more runs of the same leave as it is
            return Judged("CANNOT TELL", delta, None, None, ONE_BOOT, remedy=ONCE_MORE)
        missing = max(1, *(2 - count for count in sample.counts))
        return Judged("CANNOT TELL", delta, None, None, "one run an arm has no spread to judge by", missing=missing + 1)
    found = statistics.estimate(sample, bootstrap=bootstrap)
    if found.confounded:
        return Judged("CANNOT TELL", delta, found, None, ONE_BOOT, remedy=ONCE_MORE)
    bound = math.log1p(max(delta, floor))
    sign = 1.0 if found.log_ratio > 0 else -1.0
    low, high = found.interval(1 - 2 * BEYOND_DELTA)
    if floor > delta and abs(found.log_ratio) <= bound:
        reason = f"this machine shows nothing finer than {100 * floor:.2g} %, A against A"
        return Judged("CANNOT TELL", delta, found, None, reason, remedy=QUIETER)
    if -bound < low and high < bound:
        if not _hidden_by_drift(found, bound):
            return Judged("EQUAL", delta, found, None, "")
        return Judged("CANNOT TELL", delta, found, None, DRIFT, remedy=IN_TURNS)
    beyond = _p_beyond(found, sign, bound)
    tested: NoChange | None = None
    scaled = beyond / BEYOND_DELTA
    reason = remedy = ""
    if scaled <= 1:
        tested = _no_change(found, statistics.permutation(sample), sign, family)
        scaled = max(scaled, tested.p / NO_CHANGE)
        if scaled > 1:
            reason = "chance alone does as much more than once in a hundred times"
        elif found.drift is not None and (p := _p_drift(found, sign)) > BESIDE_A_DRIFT:
            scaled = max(scaled, p / BESIDE_A_DRIFT)
            reason, remedy = DRIFT, IN_TURNS
    if scaled * tests <= 1:
        return Judged("SLOWER" if sign > 0 else "FASTER", delta, found, tested, "", scaled)
    if not reason:
        over = "delta" if floor <= delta else "what this machine shows of A against A"
        reason = f"the interval reaches over {over}" if scaled > 1 else "not sure enough for so many metrics at once"
    if not remedy and found.level == "host" and found.hosts < HOSTS_AS_UNITS:  # what their own boots shift is not known
        remedy = EACH_HOST
    return Judged("CANNOT TELL", delta, found, tested, reason, scaled, remedy, floor, family=family)


def holm(
    samples: Sequence[Observations], delta: float, floors: Sequence[float], *, bootstrap: bool = False
) -> list[Judged]:
    """Verdicts on several gated metrics: differences by Holm's step-down over all of them; equality needs no correction.

    Metrics that are the same figure written in two ways (seconds an epoch and images a second) count once.
    """
    distinct = unlike(samples)
    family = len(distinct)
    first = [
        judge(sample, delta, floor=floor, family=family, bootstrap=bootstrap)
        for sample, floor in zip(samples, floors, strict=True)
    ]
    ordered = sorted(distinct, key=lambda i: first[i].scaled_p)
    final, stopped = list(first), False
    for place, index in enumerate(ordered):
        left = len(distinct) - place
        stopped = stopped or first[index].scaled_p * left > 1
        if stopped and first[index].word in ("SLOWER", "FASTER"):
            final[index] = judge(
                samples[index], delta, floor=floors[index], tests=RUNS_LIMIT, family=family, bootstrap=bootstrap
            )
    for index in range(len(samples)):
        if index not in distinct:
            twin = next(j for j in distinct if same(samples[index], samples[j]))
            final[index] = replace(first[index], word=final[twin].word, reason=final[twin].reason)
    return final


def unlike(samples: Sequence[Observations]) -> list[int]:
    """Indices of those that are another figure than all before them: the family whose levels are divided."""
    return [i for i, each in enumerate(samples) if not any(same(each, samples[j]) for j in range(i))]


def overall(judged: Sequence[Judged]) -> Word:
    """Of all that is gated: slower if anything is; else undecided if anything is; else equal or faster."""
    words = [each.word for each in judged]
    worst: tuple[Word, ...] = ("SUSPECT", "SLOWER", "CANNOT TELL")
    for word in worst:
        if word in words:
            return word
    return "FASTER" if "FASTER" in words else "EQUAL"


def more_units(found: Estimate, delta: float, family: int = 1) -> int | None:
    """Units an arm, beyond those there are, by which the verdict would fall with POWER if the difference is what it seems.

    Runs, or blocks with a reboot each, or hosts; `family`: metrics that are gated with it. None for more than RUNS_LIMIT.
    """
    bound, size = math.log1p(delta), abs(found.log_ratio)
    a, b = found.units
    each_brings = 1.0 if found.level == "host" else 2 * WELCH  # degrees of freedom

    def enough(more: int) -> bool:
        se = found.se * math.sqrt((1 / (a + more) + 1 / (b + more)) / (1 / a + 1 / b))
        return _power(found.df + each_brings * more, size / se, bound / se, family) >= POWER

    return _least(enough, 1)


def runs_for(spread: float, difference: float, delta: float, family: int = 1) -> int | None:
    """Runs an arm that find a true `difference` beyond `delta` (fractions) with POWER; `spread`: of a run's logarithm.

    `family`: metrics that are gated together. Runs without any spread (rounded, or of a log by hand) need as many as any.
    """
    if not spread:
        return FEWEST
    bound, size = math.log1p(delta), math.log1p(difference)

    def enough(runs: int) -> bool:
        se = spread * math.sqrt(2 / runs)
        return _power(WELCH * (2 * runs - 2), size / se, bound / se, family) >= POWER

    return _least(enough, FEWEST)


def _power(df: float, size: float, bound: float, family: int) -> float:
    """Both in standard errors. One of a family has its first step of Holm's to pass; equality needs no correction."""
    tests = family if size > bound else 1
    return student.power(df, size, bound, BEYOND_DELTA / tests, NO_CHANGE / tests)


def _least(enough: Callable[[int], bool], start: int) -> int | None:
    """The least count from `start` to RUNS_LIMIT that is enough, where more always is too; None where none is."""
    found = start + bisect.bisect_left(range(start, RUNS_LIMIT + 1), True, key=enough)
    return found if found <= RUNS_LIMIT else None


def _p_beyond(found: Estimate, sign: float, bound: float) -> float:
    """One-sided p of "not beyond delta" on the side of the estimate."""
    if found.bootstrap_decides:
        low, high = found.interval(1 - 2 * BEYOND_DELTA)
        inside = low <= bound if sign > 0 else high >= -bound
        if inside:
            return 1.0
    return found.p_above(bound) if sign > 0 else 1 - found.p_above(-bound)


def _no_change(found: Estimate, dealt: Permutation, sign: float, family: int) -> NoChange:
    """The larger of Welch's t and, where it has arrangements enough for the level, the permutation.

    Arms of unlike spread and number are not exchangeable: by permutation alone 20 runs and 3 of thirty times their spread
    were called slower 34 times in a thousand. What is far from normal is the permutation's to see.
    """
    by_t = found.p_above(0.0) if sign > 0 else 1 - found.p_above(0.0)
    by_dealing = dealt.p_slower if sign > 0 else dealt.p_faster
    if dealt.arrangements < ENOUGH_ARRANGEMENTS * family or by_dealing < by_t:
        return NoChange(by_t, "t", dealt)
    return NoChange(by_dealing, "permutation", dealt)


def _p_drift(found: Estimate, sign: float) -> float:
    assert found.drift is not None
    if found.drift.se == 0:
        return 1.0
    p = found.drift.p_above(0.0)
    return p if sign > 0 else 1 - p


def _hidden_by_drift(found: Estimate, bound: float) -> bool:
    """Whether a trend over time, where arm and time go together, may have made up for a difference beyond `bound`."""
    if found.drift is None:
        return False
    low, high = found.drift.interval(1 - 2 * BEYOND_DELTA)
    return not (-bound < low and high < bound)


def same(one: Observations, other: Observations) -> bool:
    """Whether two samples hold the same figures except for a constant factor."""
    if len(one.arm) != len(other.arm) or (one.arm != other.arm).any():
        return False
    shift = one.log_slowness - other.log_slowness
    return bool(abs(shift - shift[0]).max() < 1e-6)
