"""The most memory of a run is of what it trains in, not of what init tried."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.execution import device_memory
from tests.harness.execution.runs import events, run
from tests.toy import configuration as toy

# A device that counts; init needs 64 bytes there, as fp32's trial may, and an epoch 9
COUNTING = """
from types import SimpleNamespace
from harness.execution import device_memory
from tests.toy import ToySession

class Device:
    most = 1
    def reset_peak_memory_stats(self, device):
        self.most = 1
    def max_memory_allocated(self, device):
        return self.most

device = Device()
device_memory._counting = lambda name: device

def needing(size, call):
    def needs(*given):
        device.most = max(device.most, size)
        return call(*given)
    return needs

ToySession.warm_up = needing(64, ToySession.warm_up)
ToySession.train_epoch = needing(9, ToySession.train_epoch)
"""


def said(log: Path) -> list[str]:
    return [each["key"] for each in events(log)]


def test_what_init_tried_is_not_in_a_run_s_peak(tmp_path: Path) -> None:
    """With precision = "auto" fp32 is tried first, and a run in bf16 told fp32's peak."""
    finished = run(toy.write(tmp_path, toy.raw("learns")), "--out", tmp_path, first=COUNTING)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    log = tmp_path / "result_0.txt"
    assert [each["value"] for each in events(log) if each["key"] == "peak_memory_bytes"] == [9]
    assert said(log).index("peak_memory_bytes") > said(log).index("run_stop"), "nobody waits for it on the clock"


def test_a_processor_has_no_such_memory(tmp_path: Path) -> None:
    assert run(toy.write(tmp_path, toy.raw("learns")), "--out", tmp_path).returncode == 0
    assert "peak_memory_bytes" not in said(tmp_path / "result_0.txt")


class Counts:
    """As torch.cuda does: memory that is lent, not that which a recorded step computes in."""

    def __init__(self, *pools: tuple[int, int]) -> None:
        self.most, self.pools = 64, pools

    def reset_peak_memory_stats(self, device: str) -> None:
        assert device == "cuda:0"
        self.most = 9

    def max_memory_allocated(self, device: str) -> int:
        assert device == "cuda:0"
        return self.most

    def memory_snapshot(self) -> list[dict[str, Any]]:
        return [{"total_size": 2 << 20, "segment_pool_id": each} for each in self.pools]


def refused(*_: object) -> None:
    raise RuntimeError("CUDAPluggableAllocator does not yet support it")


class LentByAnother(Counts):
    """As with PYTORCH_CUDA_ALLOC_CONF=backend:cudaMallocAsync: it counts, and shows no pieces."""

    memory_snapshot = refused  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("module", "most"),
    [
        (Counts((0, 0)), 9),
        (LentByAnother(), None),
        (SimpleNamespace(reset_peak_memory_stats=refused, max_memory_allocated=lambda _: 64), None),
        (Counts((0, 0), (0, 1)), None),
        (SimpleNamespace(max_memory_allocated=lambda _: 64), None),  # of the whole process, init too
        (SimpleNamespace(reset_peak_memory_stats=lambda _: None), None),
    ],
    ids=["counted", "no snapshot", "no reset", "a recorded step's is not counted", "cannot be begun anew", "not told"],
)
def test_it_is_told_where_the_device_counts_all_of_it(
    module: Any, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_device_module", lambda _: module)
    assert (device_memory.most_bytes("cuda:0") if device_memory.count_from_here("cuda:0") else None) == most
    assert not device_memory.count_from_here("cpu") and device_memory.most_bytes("cpu") is None


def test_on_a_gpu_what_was_freed_before_is_not_in_it(gpu: str) -> None:
    large = torch.empty(64 << 20, dtype=torch.uint8, device=gpu)
    del large
    before = torch.cuda.memory_allocated(gpu)
    assert device_memory.count_from_here(gpu)
    small = torch.empty(1 << 20, dtype=torch.uint8, device=gpu)
    del small
    assert device_memory.most_bytes(gpu) == before + (1 << 20)
