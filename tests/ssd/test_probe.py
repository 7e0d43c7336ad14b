"""What `harness probe` measures of SSD: the run's own step and its own decoder, without data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torchvision.io import decode_jpeg

from benchmarks.detection import probe
from benchmarks.ssd.benchmark import BENCHMARK
from benchmarks.ssd.session import SSDSession
from harness import config
from harness.contract import Context, Figure, SecondsOf
from tests.ssd import small


def once(action: Callable[[], object]) -> list[float]:
    action()
    return [0.5]


def three_times(action: Callable[[], object]) -> list[float]:
    return [seconds for _ in range(3) for seconds in once(action)]


def figures(device: str, seconds_of: SecondsOf = once, **tables: Any) -> dict[str, Figure]:
    read: Any = config.parse(small.content(**tables), name="small", source="small").tables
    return {each.name: each for each in BENCHMARK.probe(read, Context(device=device, threads=1), seconds_of)}


@pytest.mark.parametrize("backend", ["dali", "torch"])
def test_step_and_decoder_of_either_backend(backend: str, device: str) -> None:
    found = figures(device, data={"backend": backend})
    assert {"step", "decoding_by_cpu"} <= set(found)
    assert ("decoding_by_cuda" in found or "decoding_by_gpu" in found) == device.startswith("cuda")
    assert found["step"].samples == [500.0] and found["step"].what.startswith("batch 4, 64 px, ")
    assert found["decoding_by_cpu"].samples == [8.0], "four pictures in half a second"
    assert found["decoding_by_cpu"].what == f"4 of {sum(map(len, probe.jpegs(4))) / 4000:.0f} kB, 1 threads"


def test_the_step_is_the_session_s(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[torch.Size, ...]] = []
    real = SSDSession.train_step

    def train_step(self: SSDSession, *batch: torch.Tensor) -> torch.Tensor:
        taken.append(tuple(each.shape for each in batch))
        return real(self, *batch)

    monkeypatch.setattr(SSDSession, "train_step", train_step)
    figures("cpu", data={"backend": "torch"})
    assert len(set(taken)) == 1 and taken[0][0] == (4, 3, 64, 64)


def test_the_step_is_on_numbers_and_not_on_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is measured, and whatever the learning rate."""
    losses: list[float] = []
    step = SSDSession.train_step

    def told(session: SSDSession, *batch: torch.Tensor) -> torch.Tensor:
        loss = step(session, *batch)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(SSDSession, "train_step", told)
    figures("cpu", three_times, optimizer={"learning_rate": 1e12})
    assert len(losses) > 3 and losses == pytest.approx(losses[:1] * len(losses), rel=1e-3)


def test_nobody_need_have_the_backbone_s_file() -> None:
    assert "step" in figures("cpu", model={"initial_weights": "imagenet"}, data={"backend": "torch"})


def test_the_pictures_are_photographs_in_size_and_the_same_each_time() -> None:
    files, again = probe.jpegs(10), probe.jpegs(10)
    assert all(torch.equal(one, other) for one, other in zip(files, again, strict=True))
    assert len({bytes(each.numpy().tobytes()) for each in files}) == probe.PICTURES
    assert decode_jpeg(files[0]).shape == (3, probe.HEIGHT, probe.WIDTH)
    assert 100_000 < len(files[0]) < 250_000
