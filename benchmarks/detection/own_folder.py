"""Folders that only this user writes in, for what is made once and trusted later, and one process at a time in them.

In a folder that others can write in somebody may have been first: with a link in the place of a file that is about to be
opened for writing, or with pictures of his own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

UNUSED_S = 7 * 24 * 3600
FULL = {errno.ENOSPC, errno.EDQUOT}  # which whoever runs this says in words of its own
# Of flock, where a file system has none (some of NFS, Lustre, FUSE)
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}


def make(folder: Path) -> Path:
    """`folder`, made for this user alone unless it is there. ValueError when it cannot be, or others could have been
    there; OSError of a full disk."""
    way_out = "name a folder of your own with HARNESS_CACHE_DIR"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ValueError(f"{folder} cannot be used: {error.strerror}; {way_out}") from error
    refuse_of_others(folder, way_out, others=stat.S_IWGRP | stat.S_IWOTH)
    return folder


def refuse_of_others(folder: Path, way_out: str, *, others: int = stat.S_IWOTH) -> None:
    """ValueError unless `folder` is this user's own and those of the bits `others` may not write in it."""
    link, found = folder.lstat(), folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{folder} is no folder; {way_out}")
    if {link.st_uid, found.st_uid} != {os.geteuid()}:
        raise ValueError(f"{folder} belongs to user {found.st_uid}, not to you, who is {os.geteuid()}; {way_out}")
    if found.st_mode & others:
        raise ValueError(f"others may write in {folder}, whose content is trusted: `chmod go-w {folder}`, or {way_out}")


def used(mark: Path) -> None:
    """Note at a file of a folder that a run uses it, for `unused`."""
    with contextlib.suppress(OSError):
        os.utime(mark)


def unused(mark: Path) -> bool:
    """Whether no run has begun with the folder of this file for a week. False where there is no such file.

    Until then one may be reading it, though its data is not seen from here: containers share a cache, not their data.
    """
    try:
        return time.time() - mark.stat().st_mtime > UNUSED_S
    except OSError:
        return False


def clear(cache: Path, making: str, unneeded: Iterable[Path]) -> None:
    """Take away the folders of `cache` whose names begin with `making`, as what was interrupted has, and those `unneeded`.

    Each of these goes at once, by such a name, before its files do. What cannot be taken away stays.
    """
    for left in cache.glob(f"{making}*"):
        shutil.rmtree(left, ignore_errors=True)
    for folder in unneeded:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder.rename(cache / f"{making}{folder.name}"))


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[bool]:
    """Wait until no other process is in here with the same `lock`; False where the file system has no locks.
    ValueError where it cannot be opened, OSError of a full disk."""
    # a link is not followed, and what is there is not emptied
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ValueError(
            f"{lock}, by which processes take turns, cannot be opened: {error.strerror}; remove it"
        ) from error
    try:
        locked = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            locked = False
        yield locked
    finally:
        os.close(descriptor)
