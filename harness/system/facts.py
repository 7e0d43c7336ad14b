"""This machine as one record, and as what a run's log says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.contract import Plain
from harness.system import host, image
from harness.system.host import Host
from harness.system.nvidia import decision, driver
from harness.system.nvidia.driver import Driver

# Set by whoever starts a container to get past NVIDIA_REQUIRE_CUDA; a result should say so
BYPASS_VARIABLE = "NVIDIA_DISABLE_REQUIRE"


@dataclass(frozen=True)
class Machine:
    """What was found, once."""

    host: Host
    driver: Driver
    image: dict[str, Plain]  # {} outside our image
    requirement_bypassed: bool  # NVIDIA_DISABLE_REQUIRE was set

    @property
    def accelerators(self) -> list[str]:
        """Names of the devices that CUDA programs may use."""
        return [each.name for each in self.driver.libcuda.devices]

    @property
    def verdict(self) -> decision.Verdict:
        """Whether they may be used and compared."""
        return decision.decide(self.driver, decision.manifest(), in_container=self.host.container)


def read(environment: Mapping[str, str]) -> Machine:
    """Look at this machine now; takes as long as its driver needs to answer."""
    bypassed = environment.get(BYPASS_VARIABLE, "") not in ("", "0", "false")
    return Machine(host.read(), driver.read(), image.identity(environment), bypassed)


def describe(machine: Machine) -> dict[str, dict[str, Plain]]:
    """For a run's log: the tables "hardware", "software" (the driver's part) and "image" ({} outside our image).

    What is not known is "none" where a reader expects the key, and missing in the list of GPUs, whose `unavailable` says why.
    """
    found, cpu, verdict = machine.driver, machine.host.cpu, machine.verdict
    hardware: dict[str, Plain] = {
        "cpu": cpu.model,
        "sockets": cpu.sockets,
        "cores": cpu.cores,
        "threads": cpu.threads,
        "usable_threads": cpu.usable,
        "cpu_quota": cpu.quota or "none",
        "governor": "+".join(cpu.governors) or "none",
        "numa_nodes": cpu.numa_nodes,
        "memory_gib": machine.host.memory_gib,
        "memory_limit_gib": machine.host.memory_limit_gib or "none",
        "accelerators": list(machine.accelerators),
        "gpus": [gpu.plain() for gpu in found.nvml.gpus],
    }
    software: dict[str, Plain] = {
        "os": machine.host.os,
        "kernel": machine.host.kernel,
        "container": machine.host.container,
        "driver": found.kernel_module or "none",
        "driver_flavour": found.kernel_flavour or "none",
        "driver_mode": verdict.mode,
        "driver_comparable": verdict.comparable,
        "driver_requirement_bypassed": machine.requirement_bypassed,
        "libcuda": found.libcuda.path or "none",
        "libcuda_version": found.libcuda.file_version or "none",
        "libcuda_cuda": decision.dotted(found.libcuda.cuda) or "none",
        "nvml": found.nvml.driver or "none",
    }
    return {"hardware": hardware, "software": software, "image": machine.image}
