"""A run that was stopped or frozen for a while: a result still, and one that says so."""

from __future__ import annotations

import ctypes
import itertools
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch.distributed as dist

from harness.execution import pauses
from harness.execution.pauses import Heartbeat
from harness.results import logfile
from tests.harness.execution.runs import Begun, begun, stop, wait_for
from tests.harness.execution.test_ways_out import SECOND_EPOCH, rank
from tests.patience import PATIENCE_S
from tests.toy import configuration as toy


@contextmanager
def napping(folder: Path, ranks: int = 1, first: str = "") -> Iterator[Begun]:
    """In epochs of some seconds, the second begun."""
    with begun("run", toy.write(folder, toy.raw("naps", ranks=ranks)), "--out", folder, first=first) as process:
        wait_for(folder / "result_0.txt", SECOND_EPOCH)
        yield process


def stopped_for(process: psutil.Process, seconds: float) -> None:
    process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    process.send_signal(signal.SIGCONT)


def test_a_run_that_was_stopped_is_a_result_that_says_so(tmp_path: Path) -> None:
    """40 s of `docker pause` were a time to train like any other: 0.8502 minutes, beside 0.2014, without a word."""
    with napping(tmp_path, first="from harness.execution import pauses; pauses.PAUSE_S = 0.5") as process:
        stopped_for(psutil.Process(process.pid), 2.0)
        assert process.wait(PATIENCE_S) == 0
        before, result, _ = process.said("out").partition("RESULT,TOY")
    assert result and "warning: the run's time holds a pause: rank 0 did not run for " in before
    assert stop(tmp_path / "result_0.txt")["paused_ranks"] == [0]
    assert logfile.read(tmp_path / "result_0.txt").paused.startswith("its time holds a pause of ")


@pytest.mark.long
def test_a_pause_of_another_rank_is_in_rank_0_s_log(tmp_path: Path) -> None:
    with napping(tmp_path, ranks=2) as process:
        stopped_for(rank(process, 1), pauses.PAUSE_S + 4)
        assert process.wait(PATIENCE_S) == 0
        assert "a pause: rank 1 did not run for " in process.said("out")
    assert stop(tmp_path / "result_0.txt")["paused_ranks"] == [1]


def test_rank_0_hears_of_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    store = dist.TCPStore("127.0.0.1", 0, 1, is_master=True, timeout=timedelta(seconds=PATIENCE_S))  # type: ignore[attr-defined]
    assert Heartbeat(0, store).end() == {}, "nobody was"
    minutes = itertools.count(0, 60)
    monkeypatch.setattr(pauses, "time", SimpleNamespace(perf_counter=lambda: float(next(minutes))))
    for each in (1, 2):
        assert set(Heartbeat(each, store).end()) == {each}
    monkeypatch.undo()
    found = Heartbeat(0, store).end()
    assert found == {1: 60 - pauses.INTERVAL_S, 2: 60 - pauses.INTERVAL_S}
    assert ", and 1 more for up to as long" in pauses.told(found)


def test_a_call_that_holds_pythons_lock_is_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where it uses no processor, as one that waits for a disk: by processor time it would be one."""
    monkeypatch.setattr(pauses, "PAUSE_S", 2.0)
    heart = Heartbeat()
    ctypes.PyDLL(None).usleep(4_000_000)
    assert heart.end() == {}


def test_a_store_that_does_not_answer_holds_no_run_up() -> None:
    class Silent:
        def check(self, _: list[str]) -> bool:
            time.sleep(PATIENCE_S)
            return False

    assert Heartbeat(0, Silent()).end() == {}


def test_what_the_store_takes_to_answer_is_no_second_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keeper, on another node, may be frozen for longer than this rank was."""
    now_s, told, awaited = [0.0], threading.Event(), threading.Event()

    class Late:
        def append(self, *_: str) -> None:
            now_s[0] += 60
            told.set()

    def look() -> float:
        if told.is_set():
            awaited.set()
        return now_s[0]

    monkeypatch.setattr(pauses, "INTERVAL_S", 0.25)
    monkeypatch.setattr(pauses, "time", SimpleNamespace(perf_counter=look))
    heart = Heartbeat(1, Late())
    now_s[0] += 40
    assert told.wait(PATIENCE_S) and awaited.wait(PATIENCE_S)
    assert heart.end() == {1: 40 - 0.25}
