"""Where a run's ranks meet: a store that rank 0, or torchrun's own process on its machine, keeps at MASTER_ADDR:MASTER_PORT.

Rank 0 may still be starting, so whoever does not reach it tries again; and a wrong address may well have a name, so he says
whom he has been trying to reach, and gives up long before torch would.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import platform
import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.execution import console

PATIENCE_S = 300.0  # for rank 0's place to answer; --rendezvous-timeout
FIRST_S, TELL_S = 10.0, 30.0  # until the first line about what is waited for, and between two
TRY_S, AGAIN_S = 5.0, 1.0  # for one connection, and until the next
ALL_S = 1200.0  # for all ranks to be there: one machine may still be checking its data, or unpacking an image
ANSWER_S = 60.0  # for the answer of a store that took a connection: it takes milliseconds, on a crowded machine seconds


@dataclass(frozen=True)
class MeetingPlace:
    """Of rank 0, for the others."""

    address: str
    port: int
    patience_s: float = PATIENCE_S

    def __str__(self) -> str:
        return f"{self.address}:{self.port} (MASTER_ADDR, MASTER_PORT)"


def patience_s(asked: int | None) -> float:
    """Of --rendezvous-timeout."""
    return PATIENCE_S if asked is None else float(asked)


class Waiting:
    """What has been waited for, and when to say so."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._began = say, time.monotonic()
        self._next_s = FIRST_S

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def tell(self, text: str) -> None:
        """The text with the time so far, seldom."""
        if self.seconds >= self._next_s:
            self._say(f"{text} (for {self.seconds:.0f} s so far)")
            self._next_s += TELL_S


def of_ranks(
    place: MeetingPlace,
    rank: int,
    ranks: int,
    *,
    keeps: bool,
    say: Callable[[str], None] = console.complain,
    attempt: str = "0",
) -> Any:
    """The ranks' store, once all of them are there. ValueError that says who is not, or why they cannot meet.

    `attempt`: of a launcher that starts all ranks again when one has died, and whose store still holds what the dead ones said.
    """
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore

    fix = "the port must be free on rank 0's machine and the address reach it from every other"
    try:
        socket.getaddrinfo(place.address, place.port)
    except OSError as error:
        raise ValueError(f"the ranks cannot meet at {place}: {error.strerror}; {fix}") from error
    try:
        found = store(f"rank {rank}", place, ranks, keeps=keeps, say=say)
        found.set_timeout(datetime.timedelta(seconds=ALL_S))
        shared = PrefixStore(f"harness/{attempt}", found)
        if shared.add(f"came/{rank}", 1) > 1:
            there = shared.get(f"here/{rank}").decode()
            raise ValueError(
                f"a process with RANK={rank} is at {place} already, or was, on {there}: another run meets there, two were "
                "given one RANK, or a launcher has started ranks again without a new attempt; choose another port for this run"
            )
        shared.set(f"here/{rank}", platform.node())
        if rank == 0:
            _await(shared, ranks, place, say)
            shared.set("all", "here")
        else:
            shared.wait(["all"])
        return shared
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        raise ValueError(f"the ranks cannot meet at {place}: {str(error).splitlines()[0]}; {fix}") from error


def _await(shared: Any, ranks: int, place: MeetingPlace, say: Callable[[str], None]) -> None:
    """Wait for every rank's word, and say of whom."""
    import torch.distributed as dist

    waiting = Waiting(say)
    while True:
        missing = [rank for rank in range(ranks) if not shared.check([f"here/{rank}"])]
        if not missing:
            return
        listed = ", ".join(map(str, missing[:8])) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        left_s = ALL_S - waiting.seconds
        if left_s <= 0:
            raise ValueError(
                f"of {ranks} ranks {len(missing)} did not come to {place} within {ALL_S:g} s: rank {listed}. Were they "
                "started, and does the address reach this machine from theirs?"
            )
        waiting.tell(f"of {ranks} ranks {len(missing)} are not at {place} yet: rank {listed}")
        with contextlib.suppress(dist.DistStoreError):
            shared.wait([f"here/{missing[0]}"], datetime.timedelta(seconds=min(FIRST_S, left_s)))


def reach(who: str, place: MeetingPlace, say: Callable[[str], None] = console.complain) -> None:
    """Wait until something takes a connection there. ValueError where nothing does in time, or the address has no meaning."""
    waiting = Waiting(say)
    while True:
        left_s = place.patience_s - waiting.seconds
        try:
            socket.create_connection((place.address, place.port), timeout=max(0.1, min(TRY_S, left_s))).close()
            return
        except OSError as error:
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
                raise ValueError(f"{who} finds no rank 0 at {place}: {error.strerror}") from error
            why = _why(error)
            if waiting.seconds >= place.patience_s:
                raise ValueError(
                    f"{who} has tried to reach rank 0 at {place} for {waiting.seconds:.0f} s: {why}. Where rank 0 begins "
                    "later than that: --rendezvous-timeout SECONDS"
                ) from error
        waiting.tell(f"{who} cannot reach rank 0 at {place} yet: {why}")
        time.sleep(min(AGAIN_S, max(0.0, place.patience_s - waiting.seconds)))


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "nothing answers at that address; is it rank 0's, and does a firewall let it through?"
    if error.errno == errno.ECONNREFUSED:
        return "that machine answers, and nothing listens on the port; is rank 0 started there?"
    return f"{error.strerror or error}; is the address rank 0's?"


def store(
    who: str, place: MeetingPlace, ranks: int, *, keeps: bool, say: Callable[[str], None] = console.complain
) -> Any:
    """The ranks' TCPStore, kept by this process where `keeps`. ValueError where no such store answers, torch's error where its
    port is taken.

    torch waits for ever for the answer of another program that took the connection, and hears no signal meanwhile: so its call
    runs in a thread, which ends with the process.
    """
    import torch.distributed as dist

    if not keeps:
        reach(who, place, say)
    limit_s = place.patience_s if keeps else min(place.patience_s, ANSWER_S)
    found: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def connect() -> None:
        limit = datetime.timedelta(seconds=limit_s)
        try:
            found.put(dist.TCPStore(place.address, place.port, ranks, keeps, limit, wait_for_workers=False))  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001 - raised below
            found.put(error)

    threading.Thread(target=connect, name="meeting", daemon=True).start()
    waiting = Waiting(say)
    answer = None
    while answer is None and waiting.seconds < limit_s + TRY_S:  # torch's own limit ends what it can end
        waiting.tell(f"{who} has no answer yet from {'itself' if keeps else 'rank 0'} at {place}")
        with contextlib.suppress(queue.Empty):
            answer = found.get(timeout=1.0)
    if answer is None or isinstance(answer, RuntimeError):
        if answer is not None and "in use" in str(answer):
            raise answer
        said = "" if answer is None else f" ({str(answer).splitlines()[0]})"
        raise ValueError(_no_store(who, place, keeps) + said) from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


def _no_store(who: str, place: MeetingPlace, keeps: bool) -> str:
    if keeps:
        return (
            f"{who} waits for the others on {platform.node()} and does not reach itself at {place} within "
            f"{place.patience_s:g} s: the address is another machine's, or a firewall is in between"
        )
    return (
        f"{who} reaches {place}, but what answers there is not rank 0 of a run: another program has that port, or the "
        "address is another machine's"
    )
