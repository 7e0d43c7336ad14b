"""A published data set and the backbone's weights: verified where they are, downloaded where they are not.

What `python -m harness prepare` does for SSD. It goes by what lies in the folder and keeps no state: after an
interruption it does the rest, on a complete folder it only looks. A folder in COCO form that is not the whole data
set needs no preparing: its counts are reported and nothing is downloaded over it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.detection import tar_archive
from benchmarks.detection.download import (
    FetchError,
    Progress,
    RemoteFile,
    Say,
    downloaded_bytes,
    fetch,
    gigabytes,
    unpack,
    unpacked_bytes,
)
from benchmarks.detection.full_coco import COCO_2017, Problem


class DataSet(Protocol):
    """What can be prepared."""

    @property
    def name(self) -> str: ...

    @property
    def option(self) -> str:
        """What the command line of `prepare` ends in for it; "" for what is prepared without being named."""
        ...

    @property
    def archives(self) -> list[RemoteFile]: ...

    @property
    def backbone(self) -> RemoteFile: ...

    def verify(self, data_dir: Path, say: Say, progress: Progress) -> list[Problem]:
        """Whether the folder holds all of it."""
        ...

    def make(self, data_dir: Path, progress: Progress) -> None:
        """What is not published but made of what is."""
        ...


def prepare(
    data_dir: Path,
    *,
    verify_only: bool,
    confirm: Callable[[str], bool],
    say: Say,
    progress: Progress,
    data_set: DataSet = COCO_2017,
) -> list[str]:
    """Make `data_dir` a complete copy of `data_set` with the backbone's weights. Returns the problems left.

    `confirm` is asked before anything is downloaded. Archives put into `data_dir` by hand are used, and none is ever
    deleted. A Ctrl-C keeps what was downloaded (as NAME.part) and unpacked.
    """
    try:
        problems = data_set.verify(data_dir, say, progress)
        if problems and not verify_only and all(problem.remedy or problem.made for problem in problems):
            if refusal := _mend(data_dir, data_set, problems, confirm=confirm, say=say, progress=progress):
                return refusal
            data_set.make(data_dir, progress)
            problems = data_set.verify(data_dir, say, progress)
    except (FetchError, OSError) as error:
        return [f"{error}; what was downloaded and unpacked in {data_dir} is kept, run again to go on"]
    if not problems:
        say(f"{data_dir}: {data_set.name} is complete; --initial-weights {data_dir / data_set.backbone.name}")
        if left := [data_dir / archive.name for archive in data_set.archives if (data_dir / archive.name).exists()]:
            size = gigabytes(sum(path.stat().st_size for path in left))
            say(f"no longer needed ({size}): {' '.join(map(str, left))}")
    return _texts(problems, data_dir, data_set)


def _mend(
    data_dir: Path,
    data_set: DataSet,
    problems: Sequence[Problem],
    *,
    confirm: Callable[[str], bool],
    say: Say,
    progress: Progress,
) -> list[str]:
    """Download and unpack what fixes `problems`. Returns why not, or nothing."""
    remedies = sorted({p.remedy for p in problems if p.remedy}, key=lambda remote: remote.size)
    if not remedies:
        return []
    download = sum(remote.size - downloaded_bytes(remote, data_dir) for remote in remedies)
    unpacked = sum(remote.unpacked_size - unpacked_bytes(remote, data_dir) for remote in remedies)
    free = _free_bytes(data_dir)
    plan = f"{gigabytes(download)} to download, {gigabytes(unpacked)} to unpack, {gigabytes(free)} free"
    if download + unpacked > free:
        return [f"{data_dir}: {plan}; nothing was downloaded: make room or name another --data-dir"]
    say(f"{data_dir}: {plan}")
    names = ", ".join(remote.name for remote in remedies)
    if download and not confirm(f"Download {gigabytes(download)} to {data_dir} ({names})?"):
        return _texts(problems, data_dir, data_set)
    data_dir.mkdir(parents=True, exist_ok=True)
    for remote in remedies:
        archive = fetch(remote, data_dir, say, progress)
        # a damaged image may have the right size, at which unpacking would pass it by
        for damaged in (path for problem in problems if problem.remedy == remote for path in problem.damaged):
            damaged.unlink()
        if remote.members:
            with_form = tar_archive.unpack if archive.suffix == ".tar" else unpack
            written = with_form(archive, data_dir, remote.members, progress)
            say(f"{remote.name}: {written:,} files unpacked")
    return []


def _texts(problems: Iterable[Problem], data_dir: Path, data_set: DataSet) -> list[str]:
    return [f"{problem.what}; {_way_out(problem, data_dir, data_set)}" for problem in problems]


def _way_out(problem: Problem, data_dir: Path, data_set: DataSet) -> str:
    command = f"`python -m harness prepare --data-dir {data_dir}{data_set.option}`"
    if problem.made:
        return f"{command} makes it"
    if problem.remedy is not None:
        return f"{command} gets {problem.remedy.name} ({gigabytes(problem.remedy.size)})"
    return f"this is another data set, which needs no preparing: for {data_set.name} name another --data-dir"


def _free_bytes(data_dir: Path) -> int:
    existing = next(folder for folder in (data_dir, *data_dir.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free
