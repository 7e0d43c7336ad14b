"""Graphics cards and accelerators on the PCI bus, as the kernel lists them: there whether or not a driver is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import outside

DISPLAY, ACCELERATOR = "03", "12"  # the first byte of a device's class
VGA = "0300"  # of graphics built into a processor too, which nobody misses as an accelerator
NAME_LISTS = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")  # where a distribution puts the bus's own list


@dataclass(frozen=True)
class PciDevice:
    """One device; numbers are four hexadecimal digits."""

    bus: str  # "0000:c1:00.0"
    vendor: str
    device: str
    pci_class: str
    folder: Path  # of the kernel

    @property
    def display_only(self) -> bool:
        """Possibly no more than what draws the screen."""
        return self.pci_class == VGA


def accelerators(root: Path = Path("/")) -> list[PciDevice]:
    """Display controllers and processing accelerators, whoever made them, in the order of the bus."""
    found = []
    for folder in sorted((root / "sys/bus/pci/devices").glob("*")):
        numbers = [outside.text(folder / name).removeprefix("0x") for name in ("vendor", "device", "class")]
        if numbers[2][:2] in (DISPLAY, ACCELERATOR):
            found.append(PciDevice(folder.name, numbers[0], numbers[1], numbers[2][:4], folder))
    return found


def name(device: PciDevice, root: Path = Path("/")) -> str | None:
    """The model by the bus's own list, where this machine has it: "Navi 31 [Radeon RX 7900 XTX]"."""
    for path in NAME_LISTS:
        if (root / path).is_file():
            return next(_named(root / path, device), None)
    return None


def _named(path: Path, device: PciDevice) -> Iterator[str]:
    mine = False
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.startswith(("\t", "#", "\n")):
                mine = line.startswith(device.vendor)
            elif mine and line.startswith(f"\t{device.device}"):
                yield line[5:].strip()
