"""Following one trial to its end: its output with its number, its progress, and how it is ended when it has to be.

Progress is the growth of its log alone: a process that repeats the same warning on its output is as hung as a silent one.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from harness import clocks, outside
from harness.launch import stacks

PATIENCE_S = 1800.0  # the longest silence of a healthy log: compiling, or evaluating full COCO on a slow machine
GRACE_S = 30.0  # for a run that was asked to end to close its log
STACKS_S = 3.0  # for the stacks of every rank to reach the log
POLL_S = 0.5
TAIL_LINES = 60  # of the output, kept for the record of a trial that failed


class Running(Protocol):
    """A trial that was started, as a process or as a container."""

    def lines(self) -> Iterator[str]:
        """Its output, line by line, until it ends."""
        ...

    def poll(self) -> int | None:
        """Its exit code; None while it runs. 128 + the signal's number where a signal ended it."""
        ...

    def ask_for_stacks(self) -> str:
        """Make every rank write its stacks into the log; says what came of it."""
        ...

    def terminate(self) -> None:
        """SIGTERM to the run, which ends its ranks and closes its log."""
        ...

    def kill(self) -> None:
        """SIGKILL to all of it."""
        ...

    def why(self) -> str:
        """Once closed: what is known about its end beyond the exit code (out of memory, engine restarted); may be empty."""
        ...

    def close(self) -> None:
        """Leave nothing behind, whether it has ended or not. Safe to call twice."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    exit_code: int
    ended_by: Literal["itself", "watchdog", "signal"] = "itself"  # signal: one that asked the series to end
    tail: tuple[str, ...] = ()  # the last lines of its output
    why: str = ""  # what is known beyond the exit code


class LogGrowth:
    """How long ago the log grew, of the time in which somebody looked: none while a series is frozen with its trial."""

    def __init__(self, log: Path, patience_s: float = PATIENCE_S, clock: Callable[[], float] | None = None) -> None:
        self._log, self._clock = log, clock or clocks.Awake(patience_s)
        self._size = -1  # of none
        self._size, self._since = self._measure(), self._clock()

    def silent_s(self) -> float:
        """Seconds since the log was last seen to grow; from the start where there is none yet."""
        size = self._measure()
        if size != self._size:
            self._size, self._since = size, self._clock()
        return self._clock() - self._since

    def _measure(self) -> int:
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return -1
        except OSError:  # a folder that is shut, a file server that is away: the trial may not even notice
            return self._size


def follow(running: Running, log: Path, patience_s: float | None, say: Callable[[str], None], *, name: str) -> Outcome:
    """Wait for the trial, passing its output on; end it when its log has not grown for `patience_s`."""
    tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)

    def pass_on() -> None:
        for line in running.lines():
            tail.append(line)
            say(f"{name} | {line}")

    reader = threading.Thread(target=pass_on, name=name, daemon=True)
    reader.start()
    progress = LogGrowth(log, PATIENCE_S if patience_s is None else patience_s)
    ended_by: Literal["itself", "watchdog"] = "itself"
    why = ""
    while (code := running.poll()) is None:
        if patience_s is not None and progress.silent_s() > patience_s:
            say(
                f"{name}: no progress in {log.name} for {patience_s:g} s; asking every rank for its stacks, then stopping it"
            )
            ended_by = "watchdog"
            say(f"{name}: {running.ask_for_stacks()}")
            time.sleep(STACKS_S)
            why = stacks.hanging(stacks.standing(_of_all_nodes(log)))
            if why:
                say(f"{name}: {why}")
            code = halt(running)
            break
        time.sleep(POLL_S)
    reader.join(timeout=5)  # a grandchild may hold the pipe open for ever
    return Outcome(code, ended_by, tuple(tail), why)


def _of_all_nodes(log: Path) -> str:
    """What ranks have written: into the log, or on a cluster's other nodes into files of their own."""
    files = [log, *sorted(log.parent.glob(f"{log.stem}.node*.log"))]
    return "\n".join(map(outside.text, files))


def halt(running: Running) -> int:
    """SIGTERM, time to close the log, then SIGKILL. Returns the exit code."""
    running.terminate()
    awake = clocks.Awake(GRACE_S)
    while (code := running.poll()) is None and awake() < GRACE_S:
        time.sleep(POLL_S)
    if code is not None:
        return code
    running.kill()
    while (code := running.poll()) is None:
        time.sleep(POLL_S)
    return code
