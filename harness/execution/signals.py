"""Signals that ask a run to end as an exception in the main thread, so that a run they end is closed like any other.

What must not be done by halves is done in a block of `later`: a signal that comes meanwhile is raised at its end.

A main thread that sits in a call which never returns (a read from a dead network disk) takes no exception. So a second
thread is woken by the same signal, and when the run has not left its block some seconds later, it ends it.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from harness import clocks

PR_SET_PDEATHSIG = 1
# What a user, a terminal that closes, a batch system near its limit or the kernel sends. SIGUSR1 asks for stacks
ENDING = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGXCPU),
)
ALWAYS = (signal.SIGINT, signal.SIGTERM)  # the others stay ignored where whoever started us ignores them, as nohup does
FROM_LAUNCHER = signal.SIGTERM  # what torchrun ends ranks with
AGAIN_S = 0.05  # until a signal comes again that Python has dropped
GRACE_S = 8.0  # for a main thread to close the run; `docker stop` kills after 10


def taken() -> list[signal.Signals]:
    """Those of ENDING that end a run here."""
    return [each for each in ENDING if each in ALWAYS or signal.getsignal(each) is not signal.SIG_IGN]


class Interrupted(BaseException):
    """A signal asked the run to end. Not an Exception: nothing on the way may take it for a failure."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)


class _Waiting:
    """What `later` keeps: one of a process, as its signals are."""

    def __init__(self) -> None:
        self.kept = False  # whether a signal is to wait
        self.signal: int | None = None  # the one that does
        self.until = ""  # what it waits for, where a person should know


_waiting = _Waiting()


@contextmanager
def _waits(kept: bool, until: str = "") -> Iterator[None]:
    before, _waiting.kept = _waiting.kept, kept
    before_until, _waiting.until = _waiting.until, until or _waiting.until
    try:
        _raise_what_waits()
        yield
    finally:
        _waiting.kept, _waiting.until = before, before_until
        _raise_what_waits()


def _raise_what_waits() -> None:
    if not _waiting.kept and (number := _waiting.signal) is not None:
        _waiting.signal = None
        raise Interrupted(number)


def later(until: str = "") -> AbstractContextManager[None]:
    """Inside the block the signal that asks the run to end waits; it is raised where the block ends.

    `until`: what is said of that on the screen where one begins to wait, for a block that may take long.
    Outside `as_exceptions` nothing waits: there a signal does what it always did.
    """
    return _waits(True, until)


def at_once() -> AbstractContextManager[None]:
    """A part of such a block in which it does not: one that has waited is raised where this begins."""
    return _waits(False)


class Guard:
    """The block's other thread."""

    def __init__(self, taken: Collection[int]) -> None:
        self._taken = taken
        self.overdue: Callable[[Interrupted], None] | None = None  # what to do when the block is not left in time
        self._left = threading.Event()
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._wait, name="overdue", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """What a signal could end has ended: those that wait or are still to come change nothing, whoever took them."""
        for each in self._taken:
            signal.signal(each, lambda *_: None)
        _waiting.signal = None

    def close(self) -> None:
        self._left.set()
        signal.set_wakeup_fd(self._before)
        os.close(self._write)  # ends the thread's read
        self._thread.join()
        os.close(self._read)

    def _wait(self) -> None:
        while number := os.read(self._read, 1):
            if number[0] in self._taken:
                awake = clocks.Awake(GRACE_S)
                while awake() < GRACE_S:
                    if self._left.wait(GRACE_S / 20):
                        return
                if self.overdue is not None:
                    self.overdue(Interrupted(number[0]))


@contextmanager
def as_exceptions() -> Iterator[Guard]:
    """Inside the block the first signal raises Interrupted; those after it are ignored until the run is closed.

    Where Python drops what is raised (a destructor, the callback of a weak reference: each import has one), it comes again.
    """
    asked = left = False
    _waiting.kept, _waiting.signal, _waiting.until = (
        False,
        None,
        "",
    )  # one that was interrupted as it began a block of `later` left that

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if asked or left:
            return
        asked = True
        if _waiting.kept:
            _waiting.signal = number
            if _waiting.until:  # not by a stream, which this may have interrupted as it writes
                with contextlib.suppress(OSError):
                    os.write(2, f"{signal.Signals(number).name}: waits until {_waiting.until}\n".encode())
        else:
            raise Interrupted(number)

    def again(number: int) -> None:
        nonlocal asked
        asked = False
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, number)  # it may wait for something

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if not isinstance(what.exc_value, Interrupted):
            hook_before(what)
            return
        # from another thread, later: here it would be dropped again
        coming.append(threading.Timer(AGAIN_S, again, (what.exc_value.signal,)))
        coming[-1].daemon = True
        coming[-1].start()

    coming: list[threading.Timer] = []
    numbers = taken()
    guard = Guard(numbers)
    before = {each: signal.signal(each, handle) for each in numbers}
    hook_before, sys.unraisablehook = sys.unraisablehook, dropped
    try:
        yield guard
    finally:
        left = True
        sys.unraisablehook = hook_before
        for each in coming:
            each.cancel()
            each.join()
        for number, handler in before.items():
            signal.signal(number, handler)
        guard.close()


def end_with_parent(parent: int) -> None:
    """Let the kernel send this process SIGTERM when the one that started it dies, however that comes about (prctl(2)).

    `parent`: who that is; one that is dead already counts too. For processes that we start ourselves: what the kernel calls a
    parent is a thread, and another launcher's may end before its process.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def stacks_on_request(descriptor: int | None) -> Iterator[None]:
    """On SIGUSR1 write every thread's stack to the file, even while Python code is not running (a hung collective).

    Without a file the signal is ignored: it must not end a process that was asked along with others.
    """
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if descriptor is None:
        try:
            yield
        finally:
            signal.signal(signal.SIGUSR1, before)
        return
    faulthandler.register(signal.SIGUSR1, descriptor, all_threads=True, chain=False)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a request that comes late must not end the process
        faulthandler.unregister(signal.SIGUSR1)
