"""Which result logs lie under a path, and which of them belong together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.results.lines import MARK
from harness.results.logfile import read
from harness.results.record import RunRecord

RESULT = re.compile(r"result_(\d+)\.txt")
OTHER = (".txt", ".log", ".out")  # names that runs get outside a submission
SNIFF = 1 << 20  # bytes in which a log has its first marked line


@dataclass(frozen=True)
class Series:
    """Runs of one configuration on one system, in the order of their names."""

    name: str
    folder: Path
    records: tuple[RunRecord, ...]

    @property
    def first(self) -> RunRecord:
        return self.records[0]

    @cached_property
    def description(self) -> dict[str, Any]:
        """The system description where the series lies in a package, ORG/results/SYSTEM/BENCHMARK; {} elsewhere."""
        folder = self.folder.resolve()
        if folder.parent.parent.name != "results":
            return {}
        path = folder.parents[2] / "systems" / f"{folder.parent.name}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):  # check tells of these
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def accelerators(self) -> int | None:
        """As the system description says, else as the first log does."""
        nodes, each = (str(self.description.get(key, "")) for key in ("number_of_nodes", "accelerators_per_node"))
        described = int(nodes) * int(each) if nodes.isdecimal() and each.isdecimal() else 0
        return described or self.first.accelerators


def find_series(paths: Iterable[Path]) -> list[Series]:
    """Every series under these folders and files. ValueError where a path is not there or holds no log.

    A folder is a series. Only where its logs carry our own configuration are different configurations told apart; a
    submitter's folder counts as one, as MLPerf's tools have it.
    """
    found: dict[Path, list[Path]] = {}
    for path in paths:
        logs = find_logs(path)
        if not logs:
            raise ValueError(f"{path}: no result log in it; name a folder with result_*.txt, or a log itself")
        for log in logs:
            known = found.setdefault(log.parent, [])
            if log not in known:
                known.append(log)
    return [series for folder, logs in found.items() for series in _split(folder, logs)]


def find_logs(path: Path) -> list[Path]:
    """The logs under a folder, or the file itself, in natural order. ValueError where there is no such path."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path}: no such file or folder")
    folders: dict[Path, list[Path]] = {}
    for file in path.rglob("*"):
        if file.suffix in OTHER and file.is_file():
            folders.setdefault(file.parent, []).append(file)
    return [log for folder in sorted(folders, key=natural) for log in _logs_of(folders[folder])]


def natural(path: Path) -> tuple[object, ...]:
    """So that result_10 comes after result_9."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", str(path)))


def _logs_of(files: list[Path]) -> list[Path]:
    named = [file for file in files if RESULT.fullmatch(file.name)]
    return sorted(named or (file for file in files if _has_mark(file)), key=natural)


def _has_mark(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return MARK in opened.read(SNIFF)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error


def _record(file: Path) -> RunRecord:
    try:
        return read(file)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error


def _split(folder: Path, logs: list[Path]) -> Iterator[Series]:
    groups: dict[str | None, list[RunRecord]] = {}
    for record in map(_record, sorted(logs, key=natural)):
        groups.setdefault(record.configuration_sha256, []).append(record)
    for sha256, records in groups.items():
        name = series_name(folder)
        if len(groups) > 1:
            name += f" [{records[0].configuration_name or (sha256 or 'no configuration')[:12]}]"
        yield Series(name, folder, tuple(records))


def series_name(folder: Path) -> str:
    """The system's folder in a submission's results/SYSTEM/BENCHMARK; elsewhere the folder's own name."""
    folder = folder.resolve()
    in_results = "results" in (folder.parent.parent.name, folder.parent.name)
    return f"{folder.parent.name}/{folder.name}" if in_results and folder.parent.name != "results" else folder.name
