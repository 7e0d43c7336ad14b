"""Which driver a machine has, by all that can differ while a version string stays the same; from a log or a live look.

The version of the kernel module alone would let an image's own libcuda (cuda-compat), a firmware left over, or an NVML of
another package pass for the driver under test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from harness.results.record import RunRecord
from harness.system import variables

NONE = "none"
FORWARD_COMPAT = "FORWARD-COMPAT"
PARTS = ("driver", "driver_flavour", "libcuda_version", "nvml", "firmware")  # what tells two drivers apart


@dataclass(frozen=True)
class Identity:
    """A driver in its parts; NONE or "" where a part is not there or not told."""

    driver: str  # version of the kernel module
    driver_flavour: str
    libcuda: str  # the file that a program really loads
    libcuda_version: str
    nvml: str
    firmware: str  # GSP's, of all GPUs
    mode: str  # NATIVE, FORWARD-COMPAT ...; see harness/system/nvidia/decision.py

    @property
    def key(self) -> tuple[str, ...]:
        """What tells two drivers apart; the place of libcuda does not."""
        return tuple(getattr(self, part) for part in PARTS)

    @property
    def present(self) -> bool:
        return any(part not in (NONE, "") for part in self.key)

    @property
    def replaced(self) -> bool:
        """The driver that programs meet is not the host's but one that an image brought."""
        return self.mode == FORWARD_COMPAT

    def plain(self) -> dict[str, str]:
        return asdict(self)

    def __str__(self) -> str:
        if not self.present:
            return "no driver"
        parts = [self.driver]
        if self.libcuda_version not in (self.driver, NONE, ""):
            parts.append(f"libcuda {self.libcuda_version} from {self.libcuda}")
        if self.firmware not in (self.driver, ""):
            parts.append(f"GSP firmware {self.firmware}")
        return ", ".join(parts) + (f" ({self.mode})" if self.replaced else "")


def of(software: Mapping[str, Any], devices: Sequence[Mapping[str, Any]]) -> Identity:
    """From the tables `software` and `hardware.gpus` of a log, or of facts.describe."""
    told = {
        name: str(software.get(name, "")) for name in ("driver", "driver_flavour", "libcuda", "libcuda_version", "nvml")
    }
    firmware = sorted({str(gpu["gsp_firmware"]) for gpu in devices if gpu.get("gsp_firmware")})
    return Identity(**told, firmware=" + ".join(firmware), mode=str(software.get("driver_mode", "")))


def from_plain(table: Mapping[str, Any]) -> Identity:
    return Identity(**{field.name: str(table.get(field.name, "")) for field in fields(Identity)})


def differences(expected: Identity, found: Identity, parts: Sequence[str] = PARTS) -> list[str]:
    """Each of these parts that is not as it was, for people."""
    names = {
        "driver": "kernel module",
        "driver_flavour": "module's flavour",
        "nvml": "NVML",
        "firmware": "GSP firmware",
    }
    then, now = expected.plain(), found.plain()
    return [
        f"{names.get(name, name)} is {now[name] or NONE}, was {then[name] or NONE}"
        for name in parts
        if then[name] != now[name]
    ]


def gpus(hardware: Mapping[str, Any], used: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Of a log's table `hardware`: those with the UUIDs `used`, all that there are where it has none of these."""
    told = hardware.get("gpus")
    there = [gpu for gpu in told if isinstance(gpu, dict)] if isinstance(told, list) else []
    return [gpu for gpu in there if gpu.get("uuid") in {*used}] or there


def host(hardware: Mapping[str, Any], used: Sequence[str] = ()) -> str | None:
    """By which a machine is known again: the UUIDs of the GPUs that a run used, of all nodes, else of all that it has, else
    what else is told of it; None where nothing is.

    Two machines without GPUs that are alike in everything but their memory count as one: what a kernel leaves of that varies
    from boot to boot, and no rounding of one log's figure meets another's. That two of them differ is comparability.py's.
    A machine of eight GPUs, of which a run used one, is eight: two of one make differ by more than drivers do.
    """
    uuids = sorted(set(used) or {str(gpu["uuid"]) for gpu in gpus(hardware) if gpu.get("uuid")})
    if uuids:
        return uuids[0] if len(uuids) == 1 else f"{len(uuids)} GPUs {_short(uuids)}"
    keys = ("host", "cpu", "sockets", "cores", "threads", "usable_threads", "accelerators")
    told = {key: hardware[key] for key in keys if hardware.get(key) not in (None, [])}
    known = [str(value) for value in told.values()]
    return f"{hardware.get('cpu') or 'machine'} {_short(known)}" if known else None


def boot(hardware: Mapping[str, Any]) -> str:
    """By which one boot of a machine is told from another; "" where it is not told."""
    told = hardware.get("boot_id")
    return told if isinstance(told, str) and told != NONE else ""


def environment(record: RunRecord) -> dict[str, Any]:
    """Variables that change speed or numbers, by name; without those that only choose devices, where the devices are told.

    Of an older log what the ranks' collectives were told.
    """
    older = record.table("collectives").get("environment")
    told = record.environment if record.environment is not None else older if isinstance(older, dict) else {}
    return {name: value for name, value in told.items() if not (record.device_uuids and name in variables.SELECTING)}


def _short(words: Sequence[str]) -> str:
    return hashlib.sha256("|".join(words).encode()).hexdigest()[:8]
