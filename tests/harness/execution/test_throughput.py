"""Rates are what was trained over the time that passed between synchronised points."""

from __future__ import annotations

import pytest

from harness.contract import Interval
from harness.execution import throughput
from harness.execution.throughput import EpochClock, Rate


def test_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 102.0, 103.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(now))
    clock = EpochClock(started=throughput.time.perf_counter())
    first = clock.interval(Interval(steps=2, images=20, loss=1.0, learning_rate=0.1, phases={"data_starved": 0.5}))
    second = clock.interval(Interval(steps=1, images=30, loss=1.0, learning_rate=0.1, phases={"data_starved": 0.1}))
    assert (first.images_per_s, second.images_per_s) == (10.0, 30.0)
    assert first.data_wait_share == 0.25
    whole = clock.epoch()
    assert whole == Rate(images=50, seconds=3.0, phases={"data_starved": 0.6})
    assert whole.images_per_s == pytest.approx(50 / 3)
