"""Where a verb's files go: that they can be written is seen before anything is measured or looked at."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from harness import names, outside

HEAD_BYTES = 1 << 16  # of a file that is there: what it begins with says who wrote it


def file(option: str, path: Path | None, suffix: str, read: Iterable[Path], ours: Callable[[bytes], bool]) -> None:
    """ValueError where the file could not be written, or would take the place of another one: by how it is called, of what is
    `read`, or of what is there and, as it begins, not `ours`. An empty one is nobody's."""
    if path is None:
        return
    if path.suffix.lower() != suffix:
        raise ValueError(f"{option} {path}: a file called *{suffix} is written; name it so")
    if (folder := outside.is_folder(path)) or not outside.is_folder(path.parent):
        raise ValueError(f"{option} {path}: {'that is a folder' if folder else f'{path.parent} is no folder'}")
    takes_no_place(f"{option} {path}", path, read)
    if outside.is_there(path) and (begins := _beginning(option, path)) and not ours(begins):
        raise ValueError(f"{option} {path}: there, and not a file that this verb wrote; name another one")
    _tried(option, path.parent)


def takes_no_place(told: str, path: Path, read: Iterable[Path]) -> None:
    """ValueError, which begins with `told`, where a file at `path` would take the place of what a verb reads or has left."""
    from harness.comparison.judging import floor
    from harness.comparison.planning import hosts
    from harness.results import account

    if (other := _same(path, read)) is not None:
        raise ValueError(f"{told}: this is one of the files that are read, {other}; name another one")
    if names.FILE.fullmatch(path.name):
        raise ValueError(f"{told}: this is how a result is called; name another file")
    if path.name in (names.PLAN, account.FILE, floor.FILE, hosts.HOST) or names.is_figures(path.name):
        raise ValueError(f"{told}: so is called what plans and verbs leave beside results; name another file")


def folder(option: str, path: Path) -> None:
    """Make it. ValueError where that cannot be done, or nothing be written in it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{option} {path}: cannot be made: {error.strerror}") from error
    _tried(option, path)


def folder_to_be(option: str, path: Path) -> None:
    """ValueError where it could not be made, or nothing be written in it; it is not made yet: there may be nothing to write."""
    whole = path.absolute()
    there = next(each for each in (whole, *whole.parents) if os.path.lexists(each))
    if not outside.is_folder(there):
        raise ValueError(f"{option} {path}: {there} is no folder; name another one")
    _tried(option, there)


def figures(folder: Path, beginning: str, text: str) -> Path | None:
    """`text` as the folder's next file of figures, see harness.whole. None where it cannot be written, which is said."""
    from harness import whole
    from harness.results.table import printable

    try:
        return whole.next_figures(folder, beginning, text)
    except ValueError as error:  # a disk that is full by now
        sys.stdout.flush()
        sys.stderr.write(printable(f"{error}; nothing was kept of it but what is printed here\n"))
        return None


def _same(path: Path, others: Iterable[Path]) -> Path | None:
    """Of `others` the first that is the file at `path`, by a link or a second name too."""
    try:
        there = os.stat(path)  # noqa: PTH116 - as of `outside`
    except OSError:  # there is none
        return None
    for each in others:
        try:
            if os.path.samestat(os.stat(each), there):  # noqa: PTH116
                return each
        except OSError:  # whoever reads it says so
            continue
    return None


def _beginning(option: str, path: Path) -> bytes:
    try:
        with outside.opened(path, sys.maxsize) as file:
            return file.read(HEAD_BYTES)
    except (OSError, outside.Refused) as error:
        why = error.strerror if isinstance(error, OSError) else "no regular file"
        raise ValueError(f"{option} {path}: there, and cannot be read: {why}; name another one") from error


def _tried(option: str, folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{option}: nothing can be written in {folder}: {error.strerror}; name another folder"
        ) from error
