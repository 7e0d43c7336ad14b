"""The data path alone: all that is counted is made while the clock goes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.detection.data_path import data_torch
from benchmarks.ssd.session import SSDSession
from measuring import measure
from measuring.ssd import data, sections, setup
from tests.patience import PATIENCE_S
from tests.ssd import small
from tests.toy.configuration import write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.folder(tmp_path_factory.mktemp("data"))


def session(folder: Path, place: Path, backend: str) -> SSDSession:
    content = small.content(data={"backend": backend}, model=small.OF_32_PX, optimizer={"batch_size": 2})
    return setup.session(setup.read(str(write(place, content, "small"))), "cpu", folder)


def test_batches_that_were_made_before_are_no_speed() -> None:
    """A data path that makes one in a second, and has filled its queue while nobody asked: four of them took two seconds."""
    now = [0.0]

    def path() -> Iterator[object]:
        made_at = [0.0] * data_torch.AHEAD
        while True:
            now[0] = max(now[0], made_at.pop(0))
            made_at.append(max(now[0], *made_at) + 1.0)
            now[0] += 0.25  # to hand it over, while the next one is being made
            yield None

    batches = path()
    assert data.made_s(batches, 4, "cpu", lambda: now[0]) == 4.0
    now[0] += 100.0
    assert data.made_s(batches, 40, "cpu", lambda: now[0]) == 40.0


def test_neither_data_path_has_one_that_is_ready_when_the_clock_starts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = session(folder, tmp_path, "torch")
    batches = opened.folder.train_batches(opened.default_boxes)
    started, made, at_start = threading.Event(), list[int](), list[int]()
    ready = data_torch.TorchBatches._ready

    def slow(self: Any, *what: Any) -> Any:
        if len(made) > data_torch.AHEAD:  # the next is waited for with the clock going
            assert started.wait(PATIENCE_S)
        made.append(1)
        return ready(self, *what)

    def clock() -> float:
        if not at_start:
            at_start.append(len(made))
        started.set()
        return float(len(made))

    monkeypatch.setattr(data_torch.TorchBatches, "_ready", slow)
    assert data.made_s(data.endless(batches), 2, "cpu", clock) >= 2
    assert at_start == [data_torch.AHEAD + 1], "as many as were taken"
    dali: Any = session(folder, tmp_path, "dali")
    (pipe,) = dali.folder.train_batches(dali.default_boxes).iterator._pipes
    assert pipe.prefetch_queue_depth == data_torch.AHEAD


def test_data_alone_is_measured_so(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, str]] = []

    def made_s(_: object, count: int, device: str) -> float:
        asked.append((count, device))
        return 0.5

    monkeypatch.setattr(sections, "made_s", made_s)
    monkeypatch.setattr(measure, "_until_quiet", lambda: None)
    ours = session(folder, tmp_path, "torch")
    batch = setup.first_batch(ours)
    network = setup.like_a_trained_network(batch, ours.config.model.categories + 1)
    *_, known = sections.alone(ours, batch, network, 1, 16)
    (alone,) = [each for each in known if isinstance(each, measure.Figure) and each.what == "data alone"]
    assert alone.samples == [2 * 16 / 0.5] and asked == [(16, "cpu")] * 2
