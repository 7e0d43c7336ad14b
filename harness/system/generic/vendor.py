"""Accelerators without a folder of their own, as the harness asks for them; see harness/system/accelerator.py.

The kernel says what the machine has (makers.toml), torch what programs can use of it. Torch is asked only where there is a
reason to expect an answer: a PyTorch built for another vendor, an extension that brings a device, or a maker's nodes.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.contract import Plain
from harness.system import asked, torch_build
from harness.system.accelerator import ContainerNeeds, Finding, Level, Resource, Sensors, Suitability, Surroundings
from harness.system.generic import makers, sensors, torch_probe
from harness.system.generic.makers import Trace

PROBE_SECONDS = 180  # a vendor's torch may compile something when it is first imported


@dataclass(frozen=True)
class TorchSees:
    """torch_probe.py's answer."""

    error: str | None = None
    device: str | None = None
    names: tuple[str, ...] = ()
    details: tuple[Mapping[str, Plain], ...] = ()
    process_group: str | None = None


@dataclass(frozen=True)
class Generic:
    """One maker's devices, as the kernel and torch see them. Implements accelerator.Accelerators."""

    trace: Trace | None  # None: torch sees devices of which the kernel shows nothing that we know
    torch: TorchSees | None  # None: it was not asked, because it could not know these
    build: torch_build.TorchBuild = field(default_factory=torch_build.TorchBuild)

    @property
    def vendor(self) -> str:
        return self.trace.maker.name if self.trace else str(self.torch and self.torch.device)

    @property
    def device(self) -> str:
        if self.torch is not None and self.torch.device:
            return self.torch.device
        return self.trace.maker.device if self.trace else ""

    @property
    def names(self) -> list[str]:
        """As torch says; where that is no more than its word for the kind, as the bus does."""
        said = list(self.torch.names) if self.torch else []
        known = self.trace.names if self.trace else []
        return known if said and set(said) == {self.device} and len(known) == len(said) else said

    @property
    def unusable(self) -> list[str]:
        return [] if self.names or self.trace is None else self.trace.names

    @property
    def verdict(self) -> Suitability:
        if self.names:
            driver = (self.trace and self.trace.driver) or "of unknown version"
            return Suitability(
                "OTHER-VENDOR", f"{self.vendor}, driver {driver}, which is not checked here", runnable=True
            )
        assert self.trace is not None  # without devices of torch's there is a trace, or no record at all
        there = ", ".join(dict.fromkeys(self.trace.names))
        if self.torch is None:
            wanted = {"hip": "for ROCm", "xpu": "for XPU"}.get(self.trace.maker.build, f"of {self.vendor}'s own")
            fix = f'install a PyTorch {wanted}, or choose a configuration with run.device = "cpu"'
            return Suitability("UNUSABLE", f"{there} is here, and this is {self.build.text}, which cannot use it", fix)
        why = self.torch.error or f"{self.build.text} sees none"
        nodes = ", ".join(self.trace.maker.nodes)
        fix = (
            f"see whether {self.vendor}'s driver and tools work"
            + (f", whether this user is in the group that may open {nodes}" if nodes else "")
            + ", and whether a variable hides devices (HIP_VISIBLE_DEVICES or its like)"
        )
        return Suitability("UNUSABLE", f"{there} is here, and {why}", fix)

    def details(self) -> list[dict[str, Plain]]:
        by_torch = [self._by_torch(each) for each in self.torch.details] if self.torch else []
        by_kernel = sensors.state(self.trace.cards) if self.trace else []
        if not self.names:
            return by_kernel
        on_bus = {str(each["pci_bus"]): each for each in by_kernel}
        same = [on_bus.get(_bus(each)) for each in by_torch]
        if None in same:  # an older torch does not tell
            same = [*by_kernel] if len(by_kernel) == len(by_torch) else [{} for _ in by_torch]
        # the kernel's uuid first: telemetry's is the kernel's too
        return [
            {**(kernel or {}), **torch, **({"uuid": kernel["uuid"]} if kernel and "uuid" in kernel else {})}
            for kernel, torch in zip(same, by_torch, strict=True)
        ]

    def _by_torch(self, details: Mapping[str, Plain]) -> dict[str, Plain]:
        told = dict(details)
        if (spelt := told.pop("uuid", None)) and (uuid := torch_build.uuid(str(spelt), self.build.hip)):
            told["uuid"] = uuid
        return told

    def software(self) -> dict[str, Plain]:
        verdict = self.verdict
        found: dict[str, Plain] = {
            "driver": (self.trace and self.trace.driver) or "none",
            "driver_vendor": self.vendor,
            "driver_mode": verdict.mode,
            "driver_comparable": verdict.comparable,
        }
        return {**found, **({"rocm": self.build.hip} if self.build.hip else {})}

    def findings(self) -> Iterator[Finding]:
        verdict = self.verdict
        quiet = not self.names and self.trace is not None and self.trace.display_only
        level: Level = "ok" if quiet else "warning"
        yield Finding(level, "driver", f"{verdict.mode}: {verdict.message}", "" if quiet else verdict.fix)
        counted = ", ".join(f"{self.names.count(each)} x {each}" for each in dict.fromkeys(self.names))
        yield Finding(
            "ok" if self.names or quiet else "warning", "accelerators", counted or "none to be used: CPU only"
        )

    def container(self) -> ContainerNeeds:
        maker = self.trace.maker if self.trace else None
        return ContainerNeeds(cdi_kind=maker.cdi, nodes=maker.nodes) if maker else ContainerNeeds()


class GenericVendor:
    """Implements accelerator.Vendor."""

    rank = 1
    container = ContainerNeeds()
    libraries = (
        *("libamdhip64.so", "libhsa-runtime64.so", "libMIOpen.so", "librccl.so"),
        *("libze_loader.so", "libsycl.so", "libccl.so", "libmusa.so", "libmccl.so", "libSynapse.so", "libascendcl.so"),
    )

    @property
    def process_groups(self) -> Mapping[str, str]:
        return {each.device: each.process_group for each in makers.read() if each.process_group}

    @property
    def resources(self) -> tuple[Resource, ...]:
        return tuple(
            Resource(each.name, each.device, each.resource, each.kinds) for each in makers.read() if each.resource
        )

    def look(self, around: Surroundings) -> Generic | None:
        build, traces = torch_build.read(), makers.traces(around.root)
        expected = [each for each in traces if each.maker.driven_by(build)]
        asked = ask_torch() if expected or build.hip or build.xpu or build.plugins else None
        if asked is not None and asked.names:
            mine = next((each for each in expected if each.maker.device == asked.device), None)
            # a "cuda" of no other maker's is NVIDIA's, whose folder lists it
            if mine is not None or build.hip or asked.device != "cuda":
                return Generic(mine, asked, build)
        trace = next(iter([*expected, *traces]), None)
        return None if trace is None else Generic(trace, asked if trace in expected else None, build)

    @contextlib.contextmanager
    def sensors(self, root: Path) -> Iterator[Sequence[Sensors]]:
        build = torch_build.read()
        driven = [trace for trace in makers.traces(root) if trace.maker.driven_by(build)]
        yield [sensors.of(card) for trace in driven for card in trace.cards if not card.display_only]

    def tested_drivers(self) -> Collection[str]:
        return ()


def _bus(details: Mapping[str, Plain]) -> str:
    """A device's place on the bus as the kernel writes it; torch's numbers are of whole cards. Empty where torch tells none."""
    told = [details.get(name) for name in ("pci_domain_id", "pci_bus_id", "pci_device_id")]
    numbers = [each for each in told if isinstance(each, int)]
    return "{:04x}:{:02x}:{:02x}.0".format(*numbers) if len(numbers) == len(told) else ""


@functools.cache
def ask_torch() -> TorchSees:
    """Run the probe, once in a process's life. A probe that hangs or dies is an answer too."""
    command = [sys.executable, torch_probe.__file__]
    try:
        return parse(
            asked.answer(
                command, PROBE_SECONDS, late="torch did not say what it sees", dead="the process that asked torch"
            )
        )
    except asked.NoAnswer as why:
        return TorchSees(str(why))


def parse(answer: dict[str, Any]) -> TorchSees:
    """The probe's JSON as a record."""
    if answer["error"] is not None:
        return TorchSees(answer["error"])
    more = answer.get("process_group")
    return TorchSees(None, answer["device"], tuple(answer["names"]), tuple(answer["details"]), more)


VENDOR = GenericVendor()
