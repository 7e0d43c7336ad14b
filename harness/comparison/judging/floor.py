"""A machine's own floor: what A against A showed there, kept with its results, within which nothing is slower or faster.

A floor is of runs like those that are compared: of their host, configuration and steps, and of the driver of an arm. Twenty
steps vary more than four hundred, and another driver's noise is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import outside
from harness.comparison.judging.metrics import MEAN, MEDIAN
from harness.comparison.runs import ComparedRun
from harness.results.said import number

FILE = "noise.json"
LEVELS_UP = 4  # folders above a run's own up to which its system's floor may lie, or a folder noise* with it


@dataclass(frozen=True)
class Floor:
    """Of one host and configuration."""

    path: str
    host: str
    configuration_sha256: str | None
    floors: Mapping[str, float]  # metric -> the smallest delta with which A against A is hardly ever called different
    steps: str  # --max-steps of its runs, "all" without, "" in a file from before it said
    driver: tuple[str, ...]  # Identity.key
    unfit: str = ""  # why it is not for the runs at hand; its floors are not used then


def find(runs: Sequence[ComparedRun]) -> Floor | None:
    """The floor that was measured on the host of all these runs, with their configuration; None where there is none.

    One of other steps or another driver only where there is none better, as unfit.
    """
    hosts = {run.host for run in runs}
    shas = {run.record.configuration_sha256 for run in runs}
    machines = {run.machine for run in runs}  # as it was called before logs told which GPUs were used
    if len(hosts) != 1 or len(shas) != 1:
        return None
    unfit: list[Floor] = []
    folders = {folder for run in runs for folder in run.above(LEVELS_UP)}
    for folder in sorted(folders, key=lambda each: -len(each.parts)):
        for path in (folder / FILE, *sorted(folder.glob(f"noise*/{FILE}"))):
            found = read(path)
            if found is not None and found.host in {*hosts, *machines} and found.configuration_sha256 in shas:
                reason = _why_unfit(found, runs)
                if not reason:
                    return found
                unfit.append(replace(found, unfit=reason))
    return unfit[0] if unfit else None


def _why_unfit(found: Floor, runs: Sequence[ComparedRun]) -> str:
    steps = sorted({steps_of(run.record.max_steps) for run in runs})
    if not found.steps:
        return "it does not say of how many steps its runs were; make it again"
    if steps != [found.steps]:
        return f"its runs were of {found.steps} steps, these of {' and '.join(steps)}"
    if found.driver not in {run.driver.key for run in runs}:
        return f"its runs were of the driver {found.driver[0] or 'none'}, of neither arm"
    return ""


def steps_of(max_steps: int | None) -> str:
    return "all" if max_steps is None else str(max_steps)


def read(path: Path) -> Floor | None:
    """None where there is no such file, or it is another program's."""
    try:
        content = outside.read_json(path)
        floors = {str(name): value for name, each in content["floors"].items() if (value := number(each)) is not None}
        if MEDIAN in floors:  # of before the mean was measured, which is no quieter
            floors.setdefault(MEAN, floors[MEDIAN])
        steps = str(content.get("steps", ""))
        driver = tuple(map(str, content.get("driver_key") or ("",)))
        return Floor(str(path), str(content["host"]), content["configuration_sha256"], floors, steps, driver)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
