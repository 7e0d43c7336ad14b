"""The processor, which every machine has: what runs where no accelerator is asked for or found."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from harness.contract import Plain
from harness.system.accelerator import CPU, ContainerNeeds, Finding, Resource, Sensors, Suitability, Surroundings


class Processor:
    """Implements accelerator.Accelerators, with no device of its own: what a processor is, host.py says."""

    vendor = "processor"
    device = CPU
    verdict = Suitability("CPU-ONLY", "no accelerator was found", runnable=True)

    @property
    def names(self) -> list[str]:
        return []

    @property
    def unusable(self) -> list[str]:
        return []

    def details(self) -> list[dict[str, Plain]]:
        return []

    def software(self) -> dict[str, Plain]:
        return {"driver": "none", "driver_mode": self.verdict.mode, "driver_comparable": False}

    def findings(self) -> Iterator[Finding]:
        yield Finding("ok", "accelerators", "none found: CPU only")

    def container(self) -> ContainerNeeds:
        return ContainerNeeds()


class ProcessorVendor:
    """Implements accelerator.Vendor."""

    rank = 2
    process_groups: Mapping[str, str] = {CPU: "gloo"}
    container = ContainerNeeds()
    libraries: tuple[str, ...] = ()
    resources: tuple[Resource, ...] = ()

    def look(self, around: Surroundings) -> Processor:  # noqa: ARG002 - it is always there
        return Processor()

    @contextlib.contextmanager
    def sensors(self, root: Path) -> Iterator[Sequence[Sensors]]:  # noqa: ARG002
        yield []

    def tested_drivers(self) -> Collection[str]:
        return ()


VENDOR = ProcessorVendor()
