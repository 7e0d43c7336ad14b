"""Files that are there whole or not at all: written under a name that nobody can have prepared, then put in place at once."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write `path`'s new content into; it takes `path`'s place at the block's end, on the disk; never on an error.

    O_EXCL: in a folder that others may write, what lies under the name already (a link to another file) is never followed.
    """
    unfinished = _beside(path)
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:  # a full disk, or a signal in this moment
        unfinished.unlink(missing_ok=True)
        raise


def point_at(link: Path, target: Path) -> None:
    """Make `link` a symbolic link to `target` beside it, in the place of whatever it was."""
    unfinished = _beside(link)
    unfinished.symlink_to(target.name)
    unfinished.replace(link)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
