"""How much slower the candidate is, how sure that is, and whether nothing but chance could have done it.

The estimate is the ratio of (geometric) means within each host, on a log scale, hosts weighing alike.

Its interval is Welch's t on the units (sample.py) up to FEW of them in an arm, and the BCa bootstrap over the same units,
seeded, from there on. The bootstrap alone does not hold for few: on the hosts of results/comparison its 95 % interval
covers 91 times in 100 for 8 or 10 units and 94 for 30, where Welch's covers 95 to 96 from 3 on. Resampling is of whole
units (a cluster bootstrap): resampling runs within resampled blocks too would count their spread twice.

The test of no change permutes the arms among the units of a host; where there are too few arrangements for the level
that a verdict needs, Welch's t takes its place.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from harness.comparison.judging import student
from harness.comparison.judging.observations import Floats, Level, Observations, Units, units

FEW = 30
RESAMPLES = 10_000
SEED = 20_260_101
ARRANGEMENTS = 20_000  # more are drawn from, fewer are all gone through
BALANCED = 0.3  # |correlation| of arm and time below which a drift hardly leaks into the difference; A B B A has 0


@dataclass(frozen=True)
class Estimate:
    """The candidate's slowness over the baseline's; all of it in natural logarithms."""

    log_ratio: float  # above 0: the candidate is slower
    se: float
    df: float
    level: Level
    units: tuple[int, int]
    runs: tuple[int, int]
    hosts: int
    bootstrap: tuple[float, float] | None  # BCa's 95 % interval; None where it was not asked for
    bootstrap_90: tuple[float, float] | None
    bootstrap_decides: bool
    drift: Drift | None
    confounded: bool = False  # one boot or installation an arm: the interval is of these runs and not of their arms

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The interval that verdicts rest on."""
        if self.bootstrap_decides and self.bootstrap is not None and self.bootstrap_90 is not None:
            if confidence == 0.95:
                return self.bootstrap
            if confidence == 0.90:
                return self.bootstrap_90
        half = student.quantile(self.df, 0.5 + confidence / 2) * self.se
        return self.log_ratio - half, self.log_ratio + half

    def p_above(self, bound: float) -> float:
        """One-sided p of "not above `bound`", by t."""
        return student.upper(self.df, (self.log_ratio - bound) / self.se)

    @property
    def method(self) -> str:
        return "BCa bootstrap" if self.bootstrap_decides else "Welch's t"


@dataclass(frozen=True)
class Drift:
    """The difference with a linear trend over time taken out, where the arms were not taken in turns."""

    log_ratio: float
    se: float
    df: float

    def interval(self, confidence: float) -> tuple[float, float]:
        """Without end where the runs leave nothing to judge a trend by."""
        half = student.quantile(self.df, 0.5 + confidence / 2) * self.se if self.se > 0 else math.inf
        return self.log_ratio - half, self.log_ratio + half

    def p_above(self, bound: float) -> float:
        return student.upper(self.df, (self.log_ratio - bound) / self.se) if self.se > 0 else 1.0


def enough(sample: Observations) -> bool:
    """Whether a spread can be estimated: both arms somewhere, and on a host two blocks of an arm, or two runs of each.

    The spread of runs may be the arm's own, and one run has none; what a boot shifts is the machine's, in either arm.
    """
    paired = sample.paired()
    if not len(paired.arm):
        return False
    found = units(paired)
    spread = [any(len(found.of(host, arm)) > 1 for host in found.hosts) for arm in (0, 1)]
    return found.level == "host" or (all(spread) if found.level == "run" else any(spread))


def estimate(sample: Observations, *, bootstrap: bool = False) -> Estimate:
    """The difference of the arms of the hosts that have both. ValueError where `enough` is false.

    `bootstrap` computes BCa's interval also where it decides nothing, to be shown.
    """
    if not enough(sample):
        raise ValueError("two runs of an arm or more are needed to know their spread")
    found = units(sample)
    log_ratio, variance, df = _difference(found)
    counts = sum(len(found.of(host, 0)) for host in found.hosts), sum(len(found.of(host, 1)) for host in found.hosts)
    if found.level == "host":
        counts = len(found.hosts), len(found.hosts)
    runs = sample.paired().counts
    floor = max(sample.resolution**2 * (1 / runs[0] + 1 / runs[1]), found.noise)
    decides = min(counts) >= FEW
    wide, narrow = _bca(found) if bootstrap or decides else (None, None)
    return Estimate(
        log_ratio,
        math.sqrt(max(variance, floor, 1e-18)),
        df,
        found.level,
        counts,
        runs,
        len(found.hosts),
        wide,
        narrow,
        decides and wide is not None,
        _drift(sample.paired()),
        found.confounded,
    )


def means(sample: Observations) -> tuple[float, float]:
    """Of each arm the mean over hosts of each host's own, hosts weighing alike: the second less the first is `log_ratio`.

    A mean over runs would be of another machine in each arm, where a host has more runs of one. ValueError where no host has
    both arms.
    """
    found = units(sample)
    a, b = (float(np.mean([found.of(host, arm).mean() for host in found.hosts])) for arm in (0, 1))
    return a, b


def _difference(found: Units) -> tuple[float, float, float]:
    """Mean over hosts of (candidate - baseline), its variance and degrees of freedom (Welch and Satterthwaite)."""
    differences = np.array([found.of(host, 1).mean() - found.of(host, 0).mean() for host in found.hosts])
    count = len(differences)
    if found.level == "host":
        return float(differences.mean()), float(differences.var(ddof=1) / count), count - 1.0
    groups = [found.of(host, arm) for host in found.hosts for arm in (0, 1)]
    sizes = np.array([len(group) for group in groups], float)
    squares = np.array([((group - group.mean()) ** 2).sum() for group in groups])
    free = sizes - 1
    if sizes.min() >= 3:
        parts = squares / free / sizes / count**2
    elif found.level == "block":
        # what a boot shifts is the machine's, in either arm: one variance for each host. One for all would call two hosts
        # slower in 3 of 100 cases, where the boots of one shift 2 % and those of the other nothing
        free = free.reshape(-1, 2).sum(1)
        parts = squares.reshape(-1, 2).sum(1) / free * (1 / sizes).reshape(-1, 2).sum(1) / count**2
    else:  # one of an arm over all hosts; one for both would call 2 wild runs among 20 quiet ones slower in a fifth of cases
        weights = (1 / sizes).reshape(-1, 2).sum(0) / count**2
        free = free.reshape(-1, 2).sum(0)
        parts = squares.reshape(-1, 2).sum(0) / free * weights
        return float(differences.mean()), float(parts.sum()), float(free.min())
    variance = parts.sum()
    df = variance**2 / (parts**2 / free).sum() if variance > 0 else free.sum()
    return float(differences.mean()), float(variance), float(df)


def _bca(found: Units) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """BCa's intervals at 95 and 90 % over units within host and arm; None where every unit of a group is alone or alike."""
    from scipy import stats

    hosts = len(found.hosts)
    if found.level == "host":
        groups = [np.array([found.of(host, 1)[0] - found.of(host, 0)[0] for host in found.hosts])]
    else:
        groups = [found.of(host, arm) for host in found.hosts for arm in (1, 0)]
    if any(len(group) < 2 or np.ptp(group) == 0 for group in groups):
        return None, None

    def difference(*drawn: Floats, axis: int = -1) -> Any:
        if len(drawn) == 1:
            return drawn[0].mean(axis=axis)
        return (
            sum(sign * each.mean(axis=axis) for sign, each in zip(itertools.cycle((1, -1)), drawn, strict=False))
            / hosts
        )

    result = None
    intervals = []
    for confidence in (0.95, 0.90):
        result = stats.bootstrap(
            groups,
            difference,
            n_resamples=RESAMPLES if result is None else 0,
            bootstrap_result=result,
            confidence_level=confidence,
            method="BCa",
            vectorized=True,
            rng=np.random.default_rng(SEED),
        )
        low, high = (float(each) for each in result.confidence_interval)
        if not (math.isfinite(low) and math.isfinite(high)):
            return None, None
        intervals.append((low, high))
    return intervals[0], intervals[1]


def _drift(sample: Observations) -> Drift | None:
    """The difference beside a linear trend, where arm and time go together; None where they do not, or time is not known."""
    if np.isnan(sample.time).any():
        return None
    hosts, count = sorted(set(sample.host.tolist())), len(sample.arm)
    inside = np.array([[sample.host == host] for host in hosts]).reshape(len(hosts), count).astype(float)
    mean = inside.T @ (
        (inside / inside.sum(1, keepdims=True)) @ np.stack([sample.arm, sample.time], axis=1).astype(float)
    )
    arm, time = (np.stack([sample.arm, sample.time], axis=1) - mean).T
    if time.std() == 0 or arm.std() == 0 or abs(float(np.corrcoef(arm, time)[0, 1])) < BALANCED:
        return None
    hours = time / 3600
    design = np.concatenate([sample.arm[None].astype(float), hours[None], inside]).T
    free = count - design.shape[1]
    if free < 1:
        return Drift(0.0, 0.0, 1.0)
    solution, _, rank, _ = np.linalg.lstsq(design, sample.log_slowness, rcond=None)
    if rank < design.shape[1]:
        return Drift(0.0, 0.0, 1.0)
    residual = sample.log_slowness - design @ solution
    covariance = float(residual @ residual) / free * np.linalg.inv(design.T @ design)
    return Drift(float(solution[0]), math.sqrt(max(covariance[0, 0], 1e-18)), float(free))


# --- no change at all ---


@dataclass(frozen=True)
class Permutation:
    """How often arms dealt at random differ as much as the real ones."""

    p_slower: float
    p_faster: float
    arrangements: int  # that there are; the smallest p is one over it

    @property
    def p(self) -> float:
        """Two-sided."""
        return min(1.0, 2 * min(self.p_slower, self.p_faster))


def permutation(sample: Observations) -> Permutation:
    """Arms permuted among each host's units, blocks as they are; where hosts are the units, signs of their differences."""
    found = units(sample)
    if found.level == "host":
        signs = np.array([found.of(host, 1)[0] - found.of(host, 0)[0] for host in found.hosts])
        count = 2 ** len(signs)
        if count <= ARRANGEMENTS:
            flips = np.array(list(itertools.product((1, -1), repeat=len(signs))))
        else:
            flips = np.random.default_rng(SEED).choice([1, -1], (ARRANGEMENTS, len(signs)))
        return _share(flips @ signs / len(signs), float(signs.mean()), count)
    per_host, count = [], 1
    for host in found.hosts:
        baseline, candidate = found.of(host, 0), found.of(host, 1)
        both = np.concatenate([baseline, candidate])
        weights = _deals(len(baseline), len(candidate))
        per_host.append(both @ weights)
        count *= math.comb(len(both), len(baseline))
    observed = float(np.mean([found.of(host, 1).mean() - found.of(host, 0).mean() for host in found.hosts]))
    if len(per_host) == 1:
        return _share(per_host[0], observed, count)
    if count <= ARRANGEMENTS:
        means = per_host[0]
        for each in per_host[1:]:
            means = np.add.outer(means, each).ravel()
        return _share(means / len(per_host), observed, count)
    generator = np.random.default_rng(SEED)
    drawn = sum(generator.choice(each, ARRANGEMENTS) for each in per_host)
    return _share(np.asarray(drawn) / len(per_host), observed, count)


def _share(dealt: Floats, observed: float, count: int) -> Permutation:
    """p-values with the real arrangement counted among those that were drawn (Phipson and Smyth 2010)."""
    tolerance = 1e-12 + 1e-9 * abs(observed)
    extra = int(len(dealt) < count)
    slower = (float((dealt >= observed - tolerance).sum()) + extra) / (len(dealt) + extra)
    faster = (float((dealt <= observed + tolerance).sum()) + extra) / (len(dealt) + extra)
    return Permutation(slower, faster, count)


@lru_cache(maxsize=64)
def _deals(baseline: int, candidate: int) -> Floats:
    """(units, arrangements): weights by which a host's units become candidate mean - baseline mean."""
    total = baseline + candidate
    if math.comb(total, candidate) <= ARRANGEMENTS:
        chosen = np.zeros((math.comb(total, candidate), total), bool)
        for row, members in enumerate(itertools.combinations(range(total), candidate)):
            chosen[row, list(members)] = True
    else:
        order = np.random.default_rng(SEED).random((ARRANGEMENTS, total)).argsort(1)
        chosen = order < candidate
    weights: Floats = np.where(chosen, 1 / candidate, -1 / baseline).T
    return weights


# --- what stands out ---


@dataclass(frozen=True)
class Outlier:
    """A run that its arm's other runs on the same host do not explain."""

    index: int  # in the sample
    log_deviation: float  # from the mean of the others; above 0: slower


OUTLIER_P = 0.01


def outliers(sample: Observations) -> list[Outlier]:
    """By the deviation from the others of its cell, studentized without the run itself, Bonferroni over the runs."""
    cells: dict[tuple[int, int], list[int]] = {}
    for index, key in enumerate(zip(sample.host.tolist(), sample.arm.tolist(), strict=True)):
        cells.setdefault(key, []).append(index)
    residual = np.zeros(len(sample.arm))
    for members in cells.values():
        residual[members] = sample.log_slowness[members] - sample.log_slowness[members].mean()
    squares, free = float((residual**2).sum()), len(residual) - len(cells)
    found = []
    for members in cells.values():
        size = len(members)
        for index in members:
            if size < 3 or free < 3:
                continue
            own = float(residual[index]) ** 2 * size / (size - 1)
            rest = max((squares - own) / (free - 1), sample.resolution**2, 1e-18)
            p = 2 * student.upper(free - 1, math.sqrt(own / rest))
            if p * len(residual) < OUTLIER_P:
                found.append(Outlier(index, float(residual[index]) * size / (size - 1)))
    return found


def hodges_lehmann(sample: Observations) -> float:
    """The median of all differences candidate - baseline within hosts: what the typical runs say, outliers aside."""
    return float(np.median(_pairs(sample.paired())))


def cliffs_delta(sample: Observations) -> float:
    """Share of pairs in which the candidate is slower less the share in which it is faster: -1 to 1."""
    return float(np.sign(_pairs(sample.paired())).mean())


def _pairs(sample: Observations) -> Floats:
    return np.concatenate(
        [
            np.subtract.outer(
                sample.log_slowness[(sample.host == host) & (sample.arm == 1)],
                sample.log_slowness[(sample.host == host) & (sample.arm == 0)],
            ).ravel()
            for host in sorted(set(sample.host.tolist()))
        ]
    )
