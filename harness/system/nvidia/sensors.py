"""NVML's readings of each GPU for a run's telemetry, driver identity and XID errors included."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from harness.contract import Plain
from harness.system.accelerator import Reading, Sensors, Unavailable
from harness.system.nvidia.nvml import field_value

Call = Callable[[Any, Any], Any]  # (pynvml, a GPU's handle)


def _violation(kind: str) -> Call:
    """Seconds in which this limit has held the clocks down, since the driver was loaded."""
    return lambda n, gpu: (
        n.nvmlDeviceGetViolationStatus(gpu, getattr(n, f"NVML_PERF_POLICY_{kind}")).violationTime / 1e9
    )


def _ecc(kind: str) -> Call:
    return lambda n, gpu: n.nvmlDeviceGetTotalEccErrors(
        gpu, getattr(n, f"NVML_MEMORY_ERROR_TYPE_{kind}"), n.NVML_VOLATILE_ECC
    )


def _slowed(reason: str) -> Call:
    """Seconds in which this reason has slowed the clocks, since the driver was loaded; drivers from about 570 on tell."""
    return lambda n, gpu: field_value(n, gpu, getattr(n, f"NVML_FI_DEV_CLOCKS_EVENT_REASON_{reason}")) / 1e9


SAMPLED: dict[str, Call] = {
    "clock_sm_mhz": lambda n, gpu: n.nvmlDeviceGetClockInfo(gpu, n.NVML_CLOCK_SM),
    "clock_memory_mhz": lambda n, gpu: n.nvmlDeviceGetClockInfo(gpu, n.NVML_CLOCK_MEM),
    "power_w": lambda n, gpu: n.nvmlDeviceGetPowerUsage(gpu) / 1000,
    "temperature_c": lambda n, gpu: n.nvmlDeviceGetTemperature(gpu, n.NVML_TEMPERATURE_GPU),
    "busy_percent": lambda n, gpu: n.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "jpeg_percent": lambda n, gpu: n.nvmlDeviceGetJpgUtilization(gpu)[0],  # of its JPEG engines
    "memory_used_mib": lambda n, gpu: n.nvmlDeviceGetMemoryInfo(gpu).used >> 20,
    "clock_event_reasons": lambda n, gpu: n.nvmlDeviceGetCurrentClocksEventReasons(gpu),  # NVML's bit mask
    "pcie_generation": lambda n, gpu: n.nvmlDeviceGetCurrPcieLinkGeneration(gpu),
    "pcie_width": lambda n, gpu: n.nvmlDeviceGetCurrPcieLinkWidth(gpu),
}
COUNTED: dict[str, Call] = {
    "energy_j": lambda n, gpu: n.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000,
    "held_by_power_s": _violation("POWER"),
    "held_by_temperature_s": _violation("THERMAL"),
    "held_by_sync_boost_s": _violation("SYNC_BOOST"),
    "held_by_board_limit_s": _violation("BOARD_LIMIT"),
    "held_by_low_utilization_s": _violation("LOW_UTILIZATION"),
    "held_by_reliability_s": _violation("RELIABILITY"),
    "slowed_by_software_thermal_s": _slowed("SW_THERM_SLOWDOWN"),
    "slowed_by_hardware_thermal_s": _slowed("HW_THERM_SLOWDOWN"),
    "slowed_by_power_brake_s": _slowed("HW_POWER_BRAKE_SLOWDOWN"),
    "ecc_corrected": _ecc("CORRECTED"),
    "ecc_uncorrected": _ecc("UNCORRECTED"),
    "pcie_replays": lambda n, gpu: n.nvmlDeviceGetPcieReplayCounter(gpu),
}
STATE: dict[str, Call] = {
    "name": lambda n, gpu: n.nvmlDeviceGetName(gpu),
    "uuid": lambda n, gpu: n.nvmlDeviceGetUUID(gpu),
    "driver": lambda n, gpu: n.nvmlSystemGetDriverVersion(),  # noqa: ARG005
    "vbios": lambda n, gpu: n.nvmlDeviceGetVbiosVersion(gpu),
    "gsp_firmware": lambda n, gpu: n.nvmlDeviceGetGspFirmwareVersion(gpu),
    "gsp_enabled": lambda n, gpu: bool(n.nvmlDeviceGetGspFirmwareMode(gpu)[0]),
    "persistence": lambda n, gpu: bool(n.nvmlDeviceGetPersistenceMode(gpu)),
    "ecc": lambda n, gpu: bool(n.nvmlDeviceGetEccMode(gpu)[0]),
    "power_limit_w": lambda n, gpu: n.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000,
    "clock_sm_max_mhz": lambda n, gpu: n.nvmlDeviceGetMaxClockInfo(gpu, n.NVML_CLOCK_SM),
    "pcie_generation_max": lambda n, gpu: n.nvmlDeviceGetMaxPcieLinkGeneration(gpu),
    "pcie_width_max": lambda n, gpu: n.nvmlDeviceGetMaxPcieLinkWidth(gpu),
}


class Xids:
    """Critical errors (XID) that the driver reports of one GPU from now on."""

    def __init__(self, nvml: Any, gpu: Any) -> None:
        self._nvml, self._gpu, self._events = nvml, gpu, None
        self.seen: list[Plain] = []

    def _begun(self) -> Any:
        """The driver's events. pynvml's NVMLError where it does not tell, as of a MIG instance."""
        events = self._nvml.nvmlEventSetCreate()
        self._nvml.nvmlDeviceRegisterEvents(self._gpu, self._nvml.nvmlEventTypeXidCriticalError, events)
        return events

    def read(self) -> list[Plain]:
        """The numbers of all errors so far, in their order."""
        if self._events is None:
            self._events = self._begun()
        while True:
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._events, 0)
            except self._nvml.NVMLError as error:
                # nothing more has happened; or the GPU is lost, and why it is was the last that it said
                if self.seen or getattr(error, "value", None) == self._nvml.NVML_ERROR_TIMEOUT:
                    return list(self.seen)
                raise
            self.seen.append(int(event.eventData))


@contextlib.contextmanager
def here() -> Iterator[list[Sensors]]:
    """Of this machine's GPUs; none where NVML is not, or does not start."""
    with of(importlib.import_module("pynvml")) as found:
        yield found


@contextlib.contextmanager
def of(nvml: Any) -> Iterator[list[Sensors]]:
    """`here` with the library given, which tests replace."""
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError:
        yield []
        return
    try:
        yield [each for index in range(count) if (each := _sensors(nvml, index)) is not None]
    finally:
        nvml.nvmlShutdown()


def _sensors(nvml: Any, index: int) -> Sensors | None:
    """None for one that a job's control group keeps from this process."""
    try:
        gpu = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_NO_PERMISSION:
            return None
        # one lost GPU must not hide the others, nor take its place in every line
        return Sensors(*(dict.fromkeys(calls, _none(str(error))) for calls in (STATE, COUNTED, SAMPLED)))
    xids = Xids(nvml, gpu)
    sampled: dict[str, Call] = {**SAMPLED, "xids": lambda n, gpu: xids.read()}  # noqa: ARG005
    counted: dict[str, Call] = {**COUNTED, "xid_errors": lambda n, gpu: len(xids.read())}  # noqa: ARG005
    return Sensors(
        *({name: _reading(nvml, gpu, call) for name, call in calls.items()} for calls in (STATE, counted, sampled))
    )


def _none(why: str) -> Reading:
    def read() -> Plain:
        raise Unavailable(why)

    return read


def _reading(nvml: Any, gpu: Any, call: Call) -> Reading:
    def read() -> Plain:
        try:
            answer: Any = call(nvml, gpu)
        except (nvml.NVMLError, AttributeError) as error:  # AttributeError: a call that this binding does not know
            raise Unavailable(str(error)) from error
        return answer.decode() if isinstance(answer, bytes) else answer  # one or two calls forget to

    return read
