"""Machines of a run that answer no more. (One whose cable is pulled: tests/harness/launch/test_slurm.py.)"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from harness.execution import lifeline
from tests.patience import PATIENCE_S

MACHINES = {0: "node1", 4: "node2", 8: "node3"}


class Store:
    """The ranks' store."""

    def __init__(self) -> None:
        self._value = ""
        self._there = threading.Event()

    def set(self, key: str, value: str) -> None:
        self._value = value
        self._there.set()

    def get(self, key: str) -> bytes:
        assert self._there.wait(PATIENCE_S)
        return self._value.encode()


class Broken(Exception):
    """Of a rank."""


class Machine:
    """The first rank of one, in a thread of its own."""

    def __init__(
        self, store: Store, rank: int, machines: dict[int, str] = MACHINES, address: str = "127.0.0.1"
    ) -> None:
        self.lost: list[str] = []
        self.said: list[str] = []
        self.inside, self.leave, self.known = threading.Event(), threading.Event(), threading.Event()

        def lost(reason: str) -> None:
            self.lost.append(reason)
            self.known.set()

        def live() -> None:
            with (
                contextlib.suppress(Broken),
                lifeline.kept(store, rank, machines, address, lost=lost, say=self.said.append),
            ):
                self.inside.set()
                self.leave.wait(PATIENCE_S)
                if self.breaks:
                    raise Broken

        self.breaks = False
        self.thread = threading.Thread(target=live, daemon=True)
        self.thread.start()

    def end(self) -> None:
        self.leave.set()
        self.thread.join(PATIENCE_S)


def begun() -> dict[int, Machine]:
    store = Store()
    found = {rank: Machine(store, rank) for rank in MACHINES}
    for each in found.values():
        assert each.inside.wait(PATIENCE_S)
    return found


def test_a_run_that_is_left_well_has_lost_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "GONE_S", 0.1)
    three = begun()
    for rank in (4, 0, 8):
        three[rank].end()
        assert not three[8].known.wait(0.3)
    assert not [each.lost or each.said for each in three.values() if each.lost or each.said]


def test_a_run_that_is_over_before_its_watch_begins_has_lost_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the thread may begin when the connections are closed already."""
    late: list[Callable[[], None]] = []

    def thread(*, target: Callable[..., None], args: tuple[object, ...], **_: object) -> SimpleNamespace:
        late.append(lambda: target(*args))
        return SimpleNamespace(start=lambda: None)

    monkeypatch.setattr(lifeline, "threading", SimpleNamespace(Event=threading.Event, Thread=thread))
    three = begun()
    for each in three.values():
        each.end()
    for watch in late:
        watch()
    assert len(late) == 3 and not [each.lost or each.said for each in three.values() if each.lost or each.said]


def test_a_process_that_ends_without_a_word_is_told_where_no_launcher_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "GONE_S", 0.1)
    monkeypatch.setattr(lifeline, "_leave", lambda _, over: over.set())  # as one that is killed
    three = begun()
    three[4].end()
    assert three[0].known.wait(PATIENCE_S)
    assert three[0].lost == ["rank 4 on node2 ended without a word"]
    assert not three[8].lost, "rank 0 ends the run for all"


def test_a_rank_that_breaks_is_told_where_each_machine_has_a_launcher_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It left as a run does that has come to its end, and the others waited in a collective for as long as one may take."""
    monkeypatch.setattr(lifeline, "GONE_S", 0.1)
    three = begun()
    three[4].breaks = True
    three[4].end()
    assert three[0].known.wait(PATIENCE_S)
    assert three[0].lost == ["rank 4 on node2 has ended before the run did; its own output says why"]


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH])
def test_a_machine_that_is_gone_is_not_waited_for(number: int) -> None:
    class Connection(socket.socket):
        def recv(self, size: int, flags: int = 0) -> bytes:
            raise OSError(number, "gone")

    with Connection() as connection:
        reason, is_its_machine = lifeline._end(connection, "rank 8 on node3") or ("", False)
    assert is_its_machine
    assert reason == "rank 8 on node3 has not answered for 16 s: its machine is gone, or the network to it"


def test_a_run_goes_on_where_the_machines_cannot_call_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "COME_S", 1.0)

    def no_way(*_: object, **__: object) -> socket.socket:
        raise ConnectionRefusedError("no way")

    monkeypatch.setattr(lifeline.socket, "create_connection", no_way)
    store, two = Store(), {0: "node1", 1: "node2"}
    both = [Machine(store, rank, two) for rank in two]
    for each in both:
        assert each.inside.wait(PATIENCE_S)
        (said,) = each.said
        assert "not every machine that goes silent will be noticed at once" in said
        each.end()
        assert not each.lost
