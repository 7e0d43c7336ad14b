"""The append-only account of a series of trials, one JSON object a line.

A trial has a line from before it starts and one from when it ends, each on the disk before anything else happens, so that
no trial vanishes and none counts twice: a start without an end is a trial that was broken off. Who writes holds a lock on
the file for as long as it lives, so that a second series cannot use the folder, and a killed one never blocks it.

The file is never rewritten. A last line that a crash tore is kept, and the next writer says so in the line after it. Each line
holds the hash of the one before it, and what lines say must be a story that can have happened: a line that was changed, taken
out, doubled or put in is found on reading, with its number. (Ledgers of older versions begin without hashes.)
"""

from __future__ import annotations

import datetime
import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.launch import holder

FILE = "ledger.jsonl"
HOLDER = ".ledger.holder"  # where the file system has no flock

SERIES, START, END, BROKEN, TORN = "series", "trial_start", "trial_end", "trial_broken", "torn_line"

# How a trial ended. Only the first two are results; a trial of any other status is run again by --resume.
SUCCESS, NOT_MET = "success", "target_not_met"
FAILED, REFUSED, INTERRUPTED, STALLED = "failed", "refused", "interrupted", "stalled"
FINISHED = frozenset((SUCCESS, NOT_MET))
STATUSES = FINISHED | {FAILED, REFUSED, INTERRUPTED, STALLED}

PREVIOUS = "previous_sha256"  # of the line before, without its line end
FIRST = "0" * 64  # what the first line says of the one before it
LARGEST = 64 << 20  # bytes; ten thousand trials take five
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)  # of file systems without flock

Entry = dict[str, Any]


class LedgerError(ValueError):
    """The ledger forbids what was asked, or is not what this project wrote; the message says the way out."""


class LedgerLost(RuntimeError):
    """The ledger was taken away or written by another while a series held it."""


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
    last_sha256: str = FIRST  # of the last line

    @classmethod
    def read(cls, path: Path) -> Account:
        """LedgerError, with the line, where it is not what this project wrote. A half-written last line is tolerated."""
        content = _content(path)
        lines = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line]
        parsed = [_entry(line) for _, line in lines]
        for (number, _), entry, after in zip(lines, parsed, parsed[1:], strict=False):
            if entry is None and (after is None or after["event"] != TORN):
                raise LedgerError(f"{path}:{number}: not a line of a ledger; was it edited? Use another results folder")
        story = _Story()
        before, chained = FIRST, False
        for (number, line), entry in zip(lines, parsed, strict=True):
            if entry is not None:
                problem = _broken_chain(entry.get(PREVIOUS), before, chained) or story.problem(entry)
                if problem:
                    raise LedgerError(f"{path}:{number}: {problem}. Was it edited? Use another results folder")
                chained = chained or PREVIOUS in entry
            before = _digest(line)
        torn = bool(parsed) and (parsed[-1] is None or not content.endswith(b"\n"))
        return cls(tuple(entry for entry in parsed if entry is not None), torn, before)

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
        self._write(line + b"\n")
        self.account = Account((*self.account.entries, entry), last_sha256=_digest(line))
        return entry

    def check(self) -> None:
        """LedgerLost unless the file is there as this series left it."""
        # not by inode numbers, which some network file systems invent each time
        try:
            size = self.path.stat().st_size
        except FileNotFoundError as error:
            raise LedgerLost(f"{self.path}: the ledger was deleted while the series ran") from error
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
    """The ledger of `folder`, for this process alone. LedgerError when another series is writing it."""
    path = folder / FILE
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    try:
        with _held(descriptor, folder):
            yield Ledger(path, descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _held(descriptor: int, folder: Path) -> Iterator[None]:
    """The right to write, by flock, or where the file system has none by a file that says who holds it."""
    running = f"{folder}: another series is running there; wait for its end, or use another folder"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LedgerError(running) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    else:
        yield
        return
    claim = holder.claim(folder / HOLDER)
    if claim is not None:
        raise LedgerError(f"{running} ({claim}; if that is not so, remove {folder / HOLDER})")
    try:
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)


def in_use(folder: Path) -> bool:
    """Whether a living process writes the ledger of `folder`. PermissionError when that cannot be seen."""
    try:
        descriptor = os.open(folder / FILE, os.O_RDWR | os.O_NONBLOCK)  # NFS locks only what may be written
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return holder.living(folder / HOLDER) is not None
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


def _content(path: Path) -> bytes:
    """What the file holds; nothing where there is none. LedgerError for what is no ledger by its kind or size."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would make us wait
    except FileNotFoundError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode) or seen.st_size > LARGEST:
            raise LedgerError(f"{path}: not a ledger: {seen.st_size} bytes, or no plain file at all")
        return file.read()


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _broken_chain(previous: object, before: str, chained: bool) -> str:
    if previous is None:
        return "does not say which line it follows, as those before it do" if chained else ""
    return "" if previous == before else "does not follow the line before it: one was changed, taken out or put in"


class _Story:
    """What the lines so far have told, for what may come next."""

    def __init__(self) -> None:
        self._series: set[str] = set()
        self._started: set[tuple[int, int]] = set()
        self._ended: set[tuple[int, int]] = set()
        self._marked: set[tuple[int, int]] = set()

    def problem(self, entry: Entry) -> str:
        """Why this line cannot come now; empty when it can, and is told."""
        event = entry["event"]
        if event == SERIES:
            self._series.add(entry["series"])
        elif event in (START, END, BROKEN):
            key = (entry["trial"], entry["attempt"])
            name = f"trial {key[0]}, attempt {key[1]}"
            if event == START:
                if entry.get("series") not in self._series:
                    return f"{name} is of a series that never began"
                return self._once(self._started, key, f"{name} began twice")
            if key not in self._started:
                return f"{name} never began"
            if event == END:
                return self._once(self._ended, key, f"{name} ended twice")
            return self._once(self._marked, key, f"{name} was put aside twice")
        return ""

    @staticmethod
    def _once(told: set[tuple[int, int]], key: tuple[int, int], problem: str) -> str:
        if key in told:
            return problem
        told.add(key)
        return ""


def _entry(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    event = entry.get("event") if isinstance(entry, dict) else None
    if event not in (SERIES, START, END, BROKEN, TORN):
        return None
    if event == SERIES and not isinstance(entry.get("series"), str):
        return None
    numbers = [entry.get(name) for name in ("trial", "attempt")]
    if event in (START, END, BROKEN) and not all(
        isinstance(each, int) and not isinstance(each, bool) for each in numbers
    ):
        return None
    return entry if event != END or entry.get("status") in STATUSES else None
