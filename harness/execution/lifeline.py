"""Whether a run's machines still answer: a connection from each to rank 0's, by which the kernels at both ends ask each other.

A machine that loses its power or its network says nothing, and whoever waits for it in a collective would for
process_group.COLLECTIVE_TIMEOUT, or until its cluster gives it up. TCP's keep-alive tells within LOST_S, whatever Python does
at either end. A process that ends on a machine that lives is its launcher's matter, and is told here only where none comes:
each machine may have a launcher of its own.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

IDLE_S, EVERY_S, TIMES = 4, 4, 3
LOST_S = IDLE_S + TIMES * EVERY_S  # 16 s: how long a machine is silent before it counts as gone
# For the launcher to end this process, once another rank has gone without a word; longer than a main thread that was told to
# end takes to close the run (signals.GRACE_S), or the log would say that a rank was lost, and not which signal came
GONE_S = 12.0
COME_S = 60.0  # for the others' connections
HELLO_S = 5.0  # for the first word on one
WELL, ILL = b".", b"!"  # sent before a connection is closed by a run that has come to its end, or by a rank that broke
KEY = "lifeline"  # in the ranks' store: rank 0's port for this
Peers = dict[socket.socket, str]  # and who is at the other end


@contextmanager
def kept(
    store: Any,
    rank: int,
    machines: dict[int, str],
    address: str,
    *,
    lost: Callable[[str], None],
    say: Callable[[str], None],
) -> Iterator[None]:
    """Inside the block `lost` is called, with words, from another thread when a machine answers no more.

    `machines`: the first rank of each machine -> its name; only these take part. `address`: of rank 0's.
    """
    if len(machines) < 2 or rank not in machines:
        yield
        return
    with contextlib.ExitStack() as closing:
        peers: Peers = {}
        try:
            if rank == 0:
                _take_calls(store, machines, peers, closing)
            else:
                _call(store, rank, address, machines[0], peers, closing)
        except OSError as error:
            say(
                f"rank {rank}: not every machine that goes silent will be noticed at once, for want of a connection: {error}"
            )
        selector = selectors.DefaultSelector()
        for each in peers:
            _ask_for_life(each)
            selector.register(each, selectors.EVENT_READ)  # not by the thread: a short run is over before it begins
        over = threading.Event()
        closing.callback(_leave, peers, over)
        threading.Thread(target=_watch, args=(selector, peers, over, lost), name="lifeline", daemon=True).start()
        try:
            yield
        except BaseException:
            _tell(peers, ILL)
            raise


def _take_calls(store: Any, machines: dict[int, str], peers: Peers, closing: contextlib.ExitStack) -> None:
    """The connections of all other machines to rank 0's."""
    port = 0
    try:
        dual = socket.has_dualstack_ipv6()
        listening = closing.enter_context(
            socket.create_server(("", 0), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual)
        )
        port = listening.getsockname()[1]
    finally:
        store.set(KEY, str(port))  # in any case: they wait for it
    listening.settimeout(COME_S)
    while len(peers) < len(machines) - 1:
        connection, _ = listening.accept()
        closing.enter_context(connection)
        connection.settimeout(HELLO_S)
        with contextlib.suppress(OSError):  # whoever says nothing is none of ours
            said = connection.recv(16).decode(errors="replace").strip()
            if said.isdecimal() and int(said) in machines:
                peers[connection] = f"rank {said} on {machines[int(said)]}"


def _call(  # noqa: PLR0917 - who calls whom
    store: Any, rank: int, address: str, name: str, peers: Peers, closing: contextlib.ExitStack
) -> None:
    port = int(store.get(KEY))
    if not port:
        raise OSError("rank 0 can listen on no port")
    connection = closing.enter_context(socket.create_connection((address, port), timeout=COME_S))
    connection.sendall(f"{rank}\n".encode())
    peers[connection] = f"rank 0 on {name}"


def _ask_for_life(connection: socket.socket) -> None:
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, IDLE_S), (socket.TCP_KEEPINTVL, EVERY_S), (socket.TCP_KEEPCNT, TIMES)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _watch(selector: selectors.BaseSelector, peers: Peers, over: threading.Event, lost: Callable[[str], None]) -> None:
    with selector:
        while selector.get_map() and not over.is_set():
            for key, _ in selector.select(timeout=1.0):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                selector.unregister(connection)
                told = _end(connection, peers[connection])
                if told is None or over.is_set():
                    continue
                reason, is_its_machine = told
                if is_its_machine or not over.wait(GONE_S):
                    lost(reason)


def _end(connection: socket.socket, who: str) -> tuple[str, bool] | None:
    """How a connection ended that has something to read: the words, and whether the machine is what is gone. None: well."""
    try:
        said = connection.recv(1)
        if said == WELL:
            return None
        if said == ILL:
            return f"{who} has ended before the run did; its own output says why", False
    except OSError as error:
        if error.errno not in (errno.ECONNRESET, errno.EPIPE):
            return f"{who} has not answered for {LOST_S} s: its machine is gone, or the network to it", True
    return f"{who} ended without a word", False


def _leave(peers: Peers, over: threading.Event) -> None:
    over.set()
    _tell(peers, WELL)


def _tell(peers: Peers, word: bytes) -> None:
    for each in peers:
        with contextlib.suppress(OSError):
            each.sendall(word)
