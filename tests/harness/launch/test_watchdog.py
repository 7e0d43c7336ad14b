"""Limits of time: what whoever waits was frozen itself, as a rule with what it waits for, does not count."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.launch import leftovers, watchdog
from tests.conftest import CHECKOUT
from tests.patience import PATIENCE_S


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """In place of the machine's, for those who wait."""
    found = Clock()
    monkeypatch.setattr(time, "monotonic", found)
    return found


def test_a_series_that_was_frozen_with_its_trial_has_seen_no_silence(tmp_path: Path, clock: Clock) -> None:
    """`docker pause` of both for longer than --watchdog: the trial was killed the moment that they woke."""
    progress = watchdog.LogGrowth(tmp_path / "result_0.txt", 60)
    clock.now_s += 3600
    assert progress.silent_s() < 60
    for _ in range(90):
        clock.now_s += watchdog.POLL_S
        silent_s = progress.silent_s()
    assert silent_s >= 60, "one that hangs is still found out"


@pytest.mark.parametrize("look_s", [0.5, 6, 40])
def test_a_cluster_that_answers_late_makes_no_limit_longer(tmp_path: Path, clock: Clock, look_s: float) -> None:
    """Of each look 2 s counted: with looks of 6 s a limit of 15 s was one of 52, and half an hour an hour and a half."""
    progress = watchdog.LogGrowth(tmp_path / "result_0.txt", 1800)
    while progress.silent_s() < 1800:
        clock.now_s += look_s
    assert clock.now_s < 1800 + look_s


class Closing:
    """A trial that closes its log with its next steps; the first time that it is looked at, all is frozen for an hour."""

    pid = 1

    def __init__(self, clock: Clock) -> None:
        self._clock, self._looks, self.did = clock, 0, list[str]()

    def poll(self) -> int | None:
        self._looks += 1
        self._clock.now_s += 3600 if self._looks == 1 else 0
        return 130 if self._looks > 3 or "kill" in self.did else None

    def ppid(self) -> int:
        return 0

    def terminate(self) -> None:
        self.did.append("terminate")

    def kill(self) -> None:
        self.did.append("kill")


def test_a_trial_that_is_frozen_as_it_closes_its_log_is_not_killed(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in (watchdog, leftovers):
        monkeypatch.setattr(room, "POLL_S", 0.0)
    trial: Any = Closing(clock)
    assert watchdog.halt(trial) == 130
    assert trial.did == ["terminate"]
    other: Any = Closing(clock)
    leftovers.stop(lambda: [other] if other.poll() is None else [], watchdog.GRACE_S)
    assert other.did == ["terminate"]


FROZEN_AS_IT_ENDS = """
import os, signal, time
from harness.execution import signals
signals.GRACE_S = 4.0
with signals.as_exceptions() as guard:
    guard.overdue = lambda _: os._exit(7)
    try:
        print("ready", flush=True)
        signal.pause()
    except signals.Interrupted:
        print("ending", flush=True)
        for _ in range(10):
            time.sleep(0.1)
"""


def test_a_run_that_is_frozen_as_it_ends_has_its_seconds_when_it_wakes() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FROZEN_AS_IT_ENDS], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        try:
            assert run.stdout.readline() == "ready\n"
            run.terminate()
            assert run.stdout.readline() == "ending\n"
            run.send_signal(signal.SIGSTOP)
            time.sleep(4.5)
            run.send_signal(signal.SIGCONT)
            assert run.wait(PATIENCE_S) == 0
        finally:
            run.kill()
