"""The sampler, against an NVML that offers some things and not others, and against this machine's own."""

from __future__ import annotations

import contextlib
import errno
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.execution import telemetry
from harness.system import torch_build
from harness.system.accelerator import Sensors
from harness.system.nvidia import sensors
from harness.system.torch_build import TorchBuild
from tests.harness.execution.runs import until
from tests.patience import PATIENCE_S


class NVMLError(Exception):
    def __init__(self, text: str = "Not Supported") -> None:
        super().__init__(text)


class FakeNvml:
    """Two GPUs in NVML's own units; the second, as many GeForce cards, counts neither energy nor ECC errors."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, NVML_VOLATILE_ECC = 1, 2, 0, 0
    NVML_MEMORY_ERROR_TYPE_CORRECTED, NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 0, 1
    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1
    NVML_PERF_POLICY_BOARD_LIMIT, NVML_PERF_POLICY_RELIABILITY = 3, 5

    def __init__(self, gpus: int = 2, error: str | None = None) -> None:
        self.gpus, self.error, self.asked, self.down = gpus, error, 0, False

    def nvmlInit(self) -> None:
        if self.error:
            raise NVMLError(self.error)

    def nvmlShutdown(self) -> None:
        self.down = True

    def nvmlDeviceGetCount(self) -> int:
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: int) -> int:
        if gpu == 1:
            raise NVMLError
        self.asked += 1
        return 5_000_000 + 700_000 * self.asked  # mJ

    def nvmlDeviceGetTotalEccErrors(self, gpu: int, kind: int, counter: int) -> int:
        if gpu == 1:
            raise NVMLError
        return kind

    def nvmlDeviceGetViolationStatus(self, gpu: int, policy: int) -> Any:
        return SimpleNamespace(violationTime=2_500_000_000 if policy == 1 else 0)  # ns

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
        return 698_250  # mW

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:
        return SimpleNamespace(used=7 << 30)

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:
        return SimpleNamespace(gpu=97)

    def __getattr__(self, name: str) -> Any:
        plain = {
            "nvmlDeviceGetClockInfo": lambda gpu, kind: 1980 if kind == 1 else 2619,
            "nvmlDeviceGetTemperature": lambda gpu, kind: 64,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda gpu: 4,
            "nvmlDeviceGetPcieReplayCounter": lambda gpu: 0,
            "nvmlDeviceGetName": lambda gpu: "NVIDIA H100 80GB HBM3",
            "nvmlDeviceGetUUID": lambda gpu: f"GPU-{gpu}",
            "nvmlDeviceGetEnforcedPowerLimit": lambda gpu: 700_000,
            "nvmlDeviceGetMaxClockInfo": lambda gpu, kind: 1980,
            "nvmlDeviceGetCurrPcieLinkGeneration": lambda gpu: 5,
        }
        if name not in plain:  # nvmlDeviceGetCurrPcieLinkWidth: a call that this binding does not know
            raise AttributeError(name)
        return plain[name]


def sampled(path: Path, nvml: Any, samples: int = 3) -> list[dict[str, Any]]:
    left = iter(range(samples))
    with sensors.of(nvml) as found:
        telemetry.sample(found, path, 1.0, lambda wait_s: next(left, None) is None)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_state_first_then_samples_then_what_was_counted(tmp_path: Path) -> None:
    nvml = FakeNvml()
    lines = sampled(tmp_path / "telemetry_0.jsonl", nvml)
    assert [line["event"] for line in lines] == ["begin", "sample", "sample", "sample", "end"]
    first, _ = lines[0]["gpus"]
    assert (first["name"], first["power_limit_w"], first["pcie_generation"]) == ("NVIDIA H100 80GB HBM3", 700.0, 5)
    assert lines[1]["gpus"][0] == {
        "clock_sm_mhz": 1980,
        "clock_memory_mhz": 2619,
        "power_w": 698.25,
        "temperature_c": 64,
        "busy_percent": 97,
        "memory_used_mib": 7168,
        "clock_event_reasons": 4,
        "pcie_generation": 5,
    }
    counted = lines[-1]["gpus"][0]["during_run"]
    assert counted["energy_j"] == pytest.approx(700)
    assert lines[-1]["gpus"][0]["held_by_temperature_s"] == 2.5
    assert counted["held_by_temperature_s"] == 0
    assert nvml.down


def test_what_a_gpu_does_not_offer_is_null_with_the_reason(tmp_path: Path) -> None:
    lines = sampled(tmp_path / "telemetry_0.jsonl", FakeNvml())
    second = lines[0]["gpus"][1]
    assert second["energy_j"] is None and second["unavailable"]["energy_j"] == "Not Supported"
    assert second["ecc_uncorrected"] is None
    assert second["pcie_width"] is None and "pcie_width" in second["unavailable"]
    assert lines[-1]["gpus"][1]["during_run"]["energy_j"] is None
    assert lines[-1]["gpus"][1]["during_run"]["held_by_power_s"] == 0


def test_a_counter_that_was_reset_meanwhile_is_not_a_negative_number(tmp_path: Path) -> None:
    nvml = FakeNvml(gpus=1)
    readings = iter((9_000_000, 1_000))
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda gpu: next(readings)  # type: ignore[method-assign]
    assert sampled(tmp_path / "t.jsonl", nvml)[-1]["gpus"][0]["during_run"]["energy_j"] is None


@pytest.mark.parametrize("nvml", [FakeNvml(error="Driver Not Loaded"), FakeNvml(gpus=0)])
def test_without_a_gpu_there_is_no_file(tmp_path: Path, nvml: FakeNvml) -> None:
    with sensors.of(nvml) as found:
        telemetry.sample(found, tmp_path / "telemetry_0.jsonl", 1.0, lambda wait_s: True)
    assert not list(tmp_path.iterdir())


def test_what_was_missed_is_not_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a machine slept for a minute: sixty samples came at once, and weighed as sixty seconds in every mean."""
    clock, waits = [100.0], []

    def stop(wait_s: float) -> bool:
        waits.append(wait_s)
        clock[0] += 60.25 if len(waits) == 2 else wait_s
        return len(waits) == 5

    monkeypatch.setattr(telemetry.time, "monotonic", lambda: clock[0])
    with sensors.of(FakeNvml()) as found:
        telemetry.sample(found, tmp_path / "telemetry_0.jsonl", 1.0, stop)
    assert waits == [1.0, 1.0, 0.0, 1.0, 1.0]


def test_a_folder_said_from_here_is_not_one_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(telemetry, "_started", started.append)
    with telemetry.beside(Path("out/result_0.txt"), "cuda"):
        pass
    assert started[0][3] == str(tmp_path / "out/telemetry_0.jsonl")


def test_a_full_disk_is_a_line_on_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def sensor(device: str) -> Iterator[list[Sensors]]:
        yield [Sensors(sampled={"power_w": lambda: 700})]

    monkeypatch.setattr(telemetry, "of_device", sensor)
    monkeypatch.setattr(Path, "open", lambda path, *_, **how: open("/dev/full", "w", buffering=1))  # noqa: PTH123, SIM115
    with pytest.raises(SystemExit, match=r"telemetry_0.jsonl: what .* is no longer sampled: No space left on device"):
        telemetry.main(Path("telemetry_0.jsonl"), 1.0, "cuda", sys.stdin)


@pytest.mark.parametrize(
    ("build", "driven"), [({"hip": "7.1"}, ["AMD"]), ({"cuda": "13.0"}, ["NVIDIA"]), ({"xpu": "20250301"}, [])]
)
def test_what_torch_drives_is_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: dict[str, str], driven: list[str]
) -> None:
    """Of a machine with both: under ROCm an idle GPU of NVIDIA's was, and without NVML an idle one of AMD's."""
    card = tmp_path / "sys/bus/pci/devices/0000:05:00.0"
    card.mkdir(parents=True)
    for name, text in {"vendor": "0x1002", "device": "0x74a1", "class": "0x120000", "product_name": "AMD"}.items():
        (card / name).write_text(text)
    monkeypatch.setattr(torch_build, "read", lambda: TorchBuild("2.14.1", **build))
    monkeypatch.setattr(sensors, "here", lambda: contextlib.nullcontext([Sensors(state={"name": lambda: "NVIDIA"})]))
    monkeypatch.setattr(telemetry, "Path", lambda _: tmp_path)

    def names() -> list[Any]:
        with telemetry.of_device("accelerator") as found:
            return [each.state["name"]() for each in found]

    assert names() == driven
    monkeypatch.setattr(sensors, "here", lambda: contextlib.nullcontext([]))
    assert names() == (driven if "hip" in build else [])


def test_beside_a_run_on_this_machine(tmp_path: Path) -> None:
    import pynvml

    try:
        pynvml.nvmlInit()
        gpus = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        gpus = 0
    with telemetry.beside(tmp_path / "result_3.txt", "cuda", interval_s=0.2):
        time.sleep(2 if gpus else 0.1)
    lines = [path.read_text().splitlines() for path in tmp_path.iterdir()]
    if not gpus:
        assert not lines
    else:
        assert [path.name for path in tmp_path.iterdir()] == ["telemetry_3.jsonl"]
        assert json.loads(lines[0][-1])["event"] == "end"


def test_the_sampler_ends_with_its_run_and_writes_its_last_line(tmp_path: Path) -> None:
    """In a process of its own, with the fake in pynvml's place."""
    import subprocess
    import sys

    from tests.conftest import CHECKOUT

    program = (
        "import sys; from pathlib import Path; from harness.execution import telemetry\n"
        "from tests.harness.execution.test_telemetry import FakeNvml\n"
        "sys.modules['pynvml'] = FakeNvml()\n"
        f"telemetry.main(Path({str(tmp_path / 'telemetry_0.jsonl')!r}), 0.05, 'cuda', sys.stdin)"
    )
    sampler = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, cwd=CHECKOUT)
    path = tmp_path / "telemetry_0.jsonl"
    until(lambda: path.exists() and path.read_text().count('"sample"') >= 3, "three samples")
    assert sampler.stdin is not None
    sampler.stdin.close()
    assert sampler.wait(timeout=PATIENCE_S) == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[-1]["event"] == "end"
    times = [line["time_ms"] for line in lines if line["event"] == "sample"]
    assert times == sorted(times)


def test_a_sampler_that_cannot_be_started_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It left the log that was just made empty, without a run_stop and with its number."""

    def none(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", none)
    with (
        pytest.raises(RuntimeError, match="the run's own") as raised,
        telemetry.into(tmp_path / "telemetry_0.jsonl", "cuda", 1.0),
    ):
        raise RuntimeError("the run's own")
    assert raised.value.__context__ is None, "a run's traceback is of the run alone"
    assert "is not sampled: Resource temporarily unavailable" in capsys.readouterr().err
