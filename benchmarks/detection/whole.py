"""Files that are there whole or not at all, also where several processes write the same one."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TOKEN = 8  # bytes of a name that nobody else has


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write `path`'s new content into; it takes `path`'s place at the block's end, on the disk; never on an error.

    Its name is nobody else's: processes in several containers have one number.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(TOKEN)}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:  # a full disk, or a signal in this moment
        part.unlink(missing_ok=True)
        raise


def clear(path: Path) -> None:
    """Remove what writers that were killed have left of `path`'s new content; of one that is at work too: for who is alone."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{{2 * TOKEN}}}\.part")
    for each in [each for each in path.parent.iterdir() if pattern.fullmatch(each.name)]:
        each.unlink(missing_ok=True)
