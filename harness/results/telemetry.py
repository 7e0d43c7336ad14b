"""telemetry_N.jsonl read back: what the GPUs of a run drew, ran at and were held down by. Those that it used, where its log
tells which: the file has all that the driver knows.

harness/execution/telemetry.py writes it. A file that breaks off, as a killed run's does, is read as far as it goes. What
no GPU offered is None.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from harness import names, outside
from harness.exit_codes import OF_STEPS
from harness.results.record import RunRecord, median
from harness.results.said import number

GAP_S, GAP = 10.0, 0.05  # the longest time, and share of a run, over which power is taken to be what it was
LIMIT = 256 << 20  # bytes of one file; a sample of eight GPUs has 3 kB, and a day of them 260 MB
# NVML's bits for a clock that something holds down which is no matter of course, as idling or a set limit are
SLOWED = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake of the supply",
}
HELD = ("power", "temperature", "sync_boost", "board_limit", "reliability")
# Counters of the same, exact however seldom is sampled, where the driver has them
SLOWED_S = {
    "slowed_by_hardware_thermal_s": "hardware thermal slowdown",
    "slowed_by_software_thermal_s": "software thermal slowdown",
    "slowed_by_power_brake_s": "power brake of the supply",
}


@dataclass(frozen=True)
class Sampled:
    """One reading of all GPUs."""

    at_s: float  # Unix seconds
    clock_sm_mhz: float | None  # the slowest GPU's
    power_w: float | None  # of all GPUs together
    temperature_c: float | None  # the hottest GPU's


@dataclass(frozen=True)
class Telemetry:
    """All GPUs of one run; counters over the whole life of the sampler, samples over run_start to run_stop."""

    path: str
    gpus: int
    complete: bool  # it has its last line, and the counters with it
    energy_j: float | None  # of all GPUs between run_start and run_stop, by the samples; see `read`
    clock_sm_mhz: float | None  # median over the run
    clock_sm_max_mhz: float | None
    power_w: float | None  # mean over the run
    power_limit_w: float | None  # of one GPU, the lowest
    temperature_c: float | None  # the highest
    held_s: Mapping[str, float]  # by what -> seconds of the GPU that it held longest
    slowed: tuple[str, ...]  # words of SLOWED that a sample has, or a counter of SLOWED_S
    ecc_corrected: int | None  # grown during the run
    ecc_uncorrected: int | None
    pcie_replays: int | None
    pcie_width: int | None  # the narrowest during the run
    pcie_width_max: int | None
    xid: tuple[int, ...]  # the driver's codes of critical errors, in their order
    samples: tuple[Sampled, ...]
    jpeg_percent: float | None = None  # how busy the JPEG engines were, mean over the run
    clock_memory_mhz: float | None = None  # the slowest GPU's, median over the run
    memory_used_mib: float | None = (
        None  # the most of one GPU during the run, of all that use it: as the driver sees it
    )
    pcie_generation: int | None = None  # the lowest GPU's, median over the run: an idle link goes down by itself
    problem: str = ""  # why the file that lies there tells nothing; nothing else is known then

    @property
    def held_longest_s(self) -> float | None:
        """By what held them longest: causes come together, so that their sum is no time."""
        return max(self.held_s.values(), default=None)

    def plain(self) -> dict[str, Any]:
        """For JSON: all but the samples."""
        return {name: value for name, value in self.__dict__.items() if name not in ("samples", "path")}


def joules_per_image(record: RunRecord, found: Telemetry) -> float | None:
    """Of all accelerators over the run, by the images that it trained on; None where either is not told.

    A run on several machines has telemetry of its first one alone, and where no driver tells which devices a run used, the file
    has all of the machine's: that energy is not the images'. Nor is a whole GPU's those of a part (MIG) of it.
    """
    used = len(set(record.device_uuids)) or record.accelerators
    parts = " MIG " in str(record.hardware.get("accelerators"))
    images = trained_images(record) if used in (None, found.gpus) and not parts else None
    return found.energy_j / images if found.energy_j and images else None


def trained_images(record: RunRecord) -> float | None:
    """Over the whole run; of one that did all the steps that --max-steps allowed, by these. None of one that ended within an
    epoch: how much of that it trained, no log tells."""
    whole = sum(each.seconds is not None for each in record.epochs)
    if record.max_steps is not None and record.global_batch_size and record.reason.startswith(OF_STEPS):
        return float(record.max_steps * record.global_batch_size)
    if record.epochs and record.epochs[-1].seconds is None:
        return None
    return float(whole * record.epoch_samples) if record.epoch_samples and whole else None


def beside(record: RunRecord) -> Telemetry | None:
    """Of the file that lies beside the log; None where there is none, or nothing in it. One that cannot be read says so."""
    path = names.telemetry(Path(record.path))
    if path is None:
        return None
    try:
        return read(path, record.run_start_s, record.run_stop_s, record.device_uuids)
    except (OSError, outside.Refused) as error:
        return _nothing(path, outside.why(path, error))


def read(
    path: Path, start_s: float | None = None, stop_s: float | None = None, uuids: Collection[str] = ()
) -> Telemetry | None:
    """The file's account, its samples cut to the run; None where there is none, or nothing in it.

    `uuids`: of the GPUs that the run used. All that the file has, where it has none of these: older logs do not say, and not
    every vendor's driver does.

    OSError where it cannot be read, outside.Refused where it is none or of another time; a torn last line is no fault.

    Energy is power summed over time between the samples inside the run: the counter's difference, exact as it is, holds
    the init and the end too, and in a short run these are most of it.
    """
    try:
        content = outside.read_bytes(path, LIMIT)
    except FileNotFoundError:
        return None
    lines = [line for line in map(_line, content.split(b"\n")) if line is not None]
    begin = next((line for line in lines if line.get("event") == "begin"), None)
    if begin is None:
        return None
    stamps_s = [line["time_ms"] / 1000 for line in lines]
    if (start_s is not None and max(stamps_s) < start_s) or (stop_s is not None and min(stamps_s) > stop_s):
        raise outside.Refused(f"{path}: nothing in it is of the time of this run")
    known = [gpu.get("uuid") if isinstance(gpu, dict) else None for gpu in _listed(begin)]
    used = {index for index, uuid in enumerate(known) if isinstance(uuid, str) and uuid in uuids}
    if used:
        lines = [{**line, "gpus": [gpu for at, gpu in enumerate(_listed(line)) if at in used]} for line in lines]
        begin = next(line for line in lines if line.get("event") == "begin")
    end = next((line for line in lines if line.get("event") == "end"), None)
    inside = [
        line
        for line in lines
        if line.get("event") == "sample"
        and (start_s is None or line["time_ms"] >= 1000 * start_s)
        and (stop_s is None or line["time_ms"] <= 1000 * stop_s)
    ]
    grown = [during for gpu in _gpus(end or {}) if isinstance(during := gpu.get("during_run"), dict)]
    samples = tuple(_sampled(line) for line in inside)
    reasons = [gpu.get("clock_event_reasons") for line in inside for gpu in _gpus(line)]
    return Telemetry(
        path=str(path),
        gpus=len(_gpus(begin)),
        complete=end is not None,
        energy_j=_energy(samples, start_s, stop_s),
        clock_sm_mhz=median(each.clock_sm_mhz for each in samples),
        clock_sm_max_mhz=_least(_gpus(begin), "clock_sm_max_mhz"),
        power_w=_mean(each.power_w for each in samples),
        power_limit_w=_least(_gpus(begin), "power_limit_w"),
        temperature_c=max((each.temperature_c for each in samples if each.temperature_c is not None), default=None),
        held_s={by: longest for by in HELD if (longest := _most(grown, f"held_by_{by}_s")) is not None},
        slowed=tuple(
            dict.fromkeys(
                [
                    *(t for bit, t in SLOWED.items() if any(isinstance(each, int) and each & bit for each in reasons)),
                    *(text for key, text in SLOWED_S.items() if (_total(grown, key) or 0.0) > 0),
                ]
            )
        ),
        ecc_corrected=_whole(_total(grown, "ecc_corrected")),
        ecc_uncorrected=_whole(_total(grown, "ecc_uncorrected")),
        pcie_replays=_whole(_total(grown, "pcie_replays")),
        pcie_width=_whole(_least([gpu for line in [begin, *inside] for gpu in _gpus(line)], "pcie_width")),
        pcie_width_max=_whole(_least(_gpus(begin), "pcie_width_max")),
        xid=_xids(lines),
        samples=samples,
        clock_memory_mhz=_middle(_least(_gpus(line), "clock_memory_mhz") for line in inside),
        memory_used_mib=_most([gpu for line in inside for gpu in _gpus(line)], "memory_used_mib"),
        pcie_generation=_whole(_middle(_least(_gpus(line), "pcie_generation") for line in inside)),
        jpeg_percent=_mean(number(gpu.get("jpeg_percent")) for line in inside for gpu in _gpus(line)),
    )


def _nothing(path: Path, problem: str) -> Telemetry:
    unknown = dict.fromkeys(field.name for field in fields(Telemetry))
    known = {"path": str(path), "gpus": 0, "complete": False, "held_s": {}, "slowed": (), "xid": (), "samples": ()}
    return Telemetry(**{**unknown, **known, "problem": problem})  # type: ignore[arg-type]


def _line(raw: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(raw.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or number(content.get("time_ms")) is None:
        return None
    return content


def _gpus(line: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [gpu for gpu in _listed(line) if isinstance(gpu, dict)]


def _listed(line: Mapping[str, Any]) -> list[Any]:
    """By the driver's index, each at the same place in every line."""
    gpus = line.get("gpus")
    return gpus if isinstance(gpus, list) else []


def _sampled(line: Mapping[str, Any]) -> Sampled:
    gpus = _gpus(line)
    temperatures = [each for gpu in gpus if (each := number(gpu.get("temperature_c"))) is not None]
    powers = [number(gpu.get("power_w")) for gpu in gpus]
    told = _total(gpus, "power_w") if None not in powers else None  # what seven of eight draw is not what all do
    return Sampled(line["time_ms"] / 1000, _least(gpus, "clock_sm_mhz"), told, max(temperatures, default=None))


def _energy(samples: tuple[Sampled, ...], start_s: float | None, stop_s: float | None) -> float | None:
    """Joules from start to stop: each sample's power up to the next, the first and the last drawn out to the ends.

    None where the samples leave more than a gap open: a sampler that died early tells nothing of the rest; nor do stamps that
    go backwards, of a clock that was set.
    """
    known = [(each.at_s, each.power_w) for each in samples if each.power_w is not None]
    if start_s is None or stop_s is None or len(known) < 2:
        return None
    times = [start_s, *(at for at, _ in known), stop_s]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    if min(gaps) < 0 or max(gaps) > max(GAP_S, GAP * (stop_s - start_s)):
        return None
    total = known[0][1] * (known[0][0] - start_s) + known[-1][1] * (stop_s - known[-1][0])
    for (before, one), (after, other) in itertools.pairwise(known):
        total += (one + other) / 2 * (after - before)
    return total


def _xids(lines: Iterable[Mapping[str, Any]]) -> tuple[int, ...]:
    """A sample has all errors of its GPU so far: the longest list of each has them all."""
    longest: dict[int, list[int]] = {}
    for line in lines:
        for index, gpu in enumerate(_gpus(line)):
            given = gpu.get("xids")
            codes = (
                [int(code) for each in given if (code := number(each)) is not None] if isinstance(given, list) else []
            )
            if len(codes) > len(longest.get(index, [])):
                longest[index] = codes
    return tuple(code for codes in longest.values() for code in codes)


def _least(gpus: Iterable[Mapping[str, Any]], key: str) -> float | None:
    return min((each for gpu in gpus if (each := number(gpu.get(key))) is not None), default=None)


def _most(gpus: Iterable[Mapping[str, Any]], key: str) -> float | None:
    return max((each for gpu in gpus if (each := number(gpu.get(key))) is not None), default=None)


def _total(gpus: Iterable[Mapping[str, Any]], key: str) -> float | None:
    values = [each for gpu in gpus if (each := number(gpu.get(key))) is not None]
    return sum(values) if values else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return sum(known) / len(known) if known else None


def _middle(values: Iterable[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return statistics.median_low(known) if known else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
