"""What telemetry reads of NVIDIA's GPUs, on recorded answers: driver identity, limits that held the clocks, XID errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pynvml
import pytest

from harness.execution import telemetry
from harness.system.nvidia import nvml, sensors
from tests.harness.system.recorded import GEFORCE, H100, NOT_SUPPORTED, Recorded


def sampled(path: Path, recorded: Recorded, at_samples: dict[int, list[int]]) -> list[dict[str, Any]]:
    """Two samples; before sample n the driver reports the XIDs at_samples[n]."""
    count = 0

    def stop(wait_s: float) -> bool:
        nonlocal count
        recorded.xids.extend(at_samples.get(count, []))
        count += 1
        return count > 2

    with sensors.of(recorded) as found:
        telemetry.sample(found, path, 1.0, stop)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_drivers_identity_is_in_the_first_line(tmp_path: Path) -> None:
    begin = sampled(tmp_path / "t.jsonl", Recorded(H100, driver="580.95.05"), {})[0]["gpus"][0]

    assert {name: begin[name] for name in ("driver", "vbios", "gsp_firmware", "gsp_enabled", "persistence", "ecc")} == {
        "driver": "580.95.05", "vbios": "96.00.89.00.01", "gsp_firmware": "580.65.06", "gsp_enabled": True,
        "persistence": True, "ecc": True,
    }  # fmt: skip
    assert (begin["power_limit_w"], begin["pcie_generation_max"], begin["pcie_width_max"]) == (700, 5, 16)


def test_what_held_the_clocks_is_counted_by_its_reason(tmp_path: Path) -> None:
    lines = sampled(tmp_path / "t.jsonl", Recorded(H100), {})
    begin, end = lines[0]["gpus"][0], lines[-1]["gpus"][0]

    assert begin["slowed_by_software_thermal_s"] == 1.5
    assert begin["slowed_by_hardware_thermal_s"] == 0
    assert begin["slowed_by_power_brake_s"] is None and "power_brake" in str(begin["unavailable"])
    assert begin["held_by_power_s"] == 2.5
    assert end["during_run"]["slowed_by_software_thermal_s"] == 0
    assert end["during_run"]["slowed_by_power_brake_s"] is None


def test_xid_errors_are_counted_and_named(tmp_path: Path) -> None:
    lines = sampled(tmp_path / "t.jsonl", Recorded(H100), {0: [31], 1: [79, 79], 2: [48]})

    assert [line["gpus"][0]["xids"] for line in lines if line["event"] == "sample"] == [[31], [31, 79, 79]]
    assert lines[-1]["gpus"][0]["during_run"]["xid_errors"] == 4


def test_a_gpu_that_is_lost_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the XID 79 each call fails, and so did the one that would have told of it."""
    recorded = Recorded(H100)
    waited = recorded.nvmlEventSetWait_v2

    def wait(events: list[int], timeout_ms: int) -> Any:
        if not events and lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        lost.extend(events)
        return waited(events, timeout_ms)

    lost: list[int] = []
    monkeypatch.setattr(recorded, "nvmlEventSetWait_v2", wait)
    lines = sampled(tmp_path / "t.jsonl", recorded, {0: [79]})

    assert [line["gpus"][0]["xids"] for line in lines if line["event"] == "sample"] == [[79], [79]]
    assert lines[-1]["gpus"][0]["during_run"]["xid_errors"] == 1


def test_a_gpu_that_was_lost_before_does_not_hide_the_others(tmp_path: Path) -> None:
    lines = sampled(tmp_path / "t.jsonl", Recorded({"lost": True}, H100), {})

    lost, alive = lines[0]["gpus"]
    assert (lost["name"], lost["unavailable"]["name"], alive["name"]) == (None, "GPU is lost", "NVIDIA H100 80GB HBM3")
    assert [gpu.get("power_w") for gpu in lines[1]["gpus"]] == [None, 698.25]


def test_a_gpu_of_another_job_is_not_sampled(tmp_path: Path) -> None:
    lines = sampled(tmp_path / "t.jsonl", Recorded({"forbidden": True}, H100), {})

    assert [[gpu.get("power_w") for gpu in line["gpus"]] for line in lines if line["event"] == "sample"] == [
        [698.25]
    ] * 2


def test_xids_that_a_device_does_not_report(tmp_path: Path) -> None:
    lines = sampled(tmp_path / "t.jsonl", Recorded({**H100, "RegisterEvents": NOT_SUPPORTED}), {0: [31]})

    assert lines[0]["gpus"][0]["xids"] is None
    assert lines[0]["gpus"][0]["unavailable"]["xids"] == "Not Supported"
    assert lines[-1]["gpus"][0]["during_run"]["xid_errors"] is None


def test_the_log_has_the_firmware_that_runs_the_gpu() -> None:
    with_gsp, without = nvml.ask(Recorded(H100, GEFORCE)).gpus

    assert (with_gsp.gsp_firmware, with_gsp.gsp_enabled, with_gsp.recovery) == ("580.65.06", True, "none")
    assert (without.gsp_firmware, without.gsp_enabled, without.recovery) == (None, False, None)
