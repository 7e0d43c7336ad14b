"""The append-only account of a series of trials, one JSON object a line.

A trial has a line from before it starts and one from when it ends, each on the disk before anything else happens, so that
no trial vanishes and none counts twice: a start without an end is a trial that was broken off. Who writes holds a lock on
the file for as long as it lives, so that a second series cannot use the folder, and a killed one never blocks it.

The file is never rewritten. How it is read, and what its lines may say, is results/account.py's.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import holder
from harness.execution.signals import later
from harness.results.account import (
    BROKEN,
    END,
    FAILED,
    FILE,
    FINISHED,
    INTERRUPTED,
    NOT_MET,
    PREVIOUS,
    REFUSED,
    SERIES,
    STALLED,
    START,
    SUCCESS,
    TORN,
    Account,
    Attempt,
    Entry,
    LedgerError,
    sha256,
)

# What its reader knows, its writers need too
__all__ = [
    "BROKEN",
    "END",
    "FAILED",
    "FILE",
    "FINISHED",
    "HOLDER",
    "INTERRUPTED",
    "NOT_MET",
    "REFUSED",
    "SERIES",
    "STALLED",
    "START",
    "SUCCESS",
    "TORN",
    "Account",
    "Attempt",
    "Entry",
    "Ledger",
    "LedgerError",
    "LedgerLost",
    "in_use",
    "now",
    "opened",
    "sha256",
]

HOLDER = ".ledger.holder"  # where the file system has no flock


class LedgerLost(RuntimeError):
    """The ledger was taken away or written by another while a series held it."""


class Ledger:
    """The file opened for writing; see `opened`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.account = Account.read(path)
        self._size = os.fstat(descriptor).st_size
        if self.account.torn:
            self._write(b"\n")
            self.append(TORN, note="the line before this one was cut off by a crash or a full disk")

    def append(self, event: str, **content: Any) -> Entry:
        """Add one line, and return when it is on the disk. OSError when it is not available, with nothing half-written.

        LedgerLost when the file is no longer the one that this series began with.
        """
        entry = {"event": event, "time": now(), **content, PREVIOUS: self.account.last_sha256}
        line = json.dumps(entry, allow_nan=False).encode()
        with later():  # else the line is there, and counts as somebody else's
            self._write(line + b"\n")
            self.account = self.account.followed_by(entry, line)
        return entry

    def check(self) -> None:
        """LedgerLost unless the file is there as this series left it."""
        # not by inode numbers, which some network file systems invent each time
        try:
            size = self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError) as error:
            raise LedgerLost(f"{self.path}: the ledger was deleted, or moved away, while the series ran") from error
        if size != self._size or os.fstat(self._descriptor).st_nlink == 0:
            raise LedgerLost(f"{self.path}: the ledger was changed by someone else while the series ran")

    def _write(self, content: bytes) -> None:
        self.check()
        try:
            rest = content
            while rest:  # a full disk takes what fits
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(content)


@contextmanager
def opened(folder: Path) -> Iterator[Ledger]:
    """The ledger of `folder`, for this process alone. holder.Held when another series is writing it."""
    path = folder / FILE
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    try:
        running = f"{folder}: another series is running there; wait for its end, or use another folder"
        with holder.held(descriptor, path, folder / HOLDER, running):
            yield Ledger(path, descriptor)
    finally:
        os.close(descriptor)


# Of a ledger that is on a disk without rights, read-only, away or broken
UNSEEN = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ESTALE,
    errno.EIO,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
    errno.ETIMEDOUT,
)


def in_use(folder: Path) -> bool:
    """Whether a living process writes the ledger of `folder`.

    PermissionError when that cannot be seen, for lack of rights or since its disk is read-only now, away or broken.
    """
    path = folder / FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # NFS locks only what may be written
        try:
            return holder.is_held(descriptor, path, folder / HOLDER)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno not in UNSEEN:
            raise
        raise PermissionError(f"{path}: whether a series writes it cannot be seen: {error}") from error


def now() -> str:
    """This moment, to the millisecond, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
