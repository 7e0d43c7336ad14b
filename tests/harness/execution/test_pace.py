"""A run that has become slow says so, once, with who was there; one that waits for data or is slow for a moment does not."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from harness.execution import pace
from harness.execution.pace import Pace
from harness.execution.throughput import Rate
from harness.system import neighbours


def rate(images_per_s: float, *, starved: float = 0.0) -> Rate:
    return Rate(100, 100 / images_per_s + starved, {"data_starved": starved})


@pytest.fixture
def slow() -> Pace:
    return Pace.of({"init_images_per_s": 20.0}, None)


def test_said_once_after_two_slow_intervals(slow: Pace) -> None:
    assert [slow.look(rate(each)) for each in (19.0, 4.6, 12.0, 4.6)] == [None] * 4
    found = slow.look(rate(4.6))
    assert found is not None
    assert (found["images_per_s"], found["init_images_per_s"]) == (4.6, 20.0)
    assert found["processors"] == len(os.sched_getaffinity(0))
    assert "4.6 images/s, without the wait for data, where init's step made 20; the load is " in pace.told(found)
    assert slow.look(rate(1.0)) is None


def test_a_fast_machine_s_rates_are_no_powers_of_ten() -> None:
    fast = Pace.of({"init_images_per_s": 121_500.0}, None)
    found = next(each for each in (fast.look(rate(19_466.0)) for _ in range(5)) if each is not None)
    assert "slow: 19,466 images/s, without the wait for data, where init's step made 121,500; the" in pace.told(found)


def test_waiting_for_data_is_not_a_slow_step(slow: Pace) -> None:
    assert [slow.look(rate(19.0, starved=500.0)) for _ in range(3)] == [None] * 3


def test_a_session_that_measured_nothing_is_held_against_nothing() -> None:
    for told in ({}, {"init_images_per_s": 0.0}, {"init_images_per_s": "fast"}):
        silent = Pace.of(told, None)  # type: ignore[arg-type]
        assert [silent.look(rate(1.0)) for _ in range(3)] == [None] * 3


def test_who_is_there_is_named_and_this_runs_own_processes_are_not(slow: Pace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MOST", 1000)  # a busy machine has more than are named
    monkeypatch.setattr(neighbours, "SHARE", 0.0)
    spin = "import time; end = time.monotonic() + 30\nwhile time.monotonic() < end: pass"
    with subprocess.Popen([sys.executable, "-c", spin]) as own:
        try:
            theirs = Pace(20.0, lambda process: process.pid == os.getpid())
            for each in (slow, theirs):
                each.look(rate(1.0))
            process = psutil.Process(own.pid)
            began = sum(process.cpu_times()[:2])
            while sum(process.cpu_times()[:2]) < began + 0.5:
                pass
            mine, others = slow.look(rate(1.0)), theirs.look(rate(1.0))
        finally:
            own.kill()
    assert mine is not None and others is not None
    assert own.pid not in [each["process"] for each in mine["other_processes"]]
    assert own.pid in [each["process"] for each in others["other_processes"]]
    assert f"({own.pid})" in pace.told(others)
