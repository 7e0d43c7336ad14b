"""makers.toml, and which of its rows this machine shows."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from harness import outside
from harness.system import pci
from harness.system.torch_build import TorchBuild

Build = Literal["hip", "xpu", "cuda", "plugin"]
BUILDS: tuple[str, ...] = get_args(Build)
LISTS = ("pci_vendors", "classes", "nodes", "modules", "versions", "kinds")


@dataclass(frozen=True)
class Maker:
    """A row of makers.toml, whose head says what each means."""

    name: str
    device: str
    build: Build
    pci_vendors: tuple[str, ...] = ()
    classes: tuple[str, ...] = (pci.DISPLAY, pci.ACCELERATOR)
    nodes: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    process_group: str = ""
    cdi: str = ""
    resource: str = ""
    kinds: tuple[str, ...] = ()

    def driven_by(self, torch: TorchBuild) -> bool:
        """Whether this PyTorch could drive its devices; what it really sees, it must be asked."""
        if self.build == "plugin":
            return bool(torch.plugins)
        return getattr(torch, self.build) is not None


@dataclass(frozen=True)
class Trace:
    """One maker's devices as the kernel shows them."""

    maker: Maker
    cards: tuple[pci.PciDevice, ...]
    nodes: tuple[str, ...]
    root: Path

    @property
    def names(self) -> list[str]:
        """Of the cards, as well as the bus can tell; one a node where it cannot."""
        if self.cards:
            return [
                outside.text(card.folder / "product_name")  # of AMD's server cards
                or f"{self.maker.name} {pci.name(card, self.root) or f'device {card.device}'}"
                for card in self.cards
            ]
        return [self.maker.name] * len(self.nodes)

    @property
    def display_only(self) -> bool:
        """Graphics as most desktop processors have: no accelerator that anybody misses."""
        return bool(self.cards) and all(card.display_only for card in self.cards)

    @cached_property
    def driver(self) -> str | None:
        """The kernel module's version, where it says one; a module of the kernel's own has the kernel's."""
        files = [*self.maker.versions, *(f"/sys/module/{each}/version" for each in self.maker.modules)]
        for file in files:
            found = re.search(r"^(?:[Vv]ersion=)?(\d[\w.+-]*)", outside.text(self.root / file[1:]), re.MULTILINE)
            if found:
                return found[1]
        if any((self.root / f"sys/module/{each}").is_dir() for each in self.maker.modules):
            return "of the kernel"
        return None


def read() -> tuple[Maker, ...]:
    """All rows."""
    rows: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("makers.toml").read_text(encoding="utf-8"))[
        "maker"
    ]
    return tuple(map(row, rows))


def row(told: dict[str, Any]) -> Maker:
    """One of them. ValueError for what would match no device, and so pass for a machine without any."""
    where = f"harness/system/generic/makers.toml: {told.get('name')}"
    if wrong := [key for key in told if key not in {each.name for each in fields(Maker)}]:
        raise ValueError(f"{where}: unknown key {wrong[0]}")
    for key in LISTS:
        if not isinstance(told.get(key, []), list):
            raise ValueError(f"{where}: {key} = {told[key]!r}: a list is needed")
    for number in told.get("pci_vendors", []):
        if not re.fullmatch("[0-9a-f]{4}", number):
            raise ValueError(
                f"{where}: pci_vendors has {number!r}: four hexadecimal digits, in small letters, are needed"
            )
    if told.get("build") not in BUILDS:
        raise ValueError(f"{where}: build = {told.get('build')!r}: one of {', '.join(BUILDS)} is needed")
    values: dict[str, Any] = {key: tuple(value) if key in LISTS else value for key, value in told.items()}
    return Maker(**values)


def traces(root: Path) -> list[Trace]:
    """The makers of which this machine shows devices."""
    cards = pci.accelerators(root)
    found = []
    for maker in read():
        mine = tuple(card for card in cards if card.vendor in maker.pci_vendors and card.pci_class[:2] in maker.classes)
        own = [each for each in maker.nodes if not each.startswith("/dev/dri/")]  # which every graphics card has
        nodes = tuple(str(path) for pattern in own for path in sorted(root.glob(pattern[1:])))
        if mine or (nodes and not maker.pci_vendors):
            found.append(Trace(maker, mine, nodes, root))
    return found
