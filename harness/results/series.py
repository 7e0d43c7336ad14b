"""Which result logs lie under a path, and which of them belong together.

A file or folder that cannot be read is told of in one line and costs nothing else: as a run that is none where it has the name
of a result, else to who asked.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import names, outside
from harness.names import natural
from harness.results import sysdesc
from harness.results.lines import MARK
from harness.results.logfile import read_whatever
from harness.results.record import RunRecord

NOT_NAMED = "beside result_N.txt only files of such a name count as runs"  # why a log was left out
NAMED = 3  # files of a folder in one line; how many more there are is said
HASH_LENGTH = 12  # of a configuration's SHA-256, as much as tells it from another
OTHER = (".txt", ".log", ".out")  # names that runs get outside a submission
SNIFF = 1 << 20  # bytes in which a log has its first marked line
DESCRIPTION = "system.json"  # of a system in a collection, beside its benchmarks

Say = Callable[[str], None]


@dataclass(frozen=True)
class Series:
    """Runs of one configuration on one system, in the order of their names."""

    name: str
    folder: Path
    records: tuple[RunRecord, ...]
    left_out: tuple[Path, ...] = ()  # what lies beside them and is no run by its name; see `find_logs`

    @property
    def first(self) -> RunRecord:
        """The first run that has begun and has a log; any that has one, or any, where none has."""
        said = [record for record in self.records if record.events]
        return next((record for record in said if not record.in_init), [*said, *self.records][0])

    @property
    def begun(self) -> list[RunRecord]:
        """Without logs that end in their init: no run's clock began there, whose time or place could count."""
        return [each for each in self.records if not each.in_init]

    @property
    def not_begun(self) -> list[RunRecord]:
        """Those others."""
        return [each for each in self.records if each.in_init]

    @property
    def unread(self) -> list[RunRecord]:
        """Runs whose logs say nothing, each with its reason."""
        return [each for each in self.records if not each.events]

    @property
    def system(self) -> str:
        """SYSTEM of SYSTEM/BENCHMARK, the place of a series in every submission and collection; else the folder's name."""
        folder = self.folder.resolve()
        return folder.parent.name if folder.name == self.first.benchmark else folder.name

    @cached_property
    def description(self) -> dict[str, Any]:
        """The system's description where the series lies in a package or a collection; {} elsewhere."""
        for path in description_places(self.folder):
            try:
                content = outside.read_json(path)
            except (OSError, ValueError):  # check tells of these
                continue
            if isinstance(content, dict):
                return content
        return {}

    @property
    def submitter(self) -> str | None:
        """Whose result it is: as the description says, since logs made with a vendor's scripts name the vendor."""
        described = self.description.get("submitter")
        return described if isinstance(described, str) and described.strip() else self.first.org

    @property
    def accelerators(self) -> int | None:
        """As our own configuration says, else as the system description does, else by the first log's ranks and batches.

        A description is written by hand, and the class in which a result is ranked is not a matter of opinion.
        """
        return self.first.accelerators_configured or sysdesc.accelerators(self.description) or self.first.accelerators


def description_places(folder: Path) -> list[Path]:
    """Where the system description of a series' folder may be, ORG/systems/SYSTEM.json first."""
    folder = folder.resolve()
    if len(folder.parents) < 3:
        return []
    return [folder.parents[2] / "systems" / f"{folder.parent.name}.json", folder.parent / DESCRIPTION]


def find_series(paths: Iterable[Path], say: Say | None = None) -> list[Series]:
    """Every series under these folders and files. ValueError where a path is not there, or none of them holds a log.

    A folder is a series. Only where its logs carry our own configuration are different configurations told apart; a
    submitter's folder counts as one, as MLPerf's tools have it. `say` is told of what has no log or cannot be read.
    """
    found: dict[Path, list[Path]] = {}
    left_out: list[Path] = []
    empty = []
    for path in paths:
        unread: list[str] = []
        logs = find_logs(path, unread.append, left_out.append)
        if not logs:
            empty += unread or [nothing_in(path)]
        elif say is not None:
            for each in unread:
                say(each)
        for log in logs:
            known = found.setdefault(log.parent, [])
            if log not in known:
                known.append(log)
    if empty and (say is None or not found):
        raise ValueError("\n".join(empty))
    for each in empty:
        assert say is not None
        say(each)
    beside = by_folder(left_out)
    return [series for folder, logs in found.items() for series in _split(folder, logs, beside.get(folder, []))]


def nothing_in(path: Path) -> str:
    """Of a path in which `find_logs` finds none."""
    return f"{path}: no result log in it; name a folder with {names.RESULTS}, or a log itself"


def by_folder(paths: Iterable[Path]) -> dict[Path, list[Path]]:
    """Each once, by the folder that it lies in."""
    found: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(paths):
        found.setdefault(path.parent, []).append(path)
    return found


def left_out_words(paths: Iterable[Path]) -> Iterator[str]:
    """A line for each folder in which `find_logs` has left something out."""
    for folder, left in by_folder(paths).items():
        more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
        named = ", ".join(path.name for path in left[:NAMED])
        yield f"{folder}: left out: {named}{more}: {NOT_NAMED}"


def find_logs(path: Path, say: Say | None = None, left_out: Callable[[Path], None] = lambda _path: None) -> list[Path]:
    """The logs under a folder, or the file itself, in natural order. ValueError where there is no such path.

    Where a folder has a result_N.txt, other names are no runs': `left_out` is told of those that are logs all the same, or that
    MLPerf's tools would count.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        told = "no such file or folder" if isinstance(error, FileNotFoundError) else error.strerror
        raise ValueError(f"{path}: {told}") from error
    if stat.S_ISREG(mode):
        return [path]
    if not stat.S_ISDIR(mode):
        raise ValueError(f"{path}: no regular file")
    logs: dict[Path, list[Path]] = {}

    def cannot(error: OSError) -> None:
        if say is not None:
            say(f"{error.filename}: cannot be read: {error.strerror}")

    for folder, files in _folders(path, cannot):
        candidates = [file for file in (folder / name for name in files) if may_be_log(file)]
        if candidates:
            logs[folder] = _logs_of(candidates, say, left_out)
    return [log for folder in sorted(logs, key=natural) for log in logs[folder]]


def _of_a_comparison(files: Collection[str], folders: Collection[str]) -> bool:
    """Whether these lie in a folder of `compare run` or `compare noise`: a plan with its arms, or runs with their warm-up."""
    return (names.PLAN in files and "arms" in folders) or {"runs", "warm-up"} <= set(folders)


def _folders(path: Path, cannot: Callable[[OSError], None]) -> Iterator[tuple[Path, list[str]]]:
    """`path` and the folders in it, each once, with the names of their files; a linked one where it is not there itself too.

    Not those of meters, nor of what is being made: a leading dot; nor those of a comparison that count nowhere. A link that
    leads to what `path` lies in is none of it.
    """
    seen: set[Path] = set()
    waiting, whole = [path], outside.real(path)
    for start in waiting:  # grows
        for at, inner, files in os.walk(start, onerror=cannot):
            folder = Path(at)
            if (real := outside.real(folder)) in seen:
                inner.clear()
                continue
            seen.add(real)
            compares = _of_a_comparison(files, inner)
            inner[:] = sorted(
                each
                for each in inner
                if not each.startswith(".")
                and not (each == names.POWER and _of_meters(folder))
                and not (compares and each in names.NOT_COUNTED)
            )
            links = [folder / each for each in inner if (folder / each).is_symlink()]
            waiting += [each for each in links if not whole.is_relative_to(outside.real(each))]
            yield folder, files


def _of_meters(folder: Path) -> bool:
    """Whether power/ of a result's folder is what MLPerf's power measurement leaves: meters' logs, a folder for each run."""
    return any(folder.glob(names.RESULTS)) and not any((folder / names.POWER).glob(names.RESULTS))


def may_be_log(path: Path) -> bool:
    """By its name; not of a run that was not begun, of a broken attempt, or of what is not finished."""
    name = path.name
    return name.lower().endswith(OTHER) and not name.startswith((names.REFUSED, ".")) and names.BROKEN not in name


def _logs_of(files: list[Path], say: Say | None, left_out: Callable[[Path], None]) -> list[Path]:
    named = [file for file in files if names.number(file) is not None]
    others = [file for file in files if names.number(file) is None and not _names_a_result_again(file)]
    if not named:
        return sorted((file for file in others if has_mark(file, say)), key=natural)
    for file in sorted(others, key=natural):
        if file.match(names.RESULTS) or has_mark(file):
            left_out(file)
    return sorted(named, key=natural)


def _names_a_result_again(file: Path) -> bool:
    """Whether it is a link to a result_N.txt, which is found where it lies: see --datestamp."""
    return file.is_symlink() and names.number(outside.real(file)) is not None


def has_mark(file: Path, say: Say | None = None) -> bool:
    """Whether it is a result log, whatever its name."""
    try:
        with outside.opened(file, outside.LOG_LIMIT) as opened:
            return MARK in opened.read(SNIFF)
    except (OSError, outside.Refused) as error:
        if say is not None:
            say(f"{file}: {outside.why(file, error)}")
    return False


def _split(folder: Path, logs: list[Path], left_out: Iterable[Path]) -> Iterator[Series]:
    """By configuration. A log that ends before it says its own belongs to the folder's series, where there is but one.

    What is left out of the folder is the first one's to tell.
    """
    beside = [path for path in left_out if path not in logs]
    records = [read_whatever(log) for log in sorted(logs, key=natural)]
    told = {
        each.configuration_sha256 for each in records if each.events and (each.configuration_sha256 or not each.in_init)
    }
    groups: dict[str | None, list[RunRecord]] = {}
    for record in records:
        (sha256,) = told if len(told) == 1 else (record.configuration_sha256,)
        groups.setdefault(sha256, []).append(record)
    labels = Counter(alike[0].configuration_name or "" for alike in groups.values())
    for place, (sha256, alike) in enumerate(groups.items()):
        name, label = series_name(folder, alike[0]), alike[0].configuration_name or ""
        if len(groups) > 1:
            digest = sha256[:HASH_LENGTH] if sha256 else "no configuration"
            name += f" [{label if label and labels[label] == 1 else f'{label} {digest}'.strip()}]"
        yield Series(name, folder, tuple(alike), tuple(beside) if place == 0 else ())


def series_name(folder: Path, record: RunRecord) -> str:
    """SYSTEM/BENCHMARK where a log lies in such folders, whatever is above them; elsewhere the folder's own name."""
    folder = folder.resolve()
    return f"{folder.parent.name}/{folder.name}" if folder.name == record.benchmark else folder.name
