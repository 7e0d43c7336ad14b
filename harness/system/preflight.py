"""The check before a run: are the accelerators there that the configuration asks for, behind a driver that carries them?"""

from __future__ import annotations

from harness.contract import NotSuitable
from harness.system import host
from harness.system.nvidia import decision, driver


def check(device: str, accelerators: int) -> None:
    """NotSuitable when this machine has not `accelerators` devices of this kind; "cpu" asks for nothing.

    Looks at the machine before a framework is loaded, and in a process of its own, so that CUDA is untouched in this one.
    """
    if device == "cpu":
        return
    found = driver.read()
    verdict = decision.decide(found, decision.manifest(), in_container=host.in_container())
    if not verdict.runnable:
        raise NotSuitable(f"{verdict}\n`python -m harness doctor` looks at the rest of this machine too")
    names = [each.name for each in found.libcuda.devices]
    if verdict.mode != "OTHER-VENDOR" and len(names) < accelerators:
        raise NotSuitable(too_few(accelerators, names))


def too_few(wanted: int, names: list[str]) -> str:
    """What to say when a configuration asks for more accelerators than there are."""
    there = f"{len(names)} ({', '.join(sorted(set(names)))})" if names else "none"
    return (
        f"the configuration asks for {wanted} accelerators on this machine, and programs see {there}\n"
        f"choose a configuration with run.accelerators_per_node = {max(len(names), 1)} or fewer, or look at "
        "CUDA_VISIBLE_DEVICES and at the GPUs that the container was given"
    )
