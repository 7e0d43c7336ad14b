"""A published data set and the backbone's weights: verified where they are, downloaded where they are not.

What `python -m harness prepare` does for every data set. It goes by what lies in the folder and keeps no state: after an
interruption it does the rest, on a complete folder it only looks. A folder of the same form that is not the whole data set
needs no preparing: its counts are reported and nothing is downloaded over it; the weights alone are, where there are none.

What a whole one is, and how its parts are got, is a `DataSet`'s to say: full_coco.py, full_voc.py, and a detector's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.detection.download.fetching import FetchError, InTheWay, Progress, RemoteFile, Say, gigabytes

SHOWN = 3  # names of files in a message


@dataclass(frozen=True)
class Problem:
    """What is wrong and where, and what `prepare` does about it: nothing where another data set lies."""

    what: str
    remedy: RemoteFile | None = None  # the download that fixes it
    damaged: tuple[Path, ...] = ()  # pictures to be replaced
    aside: tuple[Path, ...] = ()  # files to be replaced that may be somebody's own: they are kept, under other names
    otherwise: str = ""  # what fixes it where that is no one file's download: "makes it"

    @property
    def fixed_by(self) -> str:
        """What `prepare` does, as the end of a sentence that begins with its command line; "" where it leaves it alone."""
        if self.remedy is not None:
            return f"gets {self.remedy.name} ({gigabytes(self.remedy.size)})"
        return self.otherwise


@dataclass(frozen=True)
class Needs:
    """What is to come, before anyone has agreed to it."""

    what: str  # "20.2 GB to download, 21.4 GB to unpack"
    bytes: int  # on the disk, at the most
    question: str  # what `confirm` is asked; "" where nothing has to be downloaded


class DataSet(Protocol):
    """What can be prepared."""

    @property
    def name(self) -> str: ...

    @property
    def option(self) -> str:
        """What the command line of `prepare` ends in for it; "" for what is prepared without being named."""
        ...

    @property
    def weights(self) -> str:
        """Name of the file with the backbone's weights."""
        ...

    @property
    def archives(self) -> Sequence[RemoteFile]:
        """What a complete folder no longer needs."""
        ...

    def verify(self, data_dir: Path, say: Say, progress: Progress) -> list[Problem]:
        """Whether the folder holds all of it."""
        ...

    def needs(self, data_dir: Path, problems: Sequence[Problem]) -> Needs | None:
        """What fixing `problems` takes; None where nothing has to be got."""
        ...

    def get(self, data_dir: Path, problems: Sequence[Problem], say: Say, progress: Progress) -> list[str]:
        """Download what fixes `problems`, into a folder that is there. Returns why not, or nothing. FetchError, OSError."""
        ...

    def make(self, data_dir: Path, progress: Progress) -> None:
        """What is not published but made of what is."""
        ...


def prepare(
    data_dir: Path,
    data_set: DataSet,
    *,
    verify_only: bool,
    confirm: Callable[[str], bool],
    say: Say,
    progress: Progress,
) -> list[str]:
    """Make `data_dir` a complete copy of `data_set` with the backbone's weights. Returns the problems left.

    `confirm` is asked before anything is downloaded. Archives put into `data_dir` by hand are used, and none is ever
    deleted. A Ctrl-C keeps what was downloaded (of a file not whole as NAME.part) and unpacked.
    """
    try:
        problems = data_set.verify(data_dir, say, progress)
        fixed = _to_be_fixed(problems, data_dir, data_set)
        if fixed and not verify_only:
            if refusal := _fix(data_dir, data_set, problems, confirm=confirm, say=say, progress=progress):
                return refusal
            if len(fixed) == len(problems):
                data_set.make(data_dir, progress)
            else:
                say(f"{data_set.weights} is there; --initial-weights {data_dir / data_set.weights}")
            problems = data_set.verify(data_dir, say, progress)
    except InTheWay as error:  # which another call would meet again
        return [f"{error}"]
    except (FetchError, OSError, ValueError) as error:
        return [f"{error}; what was downloaded and unpacked in {data_dir} is kept, run again to go on"]
    if not problems:
        say(f"{data_dir}: {data_set.name} is complete; --initial-weights {data_dir / data_set.weights}")
        if left := [data_dir / archive.name for archive in data_set.archives if (data_dir / archive.name).exists()]:
            size = gigabytes(sum(path.stat().st_size for path in left))
            say(f"no longer needed ({size}): {' '.join(map(str, left))}")
    return _texts(problems, data_dir, data_set)


def _to_be_fixed(problems: Sequence[Problem], data_dir: Path, data_set: DataSet) -> list[Problem]:
    """All of them; where another data set lies, whose files are its owner's, only that there are no weights."""
    if all(problem.fixed_by for problem in problems):
        return list(problems)
    weights = data_set.weights
    return [
        each for each in problems if each.remedy and each.remedy.name == weights and not (data_dir / weights).exists()
    ]


def _fix(
    data_dir: Path,
    data_set: DataSet,
    problems: Sequence[Problem],
    *,
    confirm: Callable[[str], bool],
    say: Say,
    progress: Progress,
) -> list[str]:
    """Get what fixes `problems`, if there is room and the user agrees. Returns why not, or nothing."""
    fixed = _to_be_fixed(problems, data_dir, data_set)
    needs = data_set.needs(data_dir, fixed)
    if needs is None:
        return []
    free = _free_bytes(data_dir)
    told = f"{data_dir}: {needs.what}, {gigabytes(free)} free"
    if needs.bytes > free:
        return [f"{told}; nothing was downloaded: make room or name another --data-dir"]
    say(told)
    if needs.question and not confirm(needs.question):
        return _texts(problems, data_dir, data_set)
    data_dir.mkdir(parents=True, exist_ok=True)
    with _alone(data_dir):
        return data_set.get(data_dir, fixed, say, progress)


@contextlib.contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Keep others out, as far as the file system can: two that add to one file have nothing. ValueError where another works."""
    descriptor = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{data_dir}: another `prepare` is at work in it; wait for its end") from error
        except OSError:
            pass  # no locks here
        yield
    finally:
        os.close(descriptor)


def some(names: Iterable[str]) -> str:
    """The first of them, for a message."""
    ordered = sorted(names)
    return ", ".join(ordered[:SHOWN]) + (", ..." if len(ordered) > SHOWN else "")


def _texts(problems: Sequence[Problem], data_dir: Path, data_set: DataSet) -> list[str]:
    command = f"`python -m harness prepare --data-dir {shlex.quote(str(data_dir))}{data_set.option}`"
    another = f"this is another data set, which needs no preparing: for {data_set.name} name another --data-dir"
    fixed = _to_be_fixed(problems, data_dir, data_set)
    return [f"{each.what}; {f'{command} {each.fixed_by}' if each in fixed else another}" for each in problems]


def _free_bytes(data_dir: Path) -> int:
    existing = next(folder for folder in (data_dir, *data_dir.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free
