"""Where a step's time goes: a chain in which nothing is lost and nothing counted twice, on a CPU's clock and on a GPU's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.detection import phases
from benchmarks.detection.data_path import data
from benchmarks.detection.phases import Phases
from harness import config
from harness.contract import STEP_PHASES, Context
from tests.ssd import small


def test_each_phase_ends_where_the_next_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0])
    monkeypatch.setattr(phases.time, "perf_counter", lambda: next(now))
    found = Phases(torch.device("cpu"))
    for name in ("data_starved", "forward_loss", "data_starved", "forward_loss", "logging"):
        found.begin(name)
    assert found.seconds() == {"data_starved": 1 + 3, "forward_loss": 2 + 4}
    found.begin("data_starved")
    assert found.seconds() == {"logging": 5}, "what went on at the last reading goes on"


def test_on_a_gpu_a_slow_host_starves_the_device_and_a_busy_device_starves_nobody(gpu: str) -> None:
    """The host waits either way; only where the device has nothing to do is it starved."""
    device = torch.device(gpu)
    found, work = Phases(device), torch.randn(4096, 4096, device=device)
    torch.cuda.synchronize()
    found.begin("forward_loss")
    for _ in range(200):
        work = work @ work / 4096
    found.begin("data_starved")
    time.sleep(0.01)  # less than the device has to do
    found.begin("forward_loss")
    torch.cuda.synchronize()
    time.sleep(0.05)
    found.begin("optimizer")
    torch.cuda.synchronize()
    seconds = found.seconds()
    assert seconds["data_starved"] < 0.005 and seconds["forward_loss"] > 0.05


def test_what_lies_between_epochs_is_in_no_phase(tmp_path: Path, device: str) -> None:
    """Init before the first, an evaluation or a checkpoint before another: neither starves the device."""
    from benchmarks.ssd.session import SSDSession

    folder = small.folder(tmp_path)
    tables = config.parse(small.content(), name="small", source="small").tables
    session = SSDSession(tables, Context(device=device, seed=5, data_dir=folder, log_every_steps=1))  # type: ignore[arg-type]
    session.warm_up()
    session.load_data()
    for epoch in (1, 2):
        time.sleep(1.0)
        start = time.perf_counter()
        counted = sum(sum(interval.phases.values()) for interval in session.train_epoch(epoch))
        assert counted <= time.perf_counter() - start
    session.close()


@pytest.mark.parametrize("steps", [3])
def test_a_session_s_intervals_account_for_all_their_time(tmp_path: Path, device: str, steps: int) -> None:
    from benchmarks.ssd.session import SSDSession

    folder = small.folder(tmp_path)
    tables = config.parse(small.content(), name="small", source="small").tables
    session = SSDSession(tables, Context(device=device, seed=5, data_dir=folder, log_every_steps=1))  # type: ignore[arg-type]
    session.load_data()
    start = time.perf_counter()
    intervals = list(session.train_epoch(1, steps))
    whole = time.perf_counter() - start
    session.close()
    assert len(intervals) == steps
    names = {name for each in intervals for name in each.phases}
    assert names == set(STEP_PHASES) - {"all_reduce_wait"}
    told = sum(sum(each.phases.values()) for each in intervals)
    assert 0.5 * whole < told <= whole, "all but the end of the last interval"


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_an_evaluation_s_clock_is_its_device_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    from benchmarks.ssd.folder import Folder

    monkeypatch.setattr(data, "eval_batches", lambda _: None)
    tables: Any = config.parse(small.content(data={"backend": "torch"}), name="small", source="small").tables
    opened = Folder(tables, Context(device=device, data_dir=small.folder(tmp_path)))
    assert opened.evaluation().phases.on_cuda == (device != "cpu")
