"""A lock on an open file, taken without waiting. It ends with the descriptor, also where a process is killed.

A folder is held by a lock on a file in it that may be written: NFS keeps a folder's own on one machine, and has none for
what is open to be read alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NONE_HERE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)  # of file systems without flock

_held: set[int] = set()  # descriptors of `alone`


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


@contextmanager
def alone(path: Path, words: str) -> Iterator[bool]:
    """Inside the block the file is this process's; it is made, and stays. False where its file system has no locks.

    ValueError, with these words, where another process has it; where what lies there cannot be opened, with others; OSError
    where none can be made. A child that is forked meanwhile (a loader's worker) does not hold it on.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if not os.path.lexists(path):
            raise
        raise ValueError(
            f"{path}, the lock of who writes there, cannot be opened ({error.strerror}); remove it"
        ) from error
    _children_let_go()
    _held.add(descriptor)
    try:
        try:
            locked = take(descriptor, path)
        except BlockingIOError as error:
            raise ValueError(words) from error
        yield locked
    finally:
        if descriptor in _held:  # not in a child
            _held.remove(descriptor)
            with contextlib.suppress(OSError):  # where there are none
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # what another thread is starting has it until its exec
            os.close(descriptor)


@functools.cache
def _children_let_go() -> None:
    def let_go() -> None:
        while _held:
            os.close(_held.pop())

    os.register_at_fork(after_in_child=let_go)
