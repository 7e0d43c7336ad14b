"""The log of a run: `:::MLLOG` lines by mlperf-logging, and plain lines between them. The only importer of mllog.

The library prints what it cannot encode and drops it, and writes NaN as JSON that no parser takes; every value is checked
here first, so that a wrong one stops the run instead. Each event is stamped by the library in the moment of the call: no
time can be passed in. A line that cannot be written raises LogLost there and then, and `settle` looks at the end whether
every line is on the disk under the log's own name: a log that lost a line up to its run_stop is never a success.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import stat
from pathlib import Path
from typing import Any

from mlperf_logging.mllog import constants as keys
from mlperf_logging.mllog.mllog import MLLogger

from harness import ROOT, names
from harness.execution.moment import WallClock
from harness.names import next_number, result

__all__ = ["EventLog", "LogLost", "close_abandoned", "keys", "next_number", "refused"]

CALLER = 3  # frames between mllog's own and the one that calls an EventLog's method, which the line names
MARK = re.compile(r":::(?=ML)", re.IGNORECASE)  # of an event's line, as any reader might look for it
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class LogLost(OSError):
    """The log is not what was written to it: a line could not be written, or was taken away."""


class EventLog:
    """One result_N.txt, opened for this process. Lines reach the file at once, each in one write.

    Without a file (the log of a rank that does not keep one) every call checks its arguments and does nothing else.
    """

    def __init__(self, path: Path | None, descriptor: int | None = None) -> None:
        self.path = path
        self._descriptor = descriptor
        self._logger: MLLogger | None = None
        self._size = 0  # after our last line; the file never gets smaller
        self._torn = False  # whether half a line may stand at its end
        self._written: list[int] = []  # hashes of our lines
        self.wall_clock: WallClock | None = None  # that stamps the lines, from when it is to be watched on
        if path is not None:
            if descriptor is None:
                # appends, so that lines of other ranks and of the stack dumps do not tear it
                self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            self._logger = MLLogger(_Writer(self), root_dir=re.escape(str(ROOT)))

    @classmethod
    def create(cls, folder: Path, number: int | None = None) -> EventLog:
        """A new result_N.txt: exactly `number`, or the next that is free. ValueError when it is not available."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            wanted = next_number(folder) if number is None else number
            while True:
                path = folder / result(wanted)
                if number is not None and not os.path.lexists(path):
                    _nothing_left_for(path)
                try:
                    return cls(path, os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666))
                except FileExistsError as error:
                    if number is not None:
                        raise ValueError(f"{path}: exists already, and no result is ever written over") from error
                    wanted += 1  # another run took it in this moment
        except OSError as error:
            raise ValueError(f"{folder}: no log can be written there ({error.strerror}); name another --out") from error

    @property
    def descriptor(self) -> int | None:
        """For stack dumps, which are written past this class."""
        return self._descriptor

    def start(self, key: str, value: Any = None, **metadata: Any) -> None:
        """The start of an interval: init_start, run_start, epoch_start, ..."""
        self._write("start", key, value, metadata)

    def stop(self, key: str, value: Any = None, **metadata: Any) -> None:
        """The end of one."""
        self._write("end", key, value, metadata)

    def point(self, key: str, value: Any, **metadata: Any) -> None:
        """A value, or something that happened at one moment."""
        self._write("event", key, value, metadata)

    def plain(self, text: str) -> None:
        """Lines that are not events, and that no reader can take for one whatever stands in them."""
        for line in text.splitlines():
            self._put(CONTROL.sub(lambda found: repr(found[0])[1:-1], MARK.sub(r"\\:::", line)))

    def end_torn_line(self) -> None:
        """Where the log of another process ends in half a line: what is written next begins a new one."""
        assert self.path is not None
        with self.path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 1))
            self._torn = file.read() not in (b"", b"\n")

    def settle(self) -> None:
        """LogLost unless every line written is on the disk, in order, under the log's own name."""
        if self._descriptor is None or self.path is None:
            return
        try:
            os.fsync(self._descriptor)
            content = self.path.read_bytes()  # by name: what the descriptor leads to may be nobody's any more
        except OSError as error:
            raise LogLost(error.errno, f"{self.path}: the log is not on the disk ({error.strerror})") from error
        lines = iter(content.split(b"\n"))
        for number, each in enumerate(self._written, 1):
            if not any(hash(line) == each for line in lines):
                raise LogLost(errno.EIO, f"{self.path}: line {number} of those written is no longer there")

    def close(self) -> None:
        """Safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = self._logger = None

    def _write(self, kind: str, key: str, value: Any, metadata: dict[str, Any]) -> None:
        for what, content in ((key, value), *((f"{key}'s {name}", each) for name, each in metadata.items())):
            try:
                json.dumps(content, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise TypeError(f"log key {what} = {content!r} cannot be logged: {error}") from error
        if self._logger is not None:
            getattr(self._logger, kind)(key, value, metadata, stack_offset=CALLER)
            if self.wall_clock is not None:
                self.wall_clock.look()

    def _put(self, line: str) -> None:
        """One line, whole, or LogLost and as far as possible no trace of it."""
        if self._descriptor is None:
            return
        content = line.encode(errors="backslashreplace")
        rest = b"\n" * self._torn + content + b"\n"
        before = self._look()
        try:
            while rest:  # a disk that is almost full takes what fits
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            if os.fstat(self._descriptor).st_size > before:
                self._take_back(before, len(content) + 1 + self._torn - len(rest))
            raise LogLost(error.errno, f"{self.path}: a line could not be written ({error.strerror})") from error
        self._torn = False
        self._size = before + len(content) + 1
        self._written.append(hash(content))

    def _look(self) -> int:
        """The log's size. LogLost where it was taken away or cut."""
        assert self._descriptor is not None
        seen = os.fstat(self._descriptor)
        if stat.S_ISREG(seen.st_mode):
            if seen.st_nlink == 0:
                raise LogLost(errno.ENOENT, f"{self.path}: the log was deleted while the run wrote it")
            if seen.st_size < self._size:
                self._size, self._torn = (
                    seen.st_size,
                    True,
                )  # so that a run_stop can still be written, in a line of its own
                raise LogLost(errno.EIO, f"{self.path}: the log was cut off while the run wrote it")
        return seen.st_size

    def _take_back(self, before: int, written: int) -> None:
        """Cut off the half of a line that was written last, where nobody wrote behind it."""
        assert self._descriptor is not None
        self._torn = True
        if os.fstat(self._descriptor).st_size == before + written:
            os.ftruncate(self._descriptor, before)
            self._torn = False


class _Writer(logging.Logger):
    """What mllog takes for a logger. A handler would print an error and go on."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(f"mllog {log.path}", logging.INFO)
        self._log_file = log
        self._error: LogLost | None = None

    def log(self, level: int, msg: object, *args: object, **more: Any) -> None:  # noqa: ARG002 - the base class's
        if level != logging.INFO:  # mllog caught what the line before raised, or could not encode it
            raise self._error or TypeError(str(msg))
        try:
            self._log_file._put(str(msg))
        except LogLost as error:
            self._error = error
            raise


def _nothing_left_for(log: Path) -> None:
    """ValueError where a file lies that would pass for what this run leaves."""
    for left in names.taken_for_its_own(log):
        raise ValueError(f"{left}: is of an earlier run whose log is gone, and would pass for this one's; move it too")


def refused(path: Path) -> Path:
    """Give the log of a run that never began another name, refused_N.txt, which nobody counts; its number is free again."""
    number = names.number(path) or 0
    for beside in path.parent.glob(f"telemetry_{number}.*"):
        beside.unlink(missing_ok=True)
    while True:
        aside = path.with_name(names.refused(number))
        try:
            os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            number += 1
            continue
        return path.replace(aside)


def says(path: Path, key: str) -> bool:
    """Whether a log has an event of this key. OSError where it cannot be read."""
    needle = f'"key": "{key}"'.encode()
    with path.open("rb") as file:
        return any(needle in line for line in file)


def close_abandoned(path: Path, reason: str) -> bool:
    """End a log whose writer is gone without a run_stop, from the process that saw it go. Says whether it had to."""
    if says(path, keys.RUN_STOP):
        return False
    log = EventLog(path)
    log.end_torn_line()
    log.stop(keys.RUN_STOP, **{keys.STATUS: keys.ABORTED, "reason": reason})
    log.close()
    return True
