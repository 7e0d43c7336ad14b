"""This machine as one record, and as what a run's log says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.contract import Plain
from harness.system import accelerator, host, image, variables
from harness.system.accelerator import ANY, Accelerators, Suitability, Surroundings
from harness.system.host import Host


@dataclass(frozen=True)
class Machine:
    """What was found, once."""

    host: Host
    found: tuple[Accelerators, ...]  # of every vendor, the most useful first
    image: dict[str, Plain]  # {} outside our image
    device: str = ANY  # which of them is meant, as a configuration's run.device says
    variables: Mapping[str, Plain] = field(default_factory=dict)  # of the environment, that change speed or numbers

    @property
    def chosen(self) -> Accelerators:
        """Those that a run uses, or would. NotSuitable where there are none such."""
        return accelerator.choose(self.found, self.device)

    @property
    def accelerators(self) -> list[str]:
        """Names of the devices that programs may use."""
        return self.chosen.names

    @property
    def unusable(self) -> list[str]:
        """Names of devices that are here and that programs cannot use."""
        return [name for each in self.found for name in each.unusable]

    @property
    def verdict(self) -> Suitability:
        """Whether they may be used and compared."""
        return self.chosen.verdict


def read(environment: Mapping[str, str], device: str = ANY) -> Machine:
    """Look at this machine now; takes as long as its driver needs to answer."""
    here = host.read()
    found = accelerator.look(Surroundings(environment=environment, in_container=here.container))
    return Machine(here, found, image.identity(environment), device, variables.told(environment))


def describe(machine: Machine) -> dict[str, dict[str, Plain]]:
    """For a run's log: the tables "hardware", "software" (the driver's part), "image" ({} outside our image), "environment".

    What is not known is "none" where a reader expects the key, and missing in the list of GPUs, whose `unavailable` says why.
    """
    chosen, cpu = machine.chosen, machine.host.cpu
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
        "boot_id": machine.host.boot_id or "none",
        "accelerator_vendor": chosen.vendor if chosen.names else "none",
        "accelerators": list(chosen.names),
        "accelerators_unusable": list(machine.unusable),
        "gpus": list(chosen.details()),
    }
    software: dict[str, Plain] = {
        "os": machine.host.os,
        "kernel": machine.host.kernel,
        "container": machine.host.container,
        **chosen.software(),
    }
    return {"hardware": hardware, "software": software, "image": machine.image, "environment": {**machine.variables}}
