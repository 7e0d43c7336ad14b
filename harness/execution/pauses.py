"""For how long a rank did not run while it trained: stopped (SIGSTOP), frozen (`docker pause`) or suspended with its job.

By MLPerf's rules such a run's time is the wall clock's all the same, so it stays a result; but it says so. A machine that
sleeps is another matter: then its clocks contradict each other (moment.WallClock).

A thread looks at the clock every INTERVAL_S. That it comes late does not tell alone: a call into C may have held Python's
lock, for which a thread waits in short naps, hundreds a second; in a process that does not run it wakes once.
"""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections.abc import Mapping
from typing import Any

INTERVAL_S = 0.5
PAUSE_S = 5.0  # no busy machine keeps a thread that slept from a processor for as long
NAPS_PER_S = (
    10  # fewer: it did not run; a thread that waits for Python's lock wakes every sys.getswitchinterval(), 5 ms
)
END_S = 1.0  # for the last look, and the other ranks' words
KEY = "paused"  # in the ranks' store: each pause of ranks other than 0, "RANK SECONDS;"


class Heartbeat:
    """From run_start on, on every rank; `end` says what rank 0's log is to say of all of them."""

    def __init__(self, rank: int = 0, store: Any = None) -> None:
        self._rank, self._store = rank, store
        self._seconds: dict[int, float] = {}  # by rank; those that did not run for a while
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def end(self) -> dict[int, float]:
        """The seconds of each rank that was paused; those of the others on rank 0 alone. Safe to call twice."""
        self._over.set()
        self._thread.join(END_S)  # the store's keeper may be stopped itself
        return dict(self._seconds)

    def _beat(self) -> None:
        last_s, naps = time.perf_counter(), _naps()
        over = False
        while not over:
            over = self._over.wait(INTERVAL_S)
            now_s, naps_now = time.perf_counter(), _naps()
            paused_s = now_s - last_s - INTERVAL_S
            if paused_s > PAUSE_S and naps_now - naps < NAPS_PER_S * paused_s:
                self._note(paused_s)
                now_s, naps_now = time.perf_counter(), _naps()  # the store's keeper may have been frozen for longer
            last_s, naps = now_s, naps_now
        if self._rank == 0 and self._store is not None:
            self._hear()

    def _note(self, paused_s: float) -> None:
        self._seconds[self._rank] = self._seconds.get(self._rank, 0.0) + paused_s
        if self._rank != 0 and self._store is not None:
            with contextlib.suppress(RuntimeError):  # of a run that is ending: its store is gone
                self._store.append(KEY, f"{self._rank} {paused_s};")

    def _hear(self) -> None:
        with contextlib.suppress(RuntimeError):
            if not self._store.check([KEY]):
                return
            for each in self._store.get(KEY).decode().split(";")[:-1]:
                rank, seconds = each.split()
                self._seconds[int(rank)] = self._seconds.get(int(rank), 0.0) + float(seconds)


def told(paused: Mapping[int, float]) -> str:
    """For people: `end`'s."""
    longest = max(paused, key=paused.__getitem__)
    others = len(paused) - 1
    return (
        f"warning: the run's time holds a pause: rank {longest} did not run for {paused[longest]:.1f} s"
        f"{f', and {others} more for up to as long' * bool(others)}: stopped, frozen or suspended (SIGSTOP, docker pause, "
        "scontrol suspend). By MLPerf's rules the time stands; run again for one that can be compared"
    )


def _naps() -> int:
    """How often this thread has waited for something."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
