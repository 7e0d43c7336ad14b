"""A vendor that exists in tests alone: all that the harness asks of one, in one folder. See test_vendors.py."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from harness.contract import Plain
from harness.system.accelerator import (
    ContainerNeeds,
    Finding,
    Resource,
    Sensors,
    Suitability,
    Surroundings,
    Unavailable,
)

DRIVER = "13.2.1"


class Abaci:
    vendor = "Abacus Works"
    device = "abacus"
    verdict = Suitability("NATIVE", f"beads {DRIVER}", runnable=True, comparable=True)

    @property
    def names(self) -> list[str]:
        return ["Abacus 13", "Abacus 13"]

    @property
    def unusable(self) -> list[str]:
        return []

    def details(self) -> list[dict[str, Plain]]:
        return [{"name": "Abacus 13", "memory_mib": 13, "uuid": f"ABACUS-{index}"} for index in (0, 1)]

    def software(self) -> dict[str, Plain]:
        return {"driver": DRIVER, "driver_mode": self.verdict.mode, "driver_comparable": True}

    def findings(self) -> Iterator[Finding]:
        yield Finding("ok", "driver", f"NATIVE: beads {DRIVER}")
        yield Finding("warning", "abacus 1", "a bead sticks", "oil it")

    def container(self) -> ContainerNeeds:
        return AbacusVendor.container


def _no_wind() -> Plain:
    raise Unavailable("an abacus has no fan")


class AbacusVendor:
    rank = 0
    process_groups: Mapping[str, str] = {"abacus": "gloo"}
    container = ContainerNeeds(nodes=("/dev/abacus*",))
    libraries: tuple[str, ...] = ()
    resources = (Resource("Abacus", "abacus", "abacus.example/bead"),)

    def look(self, around: Surroundings) -> Abaci:
        return Abaci()

    @contextlib.contextmanager
    def sensors(self, root: Path) -> Iterator[Sequence[Sensors]]:
        moved = iter(range(1_000_000))
        yield [Sensors({"name": lambda: "Abacus 13"}, {"beads_moved": lambda: next(moved)}, {"fan_rpm": _no_wind})]

    def tested_drivers(self) -> Collection[str]:
        return ()


VENDOR = AbacusVendor()
