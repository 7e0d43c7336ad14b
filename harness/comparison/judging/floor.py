"""A machine's own floor: what A against A showed there, kept with its results, below which no verdict is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import outside
from harness.comparison.judging.metrics import MEAN, MEDIAN
from harness.comparison.runs import ComparedRun
from harness.results.record import number

FILE = "noise.json"
LEVELS_UP = 5  # folders above a log in which its system's floor may lie, or a folder noise* with it


@dataclass(frozen=True)
class Floor:
    """Of one host and configuration."""

    path: str
    host: str
    configuration_sha256: str | None
    floors: Mapping[str, float]  # metric -> the smallest delta with which A against A is hardly ever called different


def find(runs: Sequence[ComparedRun]) -> Floor | None:
    """The floor that was measured on the host of all these runs, with their configuration; None where there is none."""
    hosts = {run.host for run in runs}
    shas = {run.record.configuration_sha256 for run in runs}
    machines = {run.machine for run in runs}  # as it was called before logs told which GPUs were used
    if len(hosts) != 1 or len(shas) != 1:
        return None
    folders = {parent for run in runs for parent in list(Path(run.record.path).parents)[:LEVELS_UP]}
    for folder in sorted(folders, key=lambda each: -len(each.parts)):
        for path in (folder / FILE, *sorted(folder.glob(f"noise*/{FILE}"))):
            found = read(path)
            if found is not None and found.host in {*hosts, *machines} and found.configuration_sha256 in shas:
                return found
    return None


def read(path: Path) -> Floor | None:
    """None where there is no such file, or it is another program's."""
    try:
        content = outside.read_json(path)
        floors = {str(name): value for name, each in content["floors"].items() if (value := number(each)) is not None}
        if MEDIAN in floors:  # of before the mean was measured, which is no quieter
            floors.setdefault(MEAN, floors[MEDIAN])
        return Floor(str(path), str(content["host"]), content["configuration_sha256"], floors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
