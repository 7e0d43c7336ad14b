"""A lock on an open file, taken without waiting. It ends with the descriptor, also where a process is killed."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

NONE_HERE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)  # of file systems without flock


def take(descriptor: int, path: Path) -> bool:
    """Lock the file that is open as `descriptor`; `path` is it in an error. False where its file system has no locks.

    BlockingIOError where another process holds it, OSError where the file system fails.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NONE_HERE:
            return False
        error.filename = str(path)
        raise
    return True
