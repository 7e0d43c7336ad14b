"""The append-only account of a series of trials, one JSON object a line.

A trial has a line from before it starts and one from when it ends, each on the disk before anything else happens, so that
no trial vanishes and none counts twice: a start without an end is a trial that was broken off. Who writes holds a lock on
the file for as long as it lives, so that a second series cannot use the folder, and a killed one never blocks it.

The file is never rewritten. A last line that a crash tore is kept, and the next writer says so in the line after it.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "ledger.jsonl"

SERIES, START, END, BROKEN, TORN = "series", "trial_start", "trial_end", "trial_broken", "torn_line"

# How a trial ended. Only the first two are results; a trial of any other status is run again by --resume.
SUCCESS, NOT_MET = "success", "target_not_met"
FAILED, REFUSED, INTERRUPTED, STALLED = "failed", "refused", "interrupted", "stalled"
FINISHED = frozenset((SUCCESS, NOT_MET))

Entry = dict[str, Any]


class LedgerError(ValueError):
    """The ledger forbids what was asked, or is not what this project wrote; the message says the way out."""


@dataclass(frozen=True)
class Attempt:
    """One start of a trial, and what became of it."""

    number: int
    attempt: int  # of this number, from 1
    start: Entry
    end: Entry | None = None  # None: nobody saw it end
    marked: Entry | None = None  # the BROKEN line: its files were put aside

    @property
    def finished(self) -> bool:
        """Whether it gave a result, good or bad."""
        return self.end is not None and self.end["status"] in FINISHED

    @property
    def status(self) -> str:
        return self.end["status"] if self.end is not None else "no end recorded"


@dataclass(frozen=True)
class Account:
    """What a ledger says so far."""

    entries: tuple[Entry, ...]
    torn: bool = False  # whether the last line is half a line

    @classmethod
    def read(cls, path: Path) -> Account:
        """LedgerError when a line is not one of ours. A half-written last line is tolerated."""
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line]
        parsed = [_entry(line) for _, line in lines]
        for (number, _), entry, after in zip(lines, parsed, parsed[1:], strict=False):
            if entry is None and (after is None or after["event"] != TORN):
                raise LedgerError(f"{path}:{number}: not a line of a ledger; was it edited? Use another results folder")
        torn = bool(parsed) and (parsed[-1] is None or not text.endswith("\n"))
        return cls(tuple(entry for entry in parsed if entry is not None), torn)

    @property
    def attempts(self) -> list[Attempt]:
        """Every start, in the order of the file."""
        found: dict[tuple[int, int], Attempt] = {}
        for entry in self.entries:
            if entry["event"] in (START, END, BROKEN):
                key = (entry["trial"], entry["attempt"])
                before = found.get(key)
                found[key] = Attempt(
                    *key,
                    start=before.start if before else entry,
                    end=entry if entry["event"] == END else before.end if before else None,
                    marked=entry if entry["event"] == BROKEN else before.marked if before else None,
                )
        return list(found.values())

    @property
    def finished(self) -> dict[int, Attempt]:
        """The attempt that counts, by trial number."""
        return {each.number: each for each in self.attempts if each.finished}

    @property
    def series(self) -> list[Entry]:
        """The lines that open or continue a series."""
        return [entry for entry in self.entries if entry["event"] == SERIES]


class Ledger:
    """The file opened for writing; see `opened`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.account = Account.read(path)
        if self.account.torn:
            os.write(descriptor, b"\n")
            self.append(TORN, note="the line before this one was cut off by a crash or a full disk")

    def append(self, event: str, **content: Any) -> Entry:
        """Add one line, and return when it is on the disk. OSError when it cannot be had, with nothing half-written."""
        entry = {"event": event, "time": now(), **content}
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        size = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):  # a full disk takes what fits
                os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, size)
            raise
        self.account = Account((*self.account.entries, entry))
        return entry


@contextmanager
def opened(folder: Path) -> Iterator[Ledger]:
    """The ledger of `folder`, for this process alone. LedgerError when another series is writing it."""
    path = folder / FILE
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LedgerError(
                f"{folder}: another series is running there; wait for it, or name another --out or --system"
            ) from error
        yield Ledger(path, descriptor)
    finally:
        os.close(descriptor)


def in_use(folder: Path) -> bool:
    """Whether a living process writes the ledger of `folder`. PermissionError when that cannot be seen."""
    try:
        descriptor = os.open(folder / FILE, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def now() -> str:
    """This moment, to the millisecond, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def sha256(path: Path) -> str | None:
    """Of a file's content; None where there is no such file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(line: str) -> Entry | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("event"), str):
        return None
    if entry["event"] in (START, END, BROKEN) and not (
        isinstance(entry.get("trial"), int) and isinstance(entry.get("attempt"), int)
    ):
        return None
    return entry if entry["event"] != END or isinstance(entry.get("status"), str) else None
