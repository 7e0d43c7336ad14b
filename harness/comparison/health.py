"""What makes a figure doubtful though nothing failed: errors of the hardware, clocks held down, a link that lost its width, a
run that was stopped for a while.

Any of it makes a verdict SUSPECT. Power that holds the clocks down does not: a GPU at its limit is as it should be, and how
long it was is shown for both arms.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.comparison.runs import NAMES, ComparedRun, by_host, of_arms
from harness.results.said import number

CLOCKS_APART = 0.01  # by how much the arms' median SM clocks may differ
HELD_SHARE = 0.001  # of a run's time that temperature or board may hold the clocks down before it matters
OVERLAP_S = 1.0  # by which one run may begin before another on its host has ended
REPLAYS = 100  # PCIe corrects single ones; a link that replays a hundred times in a run has a fault


@dataclass(frozen=True)
class Symptom:
    """One reason for doubt."""

    where: str  # a run's name, or both arms and their host where there are several
    text: str


@dataclass(frozen=True)
class Watched:
    """What the hardware of one arm did, medians over a host's runs that have telemetry and means over hosts; None where none
    tells it.
    """

    runs: int  # with telemetry that can be read
    of: int
    clock_sm_mhz: float | None
    clock_memory_mhz: float | None
    power_w: float | None
    temperature_c: float | None
    held_s: float | None  # by what held longest, mean over the runs
    held_by: tuple[str, ...]
    pcie_generation: float | None
    pcie_width: float | None


def watched(runs: Sequence[ComparedRun]) -> tuple[Watched, Watched]:
    """Of the runs that figures are made from."""
    a, b = (_watched(runs, arm) for arm in (0, 1))
    return a, b


def _middles(runs: Sequence[ComparedRun], name: str) -> tuple[float | None, float | None]:
    """Of what telemetry has by this name, each arm's: hosts weigh alike, however many runs they have of either."""
    return of_arms(
        runs,
        lambda run: getattr(run.telemetry, name) if run.telemetry and not run.telemetry.problem else None,
        statistics.median,
    )


def _watched(both: Sequence[ComparedRun], arm: int) -> Watched:
    runs = [run for run in both if run.arm == arm]
    told = [run.telemetry for run in runs if run.telemetry is not None and not run.telemetry.problem]

    def middle(name: str) -> float | None:
        return _middles(both, name)[arm]

    held = [each.held_longest_s for each in told if each.held_longest_s is not None]
    return Watched(
        runs=len(told),
        of=len(runs),
        clock_sm_mhz=middle("clock_sm_mhz"),
        clock_memory_mhz=middle("clock_memory_mhz"),
        power_w=middle("power_w"),
        temperature_c=middle("temperature_c"),
        held_s=statistics.fmean(held) if held else None,
        held_by=tuple(sorted({by for each in told for by, seconds in each.held_s.items() if seconds > 0})),
        pcie_generation=middle("pcie_generation"),
        pcie_width=middle("pcie_width"),
    )


def notes(arms: tuple[Watched, Watched], delta: float) -> Iterable[str]:
    """What is no fault and may be the difference all the same."""
    if any(each.runs for each in arms) and any(each.runs < each.of for each in arms):
        told = " and ".join(f"{each.runs} of {each.of} of {name}'s" for name, each in zip(NAMES, arms, strict=True))
        yield f"telemetry of {told} runs alone: what the hardware did is not compared in the others"
    a, b = (each.clock_sm_mhz for each in arms)
    if a and b and min(delta, CLOCKS_APART) / 2 < abs(b / a - 1) <= CLOCKS_APART:
        yield f"their SM clocks differ by {100 * (b / a - 1):+.2f} %, of the size of what is asked for: lock them to be sure"


def examine(runs: Sequence[ComparedRun]) -> list[Symptom]:
    """All symptoms."""
    return [
        *of_runs(runs),
        *_clocks(runs),
    ]


def of_runs(runs: Sequence[ComparedRun]) -> list[Symptom]:
    """Those that do not lie between the arms."""
    return [*(Symptom(run.name, text) for run in runs for text in _of(run)), *_at_once(runs)]


def _of(run: ComparedRun) -> Iterable[str]:
    if run.record.paused:
        yield f"{run.record.paused}: it was stopped or frozen"
    for gpu in run.gpus:
        name = f"GPU {gpu.get('index', '?')}"
        width, full = number(gpu.get("pcie_width")), number(gpu.get("pcie_width_max"))
        if width is not None and full is not None and width < full:
            yield f"{name}: PCIe is x{width:g} of x{full:g}"
        if number(gpu.get("ecc_uncorrected")):
            yield f"{name}: {gpu['ecc_uncorrected']} uncorrected memory errors since its driver was loaded"
        for key, text in (("rows_remap_failed", "failed"), ("rows_remap_pending", "waits for a reset")):
            if gpu.get(key) is True:
                yield f"{name}: remapping of memory rows {text}"
    found = run.telemetry
    if found is None:
        return
    if found.problem:
        yield f"what its hardware did is not known; its telemetry: {found.problem}"
    for code in found.xid:
        yield f"XID {code}"
    if found.pcie_width is not None and found.pcie_width_max is not None and found.pcie_width < found.pcie_width_max:
        yield f"PCIe went down to x{found.pcie_width} of x{found.pcie_width_max}"
    if found.ecc_uncorrected:
        yield f"{found.ecc_uncorrected} uncorrected memory errors during the run"
    if found.ecc_corrected:
        yield f"{found.ecc_corrected} corrected memory errors during the run"
    if found.pcie_replays is not None and found.pcie_replays > REPLAYS:
        yield f"{found.pcie_replays} PCIe replays during the run"
    seconds = (run.record.run_ms or 0.0) / 1000
    for by in ("temperature", "board_limit", "reliability"):
        held = found.held_s.get(by, 0.0)
        if held > HELD_SHARE * max(seconds, 1.0):
            yield f"clocks held down by {by.replace('_', ' ')} for {held:.1f} s"
    for text in found.slowed:
        yield f"throttled: {text}"


def _at_once(runs: Sequence[ComparedRun]) -> Iterable[Symptom]:
    """Runs of one host that overlap took each other's time, or are one run twice, or the clock was set back between them.

    Of our own alone: other submitters' logs name a kind of machine and not which one.
    """
    spans = sorted(
        (run.host, run.record.run_start_s, run.record.run_stop_s, run.name)
        for run in runs
        if run.own and run.record.run_start_s is not None and run.record.run_stop_s is not None
    )
    for (host, _, stop, name), (other_host, start, _, other) in itertools.pairwise(spans):
        if host == other_host and start < stop - OVERLAP_S:
            yield Symptom(
                other,
                f"it began {stop - start:.1f} s before {name} on the same host ended: they ran beside each other, are one "
                "run twice, or the clock was set back between them",
            )


def _clocks(runs: Sequence[ComparedRun]) -> Iterable[Symptom]:
    """Unequal clocks, and links of unequal speed, explain a difference before any driver does.

    Within each host: two of them may run at clocks of their own, and have unlike numbers of either arm's runs.
    """
    both = f"{NAMES[0]} and {NAMES[1]}"
    hosts = by_host(runs)
    for own in hosts:
        where = both if len(hosts) == 1 else f"{both} on {own[0].host}"
        for what, lock, name in (
            ("SM", "--lock-gpu-clocks", "clock_sm_mhz"),
            ("memory", "--lock-memory-clocks", "clock_memory_mhz"),
        ):
            a, b = _middles(own, name)
            if a and b and abs(b / a - 1) > CLOCKS_APART:
                yield Symptom(
                    where,
                    f"their {what} clocks differ: {a:.0f} and {b:.0f} MHz. Lock them alike (nvidia-smi {lock} MIN,MAX), or "
                    "this is what the candidate changes",
                )
        a, b = _middles(own, "pcie_generation")
        if a and b and a != b:
            yield Symptom(
                where,
                f"their links differ: PCIe generation {a:g} and {b:g} at work. Reboot, or see the slot and the BIOS",
            )
