"""Files that are there whole or not at all: written under a name that nobody can have prepared, then put in place at once."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harness import names

TOKEN = 8  # bytes of a name that nobody can have prepared
UNFINISHED = ".*.part"  # as a glob: what a process that was killed leaves of one


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file to write `path`'s new content into; it takes `path`'s place at the block's end, on the disk; never on an error.

    O_EXCL: in a folder that others may write, what lies under the name already (a link to another file) is never followed.
    """
    unfinished = _beside(path)
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:  # a full disk, or a signal in this moment
        unfinished.unlink(missing_ok=True)
        raise


def new(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Like `replacing`, for a name that nobody has yet. FileExistsError where somebody was first, also from another machine."""
    unfinished = _beside(path)
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(unfinished)
        except FileExistsError:
            raise
        except OSError:  # no such links here
            path.touch(exist_ok=False)  # ours now
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def next_figures(folder: Path, beginning: str, text: str) -> Path:
    """`text` as the folder's next file of figures, see harness.names. The folder is made.

    ValueError where it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = names.figures_in(folder, beginning)
        number = int(there[-1].stem.rpartition("_")[2]) + 1 if there else 0
        while True:
            path = folder / names.figures(beginning, number)
            try:
                new(path, text.encode())
                return path
            except FileExistsError:  # another process took the number meanwhile
                number += 1
    except OSError as error:
        raise ValueError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error


def unfinished(path: Path) -> list[Path]:
    """What processes that were killed, or are writing still, have left of `path`'s new content."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{{2 * TOKEN}}}\.part")
    return [each for each in path.parent.iterdir() if pattern.fullmatch(each.name)]


def same(name: Path, content: Path) -> None:
    """Give `name` the content that `content` has now; it takes no room where the file system lets two names share it."""
    if name.exists() and name.samefile(content):  # of two names of one file neither replaces the other
        return
    unfinished = _beside(name)
    try:
        unfinished.hardlink_to(content)
    except OSError:  # no such links here
        with replacing(name) as file, content.open("rb") as whole:
            shutil.copyfileobj(whole, file)
        return
    unfinished.replace(name)


def point_at(link: Path, target: Path) -> None:
    """Make `link` a symbolic link to `target` beside it, in the place of whatever it was."""
    unfinished = _beside(link)
    unfinished.symlink_to(target.name)
    unfinished.replace(link)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(TOKEN)}.part")
