"""Where a verb's files go: that they can be written is seen before anything is measured or looked at."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from harness import outside


def file(option: str, path: Path | None, suffix: str) -> None:
    """ValueError where the file could not be written, or is called what would take the place of another kind of file."""
    if path is None:
        return
    if path.suffix.lower() != suffix:
        raise ValueError(f"{option} {path}: a file called *{suffix} is written; name it so")
    if (folder := outside.is_folder(path)) or not outside.is_folder(path.parent):
        raise ValueError(f"{option} {path}: {'that is a folder' if folder else f'{path.parent} is no folder'}")
    _tried(option, path.parent)


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


def _tried(option: str, folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{option}: nothing can be written in {folder}: {error.strerror}; name another folder"
        ) from error
