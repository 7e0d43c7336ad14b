"""GPUs as NVML tells them, on recorded answers."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml

from harness.system.nvidia import nvml
from harness.system.nvidia.nvml import Process
from tests.harness.system.recorded import GEFORCE, H100, NOT_FOUND, NOT_SUPPORTED, Recorded


def test_data_centre_gpu() -> None:
    asked = nvml.ask(Recorded(H100))

    assert (asked.driver, asked.cuda, asked.error, asked.mismatch) == ("580.65.06", 13000, None, False)
    (gpu,) = asked.gpus
    assert gpu.unavailable == {}
    assert (gpu.name, gpu.compute_capability, gpu.memory_mib) == ("NVIDIA H100 80GB HBM3", (9, 0), 81559)
    assert gpu.gsp_firmware == "580.65.06"  # pynvml gives bytes
    assert (gpu.nvlinks, gpu.mig, gpu.mig_instances, gpu.ecc, gpu.ecc_pending) == (18, False, 0, True, True)
    assert (gpu.power_limit_w, gpu.clock_sm_mhz, gpu.clock_sm_max_mhz, gpu.clock_memory_mhz) == (700.0, 345, 1980, 2619)
    assert (gpu.exclusive, gpu.persistence, gpu.rows_remap_failed, gpu.processes) == (False, True, False, ())


def test_what_a_geforce_does_not_tell_is_none_with_the_reason() -> None:
    (gpu,) = nvml.ask(Recorded(GEFORCE)).gpus

    assert gpu.name == "NVIDIA GeForce RTX 4090"
    assert set(gpu.unavailable) == {
        *("gsp_firmware", "board_part", "recovery", "nvlinks", "numa_node", "mig", "mig_pending", "ecc", "ecc_pending"),
        *("ecc_uncorrected", "rows_remap_pending", "rows_remap_failed", "clock_sm_application_mhz"),
        "clock_sm_application_default_mhz",
    }
    assert set(gpu.unavailable.values()) == {"Not Supported"}
    assert all(getattr(gpu, name) is None for name in gpu.unavailable)


def test_each_call_may_be_refused_alone() -> None:
    telemetry_s = {
        "GetPowerUsage",
        "GetUtilizationRates",
        "GetJpgUtilization",
        "GetTotalEnergyConsumption",
        "GetViolationStatus",
    }
    for call in H100.keys() - telemetry_s - {"GetPcieReplayCounter", "RegisterEvents"}:
        (gpu,) = nvml.ask(Recorded({**H100, call: NOT_SUPPORTED})).gpus
        assert gpu.unavailable, call
        assert len(gpu.unavailable) <= 3, (call, gpu.unavailable)  # the others are still there


def test_a_lost_gpu_does_not_hide_the_others() -> None:
    lost, alive = nvml.ask(Recorded({"lost": True}, H100)).gpus

    assert (lost.index, lost.name, lost.unavailable) == (0, None, {"handle": "GPU is lost"})
    assert (alive.index, alive.name) == (1, "NVIDIA H100 80GB HBM3")


def test_a_gpu_of_another_job_is_none_that_does_not_answer() -> None:
    """Slurm's control group keeps it from this process, NVML counts it all the same: doctor said to reset it."""
    (mine,) = nvml.ask(Recorded({"forbidden": True}, H100)).gpus

    assert (mine.index, mine.name) == (1, "NVIDIA H100 80GB HBM3")


def test_mig_instances_are_counted() -> None:
    slots = lambda slot: "an instance" if slot in (0, 3) else NOT_FOUND  # noqa: E731
    (gpu,) = nvml.ask(Recorded({**H100, "GetMigMode": [1, 1], "GetMigDeviceHandleByIndex": slots})).gpus

    assert (gpu.mig, gpu.mig_instances) == (True, 2)


def test_processes_with_and_without_their_memory() -> None:
    running = [SimpleNamespace(pid=4711, usedGpuMemory=3 << 30), SimpleNamespace(pid=0, usedGpuMemory=None)]
    (gpu,) = nvml.ask(Recorded({**H100, "GetComputeRunningProcesses_v3": running})).gpus

    assert gpu.processes == (Process(4711, 3072), Process(0, None))


def test_no_driver_and_a_driver_of_two_versions() -> None:
    absent = nvml.ask(Recorded(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    torn = nvml.ask(Recorded(init_error=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH))

    assert (absent.error, absent.mismatch, absent.gpus) == ("NVML Shared Library Not Found", False, ())
    assert torn.mismatch
    assert torn.error is not None


def test_nvml_is_closed_again() -> None:
    recorded = Recorded(H100)
    nvml.ask(recorded)

    assert recorded.shut_down == 1


def test_plain_has_no_null_and_keeps_the_reasons() -> None:
    (gpu,) = nvml.ask(Recorded(GEFORCE)).gpus
    plain = gpu.plain()

    assert None not in plain.values()
    assert "ecc" not in plain
    assert plain["unavailable"]["ecc"] == "Not Supported"  # type: ignore[call-overload, index]
