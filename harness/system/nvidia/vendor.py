"""NVIDIA's GPUs as the harness asks for them; see harness/system/accelerator.py."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from harness.contract import Plain
from harness.system import pci, torch_build
from harness.system.accelerator import ContainerNeeds, Finding, Resource, Sensors, Suitability, Surroundings
from harness.system.nvidia import decision, driver, findings, sensors
from harness.system.nvidia.driver import Driver
from harness.system.torch_build import TorchBuild

PCI_VENDOR = "10de"
# Set by whoever starts a container to get past NVIDIA_REQUIRE_CUDA; a result should say so
BYPASS_VARIABLE = "NVIDIA_DISABLE_REQUIRE"
VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
# Another vendor's: it brings a libcuda of its own, for its own devices
CUDA_LOOKALIKES = ("iluvatar[0-9]*",)


@dataclass(frozen=True)
class Nvidia:
    """What was found, once. Implements accelerator.Accelerators."""

    driver: Driver
    in_container: bool = False
    requirement_bypassed: bool = False
    torch: TorchBuild = field(default_factory=TorchBuild)
    on_the_bus: tuple[str, ...] = ()  # names of GPUs by the PCI bus, whether or not a driver is there
    visible: str | None = None  # what CUDA_VISIBLE_DEVICES says, where it is set

    vendor = "NVIDIA"
    device = "cuda"

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.driver.libcuda.devices] if self.verdict.runnable else []

    @property
    def unusable(self) -> list[str]:
        if self.names:
            return []
        seen = [each.name for each in self.driver.libcuda.devices]
        known = [each.name for each in self.driver.nvml.gpus if each.name is not None]
        return seen or known or list(self.on_the_bus)

    @property
    def needs(self) -> decision.Manifest:
        """What torch's CUDA asks of the driver."""
        return decision.manifest(self.torch.cuda)

    @property
    def verdict(self) -> Suitability:
        return decision.decide(self.driver, self.needs, in_container=self.in_container, torch=self.torch)

    def details(self) -> list[dict[str, Plain]]:
        return [gpu.plain() for gpu in self.driver.nvml.gpus]

    def software(self) -> dict[str, Plain]:
        found, verdict = self.driver, self.verdict
        return {
            "driver": found.kernel_module or "none",
            "driver_flavour": found.kernel_flavour or "none",
            "driver_mode": verdict.mode,
            "driver_comparable": verdict.comparable,
            "driver_requirement_bypassed": self.requirement_bypassed,
            "libcuda": found.libcuda.path or "none",
            "libcuda_version": found.libcuda.file_version or "none",
            "libcuda_cuda": decision.dotted(found.libcuda.cuda) or "none",
            "nvml": found.nvml.driver or "none",
        }

    def findings(self) -> Iterator[Finding]:
        return findings.examine(self.driver, self.verdict, self.needs, self.requirement_bypassed, self.visible)

    def container(self) -> ContainerNeeds:
        return VENDOR.container


class NvidiaVendor:
    """Implements accelerator.Vendor."""

    rank = 0
    process_groups: Mapping[str, str] = {"cuda": "nccl"}
    container = ContainerNeeds(cdi_kind="nvidia.com/gpu", device_request=True)
    resources = (Resource("NVIDIA", "cuda", "nvidia.com/gpu"),)
    libraries = (
        *("libcuda.so", "libnvidia-ml.so", "libnvidia-ptxjitcompiler.so", "libcudart.so", "libnvrtc.so"),
        *("libcudnn.so", "libcublas.so", "libnccl.so", "libnvjpeg.so"),
    )

    def look(self, around: Surroundings) -> Nvidia | None:
        build = torch_build.read()
        if _is_anothers(build, around.root):
            return None
        found = driver.read(around.root)
        bus = [each for each in pci.accelerators(around.root) if each.vendor == PCI_VENDOR]
        there = found.kernel_module is not None or found.control_node or not found.libcuda.absent or bus
        if not there:
            return None
        names = tuple(pci.name(each, around.root) or f"NVIDIA device {each.device}" for each in bus)
        bypassed = around.environment.get(BYPASS_VARIABLE, "") not in ("", "0", "false")
        return Nvidia(found, around.in_container, bypassed, build, names, around.environment.get(VISIBLE_VARIABLE))

    def sensors(self, root: Path) -> AbstractContextManager[Sequence[Sensors]]:
        build = torch_build.read()
        return sensors.here() if build.cuda and not _is_anothers(build, root) else nullcontext([])

    def tested_drivers(self) -> Collection[str]:
        return decision.manifest().tested_drivers


def _is_anothers(build: TorchBuild, root: Path) -> bool:
    """Whether "cuda" is another vendor's word here."""
    return bool(build.hip) or any(list((root / "dev").glob(each)) for each in CUDA_LOOKALIKES)


VENDOR = NvidiaVendor()
