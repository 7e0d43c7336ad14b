"""One metric of two arms as arrays: what the statistics work on, and nothing of logs.

Every value is the natural logarithm of one run's figure, turned so that more is slower. A run is the smallest thing that
counts: steps and epochs within it are not independent (in 46 published runs the spread of run means is 1.5 times, at worst
11.7 times, what their steps promise), so they never enter as replicates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Level = Literal["run", "block", "host"]

HOSTS_AS_UNITS = 5  # from so many paired hosts on they are what was sampled; fewer are taken as the hosts that matter


@dataclass(frozen=True)
class Observations:
    """Runs of one metric; all arrays have one entry a run, in any order."""

    log_slowness: Floats
    arm: Ints  # 0 baseline, 1 candidate
    host: Ints  # numbered from 0
    block: Ints  # numbered within host; see runs.blocks: one of both arms has its runs for replicates
    time: Floats  # Unix seconds of run_start; NaN where not known
    resolution: float = 0.0  # standard deviation of log_slowness that the log's clock alone brings

    @classmethod
    def of(cls, baseline: Sequence[float], candidate: Sequence[float], resolution: float = 0.0) -> Observations:
        """Figures (seconds, say) of one host without blocks or times."""
        values = np.log(np.array([*baseline, *candidate], float))
        arm = np.repeat([0, 1], [len(baseline), len(candidate)])
        zeros = np.zeros(len(values), np.int64)
        return cls(values, arm, zeros, zeros, np.full(len(values), np.nan), resolution)

    def chosen(self, keep: NDArray[np.bool_]) -> Observations:
        """The runs where `keep` is true."""
        return Observations(
            self.log_slowness[keep],
            self.arm[keep],
            self.host[keep],
            self.block[keep],
            self.time[keep],
            self.resolution,
        )

    def paired(self) -> Observations:
        """The runs of hosts that have both arms: only within a host do the arms differ in nothing else."""
        both = set(self.host[self.arm == 0].tolist()) & set(self.host[self.arm == 1].tolist())
        return self.chosen(np.isin(self.host, list(both)))

    @property
    def counts(self) -> tuple[int, int]:
        """Runs of each arm."""
        candidate = int(self.arm.sum())
        return len(self.arm) - candidate, candidate


@dataclass(frozen=True)
class Units:
    """The replicates: runs, or blocks where the arm changed between blocks, or hosts where there are many."""

    level: Level
    value: Floats
    arm: Ints
    host: Ints
    runs: Ints  # how many each stands for
    noise: float = 0.0  # variance of the arms' difference by the spread of runs within blocks; blocks are no quieter
    confounded: bool = False  # one block an arm, so that what a block shifts is not known: the units are its runs

    def of(self, host: int, arm: int) -> Floats:
        """Values of one arm on one host."""
        chosen: Floats = self.value[(self.host == host) & (self.arm == arm)]
        return chosen

    @property
    def hosts(self) -> list[int]:
        return sorted(set(self.host.tolist()))


def units(sample: Observations) -> Units:
    """What was repeated with the arm changed in between. ValueError where no host has both arms.

    Where a block is of one arm, as in A B B A, blocks are the replicates: what a reboot or an installation changes is shared
    by all runs of a block. With one block an arm on one host that cannot be told from the arm itself.
    """
    paired = sample.paired()
    if not len(paired.arm):
        raise ValueError("no host has runs of both arms")
    cells = _cells(paired)
    hosts = sorted(set(paired.host.tolist()))
    by_turns = [host for host in hosts if _shared(cells, host)]
    runs = Units("run", paired.log_slowness, paired.arm, paired.host, np.ones(len(paired.arm), np.int64))
    if len(hosts) >= HOSTS_AS_UNITS:
        return cells_of_hosts(paired)
    if by_turns == hosts:
        return runs
    repeated = all(any(sum(key[:2] == (host, arm) for key in cells) > 1 for arm in (0, 1)) for host in hosts)
    if (
        by_turns or not repeated
    ):  # runs in one place and blocks in another, or a host whose boots shift nobody knows how much
        return cells_of_hosts(paired) if len(hosts) > 1 else replace(runs, confounded=True)
    grouped = [paired.log_slowness[index] for index in cells.values()]
    return Units(
        "block",
        np.array([group.mean() for group in grouped]),
        np.array([arm for _, arm, _ in cells]),
        np.array([host for host, _, _ in cells]),
        np.array([len(group) for group in grouped]),
        _noise(list(cells), grouped),
    )


def _noise(cells: Sequence[tuple[int, int, int]], grouped: Sequence[Floats]) -> float:
    """Of runs within blocks, one variance an arm; 0 where every block is one run."""
    total = 0.0
    for arm in (0, 1):
        mine = [group for (_, side, _), group in zip(cells, grouped, strict=True) if side == arm]
        of_hosts = [host for host, side, _ in cells if side == arm]
        count = Counter(of_hosts)
        free = sum(len(group) - 1 for group in mine)
        spread = sum(float(((group - group.mean()) ** 2).sum()) for group in mine) / max(free, 1)
        brought = sum(spread / len(group) / count[host] ** 2 for host, group in zip(of_hosts, mine, strict=True))
        total += brought / len(count) ** 2
    return total


def _shared(cells: Iterable[tuple[int, int, int]], host: int) -> bool:
    """Whether a block of the host has runs of both arms."""
    a, b = ({block for where, side, block in cells if (where, side) == (host, arm)} for arm in (0, 1))
    return bool(a & b)


def cells_of_hosts(sample: Observations) -> Units:
    """One value an arm and host: the mean of its runs."""
    value, arms, hosts, runs = [], [], [], []
    for host in sorted(set(sample.host.tolist())):
        for arm in (0, 1):
            chosen = sample.log_slowness[(sample.host == host) & (sample.arm == arm)]
            value.append(chosen.mean())
            arms.append(arm)
            hosts.append(host)
            runs.append(len(chosen))
    return Units("host", np.array(value), np.array(arms), np.array(hosts), np.array(runs))


def _cells(sample: Observations) -> dict[tuple[int, int, int], NDArray[np.intp]]:
    """Indices of the runs of each host, arm and block."""
    keys = list(zip(sample.host.tolist(), sample.arm.tolist(), sample.block.tolist(), strict=True))
    return {key: np.array([i for i, each in enumerate(keys) if each == key]) for key in sorted(set(keys))}
