"""What the GPUs did during a run: NVML's readings beside the log, once a second, by a process of its own.

telemetry_N.jsonl: a line "begin" with each GPU's state and counters, a line "sample" each interval, a line "end" with the
counters again. Counters (energy, seconds in which a limit held the clocks down, ECC errors, replays) are exact over the run
however seldom it samples; their differences are in the "end" line. A reading that a GPU or its driver does not offer is null,
and "begin" says why. Nothing here can end a run: where NVML is not there is no file, and a sampler that dies leaves what it
has written.

Own process: NVML's calls take milliseconds and Python's lock; the run's ranks must not feel them. It is niced, and ends when
its standard input does, so that it never outlives the run.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

INTERVAL_S = 1.0

Reading = Callable[[Any, Any], Any]  # (pynvml, a GPU's handle) -> a plain value


def _violation(kind: str) -> Reading:
    """Seconds in which this limit has held the clocks down, since the driver was loaded."""
    return lambda n, gpu: (
        n.nvmlDeviceGetViolationStatus(gpu, getattr(n, f"NVML_PERF_POLICY_{kind}")).violationTime / 1e9
    )


def _ecc(kind: str) -> Reading:
    return lambda n, gpu: n.nvmlDeviceGetTotalEccErrors(
        gpu, getattr(n, f"NVML_MEMORY_ERROR_TYPE_{kind}"), n.NVML_VOLATILE_ECC
    )


SAMPLED: dict[str, Reading] = {
    "clock_sm_mhz": lambda n, gpu: n.nvmlDeviceGetClockInfo(gpu, n.NVML_CLOCK_SM),
    "clock_memory_mhz": lambda n, gpu: n.nvmlDeviceGetClockInfo(gpu, n.NVML_CLOCK_MEM),
    "power_w": lambda n, gpu: n.nvmlDeviceGetPowerUsage(gpu) / 1000,
    "temperature_c": lambda n, gpu: n.nvmlDeviceGetTemperature(gpu, n.NVML_TEMPERATURE_GPU),
    "busy_percent": lambda n, gpu: n.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "memory_used_mib": lambda n, gpu: n.nvmlDeviceGetMemoryInfo(gpu).used >> 20,
    "clock_event_reasons": lambda n, gpu: n.nvmlDeviceGetCurrentClocksEventReasons(gpu),  # NVML's bit mask
}
COUNTED: dict[str, Reading] = {
    "energy_j": lambda n, gpu: n.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000,
    "held_by_power_s": _violation("POWER"),
    "held_by_temperature_s": _violation("THERMAL"),
    "held_by_board_limit_s": _violation("BOARD_LIMIT"),
    "held_by_reliability_s": _violation("RELIABILITY"),
    "ecc_corrected": _ecc("CORRECTED"),
    "ecc_uncorrected": _ecc("UNCORRECTED"),
    "pcie_replays": lambda n, gpu: n.nvmlDeviceGetPcieReplayCounter(gpu),
}
STATE: dict[str, Reading] = {
    "name": lambda n, gpu: n.nvmlDeviceGetName(gpu),
    "uuid": lambda n, gpu: n.nvmlDeviceGetUUID(gpu),
    "power_limit_w": lambda n, gpu: n.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000,
    "clock_sm_max_mhz": lambda n, gpu: n.nvmlDeviceGetMaxClockInfo(gpu, n.NVML_CLOCK_SM),
    "pcie_generation": lambda n, gpu: n.nvmlDeviceGetCurrPcieLinkGeneration(gpu),
    "pcie_width": lambda n, gpu: n.nvmlDeviceGetCurrPcieLinkWidth(gpu),
}


@contextlib.contextmanager
def beside(log: Path | None, interval_s: float = INTERVAL_S) -> Iterator[None]:
    """For as long as the block runs, sample this machine's GPUs into telemetry_N.jsonl beside result_N.txt.

    Nothing where there is no log to be beside.
    """
    if log is None:
        yield
        return
    path = log.with_name(log.name.replace("result_", "telemetry_", 1)).with_suffix(".jsonl")
    command = [sys.executable, "-m", "harness.execution.telemetry", str(path), str(interval_s)]
    root = Path(__file__).resolve().parents[2]
    sampler = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=root, start_new_session=True
    )
    try:
        yield
    finally:
        assert sampler.stdin is not None
        sampler.stdin.close()
        try:
            sampler.wait(timeout=10)
        except subprocess.TimeoutExpired:  # a driver that hangs
            sampler.kill()


def sample(nvml: Any, path: Path, interval_s: float, stop: Callable[[float], bool]) -> None:
    """Write `path` until `stop(seconds to wait)` says so. Nothing is written where NVML is not, or knows no GPU."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return
    try:
        gpus = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        if gpus:
            with path.open("x", encoding="utf-8", buffering=1) as file:
                _write(nvml, gpus, file, interval_s, stop)
    finally:
        nvml.nvmlShutdown()


def _write(nvml: Any, gpus: list[Any], file: IO[str], interval_s: float, stop: Callable[[float], bool]) -> None:
    def line(event: str, each: list[dict[str, Any]]) -> None:
        file.write(json.dumps({"event": event, "time_ms": round(time.time() * 1000), "gpus": each}) + "\n")

    first = [read(nvml, gpu, {**STATE, **COUNTED, **SAMPLED}) for gpu in gpus]
    line("begin", [{**values, "unavailable": reasons} for values, reasons in first])
    # what a GPU does not offer is not asked for every second
    offered = [{name: call for name, call in SAMPLED.items() if name not in reasons} for _, reasons in first]
    due = time.monotonic()
    while not stop(max(0.0, (due := due + interval_s) - time.monotonic())):
        line("sample", [read(nvml, gpu, calls)[0] for gpu, calls in zip(gpus, offered, strict=True)])
    last = [read(nvml, gpu, COUNTED)[0] for gpu in gpus]
    line(
        "end",
        [{**values, "during_run": _grown(before, values)} for (before, _), values in zip(first, last, strict=True)],
    )


def read(nvml: Any, gpu: Any, calls: dict[str, Reading]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values, None where there is none, and the reasons for these."""
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for name, call in calls.items():
        try:
            values[name] = call(nvml, gpu)
        except (nvml.NVMLError, AttributeError) as error:  # AttributeError: a call that this binding does not know
            values[name], reasons[name] = None, str(error)
    return values, reasons


def _grown(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """By how much each counter grew; None where it is not offered, or was reset meanwhile."""
    return {
        name: after[name] - before[name]
        if None not in (before[name], after[name]) and after[name] >= before[name]
        else None
        for name in COUNTED
    }


def main(path: Path, interval_s: float, until: IO[str]) -> None:
    """Sample until the run's end of the pipe closes."""
    with contextlib.suppress(OSError):
        os.nice(10)
    sample(
        importlib.import_module("pynvml"),
        path,
        interval_s,
        lambda wait_s: bool(select.select([until], [], [], wait_s)[0]),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.stdin)
