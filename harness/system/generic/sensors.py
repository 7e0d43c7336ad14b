"""What the kernel tells of a card of any maker, by sysfs and hwmon: most of it of amdgpu, some of xe, i915 and others.

Names and units: Linux's documentation of hwmon (power in microwatt, temperature in millidegree, energy in microjoule) and of
amdgpu's own files (gpu_busy_percent, mem_info_vram_used, pcie_replay_count, vbios_version, unique_id).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from harness import outside
from harness.contract import Plain
from harness.system import pci
from harness.system.accelerator import Reading, Sensors, Unavailable

Convert = Callable[[str], Plain]


def _divided(by: float) -> Convert:
    return lambda text: int(text) / by


def _unique(text: str) -> str:
    if not text.strip("0x"):
        raise ValueError("a card without a number of its own")  # by zeros two machines would be taken for one
    return text


# name: file (under hwmon/hwmon*/ where it begins with "hwmon:"), what makes a value of its text
SAMPLED: dict[str, tuple[tuple[str, ...], Convert]] = {
    "power_w": (("hwmon:power1_average", "hwmon:power1_input"), _divided(1e6)),
    "temperature_c": (("hwmon:temp1_input",), _divided(1e3)),
    "clock_sm_mhz": (("hwmon:freq1_input",), _divided(1e6)),
    "clock_memory_mhz": (("hwmon:freq2_input",), _divided(1e6)),
    "busy_percent": (("gpu_busy_percent",), int),
    "memory_used_mib": (("mem_info_vram_used",), lambda text: int(text) >> 20),
}
COUNTED: dict[str, tuple[tuple[str, ...], Convert]] = {
    "energy_j": (("hwmon:energy1_input",), _divided(1e6)),
    "pcie_replays": (("pcie_replay_count",), int),
}
STATE: dict[str, tuple[tuple[str, ...], Convert]] = {
    "name": (("product_name",), str),
    "uuid": (("unique_id",), _unique),
    "vbios": (("vbios_version",), str),
    "memory_mib": (("mem_info_vram_total",), lambda text: int(text) >> 20),
    "power_limit_w": (("hwmon:power1_cap",), _divided(1e6)),
    "pcie_speed": (("current_link_speed",), str),
    "pcie_width": (("current_link_width",), int),
    "pcie_speed_max": (("max_link_speed",), str),
    "pcie_width_max": (("max_link_width",), int),
    "numa_node": (("numa_node",), int),
}


def of(card: pci.PciDevice) -> Sensors:
    """The readings of one card."""
    state, counted, sampled = (
        {name: _reading(card.folder, files, convert) for name, (files, convert) in table.items()}
        for table in (STATE, COUNTED, SAMPLED)
    )
    return Sensors({"pci_bus": lambda: card.bus, **state}, counted, sampled)


def state(cards: Sequence[pci.PciDevice]) -> list[dict[str, Plain]]:
    """What does not change of each card, as far as the kernel tells."""
    found = []
    for card in cards:
        values: dict[str, Plain] = {}
        for name, read in of(card).state.items():
            try:
                values[name] = read()
            except Unavailable:
                continue
        found.append(values)
    return found


def _reading(folder: Path, files: Sequence[str], convert: Convert) -> Reading:
    def read() -> Plain:
        for file in files:
            hwmon = file.removeprefix("hwmon:")
            paths = sorted(folder.glob(f"hwmon/hwmon*/{hwmon}")) if hwmon != file else [folder / file]
            for text in filter(None, map(outside.text, paths)):
                try:
                    return convert(text)
                except ValueError as error:
                    raise Unavailable(f"{file} says {text[:40]!r}") from error
        raise Unavailable(f"the kernel shows no {' or '.join(files)} of it")

    return read
