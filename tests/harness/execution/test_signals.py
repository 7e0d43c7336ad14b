"""A signal that asks a run to end is an exception, wherever the main thread is at that moment."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from harness.execution import signals
from harness.execution.signals import Interrupted, as_exceptions, later
from tests.patience import PATIENCE_S


class Thing:
    """Something to be referred to."""


def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.001)  # here the handler is called


def in_a_destructor() -> None:
    class Dying:
        def __del__(self) -> None:
            interrupted()

    Dying()


def in_a_weak_reference_s_callback() -> None:
    thing = Thing()
    kept = weakref.ref(thing, lambda _: interrupted())
    del thing
    assert kept() is None


@pytest.mark.parametrize("place", [interrupted, in_a_destructor, in_a_weak_reference_s_callback])
def test_it_is_raised_though_python_drops_it_at_first(place: Callable[[], None]) -> None:
    before = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    with pytest.raises(Interrupted, match="SIGTERM"), as_exceptions():
        place()
        time.sleep(20)  # a main thread that waits is woken
        raise AssertionError("nothing was raised")
    assert (signal.getsignal(signal.SIGTERM), sys.unraisablehook) == before


def test_a_second_one_while_the_first_is_dropped_takes_neither_away(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Timer.start

    def interrupted_there(timer: threading.Timer) -> None:
        interrupted()
        start(timer)

    monkeypatch.setattr(threading.Timer, "start", interrupted_there)
    with pytest.raises(Interrupted), as_exceptions():
        in_a_destructor()
        time.sleep(20)
        raise AssertionError("nothing was raised")


def test_when_it_has_been_raised_those_after_it_are_ignored() -> None:
    raised = 0
    with as_exceptions():
        for _ in range(3):
            try:
                interrupted()
            except Interrupted:
                raised += 1
    assert raised == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_else_is_dropped_goes_where_it_went() -> None:
    class Breaking:
        def __del__(self) -> None:
            raise RuntimeError("broken")

    told: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda what: told.append(type(what.exc_value))
    try:
        with as_exceptions():
            Breaking()
    finally:
        sys.unraisablehook = before
    assert told == [RuntimeError]


def test_none_comes_after_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which has ended by itself meanwhile: there it would end the process."""
    monkeypatch.setattr(signals, "AGAIN_S", PATIENCE_S)  # a busy machine stands still in the block for 50 ms
    with as_exceptions():
        in_a_destructor()
    assert not [
        each for each in threading.enumerate() if isinstance(each, threading.Timer) and not each.finished.is_set()
    ]


def test_it_waits_until_the_block_ends_and_what_a_broken_block_left_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt within contextlib's own lines leaves the block's beginning without its end: the next waited for ever."""
    monkeypatch.setattr(signals._waiting, "kept", True)
    for _ in range(2):
        done = False
        with pytest.raises(Interrupted), as_exceptions():
            with later():
                interrupted()
                done = True
            raise AssertionError("nothing was raised")
        assert done
    with pytest.raises(Interrupted), as_exceptions():
        interrupted()
        raise AssertionError("nothing was raised")


def test_what_may_wait_long_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    """A trial of a cluster that does not answer took minutes to close after a Ctrl-C, without a word."""
    with pytest.raises(Interrupted), as_exceptions(), later("the line is there"), later():
        interrupted()
        interrupted()
        assert capfd.readouterr().err == "SIGTERM: waits until the line is there\n"
    with pytest.raises(Interrupted), as_exceptions(), later():
        interrupted()
    assert capfd.readouterr().err == ""
