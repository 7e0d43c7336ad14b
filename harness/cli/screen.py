"""Standard output and error as streams that a command can lose: what it does never depends on who watches it.

A reader may go away (`| head -1`), a terminal be closed, the file behind a redirection be full. What is written from then on
goes nowhere; of a full file `lost` tells, for verbs whose work is what they print. Also what a stream's encoding has no letter
for is written, as an escape.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from typing import TextIO

from harness.exit_codes import DISK_FULL


class _Outlived(io.FileIO):
    """A descriptor that becomes /dev/null when it can no longer be written."""

    lost = ""  # why, where somebody wanted what was written: not where a reader went away

    def write(self, data: object) -> int:
        try:
            return super().write(data) or 0  # type: ignore[arg-type]
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno in DISK_FULL or stat.S_ISREG(os.fstat(self.fileno()).st_mode):
                self.lost = error.strerror or type(error).__name__
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(memoryview(data))  # type: ignore[arg-type]


def outlive() -> None:
    """Make this process's own standard output and error such streams; streams that someone put in their place stay."""
    sys.stdout = _stream(sys.stdout, sys.__stdout__, 1)
    sys.stderr = _stream(sys.stderr, sys.__stderr__, 2)


def lost() -> str:
    """Why a file behind standard output has not all that was printed; "" where it has."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(raw, _Outlived):
        return ""
    sys.stdout.flush()
    return raw.lost


def say(text: str) -> None:
    """On standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def say_to_a_terminal(text: str) -> None:
    """On standard error where it is one: of no interest in a file."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def _stream(now: TextIO | None, first: TextIO | None, descriptor: int) -> TextIO:
    if now is not None and now is not first:
        return now
    try:
        os.fstat(descriptor)
    except OSError:  # closed by whoever started us: without this the next file opened would be it
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != descriptor:
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
    raw = _Outlived(descriptor, "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=now.encoding if now is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or raw.isatty(),
        write_through=bool(os.environ.get("PYTHONUNBUFFERED")),
    )
