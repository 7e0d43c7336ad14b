"""The log of a run: `:::MLLOG` lines by mlperf-logging, and plain lines between them. The only importer of mllog.

The library prints what it cannot encode and drops it, and writes NaN as JSON that no parser takes; every value is checked
here first, so that a wrong one stops the run instead. Each event is stamped by the library in the moment of the call: no
time can be passed in.
"""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import IO, Any

from mlperf_logging.mllog import constants as keys
from mlperf_logging.mllog.mllog import MLLogger

from harness.config import ROOT

__all__ = ["EventLog", "close_abandoned", "keys", "next_number"]

RESULT = re.compile(r"result_(\d+)\.txt")
CALLER = 3  # frames between mllog's own and the one that calls an EventLog's method, which the line names


class EventLog:
    """One result_N.txt, opened for this process. Lines reach the file at once, each in one write.

    Without a file (the log of a rank that does not keep one) every call checks its arguments and does nothing else.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file: IO[str] | None = None
        self._logger: MLLogger | None = None
        if path is not None:
            # unbuffered appends, so that lines of other ranks and of the stack dumps do not tear it
            self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND), "w", encoding="utf-8")
            self._logger = MLLogger(_to(self._file), root_dir=re.escape(str(ROOT)))

    @classmethod
    def create(cls, folder: Path, number: int | None = None) -> EventLog:
        """A new result_N.txt: exactly `number`, or the next that is free. ValueError when it cannot be had."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            wanted = next_number(folder) if number is None else number
            while True:
                path = folder / f"result_{wanted}.txt"
                try:
                    path.touch(exist_ok=False)
                    return cls(path)
                except FileExistsError as error:
                    if number is not None:
                        raise ValueError(f"{path}: exists already, and no result is ever written over") from error
                    wanted += 1  # another run took it in this moment
        except OSError as error:
            raise ValueError(f"{folder}: no log can be written there ({error.strerror}); name another --out") from error

    @property
    def file(self) -> IO[str] | None:
        """For stack dumps, which are written past this class."""
        return self._file

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
        """Lines that are not events. They never begin in the middle of one."""
        if self._file is not None:
            self._file.write("".join(f"{line}\n" for line in text.splitlines()))
            self._file.flush()

    def close(self) -> None:
        """Safe to call twice."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = self._logger = None

    def _write(self, kind: str, key: str, value: Any, metadata: dict[str, Any]) -> None:
        for what, content in ((key, value), *((f"{key}'s {name}", each) for name, each in metadata.items())):
            try:
                json.dumps(content, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise TypeError(f"log key {what} = {content!r} cannot be logged: {error}") from error
        if self._logger is not None:
            getattr(self._logger, kind)(key, value, metadata, stack_offset=CALLER)


def next_number(folder: Path) -> int:
    """One more than the highest N of the result_N.txt in `folder`; 0 when there is none."""
    return max((int(match[1]) for path in folder.iterdir() if (match := RESULT.fullmatch(path.name))), default=-1) + 1


def close_abandoned(path: Path, reason: str) -> bool:
    """End a log whose writer is gone without a run_stop, from the process that saw it go. Says whether it had to."""
    needle = f'"key": "{keys.RUN_STOP}"'
    with path.open(encoding="utf-8", errors="replace") as file:
        text = ""
        for text in file:
            if needle in text:
                return False
    log = EventLog(path)
    if text and not text.endswith("\n"):
        log.plain(" ")  # ends the torn line
    log.stop(keys.RUN_STOP, **{keys.STATUS: keys.ABORTED, "reason": reason})
    log.close()
    return True


def _to(file: IO[str]) -> logging.Logger:
    """A logger of this file alone, which nothing else in the process is connected to."""
    logger = logging.Logger(f"mllog {file.name}", logging.INFO)
    handler = logging.StreamHandler(file)  # flushes after each line
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    return logger
