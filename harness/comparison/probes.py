"""What `harness probe` left beside the results of both arms, figure by figure. It explains; no verdict rests on it.

A probe is an arm's where it lies beside that arm's logs, or in a folder above them that holds none of the other arm's, and was
made on a host and with a driver that the arm's runs had.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import names, outside
from harness.comparison import identity
from harness.comparison.runs import NAMES, ComparedRun, by_host
from harness.results.said import number

LEVELS_UP = 2  # folders above a run's own: a plan has arms/NAME/host-1_block-1_run-1
SMALLEST = 1e-12  # a median that a probe can mean, in any of its units
SHOWN = 40  # figures; a file from elsewhere may hold any number


@dataclass(frozen=True)
class ProbeRow:
    """One figure that both arms have."""

    name: str
    unit: str
    what: str  # sizes and formats, the same in both arms
    medians: tuple[float, float]  # of each arm, over hosts of each host's

    @property
    def ratio(self) -> float:
        return self.medians[1] / self.medians[0]


@dataclass(frozen=True)
class Probes:
    """Of both arms."""

    counts: tuple[int, int] = (0, 0)
    rows: tuple[ProbeRow, ...] = ()
    notes: tuple[str, ...] = ()


_Key = tuple[str, str, str]
_Figures = Mapping[_Key, float]


def beside(runs: Sequence[ComparedRun]) -> Probes:
    """What lies there; none of it can make an error.

    Machines differ by more than drivers do: as of runs, each host's are held against each other, and hosts weigh alike.
    """
    folders = [_folders(runs, arm) for arm in (0, 1)]
    found: list[list[tuple[_Figures, set[int]]]] = [[], []]
    notes: list[str] = []
    for arm in (0, 1):
        for folder in sorted(folders[arm] - folders[1 - arm] - _of_logs(runs, 1 - arm)):
            for path in names.probes_in(folder):
                read = _read(path, [run for run in runs if run.arm == arm])
                if isinstance(read, str):
                    notes.append(f"{NAMES[arm]}: {path.name} is not shown: {read}")
                else:
                    found[arm].append(read)
    of_hosts = [[_of(own, each) for each in found] for own in by_host(runs)]
    paired = [arms for arms in of_hosts if all(arms)]
    if all(found) and not paired:
        notes.append("probes are not shown: no host that enters the ratio has them of both arms")
    rows = []
    for key in dict.fromkeys(key for arms in paired for probe in arms[0] for key in probe):
        values = [[[probe[key] for probe in each if key in probe] for each in arms] for arms in paired]
        if told := [[statistics.median(each) for each in arms] for arms in values if all(arms)]:
            a, b = (statistics.median(each) for each in zip(*told, strict=True))
            rows.append(ProbeRow(*key, (a, b)))
    sizes = [{name: what for arms in paired for probe in arms[arm] for name, _, what in probe} for arm in (0, 1)]
    for name in sorted(sizes[0].keys() & sizes[1].keys() - {row.name for row in rows}):
        notes.append(f"{name}: {NAMES[0]} of {sizes[0][name]}, {NAMES[1]} of {sizes[1][name]}: not the same thing")
    a, b = (sum(len(arms[arm]) for arms in paired or of_hosts) for arm in (0, 1))
    return Probes((a, b), tuple(rows[:SHOWN]), tuple(notes))


def _of(runs: Sequence[ComparedRun], probes: Sequence[tuple[_Figures, set[int]]]) -> list[_Figures]:
    """Those that speak for some of these runs."""
    return [figures for figures, its in probes if not its.isdisjoint(map(id, runs))]


def _of_logs(runs: Sequence[ComparedRun], arm: int) -> set[Path]:
    return {outside.real(Path(run.record.path)).parent for run in runs if run.arm == arm}


def _folders(runs: Sequence[ComparedRun], arm: int) -> set[Path]:
    return {folder for run in runs if run.arm == arm for folder in run.above(LEVELS_UP)}


def _read(path: Path, runs: Sequence[ComparedRun]) -> tuple[_Figures, set[int]] | str:
    """The medians of a probe's figures and the ids of its host's runs, or why it does not speak for these."""
    try:
        content = outside.read_json(path)
        hardware, software = content["hardware"], content["software"]
        used = [str(each) for each in content.get("device_uuids", [])]
        driver = identity.of(software, identity.gpus(hardware, used))
        figures = {_key(each): value for each in content["figures"] if (value := number(each["median"]))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "it cannot be read as a probe"
    its = {id(run) for run in runs if _same_host(run, hardware, used)}
    if not its:
        return "it is of another host"
    if driver.key not in {run.driver.key for run in runs}:
        return f"it was made with another driver: {driver}"
    return {key: value for key, value in figures.items() if value >= SMALLEST}, its


def _same_host(run: ComparedRun, hardware: Mapping[str, Any], used: Sequence[str]) -> bool:
    """By the devices that both used, or by all of the machine's where one does not tell which, as older files."""
    if used and run.record.device_uuids:
        return identity.host(hardware, used) == run.host
    return identity.host(hardware) == run.machine


def _key(figure: Mapping[str, Any]) -> _Key:
    return str(figure["name"])[:80], str(figure["unit"])[:20], str(figure.get("what", ""))[:80]
