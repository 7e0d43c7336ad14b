"""What NVML says of the driver and of each GPU, once. The only importer of pynvml in this package, and run as a script too, by
driver.py: in a process of its own, which a driver that hangs or crashes can be left to. Then no more than pynvml is to be
imported.

Any call may be unsupported on a GPU, a driver or in a container: the field is None then, and `unavailable` says why.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.contract import Plain

RECOVERY_ACTIONS = tuple(
    f"NVML_GPU_RECOVERY_ACTION_{each}" for each in ("NONE", "GPU_RESET", "NODE_REBOOT", "DRAIN_P2P", "DRAIN_AND_RESET")
)


@dataclass(frozen=True)
class Process:
    """A compute process on a GPU; in a container its pid is the host's or 0."""

    pid: int
    memory_mib: int | None


@dataclass(frozen=True)
class Gpu:
    """One GPU as NVML numbers them. What its driver does not tell is None."""

    index: int
    name: str | None = None
    uuid: str | None = None
    compute_capability: tuple[int, int] | None = None
    memory_mib: int | None = None
    vbios: str | None = None
    gsp_firmware: str | None = None
    gsp_enabled: bool | None = None  # whether that firmware, not the driver on the host, runs the GPU
    gsp_by_default: bool | None = None
    inforom: str | None = None
    board_part: str | None = None
    pci_bus: str | None = None
    pcie_generation: int | None = None
    pcie_generation_max: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    nvlinks: int | None = None  # links that are up
    numa_node: int | None = None
    persistence: bool | None = None
    exclusive: bool | None = None  # compute mode other than "default": one process at most, or none
    prohibited: bool | None = None  # none
    mig: bool | None = None
    mig_pending: bool | None = None
    mig_instances: int | None = None
    ecc: bool | None = None
    ecc_pending: bool | None = None
    ecc_uncorrected: int | None = None  # since the driver was loaded
    rows_remap_pending: bool | None = None
    rows_remap_failed: bool | None = None
    recovery: str | None = None  # what NVML asks for after an error: "none", "gpu reset", ...
    power_limit_w: float | None = None
    power_default_w: float | None = None
    clock_sm_mhz: int | None = None
    clock_sm_max_mhz: int | None = None
    clock_sm_application_mhz: int | None = None
    clock_sm_application_default_mhz: int | None = None
    clock_memory_mhz: int | None = None
    clock_memory_max_mhz: int | None = None
    clock_events: int | None = None  # bit mask, NVML's nvmlClocksEventReason*
    temperature_c: int | None = None
    processes: tuple[Process, ...] | None = None
    unavailable: dict[str, str] = field(default_factory=dict)  # field -> NVML's reason

    def plain(self) -> dict[str, Plain]:
        """For a log: what is known, and the reasons for the rest."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Nvml:
    """NVML's answer; `error` when there is none, and then everything else is empty."""

    driver: str | None = None  # the user-mode driver's version; NVML refuses to start when the kernel module's differs
    cuda: int | None = None  # 13000 for 13.0
    gpus: tuple[Gpu, ...] = ()
    error: str | None = None
    mismatch: bool = False  # NVML's library and the kernel module are of different versions
    hangs: bool = False


def parse(answer: Mapping[str, Any]) -> Nvml:
    """What the script prints, as a record again."""
    gpus = tuple(_parsed(each) for each in answer["gpus"])
    return Nvml(**{**answer, "gpus": gpus})


def _parsed(gpu: Mapping[str, Any]) -> Gpu:
    capability, processes = gpu["compute_capability"], gpu["processes"]
    lists = {
        "compute_capability": None if capability is None else tuple(capability),
        "processes": None if processes is None else tuple(Process(**each) for each in processes),
    }
    return Gpu(**{**gpu, **lists})


def ask(pynvml: Any) -> Nvml:
    """Ask once. The library is given, so that tests can replace it by recorded answers."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        mismatch = error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
        return Nvml(error=str(error), mismatch=mismatch)
    try:
        driver, _ = _ask(pynvml, pynvml.nvmlSystemGetDriverVersion)
        cuda, _ = _ask(pynvml, pynvml.nvmlSystemGetCudaDriverVersion_v2)
        gpus = (_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
        return Nvml(driver, cuda, tuple(gpu for gpu in gpus if gpu is not None))
    except pynvml.NVMLError as error:
        return Nvml(error=str(error))
    finally:
        pynvml.nvmlShutdown()


def _ask(pynvml: Any, call: Callable[[], Any]) -> tuple[Any, str | None]:
    """The answer, or the reason for having none."""
    try:
        answer = call()
    except pynvml.NVMLError as error:
        return None, str(error)
    return answer.decode() if isinstance(answer, bytes) else answer, None  # one or two calls forget to


def _gpu(pynvml: Any, index: int) -> Gpu | None:
    """None for one that a job's control group keeps from this process; NVML counts it all the same."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_NO_PERMISSION:
            return None
        return Gpu(index, unavailable={"handle": str(error)})  # one lost GPU must not hide the others
    values: dict[str, Any] = {}
    unavailable: dict[str, str] = {}
    for names, call in _readings(pynvml, handle).items():
        answer, reason = _ask(pynvml, call)
        for position, name in enumerate(names.split()):
            if reason is not None:
                unavailable[name] = reason
            else:
                values[name] = answer[position] if " " in names else answer
    return Gpu(index, **values, unavailable=unavailable)


def _readings(n: Any, handle: Any) -> dict[str, Callable[[], Any]]:
    """The call behind each field; a key of two names takes a call with two answers."""

    def of(call: Callable[..., Any], *arguments: int) -> Callable[[], Any]:
        return lambda: call(handle, *arguments)

    def watts(call: Callable[[Any], int]) -> Callable[[], float]:
        return lambda: call(handle) / 1000

    def flags(call: Callable[[Any], list[int]]) -> Callable[[], list[bool]]:
        return lambda: [bool(each) for each in call(handle)]

    return {
        "name": of(n.nvmlDeviceGetName),
        "uuid": of(n.nvmlDeviceGetUUID),
        "compute_capability": lambda: tuple(n.nvmlDeviceGetCudaComputeCapability(handle)),
        "memory_mib": lambda: n.nvmlDeviceGetMemoryInfo(handle).total >> 20,
        "vbios": of(n.nvmlDeviceGetVbiosVersion),
        "gsp_firmware": of(n.nvmlDeviceGetGspFirmwareVersion),
        "gsp_enabled gsp_by_default": flags(n.nvmlDeviceGetGspFirmwareMode),
        "inforom": of(n.nvmlDeviceGetInforomImageVersion),
        "board_part": of(n.nvmlDeviceGetBoardPartNumber),
        "pci_bus": lambda: n.nvmlDeviceGetPciInfo(handle).busId,
        "pcie_generation": of(n.nvmlDeviceGetCurrPcieLinkGeneration),
        "pcie_generation_max": of(n.nvmlDeviceGetMaxPcieLinkGeneration),
        "pcie_width": of(n.nvmlDeviceGetCurrPcieLinkWidth),
        "pcie_width_max": of(n.nvmlDeviceGetMaxPcieLinkWidth),
        "nvlinks": lambda: _nvlinks(n, handle),
        "numa_node": of(n.nvmlDeviceGetNumaNodeId),
        "persistence": lambda: bool(n.nvmlDeviceGetPersistenceMode(handle)),
        "exclusive": lambda: n.nvmlDeviceGetComputeMode(handle) != n.NVML_COMPUTEMODE_DEFAULT,
        "prohibited": lambda: n.nvmlDeviceGetComputeMode(handle) == n.NVML_COMPUTEMODE_PROHIBITED,
        "mig mig_pending": flags(n.nvmlDeviceGetMigMode),
        "mig_instances": lambda: _mig_instances(n, handle),
        "ecc ecc_pending": flags(n.nvmlDeviceGetEccMode),
        "ecc_uncorrected": of(n.nvmlDeviceGetTotalEccErrors, n.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, n.NVML_VOLATILE_ECC),
        "rows_remap_pending rows_remap_failed": lambda: [bool(x) for x in n.nvmlDeviceGetRemappedRows(handle)[2:4]],
        "recovery": lambda: _recovery(n, handle),
        "power_limit_w": watts(n.nvmlDeviceGetEnforcedPowerLimit),
        "power_default_w": watts(n.nvmlDeviceGetPowerManagementDefaultLimit),
        "clock_sm_mhz": of(n.nvmlDeviceGetClockInfo, n.NVML_CLOCK_SM),
        "clock_sm_max_mhz": of(n.nvmlDeviceGetMaxClockInfo, n.NVML_CLOCK_SM),
        "clock_sm_application_mhz": of(n.nvmlDeviceGetApplicationsClock, n.NVML_CLOCK_SM),
        "clock_sm_application_default_mhz": of(n.nvmlDeviceGetDefaultApplicationsClock, n.NVML_CLOCK_SM),
        "clock_memory_mhz": of(n.nvmlDeviceGetClockInfo, n.NVML_CLOCK_MEM),
        "clock_memory_max_mhz": of(n.nvmlDeviceGetMaxClockInfo, n.NVML_CLOCK_MEM),
        "clock_events": of(n.nvmlDeviceGetCurrentClocksEventReasons),
        "temperature_c": of(n.nvmlDeviceGetTemperature, n.NVML_TEMPERATURE_GPU),
        "processes": lambda: _processes(n, handle),
    }


def _processes(n: Any, handle: Any) -> tuple[Process, ...]:
    found = n.nvmlDeviceGetComputeRunningProcesses_v3(handle)
    return tuple(Process(p.pid, None if p.usedGpuMemory is None else p.usedGpuMemory >> 20) for p in found)


def field_value(n: Any, handle: Any, field: int) -> int:
    """One of NVML's numbered fields. Its NVMLError where this GPU or driver has none such."""
    (found,) = n.nvmlDeviceGetFieldValues(handle, [field])
    if found.nvmlReturn != n.NVML_SUCCESS:
        raise n.NVMLError(found.nvmlReturn)
    return int(found.value.uiVal if found.valueType == n.NVML_VALUE_TYPE_UNSIGNED_INT else found.value.ullVal)


def _recovery(n: Any, handle: Any) -> str:
    """In the words of NVML's constants: NVML_GPU_RECOVERY_ACTION_GPU_RESET is "gpu reset"."""
    prefix = "NVML_GPU_RECOVERY_ACTION_"
    words = {getattr(n, name): name.removeprefix(prefix) for name in RECOVERY_ACTIONS}
    action = field_value(n, handle, n.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)
    return words.get(action, f"action {action}").replace("_", " ").lower()


def _nvlinks(n: Any, handle: Any) -> int:
    """Links that are up. A GPU has fewer than NVML knows of: the first it does not support ends the list."""
    active = 0
    for link in range(n.NVML_NVLINK_MAX_LINKS):
        try:
            active += bool(n.nvmlDeviceGetNvLinkState(handle, link))
        except n.NVMLError as error:
            if link == 0 or error.value not in (n.NVML_ERROR_INVALID_ARGUMENT, n.NVML_ERROR_NOT_SUPPORTED):
                raise
            break
    return active


def _mig_instances(n: Any, handle: Any) -> int:
    """MIG devices made on this GPU; NVML numbers slots, filled or not."""
    filled = 0
    for slot in range(n.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            n.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot)
        except n.NVMLError as error:
            if error.value != n.NVML_ERROR_NOT_FOUND:
                raise
        else:
            filled += 1
    return filled


if __name__ == "__main__":
    import pynvml

    sys.stdout.write(json.dumps(asdict(ask(pynvml))) + "\n")
