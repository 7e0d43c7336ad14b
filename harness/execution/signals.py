"""SIGTERM and SIGINT as an exception in the main thread, so that a run they end is closed like any other."""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO

ENDING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal asked the run to end. Not an Exception: nothing on the way may take it for a failure."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)


@contextmanager
def as_exceptions() -> Iterator[None]:
    """Inside the block the first signal raises Interrupted; those after it are ignored until the run is closed."""

    def handle(number: int, _: FrameType | None) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    before = {each: signal.signal(each, handle) for each in ENDING}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def stacks_on_request(file: IO[str] | None) -> Iterator[None]:
    """On SIGUSR1 write every thread's stack to `file`, even while Python code is not running (a hung collective)."""
    if file is None:
        yield
        return
    faulthandler.register(signal.SIGUSR1, file, all_threads=True, chain=False)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a request that comes late must not end the process
        faulthandler.unregister(signal.SIGUSR1)
