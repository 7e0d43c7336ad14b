"""Which devices a run's log says that it used: torch's and NVML's words for them are not the same, nor is their order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.execution import context, description
from harness.execution.events import EventLog
from harness.execution.process_group import Ranks
from harness.system.nvidia.driver import Driver
from harness.system.nvidia.nvml import ask
from tests.harness.execution.runs import events
from tests.harness.system import recorded

BARE = [f"7c8e4c1e-0f0b-44c5-9c55-2b0f3d5e9c{index:02}" for index in range(8)]
NVML = [{"index": index, "uuid": f"GPU-{uuid}"} for index, uuid in enumerate(BARE)]


def test_the_fifth_of_eight_is_told_by_its_uuid() -> None:
    """CUDA_VISIBLE_DEVICES=5: torch's device 0 is NVML's 5."""
    assert description.device_uuids(NVML, [BARE[5]]) == [f"GPU-{BARE[5]}"]
    assert description.device_uuids(NVML, [BARE[5].upper(), BARE[2]]) == [f"GPU-{BARE[5]}", f"GPU-{BARE[2]}"]


def test_devices_of_other_nodes_are_spelt_alike() -> None:
    assert description.device_uuids(NVML, [BARE[0], "aaaa-1"]) == [f"GPU-{BARE[0]}", "GPU-aaaa-1"]


@pytest.mark.parametrize(
    ("devices", "told"),
    [
        (NVML, [None]),  # torch tells none
        (NVML, [BARE[0], None]),
        (NVML, ["a slice of a GPU"]),
        ([{"uuid": "0x1234"}, {"name": "no UUID"}], ["3132-3334"]),
        ([], [BARE[0]]),
        (NVML, []),
    ],
)
def test_nothing_is_said_of_what_the_driver_does_not_know(devices: list[Any], told: list[str | None]) -> None:
    assert description.device_uuids(devices, told) == []


def test_torch_is_asked_for_the_device_that_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(get_device_properties=lambda index: SimpleNamespace(uuid=BARE[index]))
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    assert context.uuid_of("cuda:3") == BARE[3]
    assert context.uuid_of("cpu") is None
    monkeypatch.setattr(torch.version, "hip", "7.1")
    module.get_device_properties = lambda index: SimpleNamespace(uuid="38653561-3162-3263-3364-346535663630")
    assert context.uuid_of("cuda:3") == "8e5a1b2c3d4e5f60"
    assert description.device_uuids([{"uuid": "8e5a1b2c3d4e5f60"}, {"uuid": "1"}], ["8e5a1b2c3d4e5f60"]) == [
        "8e5a1b2c3d4e5f60"
    ]
    module.get_device_properties = lambda index: SimpleNamespace(uuid="58580000-0000-0000-0000-000000000000")  # XX
    assert context.uuid_of("cuda:3") is None
    module.get_device_properties = lambda index: SimpleNamespace(name="no uuid")
    assert context.uuid_of("cuda:3") is None
    del module.get_device_properties
    assert context.uuid_of("cuda:3") is None


def test_the_log_has_them_and_the_variables_of_all_ranks(tmp_path: Path) -> None:
    gpus = [{**recorded.H100, "GetUUID": f"GPU-{uuid}"} for uuid in BARE]
    machine = recorded.machine(Driver("580.65.06", "open", True, recorded.LIBCUDA, ask(recorded.Recorded(*gpus))))
    log = EventLog.create(tmp_path)
    ranks = Ranks(("one", "one"), (BARE[7], BARE[5]), ({"NCCL_P2P_DISABLE": "1"}, {}))
    description.origin(log, machine, "cuda:0", ranks, "tests.toy")
    log.close()
    told = {each["key"]: each["value"] for each in events(tmp_path / "result_0.txt")}
    assert "benchmark_sha256" not in told, "the commit has the toy's code"
    assert told["device_uuids"] == [f"GPU-{BARE[7]}", f"GPU-{BARE[5]}"]
    assert told["environment"] == {"NCCL_P2P_DISABLE": ["1", "(not set)"]}
    assert len(told["hardware"]["gpus"]) == 8, "the machine is described whole"


def test_of_a_gpu(gpu: str) -> None:
    """Torch's digits and NVML's are the same, on whatever GPU the tests run."""
    machine, told = context.this_machine("cuda"), context.uuid_of(gpu)
    (uuid,) = description.device_uuids(machine.chosen.details(), [told])
    assert uuid in [each["uuid"] for each in machine.chosen.details()]
