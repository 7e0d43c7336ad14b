"""Recorded answers: NVML as pynvml gives them, and machines put together from them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pynvml

from harness.system.cpu import Processor
from harness.system.facts import Machine
from harness.system.host import Cpu, Host
from harness.system.nvidia.driver import Device, Driver, Libcuda
from harness.system.nvidia.nvml import Nvml
from harness.system.nvidia.vendor import Nvidia

NOT_SUPPORTED = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
NOT_FOUND = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
INVALID = pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)

# NVML's numbered fields
FIELDS: dict[int, int] = {
    pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION: pynvml.NVML_GPU_RECOVERY_ACTION_NONE,
    pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN: 1_500_000_000,
    pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN: 0,
}


def field(value: int | None) -> SimpleNamespace:
    """As nvmlDeviceGetFieldValues has it; None for one that this driver does not know."""
    return SimpleNamespace(
        nvmlReturn=pynvml.NVML_SUCCESS if value is not None else pynvml.NVML_ERROR_NOT_SUPPORTED,
        valueType=pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG,
        value=SimpleNamespace(ullVal=value),
    )


# Each answer by the call's name without "nvmlDevice"; an exception is raised, a function is called with the arguments
# behind the handle
H100: dict[str, Any] = {
    "GetName": "NVIDIA H100 80GB HBM3",
    "GetUUID": "GPU-7c8e4c1e-0f0b-44c5-9c55-2b0f3d5e9c11",
    "GetCudaComputeCapability": (9, 0),
    "GetMemoryInfo": SimpleNamespace(total=85520809984, free=85000000000, used=520809984),
    "GetVbiosVersion": "96.00.89.00.01",
    "GetGspFirmwareVersion": b"580.65.06",
    "GetGspFirmwareMode": [1, 1],
    "GetInforomImageVersion": "G520.0200.00.05",
    "GetBoardPartNumber": "692-2G520-0200-000",
    "GetPciInfo": SimpleNamespace(busId="00000000:18:00.0"),
    "GetCurrPcieLinkGeneration": 5,
    "GetMaxPcieLinkGeneration": 5,
    "GetCurrPcieLinkWidth": 16,
    "GetMaxPcieLinkWidth": 16,
    "GetNvLinkState": lambda link: 1 if link < 18 else INVALID,
    "GetNumaNodeId": 0,
    "GetPersistenceMode": 1,
    "GetComputeMode": pynvml.NVML_COMPUTEMODE_DEFAULT,
    "GetMigMode": [0, 0],
    "GetMaxMigDeviceCount": 7,
    "GetMigDeviceHandleByIndex": NOT_FOUND,
    "GetEccMode": [1, 1],
    "GetTotalEccErrors": 0,
    "GetRemappedRows": (0, 0, 0, 0),
    "GetFieldValues": lambda fields: [field(FIELDS.get(each)) for each in fields],
    "GetEnforcedPowerLimit": 700000,
    "GetPowerManagementDefaultLimit": 700000,
    "GetClockInfo": lambda kind: 345 if kind == pynvml.NVML_CLOCK_SM else 2619,
    "GetMaxClockInfo": lambda kind: 1980 if kind == pynvml.NVML_CLOCK_SM else 2619,
    "GetApplicationsClock": 1980,
    "GetDefaultApplicationsClock": 1980,
    "GetCurrentClocksEventReasons": pynvml.nvmlClocksEventReasonGpuIdle,
    "GetTemperature": 31,
    "GetComputeRunningProcesses_v3": [],
    # what telemetry asks for besides
    "GetPowerUsage": 698250,
    "GetUtilizationRates": SimpleNamespace(gpu=97),
    "GetJpgUtilization": [62, 1_000_000],
    "GetTotalEnergyConsumption": 5_700_000,
    "GetViolationStatus": SimpleNamespace(violationTime=2_500_000_000),
    "GetPcieReplayCounter": 0,
    "RegisterEvents": None,
}
# What a GeForce does not tell; a laptop's tells less still
GEFORCE: dict[str, Any] = {
    **H100,
    "GetName": "NVIDIA GeForce RTX 4090",
    "GetCudaComputeCapability": (8, 9),
    "GetMemoryInfo": SimpleNamespace(total=25757220864, free=25000000000, used=757220864),
    "GetCurrPcieLinkGeneration": 1,
    "GetMaxPcieLinkGeneration": 4,
    "GetEnforcedPowerLimit": 450000,
    "GetPowerManagementDefaultLimit": 450000,
    "GetGspFirmwareVersion": NOT_SUPPORTED,
    "GetGspFirmwareMode": [0, 0],
    "GetFieldValues": lambda fields: [field(None) for _ in fields],
    "GetBoardPartNumber": NOT_SUPPORTED,
    "GetNvLinkState": NOT_SUPPORTED,
    "GetNumaNodeId": NOT_SUPPORTED,
    "GetPersistenceMode": 0,
    "GetMigMode": NOT_SUPPORTED,
    "GetMaxMigDeviceCount": 0,
    "GetEccMode": NOT_SUPPORTED,
    "GetTotalEccErrors": NOT_SUPPORTED,
    "GetRemappedRows": NOT_SUPPORTED,
    "GetApplicationsClock": NOT_SUPPORTED,
    "GetDefaultApplicationsClock": NOT_SUPPORTED,
}


class Recorded:
    """Stands for the module pynvml: its constants and errors are the real ones, its answers those of `gpus`."""

    def __init__(self, *gpus: dict[str, Any], init_error: int | None = None, driver: str = "580.65.06") -> None:
        self.xids: list[int] = []  # that the driver has yet to report
        self._gpus, self._init_error, self._driver = gpus, init_error, driver
        self.shut_down = 0

    def nvmlInit(self) -> None:
        if self._init_error is not None:
            raise pynvml.NVMLError(self._init_error)

    def nvmlShutdown(self) -> None:
        self.shut_down += 1

    def nvmlEventSetCreate(self) -> list[int]:
        return self.xids

    def nvmlEventSetWait_v2(self, events: list[int], timeout_ms: int) -> SimpleNamespace:
        if not events:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
        return SimpleNamespace(eventData=events.pop(0), eventType=pynvml.nvmlEventTypeXidCriticalError)

    def __getattr__(self, name: str) -> Any:
        real = getattr(pynvml, name)  # AttributeError for a name that pynvml does not have
        answers = {
            "nvmlSystemGetDriverVersion": self._driver,
            "nvmlSystemGetCudaDriverVersion_v2": 13000,
            "nvmlDeviceGetCount": len(self._gpus),
        }
        if name in answers:
            return lambda: answers[name]
        if name == "nvmlDeviceGetHandleByIndex":
            return self._handle
        if not callable(real) or not name.startswith("nvmlDevice"):
            return real
        return lambda handle, *arguments: _answer(handle[name.removeprefix("nvmlDevice")], arguments)

    def _handle(self, index: int) -> dict[str, Any]:
        if "forbidden" in self._gpus[index]:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        if "lost" in self._gpus[index]:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return self._gpus[index]


def _answer(recorded: Any, arguments: tuple[Any, ...]) -> Any:
    answer = recorded(*arguments) if callable(recorded) else recorded
    if isinstance(answer, Exception):
        raise answer
    return answer


LIBCUDA = Libcuda(
    path="/usr/lib/x86_64-linux-gnu/libcuda.so.580.65.06",
    cuda=13000,
    init=0,
    init_name="CUDA_SUCCESS",
    devices=(Device("NVIDIA H100 80GB HBM3", (9, 0)),),
)
NO_LIBCUDA = Libcuda(error="libcuda.so.1: cannot open shared object file: No such file or directory")
# A machine with one H100, driver 580.65.06, all as it should be
DRIVER = Driver("580.65.06", "open", True, LIBCUDA, Nvml("580.65.06", 13000))
# and one without any GPU
BARE = Driver(None, None, False, NO_LIBCUDA, Nvml(error="NVML Shared Library Not Found"))

HOST = Host(
    cpu=Cpu("AMD EPYC 9654 96-Core Processor", 2, 192, 384, 384, None, ("performance",), 2),
    memory_gib=1511.5,
    memory_limit_gib=None,
    kernel="6.8.0-60-generic",
    os="Debian GNU/Linux 12 (bookworm)",
    container=False,
    memlock=None,
    boot_id="0c5d1a5e-7f3e-4a0b-9a53-6a4c8c0b9a11",
)


def machine(driver: Driver = DRIVER, host: Host = HOST, bypassed: bool = False, **changes: Any) -> Machine:
    """A machine with NVIDIA's driver as given, or without any for BARE; changed where a test asks for it."""
    nvidia = () if driver is BARE else (Nvidia(driver, host.container, bypassed),)
    return replace(Machine(host, (*nvidia, Processor()), {}), **changes)
